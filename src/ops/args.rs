//! Values of the command lines' options, read so that what is refused says what is allowed, with an example.
#![forbid(unsafe_code)]

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Reads a whole number in `range`.
pub fn whole<T>(
    range: RangeInclusive<T>,
    example: T,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static
where
    T: FromStr + PartialOrd + Display + Copy + Send + Sync + 'static,
{
    within(range, example, "whole number")
}

/// Reads any whole number, such as a seed.
pub fn whole_of(example: u64) -> impl Fn(&str) -> Result<u64, String> + Clone + Send + Sync + 'static {
    whole(0..=u64::MAX, example)
}

/// Reads a number in `range`.
pub fn real(
    range: RangeInclusive<f64>,
    example: f64,
) -> impl Fn(&str) -> Result<f64, String> + Clone + Send + Sync + 'static {
    within(range, example, "number")
}

fn within<T>(
    range: RangeInclusive<T>,
    example: T,
    what: &'static str,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static
where
    T: FromStr + PartialOrd + Display + Copy + Send + Sync + 'static,
{
    move |text| {
        let read = text.parse().ok().filter(|number| range.contains(number));
        let (least, most) = (range.start(), range.end());
        read.ok_or_else(|| format!("allowed: a {what} from {least} to {most}, such as {example}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_says_what_is_allowed() {
        let kills = whole(1..=10_000_u32, 200);
        assert_eq!((kills("1"), kills("10000")), (Ok(1), Ok(10_000)));
        for bad in ["x", "", "0", "10001", "-1", "1.5"] {
            let allowed = "allowed: a whole number from 1 to 10000, such as 200";
            assert_eq!(kills(bad), Err(allowed.to_owned()), "{bad}");
        }
        let rate = real(0.1..=2000.0, 60.0);
        assert_eq!(rate("0.1"), Ok(0.1));
        for bad in ["nan", "inf", "0", "many"] {
            let allowed = "allowed: a number from 0.1 to 2000, such as 60";
            assert_eq!(rate(bad), Err(allowed.to_owned()), "{bad}");
        }
        assert_eq!(whole_of(1)("18446744073709551615"), Ok(u64::MAX));
    }
}
