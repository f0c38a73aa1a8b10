//! A made-up run that violates nothing, in parts that are easy to spoil.

use crate::demo::audit::{Verdict, judge};
use crate::demo::messages::{AuditEvent, AuditView, EventLine, Id, OfferAnswer, RequestView};
use crate::demo::observe::{Allowance, ClassRound, Evidence, FinalView, Observation, OnApi, OnSocket, Outcome, Seen};
use serde_json::json;
use std::time::Duration;

pub fn socket(driver: &str, what: OnSocket) -> Seen {
    Seen::Socket(driver.into(), what)
}

pub fn welcome(driver: &str, session: u64, trip: Option<&str>) -> Seen {
    let state = if trip.is_some() {
        "en_route_to_pickup"
    } else {
        "available"
    };
    let what = OnSocket::Welcome {
        session,
        state: state.into(),
        trip: trip.map(Id::from),
    };
    socket(driver, what)
}

pub fn offer(driver: &str, request: &str, attempt: u32) -> Seen {
    let what = OnSocket::Offer {
        request: request.into(),
        attempt,
        expires_at_ms: 2500,
    };
    socket(driver, what)
}

pub fn acked(driver: &str, attempt: u32) -> Seen {
    let what = OnSocket::SentAck {
        request: "r".into(),
        attempt,
    };
    socket(driver, what)
}

pub fn answered(driver: &str, attempt: u32, accept: bool) -> Seen {
    let what = OnSocket::SentAnswer {
        request: "r".into(),
        attempt,
        accept,
    };
    socket(driver, what)
}

pub fn outcome(driver: &str, attempt: u32, outcome: Outcome) -> Seen {
    let what = OnSocket::Outcome {
        request: "r".into(),
        attempt,
        outcome,
    };
    socket(driver, what)
}

pub fn confirmed(driver: &str, attempt: u32, trip: &str) -> Seen {
    outcome(driver, attempt, Outcome::Confirmed(trip.into()))
}

pub fn state(driver: &str, state: &str, trip: Option<&str>) -> Seen {
    let what = OnSocket::State {
        state: state.into(),
        trip: trip.map(Id::from),
    };
    socket(driver, what)
}

pub fn sent_trip(driver: &str, event: &'static str) -> Seen {
    let what = OnSocket::SentTrip {
        trip: "t".into(),
        event,
    };
    socket(driver, what)
}

pub fn posted(first: bool) -> Seen {
    Seen::Api(OnApi::Posted {
        request: "r".into(),
        first,
        patient: false,
    })
}

pub fn answer(first: bool, status: u16, duplicate: bool, attempt: u32) -> Seen {
    let answer = OfferAnswer {
        state: "OFFER_SENT".into(),
        duplicate,
        attempt,
        ..OfferAnswer::default()
    };
    Seen::Api(OnApi::Answered {
        request: "r".into(),
        first,
        status,
        answer,
    })
}

pub fn line(cursor: u64, kind: &str) -> EventLine {
    let of_trip = kind.starts_with("TRIP_");
    EventLine {
        cursor,
        kind: kind.into(),
        request_id: "r".into(),
        trip_id: of_trip.then(|| "t".into()),
        driver_id: of_trip.then(|| "b".into()),
        outcome: (kind == "TRIP_ENDED").then(|| "completed".into()),
        ..EventLine::default()
    }
}

pub fn event(cursor: u64, kind: &str) -> Seen {
    Seen::Api(OnApi::Event(line(cursor, kind)))
}

/// Driver `a` declines, new candidates are asked for, `b` accepts just before the kill and runs the trip after it.
pub fn seen() -> Vec<Seen> {
    vec![
        welcome("a", 1, None),
        welcome("b", 2, None),
        posted(true),
        answer(true, 202, false, 1),
        offer("a", "r", 1),
        acked("a", 1),
        answered("a", 1, false),
        outcome("a", 1, Outcome::Declined),
        event(1, "REDISPATCH_REQUESTED"),
        posted(false),
        answer(false, 202, false, 2),
        offer("b", "r", 2),
        acked("b", 2),
        answered("b", 2, true),
        confirmed("b", 2, "t"),
        event(2, "TRIP_CREATED"),
        Seen::NodeKilled,
        socket("a", OnSocket::Lost),
        socket("b", OnSocket::Lost),
        Seen::NodeReady,
        welcome("a", 3, None),
        welcome("b", 4, Some("t")),
        sent_trip("b", "pickup"),
        state("b", "on_trip", Some("t")),
        event(3, "TRIP_PICKED_UP"),
        sent_trip("b", "complete"),
        state("b", "available", None),
        event(4, "TRIP_ENDED"),
    ]
}

/// The audit of all that; attempt 1 is `a`'s, 2 is `b`'s, 0 is none.
pub fn steps() -> Vec<AuditEvent> {
    let rows = [
        ("REQUEST_RECEIVED", 0),
        ("OFFER_SENT", 1),
        ("OFFER_DELIVERED", 1),
        ("OFFER_ACKED", 1),
        ("OFFER_DECLINED", 1),
        ("CANDIDATES_EXHAUSTED", 0),
        ("REDISPATCHED", 0),
        ("OFFER_SENT", 2),
        ("OFFER_DELIVERED", 2),
        ("OFFER_ACKED", 2),
        ("OFFER_ACCEPTED", 2),
        ("TRIP_CREATED", 2),
        ("TRIP_PICKED_UP", 2),
        ("TRIP_ENDED", 2),
    ];
    let step = |(seq, (event, attempt)): (u64, (&str, u32))| AuditEvent {
        seq,
        at_ms: 1000 * seq,
        event: event.into(),
        attempt: (attempt > 0).then_some(attempt),
        driver_id: (attempt > 0).then(|| if attempt == 1 { "a".into() } else { "b".into() }),
        detail: match event {
            "TRIP_CREATED" | "TRIP_PICKED_UP" => Some(json!({"trip_id": "t"})),
            "TRIP_ENDED" => Some(json!({"trip_id": "t", "outcome": "completed"})),
            _ => None,
        },
        ..AuditEvent::default()
    };
    (1..).zip(rows).map(step).collect()
}

/// Everything that the auditor gets, still easy to spoil.
pub struct Run {
    pub seen: Vec<Seen>,
    pub before: Vec<AuditEvent>,
    pub steps: Vec<AuditEvent>,
    pub steps_again: Vec<AuditEvent>,
    pub view: RequestView,
    pub audit_state: String,
    pub stream: Vec<EventLine>,
    pub round: ClassRound,
    /// A second request's end, if any.
    pub other: Option<(Id, FinalView)>,
    /// What several nodes are allowed.
    pub fleet: Option<Allowance>,
}

pub fn good() -> Run {
    let id = |name: &str| Id::from(name);
    Run {
        seen: seen(),
        before: steps()[..12].to_vec(),
        steps: steps(),
        steps_again: steps(),
        view: RequestView {
            state: "ACCEPTED".into(),
            attempt: 2,
            driver_id: Some("b".into()),
            excluded: vec!["a".into()],
            trip_id: Some("t".into()),
        },
        audit_state: "ACCEPTED".into(),
        stream: vec![
            line(1, "REDISPATCH_REQUESTED"),
            line(2, "TRIP_CREATED"),
            line(3, "TRIP_PICKED_UP"),
            line(4, "TRIP_ENDED"),
        ],
        round: ClassRound {
            driver: id("c"),
            waited: vec![(2, id("e")), (0, id("p1")), (1, id("s")), (0, id("p2"))],
            served: vec![id("p1"), id("p2"), id("s"), id("e")],
        },
        other: None,
        fleet: None,
    }
}

impl Run {
    pub fn verdicts(self) -> [Verdict; 7] {
        let observation = |(place, seen): (usize, Seen)| Observation {
            at: Duration::from_millis(place as u64),
            seen,
        };
        let audit = |events: Vec<AuditEvent>| AuditView {
            state: self.audit_state.clone(),
            events,
        };
        let last = FinalView {
            audit: Some(audit(self.steps)),
            audit_again: Some(audit(self.steps_again)),
            view: Some(self.view),
        };
        let evidence = Evidence {
            observations: self.seen.into_iter().enumerate().map(observation).collect(),
            started_unix: Duration::ZERO,
            before_kill: vec![("r".into(), audit(self.before))],
            finals: [(Id::from("r"), last)].into_iter().chain(self.other).collect(),
            events_again: self.stream,
            class_rounds: vec![self.round],
            fleet: self.fleet,
        };
        judge(&evidence)
    }

    /// Puts something into the log where `before` stands first.
    pub fn insert_before(&mut self, before: &Seen, what: Seen) {
        let place = self.seen.iter().position(|seen| seen == before).expect("it is there");
        self.seen.insert(place, what);
    }

    /// Takes these steps out of the final audit, closing the gaps.
    pub fn forget(&mut self, is_gone: impl Fn(&AuditEvent) -> bool) {
        self.steps.retain(|step| !is_gone(step));
        for (place, step) in self.steps.iter_mut().enumerate() {
            step.seq = place as u64 + 1;
        }
        self.steps_again = self.steps.clone();
    }
}
