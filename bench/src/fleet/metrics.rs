//! Reads Prometheus text as far as the stage needs it.
#![forbid(unsafe_code)]

/// The sum of a family's samples over all labels; `None`: there is none.
pub fn sum(text: &str, family: &str) -> Option<f64> {
    let mut samples = samples(text)
        .filter(|(name, _)| name.split('{').next() == Some(family))
        .peekable();
    samples.peek()?;
    Some(samples.map(|(_, value)| value).sum())
}

/// Every sample: its name with labels, and its value.
pub fn samples(text: &str) -> impl Iterator<Item = (&str, f64)> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        Some((name, value.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP x_total X.\n# TYPE x_total counter\nx_total{a=\"1\"} 2\nx_total{a=\"2\"} 3\nx 7\n";

    #[test]
    fn families_are_summed_over_labels() {
        assert_eq!(sum(TEXT, "x_total"), Some(5.0));
        assert_eq!(sum(TEXT, "x"), Some(7.0));
        assert_eq!(sum(TEXT, "y"), None);
        assert_eq!(samples(TEXT).count(), 3);
    }
}
