//! What is sampled of the server, and which of it must be flat.
#![forbid(unsafe_code)]

use std::io;
use std::net::SocketAddrV4;

use serde_json::{Value, json};

use super::trend::{Trend, Verdict};
use crate::http;
use crate::measure::metric;

/// One series of samples.
pub struct Series {
    /// Name in the results.
    pub name: &'static str,
    /// Name in the server's metrics; the samples of all its labels are summed.
    metric: &'static str,
    /// Metrics that are taken off: what they count has a bound of its own, and fills for hours.
    less: &'static [&'static str],
    /// Name of the series that explains how this one fluctuates, if one does.
    cause: Option<&'static str>,
    /// What a sample is divided by, so that it has this unit.
    divisor: f64,
    /// Unit of a sample.
    pub unit: &'static str,
    /// What is expected of it.
    pub expect: Expect,
}

/// What is expected of a series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Expect {
    /// Flat, apart from steps up to this size in an hour (unit of the series).
    Flat(f64),
    /// A count that does not follow the load: rises by no more than this in an hour, whatever its level.
    Count(f64),
    /// Grows with the work by its meaning; shown and not judged.
    Shown,
    /// A counter: what is plotted is its growth per second.
    Rate,
}

const MIB: f64 = 1024.0 * 1024.0;

const fn series(name: &'static str, metric: &'static str, divisor: f64, unit: &'static str, expect: Expect) -> Series {
    Series {
        name,
        metric,
        less: &[],
        cause: None,
        divisor,
        unit,
        expect,
    }
}

/// The store's block cache: filled by reads, up to its bound.
const STORE_CACHE: &str = "dispatchd_store_cache_bytes";

/// What finds the rows that the store keeps: grows with them until the first ones are too old to be kept.
const STORE_INDEX: &str = "dispatchd_store_index_bytes";

/// Files of the store that the server has open, counted from outside: a table that is kept for days is one, and their number has a
/// bound of its own.
const STORE_FILES: &str = "store_files";

/// What connections, and the slots and timers that each of them has, may rise by in an hour. Drivers stay as many as they were but for
/// those who are away, and callers keep spare connections after a busy moment: in four runs of an hour and more, with 1,000 and
/// with 3,000 drivers, the slope was up to 29, the upper end of its interval 43. Shorter runs are less sure.
const SOCKETS: f64 = 40.0;

/// Everything that is sampled.
pub const SERIES: &[Series] = &[
    Series {
        less: &[STORE_CACHE, STORE_INDEX],
        cause: Some("store_buffers"),
        ..series(
            "resident_less_kept",
            "process_resident_memory_bytes",
            MIB,
            "MiB",
            Expect::Flat(1.0),
        )
    },
    Series {
        less: &[STORE_CACHE, STORE_INDEX],
        cause: Some("store_buffers"),
        ..series(
            "allocated_less_kept",
            "dispatchd_allocated_bytes",
            MIB,
            "MiB",
            Expect::Flat(0.5),
        )
    },
    series(
        "store_buffers",
        "dispatchd_store_write_buffers_bytes",
        MIB,
        "MiB",
        Expect::Shown,
    ),
    series("store_cache", STORE_CACHE, MIB, "MiB", Expect::Shown),
    series("store_index", STORE_INDEX, MIB, "MiB", Expect::Shown),
    series("tables", "dispatchd_memory_bytes", MIB, "MiB", Expect::Flat(0.25)),
    Series {
        less: &[STORE_FILES],
        ..series(
            "fds_less_store",
            "process_open_fds",
            1.0,
            "descriptors",
            Expect::Count(2.0),
        )
    },
    series("store_files", STORE_FILES, 1.0, "descriptors", Expect::Shown),
    series("threads", "process_threads", 1.0, "threads", Expect::Count(1.0)),
    series(
        "ring_slots",
        "dispatchd_ring_slots",
        1.0,
        "slots",
        Expect::Count(SOCKETS),
    ),
    series(
        "connections",
        "dispatchd_connections",
        1.0,
        "connections",
        Expect::Count(SOCKETS),
    ),
    series(
        "timers_armed",
        "dispatchd_timers_armed",
        1.0,
        "timers",
        Expect::Count(SOCKETS),
    ),
    series("drivers", "dispatchd_drivers", 1.0, "drivers", Expect::Count(5.0)),
    series(
        "requests_open",
        "dispatchd_requests_open",
        1.0,
        "requests",
        Expect::Flat(5.0),
    ),
    series(
        "requests_waiting",
        "dispatchd_requests_waiting",
        1.0,
        "requests",
        Expect::Flat(5.0),
    ),
    series(
        "store_backlog",
        "dispatchd_store_backlog_records",
        1.0,
        "records",
        Expect::Flat(50.0),
    ),
    series(
        "store_queue",
        "dispatchd_store_queue_commits",
        1.0,
        "commits",
        Expect::Flat(50.0),
    ),
    series(
        "polls_parked",
        "dispatchd_store_polls_parked",
        1.0,
        "readers",
        Expect::Flat(1.0),
    ),
    series(
        "journal_segments",
        "dispatchd_journal_segments",
        1.0,
        "segments",
        Expect::Flat(1.0),
    ),
    series(
        "events_kept",
        "dispatchd_store_events_kept",
        1.0,
        "events",
        Expect::Shown,
    ),
    series("store_disk", "dispatchd_store_disk_bytes", MIB, "MiB", Expect::Shown),
    series("cpu", "process_cpu_seconds_total", 0.01, "% of a core", Expect::Rate),
    series("offers", "dispatchd_offers_total", 1.0, "per s", Expect::Rate),
    series(
        "http_requests",
        "dispatchd_http_requests_total",
        1.0,
        "per s",
        Expect::Rate,
    ),
    series("bad_input", "dispatchd_bad_input_total", 1.0, "per s", Expect::Rate),
    series(
        "journal_commits",
        "dispatchd_journal_commits_total",
        1.0,
        "per s",
        Expect::Rate,
    ),
];

/// One look at everything; as long as [`SERIES`].
pub type Sample = Vec<f64>;

/// Looks at everything once. A series that the server (or, without its `pid`, the system) does not show is not a number.
///
/// # Errors
/// `/metrics` cannot be read.
pub fn take(address: SocketAddrV4, pid: Option<u32>) -> io::Result<Sample> {
    let text = match http::get(address, "/metrics")? {
        (200, text) => text,
        (status, _) => return Err(io::Error::other(format!("/metrics answers {status}"))),
    };
    let files = pid
        .and_then(|pid| store_files(pid).ok())
        .map_or(f64::NAN, |count| count as f64);
    let read = |name| match name {
        STORE_FILES => files,
        _ => metric(&text, name).unwrap_or(f64::NAN),
    };
    let less = |series: &Series| series.less.iter().map(|name| read(name)).sum::<f64>();
    let value = |series: &Series| (read(series.metric) - less(series)) / series.divisor;
    Ok(SERIES.iter().map(value).collect())
}

fn store_files(pid: u32) -> io::Result<usize> {
    let mut count = 0;
    for fd in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
        // One that is closed meanwhile is none.
        let target = std::fs::read_link(fd?.path()).unwrap_or_default();
        count += usize::from(target.components().any(|part| part.as_os_str() == "store"));
    }
    Ok(count)
}

/// The value of one series in a sample.
///
/// # Panics
/// When there is no series of that name.
pub fn value_of(sample: &Sample, name: &str) -> f64 {
    let index = SERIES.iter().position(|series| series.name == name);
    sample[index.expect("the name of a series")]
}

/// The series that are not good as far as these samples `(s, sample)` say.
pub fn not_good(samples: &[(f64, Sample)]) -> Vec<&'static str> {
    let all = Judged::all(samples);
    let not_good = all.iter().filter(|judged| !judged.is_good());
    not_good.map(|judged| judged.series.name).collect()
}

/// A series with all its samples, and how it fared.
pub struct Judged {
    /// Which.
    pub series: &'static Series,
    /// `(s since the start, value)`, oldest first.
    pub points: Vec<(f64, f64)>,
    /// Its second half.
    pub trend: Option<Trend>,
    /// What the trend says, of a series that is judged and can be.
    verdict: Option<Verdict>,
}

impl Judged {
    /// All series of these samples `(s, sample)`.
    pub fn all(samples: &[(f64, Sample)]) -> Vec<Self> {
        let points = |name| -> Vec<(f64, f64)> {
            let point = |(at, sample): &(f64, Sample)| (*at, value_of(sample, name));
            samples.iter().map(point).collect()
        };
        let of = |series: &'static Series| {
            let cause = series.cause.map(points);
            Self::of(series, points(series.name), cause.as_deref())
        };
        SERIES.iter().map(of).collect()
    }

    fn of(series: &'static Series, raw: Vec<(f64, f64)>, cause: Option<&[(f64, f64)]>) -> Self {
        let points = match series.expect {
            Expect::Rate => rates(&raw),
            Expect::Flat(_) | Expect::Count(_) | Expect::Shown => raw,
        };
        let trend = Trend::of(&points, cause).filter(|trend| trend.level.is_finite());
        let verdict = match series.expect {
            Expect::Flat(grain) => trend.map(|trend| trend.verdict(grain)),
            Expect::Count(most) => trend.map(|trend| trend.verdict_of_count(most)),
            Expect::Shown | Expect::Rate => None,
        };
        Self {
            series,
            points,
            trend,
            verdict,
        }
    }

    /// Whether it is as expected. What cannot be judged is not: too short a run, or a metric that is gone.
    pub fn is_good(&self) -> bool {
        matches!(self.series.expect, Expect::Shown | Expect::Rate) || self.verdict == Some(Verdict::Flat)
    }

    /// What the verdict says, in a word.
    pub fn word(&self) -> &'static str {
        match (self.series.expect, self.verdict) {
            (Expect::Shown | Expect::Rate, _) => "shown",
            (_, Some(Verdict::Flat)) => "flat",
            (_, Some(Verdict::Unsure)) => "UNSURE",
            (_, Some(Verdict::Grows)) => "GROWS",
            (_, None) => "NOT JUDGED",
        }
    }

    /// As JSON, samples included.
    pub fn to_json(&self) -> Value {
        json!({
            "name": self.series.name, "unit": self.series.unit, "verdict": self.word(), "trend": self.trend,
            "samples": self.points,
        })
    }
}

fn rates(raw: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let rate = |pair: &[(f64, f64)]| (pair[1].0, (pair[1].1 - pair[0].1) / (pair[1].0 - pair[0].0));
    raw.windows(2).map(rate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_that_is_missing_is_not_good() {
        let gone = |n: u32| (f64::from(n), vec![f64::NAN; SERIES.len()]);
        let judged = Judged::all(&(0..100).map(gone).collect::<Vec<_>>());
        assert_eq!(judged[0].word(), "NOT JUDGED");
        assert!(!judged[0].is_good());
    }

    #[test]
    fn what_grows_or_cannot_be_judged_is_named() {
        let sample = |n: u32| {
            let mut values = vec![1.0; SERIES.len()];
            let index = SERIES.iter().position(|series| series.name == "tables").unwrap();
            values[index] = f64::from(n);
            (f64::from(n), values)
        };
        let samples: Vec<_> = (0..100).map(sample).collect();
        assert_eq!(not_good(&samples), ["tables"]);
        assert!(not_good(&samples[..20]).contains(&"threads"));
    }

    #[test]
    fn a_few_connections_that_leak_are_seen_among_thousands() {
        let hour = |leak: f64| {
            let sample = |n: u32| {
                (
                    f64::from(n) * 5.0,
                    vec![3000.0 + f64::from(n) / 720.0 * leak; SERIES.len()],
                )
            };
            not_good(&(0..720).map(sample).collect::<Vec<_>>())
        };
        for name in [
            "connections",
            "ring_slots",
            "timers_armed",
            "drivers",
            "threads",
            "fds_less_store",
        ] {
            assert!(hour(60.0).contains(&name), "{name}");
        }
        assert!(!hour(30.0).contains(&"connections"));
    }

    #[test]
    fn counters_are_plotted_as_rates() {
        assert_eq!(
            rates(&[(0.0, 10.0), (2.0, 30.0), (3.0, 30.0)]),
            [(2.0, 10.0), (3.0, 0.0)]
        );
    }
}
