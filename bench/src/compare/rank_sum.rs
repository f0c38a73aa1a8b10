//! How likely a difference between two sides is when there is none: Wilcoxon's rank-sum test (1945), exact, ties included; and Holm's method
//! (1979) for many such tests at once.
#![forbid(unsafe_code)]

/// Rounds on a side that are looked for at most; more than anybody runs.
const ROUNDS_MAX: usize = 100;

/// The chance that ranks differ at least so much when both sides are of one kind, in both directions together: 0 to 1, and 1 when a side
/// is empty. Values that are equal share their ranks.
pub(super) fn chance(one: &[f64], other: &[f64]) -> f64 {
    let mut all: Vec<(f64, bool)> = one.iter().map(|value| (*value, true)).collect();
    all.extend(other.iter().map(|value| (*value, false)));
    all.sort_by(|one, other| one.0.total_cmp(&other.0));
    // Twice the rank, so that shared ones are whole numbers: the sum of a run's first and last.
    let mut ranks = Vec::with_capacity(all.len());
    for equal in all.chunk_by(|one, other| one.0.total_cmp(&other.0).is_eq()) {
        let (first, last) = (ranks.len() + 1, ranks.len() + equal.len());
        ranks.extend(equal.iter().map(|_| first + last));
    }
    let sum = |ranks: &[usize], all: &[(f64, bool)]| -> usize {
        let ours = ranks.iter().zip(all).filter(|(_, (_, is_one))| *is_one);
        ours.map(|(rank, _)| rank).sum()
    };
    two_sided(&ranks, one.len(), sum(&ranks, &all))
}

/// [`chance`] of so many rounds on both sides that do not overlap.
pub(super) fn chance_min(one: usize, other: usize) -> f64 {
    let ranks: Vec<usize> = (1..=one + other).map(|rank| 2 * rank).collect();
    two_sided(&ranks, one, ranks[..one].iter().sum())
}

/// Rounds on both sides of which [`chance_min`] is at most this.
pub(super) fn rounds_needed(alpha: f64) -> usize {
    let enough = |rounds: &usize| chance_min(*rounds, *rounds) <= alpha;
    (1..ROUNDS_MAX).find(enough).unwrap_or(ROUNDS_MAX)
}

/// Of all ways to choose `count` of the ranks, the share whose sum is at least as far from the middle as `sum`.
fn two_sided(ranks: &[usize], count: usize, sum: usize) -> f64 {
    let total: usize = ranks.iter().sum();
    // Ways to choose so many of the ranks looked at, by their sum.
    let mut ways = vec![vec![0.0_f64; total + 1]; count + 1];
    ways[0][0] = 1.0;
    for rank in ranks {
        for chosen in (1..=count).rev() {
            for sum in (*rank..=total).rev() {
                ways[chosen][sum] += ways[chosen - 1][sum - rank];
            }
        }
    }
    let middle = total as f64 * count as f64 / ranks.len().max(1) as f64;
    let distance = |sum: usize| (sum as f64 - middle).abs();
    let far: f64 = (0..=total)
        .filter(|other| distance(*other) >= distance(sum) - 1e-9)
        .map(|other| ways[count][other])
        .sum();
    far / ways[count].iter().sum::<f64>()
}

/// Which of these hold together: the probability that any of them is there by chance is `alpha` at most.
pub(super) fn holm(chances: &[f64], alpha: f64) -> Vec<bool> {
    let mut order: Vec<usize> = (0..chances.len()).collect();
    order.sort_by(|one, other| chances[*one].total_cmp(&chances[*other]));
    let mut holds = vec![false; chances.len()];
    for (place, index) in order.iter().enumerate() {
        if chances[*index] > alpha / (chances.len() - place) as f64 {
            break;
        }
        holds[*index] = true;
    }
    holds
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(one: f64, other: f64) {
        assert!((one - other).abs() < 1e-9, "{one} {other}");
    }

    #[test]
    fn chances_are_those_of_counting() {
        // Two of 70 ways to choose four of eight are as far apart as this.
        near(chance(&[1.0, 2.0, 3.0, 4.0], &[5.0, 6.0, 7.0, 8.0]), 2.0 / 70.0);
        near(chance_min(4, 4), 2.0 / 70.0);
        near(chance(&[1.0, 4.0, 5.0, 8.0], &[2.0, 3.0, 6.0, 7.0]), 1.0);
        // Of one against two, each of three places is as likely.
        near(chance(&[1.0], &[2.0, 3.0]), 2.0 / 3.0);
        near(chance(&[1.0; 5], &[1.0; 5]), 1.0);
        near(chance(&[], &[1.0]), 1.0);
        // Tied with one of the other side: sums of the three ranks (1, 2.5, 2.5 of 4) are counted as they are.
        near(chance(&[1.0, 2.0], &[2.0, 3.0]), 4.0 / 6.0);
    }

    #[test]
    fn more_rounds_make_less_likely_by_chance() {
        assert_eq!(rounds_needed(0.05), 4);
        assert_eq!(rounds_needed(0.05 / 100.0), 8);
    }

    #[test]
    fn many_at_once_need_less_chance_each() {
        assert_eq!(holm(&[0.03], 0.05), [true]);
        assert_eq!(holm(&[0.03, 0.9], 0.05), [false, false]);
        assert_eq!(holm(&[0.9, 0.01, 0.03], 0.05), [false, true, false]);
        assert_eq!(holm(&[0.02, 0.01], 0.05), [true, true]);
    }
}
