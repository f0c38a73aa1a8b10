//! What can happen, in terms that fit any state of the world: numbers choose among what is there.

/// Requests of the world.
pub const REQUESTS: u8 = 3;
/// Drivers of the world.
pub const DRIVERS: u8 = 4;

/// One thing that happens.
#[derive(Clone, Debug)]
pub enum Act {
    /// A letter is handed over; which channel.
    Deliver(u8),
    /// A record becomes durable; whose.
    Commit(u8),
    /// Letters and commits until nothing moves.
    Settle,
    /// Time passes.
    Pass(u16),
    /// A timer whose time has come fires; which.
    Fire(u8),
    /// `POST /v1/dispatch/offer`, new or again.
    Post(Post),
    /// A driver answers over the API, with the attempt or without.
    Respond {
        request: u8,
        driver: u8,
        attempt: Option<u8>,
        accept: bool,
    },
    /// `POST /v1/dispatch/cancel`
    Cancel(u8),
    /// `POST /v1/trips/{trip_id}/cancel`
    EndTrip(u8),
    /// A driver's socket comes.
    Connect(u8),
    /// A driver's socket goes.
    Disconnect(u8),
    /// All was written to a driver's socket.
    Written(u8),
    /// A heartbeat.
    Heard(u8),
    /// A driver answers the offer that it believes to hold.
    Answer { driver: u8, accept: bool },
    /// A driver sends a receipt for the offer that it believes to hold.
    Ack(u8),
    /// A driver speaks of any attempt at all.
    Guess {
        driver: u8,
        request: u8,
        attempt: u8,
        what: u8,
    },
    /// `STATE`
    Shift { driver: u8, available: bool },
    /// `TRIP`, of any request.
    Trip { driver: u8, request: u8, what: u8 },
    /// Another owner took the request.
    Fence(u8),
    /// `kill -9`: which of the records that were written survive, and in which order requests come back.
    Crash { survivors: u8, order: u8 },
}

/// The body of a `POST`.
#[derive(Clone, Debug)]
pub struct Post {
    pub request: u8,
    /// 4 bits of who, then the rotation.
    pub candidates: u8,
    pub priority: u8,
    pub parallel: u8,
    pub busy_wait_ms: u16,
    pub max_attempts: Option<u8>,
    pub deadline_ms: u16,
}

/// What happens, in order; shown an act per line.
#[derive(Clone)]
pub struct History(pub Vec<Act>);

impl std::fmt::Debug for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|act| write!(f, "\n  {act:?}"))
    }
}
