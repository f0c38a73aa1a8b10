//! The clients: drivers, callers (matching engines), consumers of events, and the auditor that reads everything at the
//! end. Each is an [`crate::client::Actor`] with its own stream of random numbers; all of them tell the witness what they
//! send and get. What passes between them beside the node goes over the witness's board.

mod auditor;
mod bodies;
mod caller;
mod consumer;
mod driver;
mod http;
mod todo;

pub use auditor::Auditor;
pub use caller::Caller;
pub use consumer::Consumer;
pub use driver::Driver;

/// When clients do what; simulated microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Hours {
    /// No new requests and no new mischief from here on.
    pub close_us: u64,
    /// Callers repeat nothing any more.
    pub give_up_us: u64,
    /// Drivers do nothing but beat from here on, so that the auditor reads what stays.
    pub rest_us: u64,
    /// The auditor begins to read.
    pub audit_us: u64,
}

/// How drivers behave, in parts of a thousand each; drawn by the seed.
#[derive(Clone, Copy, Debug)]
pub struct Temper {
    /// An offer is accepted.
    pub accept: u32,
    /// An offer is declined; what is left of a thousand is not answered.
    pub decline: u32,
    /// An offer is answered over HTTP.
    pub by_http: u32,
    /// The driver vanishes when it gets an offer.
    pub vanish: u32,
    /// An answer is said twice, or followed by its opposite.
    pub double: u32,
    /// Something is said of an old or foreign offer or trip, in each round of mischief.
    pub stray: u32,
    /// The driver goes off shift, in each round of mischief.
    pub off_shift: u32,
    /// The driver connects a second time, in each round of mischief.
    pub displace: u32,
    /// The driver stops reading for a while, in each round of mischief.
    pub stall: u32,
    /// The driver drops its connection, in each round of mischief.
    pub drop: u32,
    /// Garbage, in each round of mischief.
    pub garbage: u32,
    /// The driver says nothing for some heartbeats, in each round of mischief.
    pub silent: u32,
    /// The driver breaks the protocol of WebSocket, in each round of mischief.
    pub violate: u32,
    /// The driver asks for more than its connection holds and reads nothing, in each round of mischief.
    pub clog: u32,
    /// For so long, ms.
    pub clog_ms: u64,
    /// The driver says that it has an offer, more often than it may, once, in each round of mischief.
    pub babble: u32,
    /// A trip is given up instead of completed.
    pub give_up: u32,
    /// Longest thinking about an offer, ms.
    pub think_ms: u64,
    /// Longest part of a trip, ms.
    pub trip_ms: u64,
    /// Time between rounds of mischief, ms, at most.
    pub mischief_ms: u64,
    /// Time until the first connect, ms, at most.
    pub first_ms: u64,
    /// Time until a reconnect, ms, at most.
    pub reconnect_ms: u64,
    /// How often it says that it lives, ms.
    pub heartbeat_ms: u64,
}

/// How callers behave; drawn by the seed.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    /// Requests of each caller.
    pub requests: u32,
    /// Longest pause between what a caller does, ms.
    pub pause_ms: u64,
    /// Most requests at once.
    pub burst: u64,
    /// Connections of each caller.
    pub connections: u64,
    /// Of a thousand requests: posted again at once by another connection.
    pub twins: u32,
    /// Of a thousand deeds: a repeat of an earlier request.
    pub repeats: u32,
    /// Of a thousand deeds: a cancel.
    pub cancels: u32,
    /// Of a thousand deeds: a trip's cancel.
    pub trip_cancels: u32,
    /// Of a thousand deeds: an answer for a driver, right or wrong.
    pub responses: u32,
    /// Of a thousand deeds: a view or an audit.
    pub views: u32,
    /// Of a thousand deeds: a look at whether the node is alive, and whether it takes work.
    pub probes: u32,
    /// Of a thousand drivers that come for the first time: looked at, and again and again.
    pub greets: u32,
    /// Of a thousand drivers that come for the first time: offered a request of their own at once, for a few seconds.
    pub welcomes: u32,
    /// Of a thousand drivers that the node knows for certain: looked at by a caller whose calls were lost.
    pub resyncs: u32,
    /// Of a thousand answers over HTTP that an offer is accepted: the driver is looked at right after, on any connection.
    pub rereads: u32,
    /// Of a thousand requests: with `busy_wait_ms`.
    pub busy_wait: u32,
    /// Of a thousand requests: with `parallel`.
    pub parallel: u32,
    /// Of a thousand requests: with a single candidate.
    pub single: u32,
    /// Of a thousand deeds: the connection is dropped, or half-closed, after it.
    pub rude: u32,
    /// Candidates of a request, at most.
    pub candidates: u64,
    /// `offer_timeout_ms`, at most.
    pub offer_timeout_ms: u64,
    /// `deadline_ms`, at most.
    pub deadline_ms: u64,
}
