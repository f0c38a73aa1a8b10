//! The comparison on the terminal.
#![forbid(unsafe_code)]

use super::catalogue::{Kind, Peer};
use super::verdicts;
use crate::report::{ScenarioReport, align_numbers, number, table};
use dispatchd::say;

/// Columns: heading and figure.
const COLUMNS: [(&str, &str); 11] = [
    ("user B/idle", "user_per_idle"),
    ("CPU µs busy", "busy_cpu_us"),
    ("push/s", "push_per_s"),
    ("p99 ms busy", "busy_p99"),
    ("CPU µs at rate", "rate_cpu_us"),
    ("p50 ms at rate", "rate_p50"),
    ("p99 ms at rate", "rate_p99"),
    ("p99 pooled", "rate_p99_pooled"),
    ("p99 ms after busy", "after_busy_p99"),
    ("CPU µs/handshake", "handshake_cpu_us"),
    ("client core %", "busy_client_core"),
];

/// Prints medians, the busy CPU by the raw ring's of the same round, and versions.
pub(super) fn print(peers: &[Peer], reports: &[ScenarioReport]) {
    let raw = peers
        .iter()
        .zip(reports)
        .find(|(peer, _)| peer.kind == Kind::Raw)
        .map(|(_, report)| report);
    let mut table = table();
    table.set_header(
        ["server"]
            .into_iter()
            .chain(COLUMNS.map(|(heading, _)| heading))
            .chain(["by raw"]),
    );
    for (peer, report) in peers.iter().zip(reports) {
        let cells = COLUMNS.map(|(_, figure)| report.median(figure).map_or("-".to_owned(), number));
        let by_raw = raw.and_then(|raw| verdicts::by_rounds(report, raw, "busy_cpu_us"));
        table.add_row(
            [peer.kind.name().to_owned()]
                .into_iter()
                .chain(cells)
                .chain([by_raw.map_or("-".to_owned(), number)]),
        );
    }
    align_numbers(&mut table, 1);
    say!("\npush and acknowledgement, medians\n{table}");
    for (peer, report) in peers.iter().zip(reports) {
        say!("{}: {} ({} rounds)", peer.kind.name(), peer.version, report.runs.len());
        for line in report.fault_lines() {
            say!("INVALID {}: {line}", peer.kind.name());
        }
    }
}
