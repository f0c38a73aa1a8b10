//! Axes: from values to places, and where the ticks stand.
#![forbid(unsafe_code)]

/// How values are laid out along an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// In proportion.
    Linear,
    /// Each tenfold takes the same room.
    Log,
    /// Each further nine of a share takes the same room.
    Nines,
}

/// One axis.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    kind: Kind,
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

/// Shares closer to one than this are drawn as this.
const SHARE_MAX: f64 = 1.0 - 1e-7;

impl Scale {
    /// An axis over these values, from pixel `from` to pixel `to`. Without values it reaches from 0 to 1.
    pub(super) fn new(kind: Kind, values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let values = values.filter(|value| value.is_finite() && (kind != Kind::Log || *value > 0.0));
        let (mut low, mut high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        if low > high {
            (low, high) = if kind == Kind::Log { (1.0, 10.0) } else { (0.0, 1.0) };
        }
        match kind {
            Kind::Linear if low >= high => high = low + 1.0,
            Kind::Log => {
                low = 10f64.powf(low.log10().floor());
                high = 10f64.powf(high.log10().ceil());
                if low >= high {
                    high = low * 10.0;
                }
            }
            _ => {}
        }
        Self {
            kind,
            low,
            high,
            from,
            to,
        }
    }

    /// A linear axis from zero, with a little room above the highest value.
    pub(super) fn from_zero(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let mut scale = Self::new(Kind::Linear, values.chain([0.0]), from, to);
        scale.high *= 1.05;
        scale
    }

    /// Where a value stands, in pixels.
    pub(super) fn place(&self, value: f64) -> f64 {
        let (low, high) = (self.along(self.low), self.along(self.high));
        let share = (self.along(value) - low) / (high - low);
        self.from + share.clamp(0.0, 1.0) * (self.to - self.from)
    }

    fn along(&self, value: f64) -> f64 {
        match self.kind {
            Kind::Linear => value,
            Kind::Log => value.max(f64::MIN_POSITIVE).log10(),
            Kind::Nines => -(1.0 - value.min(SHARE_MAX)).log10(),
        }
    }

    /// Values with a tick, and their words.
    pub(super) fn ticks(&self) -> Vec<(f64, String)> {
        match self.kind {
            Kind::Linear => self.linear_ticks(),
            Kind::Log => {
                let decades = self.low.log10().round() as i32..=self.high.log10().round() as i32;
                decades
                    .map(|decade| {
                        let value = 10f64.powi(decade);
                        (value, words(value))
                    })
                    .collect()
            }
            Kind::Nines => [0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999]
                .into_iter()
                .filter(|share| *share <= self.high)
                .map(|share| (share, format!("{}%", trimmed(share * 100.0, 3))))
                .collect(),
        }
    }

    fn linear_ticks(&self) -> Vec<(f64, String)> {
        const TICKS: f64 = 5.0;
        let rough = (self.high - self.low) / TICKS;
        let unit = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0]
            .into_iter()
            .map(|factor| factor * unit)
            .find(|step| *step >= rough * 0.999)
            .unwrap_or(10.0 * unit);
        let first = (self.low / step).ceil() as i64;
        let last = (self.high / step).floor() as i64;
        (first..=last)
            .map(|tick| {
                let value = tick as f64 * step;
                (value, words(value))
            })
            .collect()
    }
}

/// A number as an axis or a tooltip says it.
pub(super) fn words(value: f64) -> String {
    let (divided, suffix) = match value.abs() {
        size if size >= 1e9 => (value / 1e9, "G"),
        size if size >= 1e6 => (value / 1e6, "M"),
        size if size >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let digits = match divided.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 4,
    };
    format!("{}{suffix}", trimmed(divided, digits))
}

fn trimmed(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: Kind, values: &[f64], places: &[(f64, f64)]) {
        let scale = Scale::new(kind, values.iter().copied(), 0.0, 100.0);
        for (value, place) in places {
            let found = scale.place(*value);
            assert!(
                (found - place).abs() < 0.01,
                "{kind:?}: {value} at {found}, not {place}"
            );
        }
    }

    #[test]
    fn values_stand_where_their_kind_says() {
        check(Kind::Linear, &[10.0, 20.0], &[(10.0, 0.0), (15.0, 50.0), (99.0, 100.0)]);
        check(Kind::Log, &[1.0, 100.0], &[(1.0, 0.0), (10.0, 50.0), (0.0, 0.0)]);
        check(Kind::Nines, &[0.0, 0.99], &[(0.0, 0.0), (0.9, 50.0), (0.99, 100.0)]);
        check(Kind::Linear, &[], &[(0.5, 50.0)]);
        check(Kind::Linear, &[3.0], &[(3.0, 0.0)]);
    }

    #[test]
    fn ticks_are_round_and_inside() {
        let words_of = |scale: Scale| scale.ticks().into_iter().map(|(_, words)| words).collect::<Vec<_>>();
        assert_eq!(
            words_of(Scale::new(Kind::Linear, [0.0, 10.0].into_iter(), 0.0, 1.0)),
            ["0", "2", "4", "6", "8", "10"]
        );
        assert_eq!(
            words_of(Scale::new(Kind::Log, [0.5, 60.0].into_iter(), 0.0, 1.0)),
            ["0.1", "1", "10", "100"]
        );
        assert_eq!(
            words_of(Scale::new(Kind::Nines, [0.0, 0.999].into_iter(), 0.0, 1.0)),
            ["0%", "50%", "90%", "99%", "99.9%"]
        );
    }

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (1_234_567.0, "1.23M"),
            (18_000.0, "18k"),
            (0.25, "0.25"),
            (999.6, "1000"),
        ] {
            assert_eq!(words(value), text);
        }
    }
}
