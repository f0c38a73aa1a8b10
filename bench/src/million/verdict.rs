//! What must hold at each level, and from one level to another.
#![forbid(unsafe_code)]

use serde::Serialize;

use super::level::Level;
use crate::report::number;

/// Offers must come within this time, p99, ms.
const OFFER_P99_MS_MAX: f64 = 50.0;
/// By how much what a driver or an offer costs may grow from the second-smallest level to the largest. Not from the smallest:
/// there, what is paid once weighs.
const GROWTH_MAX: f64 = 1.25;
/// Figures whose cost per driver or per operation must stay flat.
const FLAT: [&str; 4] = [
    "user_allocated",
    "kernel_slab_both_ends",
    "heartbeat_server_cpu_us",
    "offer_server_cpu_us",
];
/// By how much latency and cost may grow from the control level to the largest, which get the same messages per second from
/// few and from many drivers. Caches and what takes log N steps count: from 30,000 to a million the logarithm grows 1.34-fold,
/// a root 5.8-fold and N 33-fold.
const MATCHED_GROWTH_MAX: f64 = 2.0;
/// Figures that are compared with the control level.
const MATCHED: [&str; 4] = [
    "offer_p50",
    "offer_p99",
    "heartbeat_server_cpu_us",
    "offer_server_cpu_us",
];

/// Whether something that must hold does.
#[derive(Debug, Serialize)]
pub struct Verdict {
    /// In words.
    pub what: String,
    /// It holds.
    pub pass: bool,
}

/// Everything that must hold.
pub fn verdicts(levels: &[Level]) -> Vec<Verdict> {
    let mut all: Vec<Verdict> = levels.iter().flat_map(of_level).collect();
    let natural: Vec<&Level> = natural(levels).collect();
    let Some(last) = natural.last() else { return all };
    if let [_, base, .., last] = natural[..] {
        all.extend(FLAT.iter().filter_map(|name| flat(name, base, last, GROWTH_MAX)));
    }
    if let Some(control) = control_of(levels) {
        all.extend(
            MATCHED
                .iter()
                .filter_map(|name| flat(name, control, last, MATCHED_GROWTH_MAX)),
        );
    }
    all
}

/// The levels without the control level.
pub fn natural(levels: &[Level]) -> impl Iterator<Item = &Level> {
    levels.iter().filter(|level| level.scale.heartbeats_of.is_none())
}

/// How the median of an offer grows from the second-smallest level to the largest, and how much of it comes with the larger
/// number of heartbeats that a busier core answers; `None` without a control level or without offers.
pub fn latency_growth(levels: &[Level]) -> Option<String> {
    let control = control_of(levels)?;
    let base = natural(levels).find(|level| level.scale.drivers == control.scale.drivers)?;
    let last = natural(levels).last()?;
    let p50 = |level: &Level| level.run.value("offer_p50").filter(|ms| *ms > 0.0);
    let (from, between, to) = (p50(base)?, p50(control)?, p50(last)?);
    Some(format!(
        "offer_p50 from {} to {}: x {}, which is x {} for the heartbeats per second and x {} for the drivers",
        base.scale,
        last.scale,
        number(to / from),
        number(between / from),
        number(to / between),
    ))
}

fn control_of(levels: &[Level]) -> Option<&Level> {
    let largest = natural(levels).last()?.scale.drivers;
    levels.iter().find(|level| level.scale.heartbeats_of == Some(largest))
}

/// What must hold at a level, whatever the others show.
fn of_level(level: &Level) -> Vec<Verdict> {
    let scale = level.scale;
    let value = |name: &str| level.run.value(name).unwrap_or(f64::NAN);
    let mut all = vec![
        Verdict {
            what: format!("{scale}: nothing against the contract"),
            pass: level.run.faults.is_empty(),
        },
        Verdict {
            what: format!("{scale}: no heartbeat missed"),
            pass: value("heartbeats_missed") == 0.0 && value("sockets_closed_for_heartbeat") == 0.0,
        },
    ];
    if value("requests_posted") > 0.0 {
        let p99 = value("offer_p99");
        all.push(Verdict {
            what: format!("{scale}: offer p99 {} ms <= {OFFER_P99_MS_MAX} ms", number(p99)),
            pass: p99 <= OFFER_P99_MS_MAX,
        });
    }
    all
}

/// Whether a figure grows by no more than `growth_max`; `None` where it was not measured (no offers).
fn flat(name: &str, from: &Level, to: &Level, growth_max: f64) -> Option<Verdict> {
    let value = |level: &Level| level.run.value(name).unwrap_or(f64::NAN);
    let growth = value(to) / value(from);
    (!growth.is_nan()).then(|| Verdict {
        what: format!(
            "{name} from {} to {}: x {} <= {growth_max}",
            from.scale,
            to.scale,
            number(growth)
        ),
        pass: growth <= growth_max,
    })
}

#[cfg(test)]
mod tests {
    use super::super::show::tests::level;
    use super::*;

    fn with(drivers: u32, heartbeats_of: Option<u32>, figure: &'static str, value: f64) -> Level {
        let mut level = level(drivers, 200.0);
        level.scale.heartbeats_of = heartbeats_of;
        level.run.add(figure, "", value);
        level
    }

    fn missed(levels: &[Level]) -> Vec<String> {
        let missed = verdicts(levels).into_iter().filter(|verdict| !verdict.pass);
        missed.map(|verdict| verdict.what).collect()
    }

    #[test]
    fn what_grows_with_the_number_of_drivers_is_a_miss() {
        assert!(missed(&[level(10, 900.0), level(100, 200.0), level(1_000, 240.0)]).is_empty());
        let grown = missed(&[level(10, 200.0), level(100, 200.0), level(1_000, 260.0)]);
        assert_eq!(grown, ["user_allocated from 100 to 1000: x 1.30 <= 1.25"]);
    }

    #[test]
    fn a_latency_or_cost_that_grows_at_equal_rates_is_a_miss() {
        // Named again, so that none is left out unnoticed.
        let latencies = ["offer_p50", "offer_p99"];
        let costs = ["heartbeat_server_cpu_us", "offer_server_cpu_us"];
        for name in latencies.into_iter().chain(costs) {
            let levels = |control: f64, last: f64| {
                [
                    with(10, None, name, last),
                    with(100, None, name, last),
                    with(100, Some(1_000), name, control),
                    with(1_000, None, name, last),
                ]
            };
            assert!(missed(&levels(0.4, 0.8)).is_empty());
            let grown = missed(&levels(0.4, 0.9));
            let words = format!("{name} from 100 with the heartbeats of 1000 to 1000: x 2.25 <= 2");
            assert_eq!(grown, [words]);
        }
    }

    #[test]
    fn the_growth_of_the_median_is_taken_apart() {
        let levels = [
            with(10, None, "offer_p50", 0.5),
            with(100, None, "offer_p50", 0.4),
            with(100, Some(1_000), "offer_p50", 0.8),
            with(1_000, None, "offer_p50", 1.2),
        ];
        assert_eq!(
            latency_growth(&levels).unwrap(),
            "offer_p50 from 100 to 1000: x 3.00, which is x 2.00 for the heartbeats per second and x 1.50 for the drivers"
        );
        assert!(latency_growth(&levels[..2]).is_none());
        // A series that ended early has no largest level to compare with.
        assert!(latency_growth(&levels[..3]).is_none());
        assert!(missed(&levels[..3]).is_empty());
    }

    #[test]
    fn a_missed_heartbeat_and_a_fault_are_misses_also_when_nothing_was_counted() {
        let mut bad = level(10, 1.0);
        bad.run.faults.add("drivers lost", || "one".into());
        bad.run.figures.retain(|figure| figure.name != "heartbeats_missed");
        assert_eq!(missed(&[bad]).len(), 2);
    }
}
