//! What the comparison is for: dispatchd beside the raw ring, and ahead of whoever is best in each column.
#![forbid(unsafe_code)]

use super::catalogue::{Kind, Peer};
use crate::report::{ScenarioReport, Verdict, median, number};

/// Server CPU of a push with its acknowledgement, by the raw ring's.
const CPU_BY_RAW_MAX: f64 = 1.08;
/// 99th percentile at the fixed rate, by the raw ring's.
const P99_BY_RAW_MAX: f64 = 1.0;
/// Columns in which dispatchd is to be ahead: figure, in words, unit, whether more is better.
const COLUMNS: [(&str, &str, &str, bool); 7] = [
    ("user_per_idle", "user memory of an idle connection", "B", false),
    ("busy_cpu_us", "server CPU of a push, busy", "µs", false),
    ("push_per_s", "pushes per second, busy", "1/s", true),
    ("rate_cpu_us", "server CPU of a push at the fixed rate", "µs", false),
    ("rate_p99", "p99 at the fixed rate", "ms", false),
    ("after_busy_p99", "p99 at the fixed rate after saturation", "ms", false),
    ("handshake_cpu_us", "server CPU of a handshake", "µs", false),
];

/// All verdicts for which there is something to compare with.
pub(super) fn all(peers: &[Peer], reports: &[ScenarioReport]) -> Vec<Verdict> {
    let of = |kind: Kind| peers.iter().position(|peer| peer.kind == kind).map(|at| &reports[at]);
    let Some(own) = of(Kind::Dispatchd) else {
        return Vec::new();
    };
    let mut verdicts = Vec::new();
    if let Some(raw) = of(Kind::Raw) {
        for (what, figure, most) in [
            (
                "server CPU of a push, busy, by the raw ring's",
                "busy_cpu_us",
                CPU_BY_RAW_MAX,
            ),
            ("p99 at the fixed rate, by the raw ring's", "rate_p99", P99_BY_RAW_MAX),
        ] {
            // Not measured is a miss.
            let ratio = by_rounds(own, raw, figure).unwrap_or(f64::NAN);
            verdicts.push(Verdict {
                scenario: own.name,
                what,
                goal: format!("<= {most}"),
                measured: number(ratio),
                ratio: ratio / most,
                pass: ratio <= most && own.is_valid(),
            });
        }
    }
    let others: Vec<&ScenarioReport> = peers
        .iter()
        .zip(reports)
        .filter(|(peer, report)| peer.kind.is_a_peer() && report.is_valid())
        .map(|(_, report)| report)
        .collect();
    verdicts.extend(COLUMNS.iter().filter_map(|column| ahead(own, &others, column)));
    verdicts
}

/// The median over the rounds of one server's figure by the other's of the same round: what the machine did meanwhile met both.
pub(super) fn by_rounds(own: &ScenarioReport, other: &ScenarioReport, figure: &str) -> Option<f64> {
    let rounds = own.runs.iter().zip(&other.runs);
    median(rounds.filter_map(|(own, other)| Some(own.value(figure)? / other.value(figure)?)))
}

/// dispatchd beside the best of the others.
fn ahead(
    own: &ScenarioReport,
    others: &[&ScenarioReport],
    &(figure, what, unit, more): &(&str, &'static str, &str, bool),
) -> Option<Verdict> {
    let best = others
        .iter()
        .filter_map(|report| Some((report.median(figure)?, report.name)))
        // A heap that was collected meanwhile says nothing of connections.
        .filter(|(value, _)| *value > 0.0)
        .min_by(|one, other| {
            if more {
                other.0.total_cmp(&one.0)
            } else {
                one.0.total_cmp(&other.0)
            }
        })?;
    let measured = own.median(figure).unwrap_or(f64::NAN);
    let (sign, pass) = if more {
        (">=", measured >= best.0)
    } else {
        ("<=", measured <= best.0)
    };
    let name = best.1.trim_start_matches("peer/");
    Some(Verdict {
        scenario: own.name,
        what,
        goal: format!("{sign} {} {unit} ({name})", number(best.0)),
        measured: format!("{} {unit}", number(measured)),
        ratio: measured / best.0,
        pass: pass && own.is_valid(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Run;
    use serde_json::Value;

    fn report(name: &'static str, figure: &'static str, values: &[f64]) -> ScenarioReport {
        let runs = values.iter().map(|value| {
            let mut run = Run::default();
            run.add(figure, "", *value);
            run
        });
        ScenarioReport {
            name,
            parameters: Value::Null,
            runs: runs.collect(),
            goals: &[],
        }
    }

    #[test]
    fn a_slow_round_is_slow_for_both() {
        let own = report("peer/own", "busy_cpu_us", &[11.0, 5.5, 6.6]);
        let raw = report("peer/raw", "busy_cpu_us", &[10.0, 5.0, 5.0]);
        assert!((by_rounds(&own, &raw, "busy_cpu_us").unwrap() - 1.1).abs() < 1e-9);
        assert_eq!(by_rounds(&own, &raw, "rate_p99"), None);
    }

    #[test]
    fn the_best_of_the_others_is_what_counts() {
        let own = report("peer/own", "push_per_s", &[100.0]);
        let others = [
            report("peer/slow", "push_per_s", &[50.0]),
            report("peer/fast", "push_per_s", &[101.0]),
        ];
        let others: Vec<_> = others.iter().collect();
        let more = ahead(&own, &others, &("push_per_s", "pushes", "1/s", true)).unwrap();
        assert!(!more.pass && more.goal.contains("fast"), "{more:?}");
        let less = ahead(&own, &others, &("push_per_s", "pushes", "1/s", false)).unwrap();
        assert!(!less.pass && less.goal.contains("slow"), "{less:?}");
        assert!(
            ahead(&own, &others[..1], &("push_per_s", "pushes", "1/s", true))
                .unwrap()
                .pass
        );
        assert!(ahead(&own, &[], &("push_per_s", "pushes", "1/s", true)).is_none());
    }
}
