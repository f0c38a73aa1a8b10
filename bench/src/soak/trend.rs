//! Whether a series of samples is flat: the rule, and nothing else.
//!
//! Of a run's second half (the first fills caches and tables) [`MEANS`] means over equal stretches are taken, and a straight line
//! is fitted to them by least squares. What it may rise by in an hour is [`GROWTH_MAX`] of the level, or the series' own grain if
//! that is more. A series grows when the lower end of the slope's 95 % interval is above that. It is flat when the slope is not
//! above it, nor the upper end above twice as much: a leak that the noise could hide is small. Between them nothing is sure, and
//! a longer run has to say.
//!
//! What is counted rather than measured has no share of its level: of three thousand connections a twentieth would be a leak of 150
//! in an hour. It may rise by so many as the series says.
//!
//! Memory follows the store's write buffers, which fill for minutes and are emptied at once. Such a series is fitted to time and to
//! that cause together, and the slope over time is what the cause does not explain.
#![forbid(unsafe_code)]

use serde::Serialize;

/// Growth in an hour, as a share of the level, up to which a series counts as flat.
pub const GROWTH_MAX: f64 = 0.05;
/// How many times as much the noise of a flat series may hide.
pub const UNSEEN_MAX: f64 = 2.0;
/// Means that the second half is reduced to.
const MEANS: usize = 30;
/// Student's t for a two-sided interval of 95 % with `MEANS - 3` degrees of freedom, which is close enough for one more.
const STUDENT_T: f64 = 2.052;
/// Least share of time's variance that a cause must leave unexplained; below it the two cannot be told apart.
const APART_MIN: f64 = 0.02;

/// Samples that a stretch has at least when none is late; one may be.
const SAMPLES_EACH_MIN: f64 = 1.5;

/// Longest time between two samples, s, with which a run of so many seconds can be judged.
pub fn sample_secs_max(seconds: f64) -> f64 {
    seconds / 2.0 / MEANS as f64 / SAMPLES_EACH_MIN
}

/// A straight line through the second half of a series.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Trend {
    /// Mean over the second half.
    pub level: f64,
    /// Slope, per hour.
    pub slope_per_hour: f64,
    /// Lower end of its 95 % interval, per hour.
    pub slope_low_per_hour: f64,
    /// Upper end.
    pub slope_high_per_hour: f64,
}

/// What a trend says of its series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It does not grow.
    Flat,
    /// The run was too short for the noise.
    Unsure,
    /// It grows.
    Grows,
}

impl Trend {
    /// The trend of samples `(s, value)`, oldest first, apart from what `cause`, sampled at the same times, explains. `None` when
    /// they are too few, or when the cause itself runs straight through the whole second half.
    pub fn of(samples: &[(f64, f64)], cause: Option<&[(f64, f64)]>) -> Option<Self> {
        let values = means(samples)?;
        let level = mean(&values);
        let (first, last) = (samples.first()?.0, samples.last()?.0);
        let hours_each = (last - first) / 2.0 / MEANS as f64 / 3600.0;
        let hours: [f64; MEANS] = std::array::from_fn(|index| index as f64 * hours_each);
        let (mut time, mut rest) = (centred(&hours), centred(&values));
        let mut unknowns = 2;
        if let Some(cause) = cause {
            let cause = centred(&means(cause)?);
            let before = product(&time, &time);
            time = apart_from(&time, &cause);
            rest = apart_from(&rest, &cause);
            if product(&time, &time) < APART_MIN * before {
                return None;
            }
            unknowns += 1;
        }
        let slope = product(&time, &rest) / product(&time, &time);
        let residuals: [f64; MEANS] = std::array::from_fn(|index| rest[index] - slope * time[index]);
        let variance = product(&residuals, &residuals) / (MEANS - unknowns) as f64;
        let error = (variance / product(&time, &time)).sqrt();
        Some(Self {
            level,
            slope_per_hour: slope,
            slope_low_per_hour: slope - STUDENT_T * error,
            slope_high_per_hour: slope + STUDENT_T * error,
        })
    }

    /// Whether the series grows, when steps up to `grain` are no growth.
    pub fn verdict(&self, grain: f64) -> Verdict {
        self.verdict_of_count((GROWTH_MAX * self.level.abs()).max(grain))
    }

    /// Whether the series grows by more than `most` in an hour, whatever its level is.
    pub fn verdict_of_count(&self, most: f64) -> Verdict {
        if self.slope_low_per_hour > most {
            Verdict::Grows
        } else if self.slope_per_hour <= most && self.slope_high_per_hour <= UNSEEN_MAX * most {
            Verdict::Flat
        } else {
            Verdict::Unsure
        }
    }
}

/// Means over equal stretches of the second half; `None` when a stretch has no sample.
fn means(samples: &[(f64, f64)]) -> Option<[f64; MEANS]> {
    let (first, last) = (samples.first()?.0, samples.last()?.0);
    let begin = f64::midpoint(first, last);
    let width = (last - begin) / MEANS as f64;
    let mut sums = [(0.0, 0u32); MEANS];
    for (at, value) in samples.iter().filter(|(at, _)| *at >= begin) {
        let index = (((at - begin) / width) as usize).min(MEANS - 1);
        sums[index].0 += value;
        sums[index].1 += 1;
    }
    let complete = sums.iter().all(|(_, count)| *count > 0);
    complete.then(|| sums.map(|(sum, count)| sum / f64::from(count)))
}

fn mean(values: &[f64; MEANS]) -> f64 {
    values.iter().sum::<f64>() / MEANS as f64
}

fn centred(values: &[f64; MEANS]) -> [f64; MEANS] {
    let mean = mean(values);
    values.map(|value| value - mean)
}

fn product(left: &[f64; MEANS], right: &[f64; MEANS]) -> f64 {
    left.iter().zip(right).map(|(left, right)| left * right).sum()
}

/// What is left of `values` when the multiple of `cause` that fits best is taken out; both are centred.
fn apart_from(values: &[f64; MEANS], cause: &[f64; MEANS]) -> [f64; MEANS] {
    let square = product(cause, cause);
    if square == 0.0 {
        return *values;
    }
    let share = product(values, cause) / square;
    std::array::from_fn(|index| values[index] - share * cause[index])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An hour of samples, one every 5 s.
    fn hour(value: impl Fn(f64) -> f64) -> Vec<(f64, f64)> {
        (0..720).map(|n| f64::from(n) * 5.0).map(|at| (at, value(at))).collect()
    }

    /// Fluctuates between -1 and 1 without a trend.
    fn noise(at: f64) -> f64 {
        (at * 0.37).sin() * (at * 1.7).cos()
    }

    fn check(value: impl Fn(f64) -> f64, grain: f64, verdict: Verdict) {
        let trend = Trend::of(&hour(value), None).unwrap();
        assert_eq!(trend.verdict(grain), verdict, "{trend:?}");
    }

    #[test]
    fn growth_is_told_from_noise_and_from_filling_up() {
        check(|_| 100.0, 0.0, Verdict::Flat);
        check(|at| 100.0 + at / 3600.0 * 4.0, 0.0, Verdict::Flat);
        check(|at| 100.0 + at / 3600.0 * 8.0, 0.0, Verdict::Grows);
        check(|at| 100.0 + 5.0 * noise(at), 0.0, Verdict::Flat);
        check(|at| 100.0 + 5.0 * noise(at) + at / 3600.0 * 20.0, 0.0, Verdict::Grows);
        check(|at| 100.0 - at / 3600.0 * 50.0, 0.0, Verdict::Flat);
        check(|at| if at < 1500.0 { at } else { 1500.0 }, 0.0, Verdict::Flat);
    }

    #[test]
    fn noise_that_could_hide_a_leak_is_not_flat() {
        check(|at| 100.0 + 50.0 * noise(at), 0.0, Verdict::Unsure);
        check(|at| 100.0 + 50.0 * noise(at) + at / 3600.0 * 9.0, 0.0, Verdict::Unsure);
        check(|at| 100.0 + 50.0 * noise(at), 50.0, Verdict::Flat);
    }

    #[test]
    fn steps_up_to_the_grain_are_no_growth() {
        let step = |at: f64| if at < 2700.0 { 10.0 } else { 11.0 };
        check(step, 4.0, Verdict::Flat);
        check(step, 0.0, Verdict::Grows);
        check(|_| 0.0, 0.0, Verdict::Flat);
    }

    #[test]
    fn a_count_may_rise_by_so_many_at_any_level() {
        let trend = |leak: f64| Trend::of(&hour(|at| 3000.0 + 15.0 * noise(at) + at / 3600.0 * leak), None).unwrap();
        assert_eq!(trend(120.0).verdict(5.0), Verdict::Flat);
        assert_eq!(trend(120.0).verdict_of_count(40.0), Verdict::Grows);
        assert_eq!(trend(20.0).verdict_of_count(40.0), Verdict::Flat);
    }

    #[test]
    fn what_a_buffer_explains_is_no_growth_and_hides_none() {
        // Fills for 17 minutes, then is empty again.
        let buffer = |at: f64| at % 1020.0 / 1020.0 * 16.0;
        let cause = hour(buffer);
        let check = |leak_per_hour: f64, verdict: Verdict| {
            let value = |at: f64| 40.0 + 1.6 * buffer(at) + at / 3600.0 * leak_per_hour + noise(at);
            let trend = Trend::of(&hour(value), Some(&cause)).unwrap();
            assert_eq!(trend.verdict(0.5), verdict, "{trend:?}");
        };
        check(0.0, Verdict::Flat);
        check(6.0, Verdict::Grows);
        let straight = hour(|at| at);
        assert_eq!(Trend::of(&hour(|at| at), Some(&straight)), None, "not to be told apart");
    }

    #[test]
    fn with_the_fewest_samples_that_are_taken_there_is_a_trend() {
        for seconds in [600.0, 3600.0] {
            let every = sample_secs_max(seconds);
            let samples: Vec<(f64, f64)> = (0..(seconds / every) as u32)
                .map(|n| (f64::from(n) * every, 1.0))
                .collect();
            assert!(Trend::of(&samples, None).is_some(), "{seconds} s, every {every} s");
        }
    }

    #[test]
    fn too_few_samples_have_no_trend() {
        assert_eq!(Trend::of(&[], None), None);
        assert_eq!(Trend::of(&hour(|at| at)[..40], None), None);
    }
}
