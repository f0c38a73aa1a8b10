//! The table at the end.

use super::audit::Verdict;
use super::latency::Latencies;
use super::observe::{Counters, total};
use crate::say;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Cell, CellAlignment, Color, ContentArrangement, Table};
use hdrhistogram::Histogram;
use std::time::Duration;

/// What one run came to.
#[derive(Debug)]
pub struct Report {
    /// Totals.
    pub latencies: Latencies,
    /// The seven.
    pub verdicts: [Verdict; 7],
    /// SIGKILL → `/readyz` 200 of the restarted node.
    pub restart: Duration,
    /// Ready → nearly all drivers of the fleet connected again (some are always away of their own will).
    pub reconnect: Duration,
    /// From the first trip's POST to the last trip's end.
    pub replay: Duration,
    /// From the start of the demo to the table.
    pub total: Duration,
}

impl Report {
    /// Whether an invariant was violated, or one could not be checked at all.
    pub fn is_bad(&self) -> bool {
        is_bad(&self.verdicts)
    }

    /// Prints everything to stdout.
    pub fn print(&self, counters: &Counters) {
        say!("{}", self.totals(counters));
        say!("{}", self.latency_table());
        print_verdicts(&self.verdicts);
    }

    fn totals(&self, counters: &Counters) -> Table {
        let mut table = table(&["run", ""]);
        let mut row = |name: &str, value: String| {
            table.add_row([Cell::new(name), Cell::new(value).set_alignment(CellAlignment::Right)]);
        };
        let (posted, accepted) = (total(&counters.posted), total(&counters.accepted));
        row("trips posted", posted.to_string());
        row("accepted", share(accepted, posted));
        row("unfulfilled", share(total(&counters.unfulfilled), posted));
        row("cancelled by the caller", share(total(&counters.cancelled), posted));
        row("trips ended", total(&counters.trips_ended).to_string());
        let attempts = &self.latencies.attempts;
        row(
            "attempts per trip",
            format!(
                "{:.2} (p99 {}, max {})",
                attempts.mean(),
                attempts.value_at_quantile(0.99),
                attempts.max()
            ),
        );
        row("offers heard on sockets", total(&counters.offers).to_string());
        row(
            "re-dispatches through the engine",
            total(&counters.redispatched).to_string(),
        );
        row("events consumed", total(&counters.events).to_string());
        let (purpose, loss) = (total(&counters.repeats_on_purpose), total(&counters.repeats_after_loss));
        row(
            "POSTs repeated on purpose / after a lost connection",
            format!("{purpose} / {loss}"),
        );
        row(
            "duplicates absorbed / refused without effect",
            format!(
                "{} / {}",
                total(&counters.duplicates_absorbed),
                total(&counters.duplicates_refused)
            ),
        );
        row(
            "POSTs turned away (429, 503) and repeated",
            total(&counters.turned_away).to_string(),
        );
        row("drivers vanished in an offer", total(&counters.vanished).to_string());
        row("SIGKILL to ready again", format!("{:.2} s", self.restart.as_secs_f64()));
        row(
            "ready to 98 % of the drivers back",
            format!("{:.2} s", self.reconnect.as_secs_f64()),
        );
        row("replay / whole demo", {
            format!("{:.1} s / {:.1} s", self.replay.as_secs_f64(), self.total.as_secs_f64())
        });
        table
    }

    fn latency_table(&self) -> Table {
        let mut table = table(&["latency, ms", "count", "p50", "p99", "max"]);
        let latencies = &self.latencies;
        let rows: [(&str, &Histogram<u64>); 6] = [
            ("POST sent → OFFER on the socket", &latencies.offer),
            ("DECLINE → next OFFER", &latencies.after_decline),
            ("offer timed out → next OFFER", &latencies.after_timeout),
            ("last answer → event → new POST → OFFER", &latencies.through_engine),
            ("any of these to a driver who was away", &latencies.to_absent),
            ("any of these across the kill", &latencies.across_kill),
        ];
        for (name, histogram) in rows {
            let mut row = vec![Cell::new(name), number(histogram.len().to_string())];
            if histogram.is_empty() {
                row.extend((0..3).map(|_| number("–".into())));
            } else {
                let millis = |micros: u64| number(format!("{:.2}", micros as f64 / 1000.0));
                let at = [
                    histogram.value_at_quantile(0.5),
                    histogram.value_at_quantile(0.99),
                    histogram.max(),
                ];
                row.extend(at.map(millis));
            }
            table.add_row(row);
        }
        table
    }
}

/// Whether an invariant was violated, or one could not be checked at all.
pub fn is_bad(verdicts: &[Verdict]) -> bool {
    verdicts
        .iter()
        .any(|verdict| verdict.violations > 0 || verdict.checks == 0)
}

/// Prints the seven, and examples of what was violated, to stdout.
pub fn print_verdicts(verdicts: &[Verdict]) {
    let mut table = table(&["what must hold, always", "checks", "violations"]);
    for verdict in verdicts {
        let good = verdict.violations == 0 && verdict.checks > 0;
        let colour = if good { Color::Green } else { Color::Red };
        table.add_row([
            Cell::new(format!("{}. {}", verdict.number, verdict.name)),
            number(verdict.checks.to_string()),
            number(verdict.violations.to_string()).fg(colour),
        ]);
    }
    say!("{table}");
    for verdict in verdicts {
        for example in &verdict.examples {
            say!("violation of {}: {example}", verdict.number);
        }
        if verdict.checks == 0 {
            say!("invariant {} could not be checked", verdict.number);
        }
    }
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header);
    table
}

fn number(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

fn share(part: u64, whole: u64) -> String {
    format!("{part} ({:.1} %)", 100.0 * part as f64 / whole.max(1) as f64)
}
