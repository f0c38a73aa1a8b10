//! Every check of the witness notices what it is there for, and nothing in a good story.

use dispatchd_sim::checks::Check;
use dispatchd_sim::client::NodeEvent;
use dispatchd_sim::codec::http::Answer;
use dispatchd_sim::codec::messages::{Heard, Say};
use dispatchd_sim::ids::{Offer, Style};
use dispatchd_sim::trips;
use dispatchd_sim::witness::{Ask, Expect, Next, Wish, Witness};
use dispatchd_sim::words::{Class, DriverState, ErrorCode, Move, Revoke};
use std::fmt::Write as _;

const WALL_MS: u64 = 1_000_000;
/// `expires_at_ms` of the offers here.
const EXPIRES_MS: u64 = WALL_MS + 9_000;

struct Story {
    witness: Witness,
    now_us: u64,
}

impl Story {
    /// Four drivers, each with a socket 0, and one request that was posted with all of them as candidates.
    fn new() -> Self {
        let witness = Witness::new(Expect {
            style: Style::ALL[0],
            drivers: 4,
            may_refuse: false,
            may_fail: false,
            may_drain: false,
            shards: 2,
            order_margin_ms: 10,
            age_step_ms: 1_000,
            trace: true,
        });
        let mut story = Self { witness, now_us: 0 };
        let started = NodeEvent::Started {
            incarnation: 1,
            wall_offset_us: WALL_MS * 1_000,
        };
        story.go().node_event(started);
        for driver in 0..4 {
            story.connect(driver, 0, u64::from(driver) + 1, DriverState::Available, None);
        }
        let call = story.post(Class::Standard, 0b1111);
        assert_eq!(story.answer(call, 202, &taken(0)), Next::Done);
        story
    }

    fn go(&mut self) -> &mut Witness {
        self.now_us += 1_000;
        self.witness.at(self.now_us)
    }

    fn connect(&mut self, driver: u32, conn: u32, session: u64, state: DriverState, trip: Option<u32>) {
        self.go().socket_opened(driver, conn);
        let welcome = Heard::Welcome {
            driver,
            session,
            state,
            trip,
            server_ms: WALL_MS,
        };
        self.go().heard(driver, conn, welcome);
    }

    fn post(&mut self, class: Class, candidates: u64) -> u32 {
        let wish = Wish {
            class,
            offer_timeout_ms: Some(9_000),
            deadline_ms: Some(60_000),
            max_attempts: None,
            parallel: None,
            busy_wait_ms: Some(5_000),
        };
        let request = self.go().new_request(0, wish);
        self.go().called("caller", Ask::Offer(request), candidates)
    }

    fn ask(&mut self, ask: Ask) -> u32 {
        self.go().called("caller", ask, 0b1111)
    }

    fn answer(&mut self, call: u32, status: u16, body: &str) -> Next {
        let answer = Answer {
            status,
            close: false,
            retry_after: true,
            body,
        };
        self.go().answered(call, &answer)
    }

    fn asked(&mut self, ask: Ask, status: u16, body: &str) -> Next {
        let call = self.ask(ask);
        self.answer(call, status, body)
    }

    fn hear(&mut self, driver: u32, heard: Heard) {
        self.go().heard(driver, 0, heard);
    }

    fn say(&mut self, driver: u32, say: Say) {
        self.go().said(driver, 0, say);
    }

    /// The driver is shown, accepts and gets a request's attempt.
    fn win(&mut self, driver: u32, offer: Offer, trip: &str) -> u32 {
        let trip = self.witness.ids.read_trip(trip);
        self.hear(driver, shown(offer));
        self.say(driver, Say::Accept(offer));
        self.hear(driver, Heard::Confirmed { offer, trip });
        trip
    }

    /// The auditor reads this audit of request 0, its records, and nothing else; faults are over.
    fn last(&mut self, audit: &str, records: &str, events: &str) {
        self.go().node_event(NodeEvent::FaultsOver);
        self.asked(Ask::Audit(0), 200, audit);
        self.asked(
            Ask::Records(0),
            200,
            &format!("{{\"driver_id\":\"d0\",\"records\":[{records}]}}"),
        );
        let read = Ask::Events {
            after: Some(0),
            consumer: None,
        };
        self.asked(read, 200, events);
        self.go().audit_done();
    }

    #[track_caller]
    fn finds(&self, check: Check) {
        let found = self.witness.violation().expect("nothing was found");
        assert_eq!(found.check, check, "{}", found.text);
    }

    #[track_caller]
    fn is_good(&self) {
        assert_eq!(self.witness.violation(), None);
    }
}

const R0: Offer = Offer { request: 0, attempt: 1 };

fn shown(offer: Offer) -> Heard {
    Heard::Offer {
        offer,
        class: Class::Standard,
        expires_at_ms: EXPIRES_MS,
        ttl_ms: 9_000,
        trip_intact: true,
    }
}

fn taken(request: u32) -> String {
    format!(
        "{{\"request_id\":\"r{request}\",\"state\":\"OFFER_SENT\",\"attempt\":1,\"driver_id\":\"d0\",\"duplicate\":false}}"
    )
}

/// An audit of request 0 with these events after the first.
fn audit(state: &str, events: &[(&str, u64, &str)]) -> String {
    audit_of(0, 1_000_005, "\"d0\",\"d1\",\"d2\",\"d3\"", state, events)
}

fn audit_of(request: u32, at_ms: u64, candidates: &str, state: &str, events: &[(&str, u64, &str)]) -> String {
    let mut text = format!(
        "{{\"request_id\":\"r{request}\",\"state\":\"{state}\",\"events\":[{{\"seq\":1,\"at_ms\":{at_ms},\"event\":\"REQUEST_RECEIVED\",\"node\":\"n\",\
         \"detail\":{{\"priority\":\"standard\",\"deadline_at_ms\":1060000,\"candidates\":[{candidates}],\"offer_timeout_ms\":8995,\"parallel\":1,\"busy_wait_ms\":5000}}}}"
    );
    for (index, (name, at_ms, rest)) in events.iter().enumerate() {
        let _ = write!(
            text,
            ",{{\"seq\":{},\"at_ms\":{at_ms},\"event\":\"{name}\",\"node\":\"n\"{rest}}}",
            index + 2
        );
    }
    text + "]}"
}

const SENT: (&str, u64, &str) = (
    "OFFER_SENT",
    1_000_005,
    ",\"attempt\":1,\"driver_id\":\"d0\",\"channel\":\"websocket\",\"detail\":{\"expires_at_ms\":1009000}",
);
const TIMED_OUT: (&str, u64, &str) = ("OFFER_TIMED_OUT", 1_009_000, ",\"attempt\":1,\"driver_id\":\"d0\"");
const CANCELLED: (&str, u64, &str) = ("REQUEST_CANCELLED", 1_009_001, "");
const RECORD: &str = "{\"request_id\":\"r0\",\"trip_id\":null,\"attempt\":1,\"offer_sent_at_ms\":1000005,\"response_type\":\"TIMEOUT\",\"response_at_ms\":1009000}";
const EVENT: &str = "{\"cursor\":1,\"type\":\"REQUEST_CANCELLED\",\"request_id\":\"r0\",\"at_ms\":1009001}\n";

#[test]
fn a_good_story() {
    let mut story = Story::new();
    story.hear(0, shown(R0));
    story.asked(Ask::Cancel(0), 200, "{\"request_id\":\"r0\",\"state\":\"CANCELLED\"}");
    story.last(&audit("CANCELLED", &[SENT, TIMED_OUT, CANCELLED]), RECORD, EVENT);
    story.is_good();
}

#[test]
fn two_winners() {
    let mut story = Story::new();
    story.win(0, R0, "t-1");
    story.is_good();
    story.win(1, Offer { request: 0, attempt: 2 }, "t-2");
    story.finds(Check::OneWinner);
}

#[test]
fn two_offers_and_an_offer_beside_a_trip() {
    let mut story = Story::new();
    story.post(Class::Standard, 0b1111);
    story.hear(0, shown(R0));
    story.hear(0, shown(Offer { request: 1, attempt: 1 }));
    story.finds(Check::OneOffer);

    let mut story = Story::new();
    story.post(Class::Standard, 0b1111);
    story.win(0, R0, "t-1");
    story.hear(0, shown(Offer { request: 1, attempt: 1 }));
    story.finds(Check::OneTrip);
}

#[test]
fn two_trips() {
    let mut story = Story::new();
    story.post(Class::Standard, 0b1111);
    story.win(0, R0, "t-1");
    let answer = "{\"request_id\":\"r1\",\"outcome\":\"CONFIRMED\",\"trip_id\":\"t-2\"}";
    let ask = Ask::Response {
        request: 1,
        driver: 0,
        attempt: Some(1),
        accept: true,
    };
    story.asked(ask, 200, answer);
    story.finds(Check::OneTrip);
}

#[test]
fn answers_that_are_taken_back() {
    let missing = "{\"code\":\"no_such_request\"}";
    let mut story = Story::new();
    story.asked(Ask::Audit(0), 404, missing);
    story.finds(Check::AnswerKept);

    // The same before anything was answered is no violation.
    let mut story = Story::new();
    story.post(Class::Standard, 1);
    story.asked(Ask::Audit(1), 404, missing);
    story.is_good();
}

#[test]
fn a_confirmation_that_is_lost() {
    let mut story = Story::new();
    let trip = story.win(0, R0, "t-1");
    story.connect(0, 1, 50, DriverState::EnRoute, Some(trip));
    story.is_good();
    story.connect(0, 2, 51, DriverState::Available, None);
    story.finds(Check::ConfirmedKept);
}

#[test]
fn events_that_change_or_are_skipped() {
    let read = Ask::Events {
        after: Some(0),
        consumer: None,
    };
    let mut story = Story::new();
    story.asked(Ask::Cancel(0), 200, "{\"request_id\":\"r0\",\"state\":\"CANCELLED\"}");
    story.asked(read, 200, EVENT);
    story.is_good();
    story.asked(read, 200, &EVENT.replace("1009001", "1009002"));
    story.finds(Check::EventKept);

    let mut story = Story::new();
    story.asked(read, 200, &EVENT.replace("\"cursor\":1", "\"cursor\":2"));
    story.finds(Check::EventsInOrder);
}

#[test]
fn a_request_without_an_end() {
    let mut story = Story::new();
    story.last(&audit("OFFER_SENT", &[SENT]), RECORD, "");
    story.finds(Check::EndsInTime);
}

#[test]
fn an_offer_that_ends_late_or_moves() {
    let mut story = Story::new();
    let late = ("OFFER_TIMED_OUT", 1_030_000, TIMED_OUT.2);
    story.asked(Ask::Cancel(0), 200, "{\"request_id\":\"r0\",\"state\":\"CANCELLED\"}");
    let end = ("REQUEST_CANCELLED", 1_030_000, "");
    story.last(&audit("CANCELLED", &[SENT, late, end]), RECORD, EVENT);
    story.finds(Check::OfferInTime);

    let mut story = Story::new();
    story.hear(0, shown(R0));
    story.connect(0, 1, 50, DriverState::Offered, None);
    let moved = Heard::Offer {
        offer: R0,
        class: Class::Standard,
        expires_at_ms: EXPIRES_MS + 1,
        ttl_ms: 9_000,
        trip_intact: true,
    };
    story.go().heard(0, 1, moved);
    story.finds(Check::OfferInTime);
}

#[test]
fn two_outcomes() {
    let mut story = Story::new();
    story.hear(0, shown(R0));
    story.say(0, Say::Decline(R0));
    story.hear(0, Heard::Declined { offer: R0 });
    story.is_good();
    let answer = "{\"request_id\":\"r0\",\"outcome\":\"CONFIRMED\",\"trip_id\":\"t-2\"}";
    let ask = Ask::Response {
        request: 0,
        driver: 0,
        attempt: Some(1),
        accept: true,
    };
    story.asked(ask, 200, answer);
    story.finds(Check::OneOutcome);
}

#[test]
fn outcomes_without_a_cause() {
    let mut story = Story::new();
    let trip = story.witness.ids.read_trip("t-1");
    story.hear(0, shown(R0));
    story.hear(0, Heard::Confirmed { offer: R0, trip });
    story.finds(Check::Caused);

    let mut story = Story::new();
    story.hear(0, shown(R0));
    let (offer, reason) = (R0, Revoke::Timeout);
    story.hear(0, Heard::Revoked { offer, reason });
    story.finds(Check::Caused);

    let mut story = Story::new();
    let trip = story.win(0, R0, "t-1");
    story.say(0, Say::Trip(trip, Move::Arrived));
    let state = DriverState::Available;
    story.hear(0, Heard::State { state, trip: None });
    story.finds(Check::Caused);
}

#[test]
fn economy_before_premium() {
    let mut story = Story::new();
    for class in [Class::Premium, Class::Economy] {
        let call = story.post(class, 1);
        let request = call;
        story.answer(call, 202, &taken(request));
    }
    story.asked(Ask::Cancel(0), 200, "{\"request_id\":\"r0\",\"state\":\"CANCELLED\"}");
    let waits = |request: u32, sent_ms: u64, end_ms: u64| {
        let sent = format!(
            ",\"attempt\":1,\"driver_id\":\"d0\",\"detail\":{{\"expires_at_ms\":{}}}",
            sent_ms + 8_995
        );
        let end = ",\"attempt\":1,\"driver_id\":\"d0\"";
        audit_of(
            request,
            1_000_100,
            "\"d0\"",
            "CANCELLED",
            &[
                ("OFFER_SENT", sent_ms, sent.as_str()),
                ("OFFER_TIMED_OUT", end_ms, end),
                ("REQUEST_CANCELLED", end_ms, ""),
            ],
        )
    };
    for request in [1, 2] {
        let body = format!("{{\"request_id\":\"r{request}\",\"state\":\"CANCELLED\"}}");
        story.asked(Ask::Cancel(request), 200, &body);
    }
    story.asked(Ask::Audit(1), 200, &waits(1, 1_020_000, 1_028_995));
    story.asked(Ask::Audit(2), 200, &waits(2, 1_010_000, 1_018_995));
    let rows = [(2, 1_010_000, 1_018_995), (1, 1_020_000, 1_028_995)].map(|(request, sent, end)| {
        RECORD
            .replace("r0", &format!("r{request}"))
            .replace("1000005", &format!("{sent}"))
            .replace("1009000", &format!("{end}"))
    });
    let [second, first] = rows;
    let events = format!(
        "{EVENT}{}{}",
        EVENT
            .replace("r0", "r2")
            .replace("\"cursor\":1", "\"cursor\":2")
            .replace("1009001", "1018995"),
        EVENT
            .replace("r0", "r1")
            .replace("\"cursor\":1", "\"cursor\":3")
            .replace("1009001", "1028995")
    );
    story.last(
        &audit("CANCELLED", &[SENT, TIMED_OUT, CANCELLED]),
        &format!("{first},{second},{RECORD}"),
        &events,
    );
    story.finds(Check::ClassOrder);
}

#[test]
fn audits_that_no_request_can_have() {
    let wrong: [&[(&str, u64, &str)]; 6] = [
        &[TIMED_OUT],
        &[SENT, SENT],
        &[SENT, ("OFFER_TIMED_OUT", 1_008_999, TIMED_OUT.2)],
        &[SENT, TIMED_OUT, TIMED_OUT],
        &[SENT, CANCELLED],
        &[SENT, ("OFFER_ACCEPTED", 1_000_006, TIMED_OUT.2), CANCELLED],
    ];
    for events in wrong {
        let mut story = Story::new();
        story.asked(Ask::Cancel(0), 200, "{\"request_id\":\"r0\",\"state\":\"CANCELLED\"}");
        story.asked(Ask::Audit(0), 200, &audit("CANCELLED", events));
        story.finds(Check::AuditTrue);
    }
}

#[test]
fn audits_that_are_rewritten() {
    let mut story = Story::new();
    story.asked(Ask::Audit(0), 200, &audit("OFFER_SENT", &[SENT]));
    story.is_good();
    story.asked(Ask::Audit(0), 200, &audit("PENDING_MATCH", &[]));
    story.finds(Check::AuditGrows);
}

#[test]
fn audits_that_lack_what_was_seen() {
    let mut story = Story::new();
    story.hear(1, shown(Offer { request: 0, attempt: 2 }));
    story.asked(Ask::Cancel(0), 200, "{\"request_id\":\"r0\",\"state\":\"CANCELLED\"}");
    story.last(&audit("CANCELLED", &[SENT, TIMED_OUT, CANCELLED]), RECORD, EVENT);
    story.finds(Check::AuditComplete);
}

#[test]
fn errors_without_a_reason() {
    for error in [
        (ErrorCode::NoSuchOffer, Some(0)),
        (ErrorCode::NoSuchTrip, None),
        (ErrorCode::Invalid, None),
    ] {
        let mut story = Story::new();
        let (code, request) = error;
        story.hear(0, Heard::Error { code, request });
        story.finds(Check::SameAnswer);
    }
}

#[test]
fn nobody_answers() {
    let mut story = Story::new();
    story.go().node_event(NodeEvent::FaultsOver);
    story.hear(0, shown(R0));
    story.say(0, Say::Decline(R0));
    story.asked(Ask::Cancel(0), 200, "{\"request_id\":\"r0\",\"state\":\"CANCELLED\"}");
    story.now_us += 60_000_000;
    story.last(&audit("CANCELLED", &[SENT, TIMED_OUT, CANCELLED]), RECORD, EVENT);
    story.finds(Check::Answered);
}

#[test]
fn repeats_that_dispatch() {
    let mut story = Story::new();
    story.asked(Ask::Offer(0), 202, &taken(0));
    story.asked(Ask::Cancel(0), 200, "{\"request_id\":\"r0\",\"state\":\"CANCELLED\"}");
    story.last(&audit("CANCELLED", &[SENT, TIMED_OUT, CANCELLED]), RECORD, EVENT);
    story.finds(Check::OneDispatch);

    let mut story = Story::new();
    let call = story.post(Class::Standard, 1);
    let duplicate = taken(1).replace("false", "true");
    story.answer(call, 200, &duplicate);
    story.finds(Check::OneDispatch);
}

#[test]
fn a_session_that_falls() {
    let mut story = Story::new();
    story.connect(0, 1, 50, DriverState::Available, None);
    story.is_good();
    story.connect(0, 2, 49, DriverState::Available, None);
    story.finds(Check::SessionGrows);
}

#[test]
fn records_and_events_that_are_missing() {
    for (records, events, check) in [("", EVENT, Check::RecordsMatch), (RECORD, "", Check::EventsInOrder)] {
        let mut story = Story::new();
        story.asked(Ask::Cancel(0), 200, "{\"request_id\":\"r0\",\"state\":\"CANCELLED\"}");
        story.last(&audit("CANCELLED", &[SENT, TIMED_OUT, CANCELLED]), records, events);
        story.finds(check);
    }
}

#[test]
fn a_view_that_differs() {
    let mut story = Story::new();
    story.asked(Ask::Cancel(0), 200, "{\"request_id\":\"r0\",\"state\":\"CANCELLED\"}");
    let view = "{\"request_id\":\"r0\",\"state\":\"CANCELLED\",\"attempt\":1,\"driver_id\":null,\"excluded\":[],\"priority\":\"standard\",\"deadline_at_ms\":1060000}";
    story.asked(Ask::View(0), 200, view);
    story.last(&audit("CANCELLED", &[SENT, TIMED_OUT, CANCELLED]), RECORD, EVENT);
    story.finds(Check::ViewsMatch);
}

#[test]
fn messages_and_bodies_that_are_wrong() {
    let mut story = Story::new();
    story.go().socket_opened(0, 1);
    story.go().heard(0, 1, shown(R0));
    story.finds(Check::Protocol);

    let mut story = Story::new();
    let (offer, trip_intact) = (R0, trips::is_of(0, "{}"));
    story.hear(
        0,
        Heard::Offer {
            offer,
            class: Class::Standard,
            expires_at_ms: EXPIRES_MS,
            ttl_ms: 9_000,
            trip_intact,
        },
    );
    story.finds(Check::Protocol);

    let mut story = Story::new();
    story.asked(Ask::View(0), 500, "{\"code\":\"teapot\"}");
    story.finds(Check::Protocol);
}

#[test]
fn a_node_that_does_not_start() {
    let mut story = Story::new();
    story.go().node_event(NodeEvent::RefusedToStart("damage"));
    story.finds(Check::NodeLives);
}
