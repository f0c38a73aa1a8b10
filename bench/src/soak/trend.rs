//! Whether a series of samples is flat: the rule, and nothing else.
//!
//! Of a run's second half (the first fills caches and tables) [`MEANS`] means over equal stretches are taken, and a straight line
//! is fitted to them by least squares. A series grows when the lower end of the slope's 95 % interval, over an hour, is more
//! than [`GROWTH_MAX`] of the level and more than the series' own grain. So what merely fluctuates is no growth, and a leak is
//! one as soon as it stands out of the noise.
#![forbid(unsafe_code)]

use serde::Serialize;

/// Growth in an hour, as a share of the level, up to which a series counts as flat.
pub const GROWTH_MAX: f64 = 0.05;
/// Means that the second half is reduced to.
const MEANS: usize = 30;
/// Student's t for a two-sided interval of 95 % with `MEANS - 2` degrees of freedom.
const STUDENT_T: f64 = 2.048;

/// A straight line through the second half of a series.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Trend {
    /// Mean over the second half.
    pub level: f64,
    /// Slope, per hour.
    pub slope_per_hour: f64,
    /// Lower end of its 95 % interval, per hour.
    pub slope_low_per_hour: f64,
}

impl Trend {
    /// The trend of samples `(s, value)`, oldest first; `None` when they are too few.
    pub fn of(samples: &[(f64, f64)]) -> Option<Self> {
        let (first, last) = (samples.first()?.0, samples.last()?.0);
        let begin = f64::midpoint(first, last);
        let width = (last - begin) / MEANS as f64;
        let mut sums = [(0.0, 0u32); MEANS];
        for (at, value) in samples.iter().filter(|(at, _)| *at >= begin) {
            let index = (((at - begin) / width) as usize).min(MEANS - 1);
            sums[index].0 += value;
            sums[index].1 += 1;
        }
        if sums.iter().any(|(_, count)| *count == 0) {
            return None;
        }
        let hours = |index: usize| (index as f64 + 0.5) * width / 3600.0;
        let points: Vec<(f64, f64)> = sums
            .iter()
            .enumerate()
            .map(|(index, (sum, count))| (hours(index), sum / f64::from(*count)))
            .collect();
        let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / MEANS as f64;
        let (middle, level) = (mean(|point| point.0), mean(|point| point.1));
        let squares: f64 = points.iter().map(|(at, _)| (at - middle).powi(2)).sum();
        let products: f64 = points.iter().map(|(at, value)| (at - middle) * (value - level)).sum();
        let slope = products / squares;
        let residual = |(at, value): &(f64, f64)| (value - level - slope * (at - middle)).powi(2);
        let variance = points.iter().map(residual).sum::<f64>() / (MEANS - 2) as f64;
        let error = (variance / squares).sqrt();
        Some(Self {
            level,
            slope_per_hour: slope,
            slope_low_per_hour: slope - STUDENT_T * error,
        })
    }

    /// Whether the series is flat, when steps up to `grain` are no growth.
    pub fn is_flat(&self, grain: f64) -> bool {
        self.slope_low_per_hour <= (GROWTH_MAX * self.level.abs()).max(grain)
    }
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

    fn check(value: impl Fn(f64) -> f64, grain: f64, flat: bool) {
        let trend = Trend::of(&hour(value)).unwrap();
        assert_eq!(trend.is_flat(grain), flat, "{trend:?}");
    }

    #[test]
    fn growth_is_told_from_noise_and_from_filling_up() {
        check(|_| 100.0, 0.0, true);
        check(|at| 100.0 + at / 3600.0 * 4.0, 0.0, true);
        check(|at| 100.0 + at / 3600.0 * 8.0, 0.0, false);
        check(|at| 100.0 + 50.0 * noise(at), 0.0, true);
        check(|at| 100.0 + 5.0 * noise(at) + at / 3600.0 * 20.0, 0.0, false);
        check(|at| 100.0 - at / 3600.0 * 50.0, 0.0, true);
        check(|at| if at < 1500.0 { at } else { 1500.0 }, 0.0, true);
    }

    #[test]
    fn steps_up_to_the_grain_are_no_growth() {
        let step = |at: f64| if at < 2700.0 { 10.0 } else { 11.0 };
        check(step, 3.0, true);
        check(step, 0.0, false);
        check(|_| 0.0, 0.0, true);
    }

    #[test]
    fn too_few_samples_have_no_trend() {
        assert_eq!(Trend::of(&[]), None);
        assert_eq!(Trend::of(&hour(|at| at)[..40]), None);
    }
}
