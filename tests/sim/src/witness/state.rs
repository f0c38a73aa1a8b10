//! What is known of requests, attempts, trips, drivers and sockets. Data, and what follows from it alone.

use super::owed::Owed;
use crate::codec::answers::{DriverView, View};
use crate::codec::audit::Audit;
use crate::ids::{self, Driver as DriverNo, Offer, Trip};
use crate::phrases::{Place, Reason};
use crate::words::{Class, DriverState, Move, State};
use std::collections::BTreeMap;
use std::rc::Rc;

/// How an attempt can have ended, as a set.
pub mod ways {
    /// The driver has the trip.
    pub const ACCEPTED: u8 = 1;
    /// The driver declined.
    pub const DECLINED: u8 = 2;
    /// No answer in time.
    pub const TIMED_OUT: u8 = 4;
    /// The request was cancelled.
    pub const CANCELLED: u8 = 8;
    /// Another driver won.
    pub const TAKEN: u8 = 16;
    /// Taken back for another cause.
    pub const SUPERSEDED: u8 = 32;
    /// The driver could not be offered.
    pub const REFUSED: u8 = 64;
    /// It has not ended.
    pub const OPEN: u8 = 128;
    /// Nothing is known.
    pub const ANY: u8 = 255;
}

/// What an attempt is known to be.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Whose.
    pub driver: Option<DriverNo>,
    /// Its driver's socket had the `OFFER`.
    pub shown: bool,
    /// When that was first so, node time; 0: never.
    pub heard_ms: u64,
    /// By then the node had noted it, on a socket that was well all the time since `heard_ms`; 0: nobody can say.
    pub noted_by_ms: u64,
    /// `expires_at_ms` of the `OFFER`, 0: not seen.
    pub expires_at_ms: u64,
    /// How it can have ended ([`ways`]).
    pub ways: u8,
    /// Drivers that said `ACCEPT` to it.
    pub accept_said: Said,
    /// Drivers that said `DECLINE` to it.
    pub decline_said: Said,
    /// The socket on which its driver first said that it has it, before anybody answered for it.
    pub acked_on: Option<u32>,
    /// It was answered before that, or elsewhere than on that socket.
    pub answered_elsewhere: bool,
    /// The node had read such receipts by these times of it.
    pub acked_by_ms: Vec<u64>,
}

/// Drivers for whom something was said, as sets, by which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// On a socket.
    pub by_socket: u64,
    /// Over HTTP.
    pub by_http: u64,
}

impl Said {
    /// By any way.
    pub const fn any(self) -> u64 {
        self.by_socket | self.by_http
    }
}

impl Default for Attempt {
    fn default() -> Self {
        Self {
            driver: None,
            shown: false,
            heard_ms: 0,
            noted_by_ms: 0,
            expires_at_ms: 0,
            ways: ways::ANY,
            accept_said: Said::default(),
            decline_said: Said::default(),
            acked_on: None,
            answered_elsewhere: false,
            acked_by_ms: Vec::new(),
        }
    }
}

/// Who won a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Winner {
    /// The driver.
    pub driver: DriverNo,
    /// The attempt, where it was said.
    pub attempt: Option<u32>,
    /// The trip, where it was said.
    pub trip: Option<Trip>,
}

/// What a caller asks for, the same in every `POST` of a request but for what a re-`POST` may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the contract's")]
pub struct Wish {
    pub class: Class,
    pub offer_timeout_ms: Option<u64>,
    pub deadline_ms: Option<u64>,
    pub max_attempts: Option<u64>,
    pub parallel: Option<u64>,
    pub busy_wait_ms: Option<u64>,
}

/// What a `POST` asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posted {
    /// Its members.
    pub wish: Wish,
    /// Its candidates, the best one first.
    pub candidates: Vec<DriverNo>,
    /// Nobody knew that the request exists: it may be the one that began it.
    pub may_begin: bool,
}

impl Posted {
    /// Whether drivers are asked, and reserved, before they get an offer.
    pub fn asks_first(&self) -> bool {
        self.wish.busy_wait_ms.is_some_and(|wait_ms| wait_ms > 0)
    }
}

/// What is known of a request.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which caller posts it.
    pub caller: u32,
    /// What its first `POST` asks for.
    pub wish: Wish,
    /// What its `POST`s asked for, each once.
    pub asked: Vec<Posted>,
    /// `POST`s sent.
    pub posts: u32,
    /// `POST`s whose answer says that they took nothing.
    pub posts_refused: u32,
    /// 202 seen.
    pub taken: u32,
    /// When it was first posted.
    pub first_post_us: u64,
    /// The call that did.
    pub first_call: u32,
    /// When it was last posted without being known to exist.
    pub last_first_post_us: u64,
    /// Every candidate ever posted.
    pub posted: u64,
    /// Those of them that were in more than one `POST`.
    pub posted_again: u64,
    /// What drivers, or callers for them, were answered of their attempts without a number: in which of these ways they ended.
    pub told: Vec<(DriverNo, u8)>,
    /// The node has it, for certain.
    pub exists: bool,
    /// Its end, as far as known.
    pub end: Option<State>,
    /// When that became known.
    pub end_known_us: u64,
    /// Who won it.
    pub winner: Option<Winner>,
    /// Its attempts, as far as seen.
    pub attempts: Vec<Attempt>,
    /// The current attempt is at least this.
    pub attempt_min: u32,
    /// `deadline_at_ms` where it was seen.
    pub deadline_at_ms: Option<u64>,
    /// Reasons for which somebody asked for its cancellation, as a set.
    pub cancels_said: u8,
    /// Drivers for whom somebody said `ACCEPT` over HTTP without an attempt.
    pub http_accept_said: u64,
    /// Drivers for whom somebody said `DECLINE` over HTTP without an attempt.
    pub http_decline_said: u64,
    /// The longest audit seen.
    pub audit: Option<Rc<Audit>>,
    /// The auditor's view at the end.
    pub last_view: Option<View>,
    /// Of a fleet: receipts that an audit showed, and whether each is an `ACK`; and of which attempt.
    pub receipts: Vec<(bool, u32)>,
    /// Drivers who were told `no_such_offer` about an offer that they had been shown: it must have been refused.
    pub denied: u64,
}

impl Request {
    /// One that was never posted.
    pub fn new(caller: u32, wish: Wish) -> Self {
        Self {
            caller,
            wish,
            asked: Vec::new(),
            posts: 0,
            posts_refused: 0,
            taken: 0,
            first_post_us: 0,
            first_call: 0,
            last_first_post_us: 0,
            posted: 0,
            posted_again: 0,
            told: Vec::new(),
            exists: false,
            end: None,
            end_known_us: 0,
            winner: None,
            attempts: Vec::new(),
            attempt_min: 0,
            deadline_at_ms: None,
            cancels_said: 0,
            http_accept_said: 0,
            http_decline_said: 0,
            audit: None,
            last_view: None,
            receipts: Vec::new(),
            denied: 0,
        }
    }

    /// The attempt with this number, made known; `None` for numbers that nobody reaches.
    pub fn attempt_mut(&mut self, attempt: u32) -> Option<&mut Attempt> {
        if attempt == 0 || attempt > 512 {
            return None;
        }
        let index = attempt as usize - 1;
        if self.attempts.len() <= index {
            self.attempts.resize_with(index + 1, Attempt::default);
        }
        Some(&mut self.attempts[index])
    }

    /// Whether this driver's socket was shown this attempt.
    pub fn was_shown(&self, attempt: u32, driver: DriverNo) -> bool {
        (attempt as usize)
            .checked_sub(1)
            .and_then(|index| self.attempts.get(index))
            .is_some_and(|attempt| attempt.shown && attempt.driver == Some(driver))
    }
}

/// What is known of a trip.
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "independent facts")]
pub struct TripSeen {
    /// Whose request.
    pub request: Option<ids::Request>,
    /// Whose.
    pub driver: Option<DriverNo>,
    /// When anybody heard first whose it is, simulated microseconds.
    pub told_us: Option<u64>,
    /// Its driver said `pickup`.
    pub pickup_said: bool,
    /// When its driver was told that it is `on_trip`, simulated microseconds.
    pub on_trip_us: Option<u64>,
    /// Its driver said `complete`.
    pub complete_said: bool,
    /// Its driver said `cancel`.
    pub cancel_said: bool,
    /// Reasons for which somebody asked for its cancellation, as a set.
    pub api_cancels_said: u8,
    /// The reason that its driver was told when it was cancelled.
    pub told_reason: Option<Reason>,
    /// It has ended, for certain.
    pub ended: bool,
    /// Since when that is known, simulated microseconds.
    pub ended_us: u64,
    /// Its cancellation was answered 200.
    pub cancelled: bool,
}

impl TripSeen {
    /// Whether anybody said what could end it.
    pub const fn may_have_ended(&self) -> bool {
        self.complete_said || self.cancel_said || self.api_cancels_said != 0
    }
}

/// What is known of a driver.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
pub struct Driver {
    /// Sockets that are not known to be over.
    pub sockets: Vec<Socket>,
    /// The highest session seen.
    pub session_max: u64,
    /// Sockets opened.
    pub opened: u32,
    /// The request whose trip it has, if nobody has said what could end it.
    pub live: Option<ids::Request>,
    /// It said `offline` at some time.
    pub off_said: bool,
    /// It was told that it is off shift, or heard on a trip that it will be, and has not said `available` since.
    pub off_told: bool,
    /// When it was told that, simulated microseconds.
    pub off_told_us: u64,
    /// The session of the socket on which it was told that last.
    pub off_session: u64,
    /// The socket on which it said `offline` on a trip, and nothing of its shift since.
    pub off_on_trip: Option<u32>,
    /// The highest session on whose socket it said `available`; 0: none.
    pub on_session: u64,
    /// It was welcomed, long enough before the node ended that this was stored.
    pub known: bool,
    /// It was shown to somebody.
    pub viewed: bool,
    /// When it was first welcomed since it was last known not to be stored; 0 for never.
    pub welcomed_us: u64,
    /// Offers it spoke of, and whether each had been shown to it whenever it did. An answer may reach a later socket.
    pub spoken: Vec<(Offer, bool)>,
    /// Trips it spoke of.
    pub trips_spoken: Vec<Trip>,
    /// When it was there.
    pub spans: Vec<Span>,
    /// When it said `offline` for the first time since it was last available, and for the last time, node time.
    pub off_said_ms: Option<(u64, u64)>,
    /// When it first said `available` since it was last told so, node time.
    pub on_said_ms: Option<u64>,
    /// All times that it said `offline`, simulated microseconds.
    pub offs_us: Vec<u64>,
    /// The highest session on which it said so since it was last available; `u64::MAX`: on one that was not welcomed.
    pub off_said_on: u64,
    /// When it spoke of a trip last, simulated microseconds.
    pub trip_said_us: Option<u64>,
    /// From when to when it may have been off shift, since it said so, node time.
    pub off_spans: Vec<(u64, u64)>,
    /// The last look at it: when it was asked for, simulated microseconds, and what was shown.
    pub last_look: Option<(u64, DriverView)>,
    /// Where it said that it is: when, simulated microseconds, on which of its sockets, and where.
    pub places: Vec<(u64, u32, Place)>,
    /// `DECLINED`s that it may hear of each offer: as often as it said so, less those heard.
    pub declines: BTreeMap<Offer, u32>,
    /// From when to when each of its sockets was open, simulated microseconds, and which; `u64::MAX`: it is.
    pub stays: Vec<(u32, u64, u64)>,
    /// Words of it that may each be answered with its state, less those that were.
    pub states_owed: u32,
    /// When a socket of it was last over, simulated microseconds.
    pub lost_us: u64,
    /// The same of one that was never welcomed; 0: none.
    pub unheard_us: u64,
    /// It was shown as offline when it had no socket, and had opened so many until then; and when.
    pub shown_gone: Option<(u32, u64)>,
    /// When it was shown as offline: asked and answered, node time.
    pub gone_views: Vec<(u64, u64)>,
}

impl Driver {
    /// Whether it may be off shift: it said so, and nothing ended that for certain.
    pub fn may_be_off(&self) -> bool {
        self.off_spans.last().is_some_and(|span| span.1 == u64::MAX)
    }
}

/// From when to when a driver was there for certain, node time in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// The socket.
    pub conn: u32,
    /// It was welcomed.
    pub from_ms: u64,
    /// It was over, or about to be; `u64::MAX`: it lives.
    pub lost_ms: u64,
    /// The node ended; `u64::MAX`: it has not.
    pub until_ms: u64,
}

/// An answer that a socket waits for.
#[derive(Clone, Copy, Debug)]
pub struct Awaited {
    /// Said about this offer.
    pub offer: Offer,
    /// When.
    pub at_us: u64,
    /// The driver had been shown it.
    pub shown: bool,
}

/// A receipt of an offer.
#[derive(Clone, Copy, Debug)]
pub struct Receipt {
    /// Which offer.
    pub offer: Offer,
    /// Pongs until one answers a ping that was said after it: by then the node has read it.
    pub pongs_left: u32,
}

/// An offer that a socket had, from when on.
#[derive(Clone, Copy, Debug)]
pub struct Delivery {
    /// Which offer.
    pub offer: Offer,
    /// When, simulated microseconds.
    pub at_us: u64,
    /// When, node time.
    pub at_ms: u64,
}

/// What a driver said of its own trip.
#[derive(Clone, Copy, Debug)]
pub struct Moved {
    /// Which trip.
    pub trip: Trip,
    /// What.
    pub event: Move,
    /// When, simulated microseconds.
    pub at_us: u64,
}

/// What is known of a socket.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
pub struct Socket {
    /// The actor's number of it.
    pub conn: u32,
    /// Which of its driver's, counted from 1.
    pub number: u32,
    /// When it was opened, simulated microseconds.
    pub opened_us: u64,
    /// The session must be above this.
    pub session_floor: u64,
    /// The trip that the driver had for certain when the socket was opened.
    pub live_at_open: Option<ids::Request>,
    /// Its session, once welcomed.
    pub session: Option<u64>,
    /// The offer that it holds, and until when (Unix ms).
    pub offer: Option<(Offer, u64)>,
    /// The trip that it heard of.
    pub trip: Option<Trip>,
    /// The state that it heard.
    pub state: Option<DriverState>,
    /// The `STATE` that it must hear next, with this trip, since it was confirmed then, simulated microseconds.
    pub owed_state: Option<(Trip, u64)>,
    /// Its trip was cancelled, which it heard: its state changes by that.
    pub state_follows: bool,
    /// So often it was said on it that its driver goes off shift, or something of a trip, which is answered with the same `STATE`; less
    /// the `STATE`s that said so since.
    pub offs_unanswered: u32,
    /// Since when it waits to hear that its driver, who was off shift, is available; simulated microseconds.
    pub on_said_us: Option<u64>,
    /// Since when it waits to hear that its driver, who was on shift and without a trip, is not any more; simulated microseconds.
    pub off_said_us: Option<u64>,
    /// Answers it waits for.
    pub awaited: Vec<Awaited>,
    /// Receipts said on it, of offers that its driver had been shown, which the node may not have read.
    pub receipts: Vec<Receipt>,
    /// Offers that it had while it was well.
    pub deliveries: Vec<Delivery>,
    /// What was said on it of own trips.
    pub moved: Vec<Moved>,
    /// What was said on it and has not been answered.
    pub owed: Owed,
    /// Ping frames sent that were not answered by a pong frame, and when the last one was sent, simulated microseconds.
    pub ping_frames: (u32, u64),
    /// It was welcomed as `offered`, then, and has not been shown an offer since; simulated microseconds.
    pub owed_offer_us: Option<u64>,
    /// The node's time that it last heard.
    pub server_ms: u64,
    /// The driver does not read at present, or stopped for a while.
    pub stalled: bool,
    /// When it was welcomed, simulated microseconds.
    pub welcomed_us: u64,
    /// When something was said on it, the last times, the newest first; 0: never.
    pub said_us: [u64; 8],
    /// It was there when its node drained, and its node has ended: the close is on its way, if there was one.
    pub awaits_away: bool,
    /// The node or the driver has begun to close it.
    pub closing: bool,
    /// The code that it must be closed with for what the driver sent on it.
    pub earned: Option<u16>,
    /// Since when, simulated microseconds.
    pub earned_us: u64,
    /// So much was said on it at once that its answers may be more than the node lets wait.
    pub babbled: bool,
    /// Since when more waits for it than its connection holds, and it reads nothing, simulated microseconds; 0: never.
    pub clogged_us: u64,
    /// When it read again after a time that no node waits; 0: never.
    pub given_up_us: u64,
}

impl Socket {
    /// An offer's outcome, or another answer about it: the oldest message about it that waits has been answered.
    pub fn heard_about(&mut self, offer: Offer) {
        if let Some(index) = self.awaited.iter().position(|awaited| awaited.offer == offer) {
            self.awaited.remove(index);
        }
    }
}
