//! A story that the witness is told, a step at a time: four drivers and one request, and what they saw.

use dispatchd_sim::checks::Check;
use dispatchd_sim::client::NodeEvent;
use dispatchd_sim::codec::http::Answer;
use dispatchd_sim::codec::messages::{Heard, Say};
use dispatchd_sim::ids::{Offer, Style};
use dispatchd_sim::witness::{Ask, Expect, Next, Wish, Witness};
use dispatchd_sim::words::{Class, DriverState};
use std::fmt::Write as _;

pub const WALL_MS: u64 = 1_000_000;
/// `expires_at_ms` of the offers here.
pub const EXPIRES_MS: u64 = WALL_MS + 9_000;
/// `ttl_ms` of an offer for which [`Story::hear`] puts what is left when it is heard.
pub const LEFT_MS: u64 = 9_000;

pub struct Story {
    pub witness: Witness,
    pub now_us: u64,
    /// `busy_wait_ms` of its requests.
    pub busy_wait_ms: u64,
}

impl Story {
    /// What the witness of a story is told before.
    pub fn expect() -> Expect {
        Expect {
            nodes: 1,
            whole_after_us: None,
            style: Style::ALL[0],
            drivers: 4,
            may_refuse: false,
            may_fail: false,
            may_drain: false,
            drain_ms: 2_000,
            shards: 2,
            order_margin_ms: 10,
            rings_have_room: true,
            inside_margin_ms: 10,
            age_step_ms: 1_000,
            heartbeat_ms: 1_000,
            off_shift_memory_ms: 43_200_000,
            output_stall_ms: 10_000,
            driver_ttl_ms: 3_000,
            offer_timeout_ms: 8_000,
            deadline_ms: 120_000,
            may_shed: false,
            may_be_short: false,
            may_reset: true,
            may_lose_letters: false,
            trace: true,
        }
    }

    /// Four drivers, each with a socket 0, and one request that was posted with all of them as candidates.
    pub fn new() -> Self {
        Self::of(Self::expect())
    }

    /// The same on a node that is not as the others.
    pub fn of(expect: Expect) -> Self {
        Self::begun(expect, 20_000, 0b1111)
    }

    /// The same with one candidate, for whom the request waits 400 ms; its audits are [`brief`].
    pub fn brief() -> Self {
        Self::begun(Self::expect(), 400, 0b1)
    }

    fn begun(expect: Expect, busy_wait_ms: u64, candidates: u64) -> Self {
        let mut story = Self {
            witness: Witness::new(expect),
            now_us: 0,
            busy_wait_ms,
        };
        let started = NodeEvent::Started {
            incarnation: 1,
            wall_offset_us: WALL_MS * 1_000,
        };
        story.go().node_event(0, started);
        for driver in 0..4 {
            story.connect(driver, 0, u64::from(driver) + 1, DriverState::Available, None);
        }
        let call = story.post(Class::Standard, candidates);
        assert_eq!(story.answer(call, 202, &taken(0)), Next::Done);
        story
    }

    pub fn go(&mut self) -> &mut Witness {
        self.now_us += 1_000;
        self.witness.at(self.now_us)
    }

    pub fn connect(&mut self, driver: u32, conn: u32, session: u64, state: DriverState, trip: Option<u32>) {
        self.go().socket_opened(driver, conn);
        self.welcome(driver, conn, session, state, trip);
    }

    /// A socket that was opened is welcomed.
    pub fn welcome(&mut self, driver: u32, conn: u32, session: u64, state: DriverState, trip: Option<u32>) {
        let welcome = Heard::Welcome {
            driver,
            session,
            state,
            trip,
            heartbeat_ms: 1_000,
            server_ms: self.next_ms(),
        };
        self.go().heard(driver, conn, welcome);
    }

    pub fn post(&mut self, class: Class, candidates: u64) -> u32 {
        let wish = Wish {
            class,
            offer_timeout_ms: Some(8_995),
            deadline_ms: Some(60_000),
            max_attempts: None,
            parallel: None,
            busy_wait_ms: Some(self.busy_wait_ms),
        };
        let request = self.go().new_request(0, wish);
        let best_first: Vec<u32> = (0..64).filter(|driver| candidates & (1 << driver) != 0).collect();
        self.go().posted("caller", request, wish, &best_first)
    }

    /// The node is killed and started again.
    pub fn restart(&mut self) {
        self.go().node_event(0, NodeEvent::Killed);
        let started = NodeEvent::Started {
            incarnation: 2,
            wall_offset_us: WALL_MS * 1_000,
        };
        self.go().node_event(0, started);
    }

    pub fn ask(&mut self, ask: Ask) -> u32 {
        self.go().called("caller", ask, 0b1111)
    }

    pub fn answer(&mut self, call: u32, status: u16, body: &str) -> Next {
        let answer = Answer {
            status,
            close: false,
            retry_after: true,
            body,
        };
        self.go().answered(call, &answer)
    }

    pub fn asked(&mut self, ask: Ask, status: u16, body: &str) -> Next {
        let call = self.ask(ask);
        self.answer(call, status, body)
    }

    pub fn hear(&mut self, driver: u32, heard: Heard) {
        self.hear_on(driver, 0, heard);
    }

    pub fn hear_on(&mut self, driver: u32, conn: u32, mut heard: Heard) {
        if let Heard::Offer {
            expires_at_ms, ttl_ms, ..
        } = &mut heard
            && *ttl_ms == LEFT_MS
        {
            *ttl_ms = expires_at_ms.saturating_sub(self.next_ms());
        }
        self.go().heard(driver, conn, heard);
    }

    /// The node's time at the next step, Unix milliseconds.
    fn next_ms(&self) -> u64 {
        WALL_MS + self.now_us / 1_000 + 1
    }

    pub fn say(&mut self, driver: u32, say: Say) {
        self.go().said(driver, 0, say);
    }

    /// The driver is shown, accepts and gets a request's attempt.
    pub fn win(&mut self, driver: u32, offer: Offer, trip: &str) -> u32 {
        let trip = self.witness.ids.read_trip(trip);
        self.hear(driver, shown(offer));
        self.say(driver, Say::Accept(offer));
        self.hear(driver, Heard::Confirmed { offer, trip });
        trip
    }

    /// The auditor reads this audit of request 0, its records, and nothing else; faults are over.
    pub fn last(&mut self, audit: &str, records: &str, events: &str) {
        self.go().node_event(0, NodeEvent::FaultsOver);
        self.asked(Ask::Audit(0), 200, audit);
        self.asked(
            Ask::Records(0),
            200,
            &format!("{{\"driver_id\":\"d0\",\"records\":[{records}]}}"),
        );
        let read = Ask::Events {
            node: 0,
            after: Some(0),
            consumer: None,
            wait_ms: 0,
            limit: 500,
        };
        self.asked(read, 200, events);
        self.go().audit_done();
    }

    #[track_caller]
    pub fn finds(&self, check: Check) {
        let found = self.witness.violation().expect("nothing was found");
        assert_eq!(found.check, check, "{}", found.text);
    }

    #[track_caller]
    pub fn is_good(&self) {
        assert_eq!(self.witness.violation(), None);
    }
}

/// Good, or what this check finds.
#[track_caller]
pub fn judge(story: &Story, is_good: bool, check: Check) {
    if is_good {
        story.is_good();
    } else {
        story.finds(check);
    }
}

pub const R0: Offer = Offer { request: 0, attempt: 1 };

pub fn shown(offer: Offer) -> Heard {
    Heard::Offer {
        offer,
        class: Class::Standard,
        expires_at_ms: EXPIRES_MS,
        ttl_ms: LEFT_MS,
        trip_intact: true,
    }
}

pub fn taken(request: u32) -> String {
    format!(
        "{{\"request_id\":\"r{request}\",\"state\":\"OFFER_SENT\",\"attempt\":1,\"driver_id\":\"d0\",\"duplicate\":false}}"
    )
}

/// The same audit of a request with one candidate, for whom it waits 400 ms.
pub fn brief(audit: &str) -> String {
    audit
        .replace(",\"d1\",\"d2\",\"d3\"]", "]")
        .replace("\"busy_wait_ms\":20000", "\"busy_wait_ms\":400")
}

/// An audit of request 0 with these events after the first.
pub fn audit(state: &str, events: &[(&str, u64, &str)]) -> String {
    audit_of(0, 1_000_005, "\"d0\",\"d1\",\"d2\",\"d3\"", state, events)
}

pub fn audit_of(request: u32, at_ms: u64, candidates: &str, state: &str, events: &[(&str, u64, &str)]) -> String {
    let mut text = format!(
        "{{\"request_id\":\"r{request}\",\"state\":\"{state}\",\"events\":[{{\"seq\":1,\"at_ms\":{at_ms},\"event\":\"REQUEST_RECEIVED\",\"node\":\"gw-0\",\
         \"detail\":{{\"priority\":\"standard\",\"deadline_at_ms\":{},\"candidates\":[{candidates}],\"offer_timeout_ms\":8995,\"parallel\":1,\"busy_wait_ms\":20000}}}}",
        at_ms + 60_000
    );
    for (index, (name, at_ms, rest)) in events.iter().enumerate() {
        let _ = write!(
            text,
            ",{{\"seq\":{},\"at_ms\":{at_ms},\"event\":\"{name}\",\"node\":\"gw-0\"{rest}}}",
            index + 2
        );
    }
    text + "]}"
}

pub const SENT: (&str, u64, &str) = (
    "OFFER_SENT",
    1_000_005,
    ",\"attempt\":1,\"driver_id\":\"d0\",\"channel\":\"websocket\",\"detail\":{\"expires_at_ms\":1009000}",
);
pub const DELIVERED: (&str, u64, &str) = ("OFFER_DELIVERED", 1_000_020, ",\"attempt\":1,\"driver_id\":\"d0\"");
pub const TIMED_OUT: (&str, u64, &str) = ("OFFER_TIMED_OUT", 1_009_000, ",\"attempt\":1,\"driver_id\":\"d0\"");
pub const CANCELLED: (&str, u64, &str) = ("REQUEST_CANCELLED", 1_009_001, "");
pub const RECORD: &str = "{\"request_id\":\"r0\",\"trip_id\":null,\"attempt\":1,\"offer_sent_at_ms\":1000005,\"response_type\":\"TIMEOUT\",\"response_at_ms\":1009000,\"gateway_node_id\":\"gw-0\"}";
pub const EVENT: &str = "{\"cursor\":1,\"type\":\"REQUEST_CANCELLED\",\"request_id\":\"r0\",\"at_ms\":1009001}\n";
