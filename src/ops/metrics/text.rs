//! The Prometheus text exposition format, version 0.0.4.
//!
//! Own writer: the client library of the field writes `OpenMetrics`, which is another type of content.

use std::fmt::{Arguments, Write as _};

/// A text that grows by metric families.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    text: String,
}

impl Encoder {
    pub(super) fn finish(self) -> String {
        self.text
    }

    /// Begins a family. `help` has no line break and no backslash.
    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) {
        debug_assert!(!help.contains(['\n', '\\']), "help of {name} needs escaping");
        debug_assert_eq!(name.ends_with("_total"), kind == "counter", "{name} is a {kind}");
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    /// A whole number; `label` is `""` or `key="value"`.
    pub(super) fn sample(&mut self, name: &str, label: &str, value: u64) {
        match label {
            "" => self.line(format_args!("{name} {value}")),
            _ => self.line(format_args!("{name}{{{label}}} {value}")),
        }
    }

    /// A duration, in the base unit.
    pub(super) fn sample_us_as_seconds(&mut self, name: &str, value_us: u64) {
        self.line(format_args!("{name} {}", Seconds(value_us)));
    }

    /// A cumulated bucket; no bound is `+Inf`.
    pub(super) fn bucket(&mut self, name: &str, bound_us: Option<u64>, cumulated: u64) {
        match bound_us {
            Some(bound_us) => self.line(format_args!(
                "{name}_bucket{{le=\"{}\"}} {cumulated}",
                Seconds(bound_us)
            )),
            None => self.line(format_args!("{name}_bucket{{le=\"+Inf\"}} {cumulated}")),
        }
    }

    fn line(&mut self, line: Arguments<'_>) {
        writeln!(self.text, "{line}").expect("a String takes everything");
    }
}

/// Microseconds, written as seconds without rounding and without trailing zeros.
struct Seconds(u64);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (whole, rest) = (self.0 / 1_000_000, self.0 % 1_000_000);
        if rest == 0 {
            return write!(f, "{whole}");
        }
        let digits = format!("{rest:06}");
        write!(f, "{whole}.{}", digits.trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use super::Seconds;

    #[test]
    fn seconds_are_exact() {
        let check = |us: u64, expect: &str| assert_eq!(Seconds(us).to_string(), expect);
        check(0, "0");
        check(1, "0.000001");
        check(100, "0.0001");
        check(1_500_000, "1.5");
        check(10_000_000, "10");
        check(u64::MAX, "18446744073709.551615");
    }
}
