//! What a fleet promises beyond the seven: any node answers for any driver and for any request. Pure: evidence in, verdict out.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::time::Duration;

use dispatchd::demo::messages::Id;
use dispatchd::demo::observe::{Evidence, FinalView, OnSocket, Seen};

use super::seen::Times;

/// Most violations that are quoted.
const EXAMPLES_MAX: usize = 5;
/// A driver counts as connected when it was so long before and goes on being so long after.
const SURE: Duration = Duration::from_secs(1);
/// After a fault was mended: links and the ways to Redis are tried again each second, and then what was missed is said.
const HEALED: Duration = Duration::from_secs(3);

/// How it fared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Comparisons made.
    pub checks: u64,
    /// Comparisons that failed.
    pub violations: u64,
    /// The first few of them, in words.
    pub examples: Vec<String>,
}

impl Reach {
    fn check(&mut self, holds: bool, describe: impl FnOnce() -> String) {
        self.checks += 1;
        if !holds {
            self.violations += 1;
            if self.examples.len() < EXAMPLES_MAX {
                self.examples.push(describe());
            }
        }
    }
}

/// Compares what each node said at the end of each request, and looks for drivers who were refused as `offline` while they were
/// connected; not while the fault lasted and for [`HEALED`] after it, when a node may not know better.
pub fn judge(evidence: &Evidence, by_node: &[BTreeMap<Id, FinalView>], times: Times) -> Reach {
    let mut reach = Reach::default();
    for (request, known) in &evidence.finals {
        for (finals, number) in by_node.iter().zip(1..) {
            let view = finals.get(request);
            let is_same = view.is_some_and(|view| view.audit == known.audit && view.view == known.view);
            reach.check(is_same, || {
                let state = |view: Option<&FinalView>| {
                    let view = view.and_then(|view| view.view.as_ref());
                    view.map_or("not known".to_owned(), |view| view.state.clone())
                };
                let (here, there) = (state(view), state(Some(known)));
                format!("{request}: gw-{number} shows it as {here}, another node as {there}, or another audit of it")
            });
        }
    }
    let sessions = sessions(evidence);
    for (request, known) in &evidence.finals {
        for step in known.audit.iter().flat_map(|audit| &audit.events) {
            let reason = step.detail.as_ref().and_then(|detail| detail.get("reason")?.as_str());
            let (Some(driver), "OFFER_REFUSED", Some("offline")) = (&step.driver_id, step.event.as_str(), reason)
            else {
                continue;
            };
            let Some(at) = Duration::from_millis(step.at_ms).checked_sub(evidence.started_unix) else {
                continue;
            };
            if at + SURE > times.fault && at < times.mended + HEALED {
                continue;
            }
            let of_driver = sessions.get(driver.as_str()).map_or(&[][..], Vec::as_slice);
            let connected = of_driver
                .iter()
                .any(|(from, to)| *from + SURE <= at && at + SURE <= *to);
            reach.check(!connected, || {
                let node = step.node.as_deref().unwrap_or("?");
                format!("{request}: {driver} was refused as offline by {node} while it was connected")
            });
        }
    }
    reach
}

/// Sessions of each driver: from, to. What a driver did with its shift is not looked at: those of the stage have none.
fn sessions(evidence: &Evidence) -> BTreeMap<&str, Vec<(Duration, Duration)>> {
    let mut sessions: BTreeMap<&str, Vec<(Duration, Duration)>> = BTreeMap::new();
    for observation in &evidence.observations {
        let Seen::Socket(driver, what) = &observation.seen else {
            continue;
        };
        let of_driver = sessions.entry(driver).or_default();
        match what {
            OnSocket::Welcome { .. } => of_driver.push((observation.at, Duration::MAX)),
            OnSocket::Lost => {
                if let Some(last) = of_driver.last_mut() {
                    last.1 = last.1.min(observation.at);
                }
            }
            _ => {}
        }
    }
    sessions
}

#[cfg(test)]
mod tests {
    use super::*;
    use dispatchd::demo::messages::{AuditEvent, AuditView};
    use dispatchd::demo::observe::Observation;

    const TIMES: Times = Times {
        fault: Duration::from_secs(100),
        mended: Duration::from_secs(110),
        end: Duration::from_secs(120),
    };

    fn view(state: &str, refused_at_s: u64) -> FinalView {
        let step = AuditEvent {
            event: "OFFER_REFUSED".into(),
            at_ms: refused_at_s * 1000,
            driver_id: Some("d".into()),
            detail: Some(serde_json::json!({ "reason": "offline" })),
            ..AuditEvent::default()
        };
        let audit = AuditView {
            state: state.into(),
            events: vec![step],
        };
        FinalView {
            audit: Some(audit),
            ..FinalView::default()
        }
    }

    fn check(refused_at_s: u64, other: Option<FinalView>, violations: u64) {
        let welcome = OnSocket::Welcome {
            session: 1,
            state: "available".into(),
            trip: None,
        };
        let seen = |second, what| Observation {
            at: Duration::from_secs(second),
            seen: Seen::Socket("d".into(), what),
        };
        let finals: BTreeMap<Id, FinalView> = [("r".into(), view("CANCELLED", refused_at_s))].into();
        let evidence = Evidence {
            observations: vec![seen(10, welcome), seen(50, OnSocket::Lost)],
            finals: finals.clone(),
            ..Evidence::default()
        };
        let others = other.into_iter().map(|view| ("r".into(), view)).collect();
        let reach = judge(&evidence, &[finals, others], TIMES);
        assert_eq!(reach.violations, violations, "{reach:?}");
    }

    #[test]
    fn a_connected_driver_is_not_offline() {
        for (second, violations) in [(5, 0), (10, 0), (11, 1), (30, 1), (50, 0), (60, 0)] {
            check(second, Some(view("CANCELLED", second)), violations);
        }
    }

    #[test]
    fn all_nodes_say_the_same() {
        check(5, None, 1);
        check(5, Some(view("ACCEPTED", 5)), 1);
        check(5, Some(view("CANCELLED", 6)), 1);
    }
}
