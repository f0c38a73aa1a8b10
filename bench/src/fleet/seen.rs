//! What the clients of a fleet saw of a fault: errors by kind, offers that were late, how long none came, and when all was well
//! again. Pure but for the file that [`write()`] makes: observations in, figures out.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use dispatchd::demo::observe::{Evidence, Observation, OnApi, OnSocket, Seen};

/// An offer that takes longer from its POST to a driver's socket is late.
pub const LATE: Duration = Duration::from_secs(1);
/// All is well when nothing bad was seen for so long.
const CALM: Duration = Duration::from_secs(2);

/// The times of a play, since its observations began.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// The fault begins.
    pub fault: Duration,
    /// It is mended.
    pub mended: Duration,
    /// The last POST of a new request.
    pub end: Duration,
}

/// What was seen from the fault on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// Calls and connects that were not served at once, by what the client got.
    pub errors: BTreeMap<String, u64>,
    /// Requests whose first offer was on a driver's socket more than [`LATE`] after the first POST, or never (and
    /// which had not ended by then).
    pub late: u64,
    /// Of these, never.
    pub never: u64,
    /// Requests looked at.
    pub requests: u64,
    /// The longest time in which no driver heard an offer.
    pub gap: Duration,
    /// From the fault until all was well, while it lasted. `None`: it was not.
    pub well_despite: Option<Duration>,
    /// From the mending until all was well. `None`: it was not before the end.
    pub well_after: Option<Duration>,
}

/// A request as callers and drivers saw it.
#[derive(Clone, Copy)]
struct Wait {
    posted: Duration,
    offered: Option<Duration>,
    /// It ended without an offer that anybody heard.
    over: Option<Duration>,
    patient: bool,
}

impl Figures {
    /// What `observations` say of the time from the fault on.
    pub fn of(observations: &[Observation], times: Times) -> Self {
        let waits = waits(observations);
        let (mut figures, mut bad) = (Self::default(), Vec::new());
        let mut offers = vec![times.fault.saturating_sub(CALM)];
        for observation in observations.iter().filter(|seen| seen.at <= times.end) {
            match &observation.seen {
                Seen::Unserved(kind) if observation.at >= times.fault => {
                    *figures.errors.entry(kind.to_string()).or_default() += 1;
                    bad.push((observation.at, observation.at));
                }
                Seen::Socket(_, OnSocket::Offer { .. }) => offers.push(observation.at),
                _ => {}
            }
        }
        for wait in waits.values() {
            // One that was posted shortly before the fault meets it too; one that waits for a busy driver says nothing.
            if wait.patient || wait.posted + LATE < times.fault || wait.posted + LATE > times.end {
                continue;
            }
            figures.requests += 1;
            let until = wait.offered.or(wait.over).unwrap_or(times.end);
            if until > wait.posted + LATE {
                figures.late += 1;
                figures.never += u64::from(wait.offered.is_none());
                bad.push((wait.posted + LATE, until));
            }
        }
        offers.retain(|at| *at >= times.fault.saturating_sub(CALM));
        offers.push(times.end);
        figures.gap = longest_gap(&offers);
        figures.well_despite = calm_from(&bad, times.fault, times.mended);
        figures.well_after = calm_from(&bad, times.mended, times.end);
        figures
    }

    /// All errors.
    pub fn errors_in_all(&self) -> u64 {
        self.errors.values().sum()
    }
}

/// Writes all that was seen, a line each, and then each request's audit: what a violation is looked into with (`--keep`).
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path, evidence: &Evidence, times: Times) -> io::Result<()> {
    let mut out = io::BufWriter::new(std::fs::File::create(path)?);
    let started_ms = evidence.started_unix.as_millis();
    writeln!(out, "begun at {started_ms} ms; {times:?}")?;
    for Observation { at, seen } in &evidence.observations {
        writeln!(out, "{:.3} {seen:?}", at.as_secs_f64())?;
    }
    for (request, last) in &evidence.finals {
        for step in last.audit.iter().flat_map(|audit| &audit.events) {
            let after_s = Duration::from_millis(step.at_ms).as_secs_f64() - evidence.started_unix.as_secs_f64();
            writeln!(out, "audit {request} {after_s:.3} {step:?}")?;
        }
    }
    out.flush()
}

fn waits(observations: &[Observation]) -> BTreeMap<&str, Wait> {
    let mut waits: BTreeMap<&str, Wait> = BTreeMap::new();
    for observation in observations {
        match &observation.seen {
            Seen::Api(OnApi::Posted {
                request,
                first: true,
                patient,
            }) => {
                waits.entry(request).or_insert(Wait {
                    posted: observation.at,
                    offered: None,
                    over: None,
                    patient: *patient,
                });
            }
            Seen::Socket(_, OnSocket::Offer { request, .. }) => {
                if let Some(wait) = waits.get_mut(&**request) {
                    wait.offered.get_or_insert(observation.at);
                }
            }
            Seen::Api(OnApi::Event(event)) if matches!(&*event.kind, "REQUEST_CANCELLED" | "REQUEST_UNFULFILLED") => {
                if let Some(wait) = waits.get_mut(&*event.request_id) {
                    wait.over.get_or_insert(observation.at);
                }
            }
            _ => {}
        }
    }
    waits
}

fn longest_gap(times: &[Duration]) -> Duration {
    let gaps = times.windows(2).map(|two| two[1].saturating_sub(two[0]));
    gaps.max().unwrap_or_default()
}

/// How long after `from` the last bad time ended, if that was a while before `until`. `bad` are times from and to.
fn calm_from(bad: &[(Duration, Duration)], from: Duration, until: Duration) -> Option<Duration> {
    let inside = bad.iter().filter(|(begin, end)| *begin < until && *end >= from);
    let well = inside.map(|(_, end)| *end).max().unwrap_or(from);
    (well + CALM <= until).then(|| well.saturating_sub(from))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dispatchd::demo::messages::{EventLine, Id};

    const TIMES: Times = Times {
        fault: Duration::from_secs(10),
        mended: Duration::from_secs(20),
        end: Duration::from_secs(30),
    };

    fn at(ms: u64, seen: Seen) -> Observation {
        let at = Duration::from_millis(ms);
        Observation { at, seen }
    }

    fn posted(ms: u64, request: &str, patient: bool) -> Observation {
        let request = Id::from(request);
        let first = true;
        at(
            ms,
            Seen::Api(OnApi::Posted {
                request,
                first,
                patient,
            }),
        )
    }

    fn offer(ms: u64, request: &str) -> Observation {
        let what = OnSocket::Offer {
            request: request.into(),
            attempt: 1,
            expires_at_ms: 0,
        };
        at(ms, Seen::Socket("d".into(), what))
    }

    fn ended(ms: u64, request: &str) -> Observation {
        let event = EventLine {
            kind: "REQUEST_CANCELLED".into(),
            request_id: request.into(),
            ..EventLine::default()
        };
        at(ms, Seen::Api(OnApi::Event(event)))
    }

    fn unserved(ms: u64) -> Observation {
        at(ms, Seen::Unserved("refused".into()))
    }

    /// An offer every second, each at once.
    fn calm() -> Vec<Observation> {
        let one = |second: u64| {
            let name = format!("r{second}");
            [posted(second * 1000, &name, false), offer(second * 1000 + 5, &name)]
        };
        (0..30).flat_map(one).collect()
    }

    fn figures(more: Vec<Observation>, without: std::ops::Range<u64>) -> Figures {
        let mut all = calm();
        all.retain(|seen| !(without.start * 1000..without.end * 1000).contains(&(seen.at.as_millis() as u64)));
        all.extend(more);
        all.sort_by_key(|seen| seen.at);
        Figures::of(&all, TIMES)
    }

    #[test]
    fn nothing_happened() {
        let found = figures(Vec::new(), 0..0);
        assert_eq!((found.errors_in_all(), found.late, found.never), (0, 0, 0));
        assert_eq!(found.requests, 21);
        assert_eq!(found.gap, Duration::from_secs(1));
        assert_eq!(found.well_despite, Some(Duration::ZERO));
        assert_eq!(found.well_after, Some(Duration::ZERO));
    }

    #[test]
    fn errors_are_counted_and_the_time_until_calm_is_measured() {
        // Before the fault: not its doing.
        let found = figures(
            vec![unserved(9000), unserved(10_500), unserved(12_000), unserved(21_000)],
            0..0,
        );
        assert_eq!(found.errors, [("refused".to_owned(), 3)].into());
        assert_eq!(found.well_despite, Some(Duration::from_secs(2)));
        assert_eq!(found.well_after, Some(Duration::from_secs(1)));
        let restless: Vec<Observation> = (0..40).map(|n| unserved(10_000 + n * 500)).collect();
        let found = figures(restless, 0..0);
        assert_eq!((found.well_despite, found.well_after), (None, None));
    }

    #[test]
    fn late_offers_and_silence_are_found() {
        let more = vec![
            posted(12_000, "slow", false),
            offer(21_500, "slow"),
            posted(13_000, "lost", false),
        ];
        let found = figures(more, 12..21);
        assert_eq!((found.late, found.never), (2, 1));
        assert_eq!(found.gap, Duration::from_secs(10));
        // The one that is never offered is late to the end.
        assert_eq!((found.well_despite, found.well_after), (None, None));
        let more = vec![
            posted(12_000, "slow", false),
            offer(21_500, "slow"),
            posted(12_000, "waits", true),
        ];
        let found = figures(more, 12..21);
        assert_eq!((found.late, found.never), (1, 0));
        assert_eq!(
            (found.well_despite, found.well_after),
            (None, Some(Duration::from_millis(1500)))
        );
        // Cancelled before it was late; given up while it was.
        let more = vec![
            posted(12_000, "a", false),
            ended(12_500, "a"),
            posted(12_000, "b", false),
            ended(15_000, "b"),
        ];
        let found = figures(more, 12..13);
        assert_eq!((found.late, found.never), (1, 1));
        assert_eq!(found.well_despite, Some(Duration::from_secs(5)));
    }
}
