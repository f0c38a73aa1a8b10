//! What metrics are told apart by. Every label has few values that are known when the program is built: never an id.

use crate::fsm::types::{DriverState, Priority};

/// The values of one label.
pub trait Label: Copy + 'static {
    /// The label's name.
    const KEY: &'static str;
    /// Every value, in the order of [`Label::index`].
    const ALL: &'static [Self];
    /// Place in [`Label::ALL`].
    fn index(self) -> usize;
    /// The label's value.
    fn name(self) -> &'static str;
}

macro_rules! label {
    ($(#[$doc:meta])* $type:ident, $key:literal { $($(#[$variant_doc:meta])* $variant:ident = $name:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $type {
            $($(#[$variant_doc])* $variant),+
        }

        impl $type {
            /// How many there are.
            pub const COUNT: usize = <Self as Label>::ALL.len();
        }

        impl Label for $type {
            const KEY: &'static str = $key;
            const ALL: &'static [Self] = &[$(Self::$variant),+];
            fn index(self) -> usize {
                self as usize
            }
            fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name),+
                }
            }
        }
    };
}

label!(
    /// What a connection is for.
    ConnectionKind, "kind" {
        /// Speaks HTTP, or has not said yet what it speaks.
        Http = "http",
        /// A driver's WebSocket.
        Driver = "driver",
    }
);

label!(
    /// What a round of Paxos is for.
    LwtKind, "kind" {
        /// A new request.
        Claim = "claim",
        /// Steps of a request.
        Transition = "transition",
        /// A driver who wins is bound.
        Bind = "bind",
        /// A driver whose trip is over is released.
        Release = "release",
        /// A request changes its owner.
        Takeover = "takeover",
        /// What became of a write is looked up.
        Read = "read",
    }
);

label!(
    /// Why a connection was closed.
    CloseCause, "cause" {
        /// The peer closed it, or its machine went away.
        Peer = "peer",
        /// A newer connection of the same driver (4001).
        Displaced = "displaced",
        /// No heartbeat (4004).
        HeartbeatLost = "heartbeat_lost",
        /// Too much output waited, or none was taken (4008).
        SlowConsumer = "slow_consumer",
        /// The peer broke the protocol.
        Protocol = "protocol",
        /// A handshake, head or body took too long.
        Timeout = "timeout",
        /// An HTTP connection stayed idle, or said `Connection: close`.
        Finished = "finished",
        /// More connections than a shard takes.
        Admission = "admission",
        /// The node drains (1012).
        Draining = "draining",
    }
);

label!(
    /// What happened to an offer, counted once per attempt and event.
    OfferEvent, "event" {
        /// Made durable and sent on its way.
        Sent = "sent",
        /// Written to the socket.
        Delivered = "delivered",
        /// The app has it.
        Acked = "acked",
        /// The driver took it, and won.
        Accepted = "accepted",
        /// The driver declined.
        Declined = "declined",
        /// Nobody answered in time.
        TimedOut = "timed_out",
        /// The driver was offline or busy.
        Refused = "refused",
        /// Taken back.
        Revoked = "revoked",
    }
);

label!(
    /// First digit of an HTTP answer's status.
    StatusClass, "class" {
        /// 101.
        Switching = "1xx",
        /// 200, 202.
        Success = "2xx",
        /// The caller's fault, or too much asked.
        Client = "4xx",
        /// Ours.
        Server = "5xx",
    }
);

impl StatusClass {
    /// The class of `status`, 100–599; redirections do not occur.
    pub const fn of(status: u16) -> Self {
        match status {
            100..200 => Self::Switching,
            200..400 => Self::Success,
            400..500 => Self::Client,
            _ => Self::Server,
        }
    }
}

label!(
    /// What a peer sent that the contract does not allow.
    BadInput, "kind" {
        /// An HTTP head: syntax, smuggling shapes, too long.
        HttpHead = "http_head",
        /// An HTTP body: too long, bad chunks.
        HttpBody = "http_body",
        /// A request with a bad path, query or JSON (400, 413 by its fields).
        HttpRequest = "http_request",
        /// A WebSocket handshake without what it needs.
        Handshake = "handshake",
        /// A WebSocket frame against RFC 6455.
        Frame = "frame",
        /// A message: bad JSON, unknown type, field out of range.
        Message = "message",
        /// A handshake, head or body that took too long.
        Slow = "slow",
    }
);

label!(
    /// Types of the messages that drivers send.
    MessageIn, "type" {
        /// `ACK`
        Ack = "ack",
        /// `ACCEPT`
        Accept = "accept",
        /// `DECLINE`
        Decline = "decline",
        /// `STATE`
        State = "state",
        /// `TRIP`
        Trip = "trip",
        /// `LOCATION`
        Location = "location",
        /// `PING`, and ping frames.
        Ping = "ping",
    }
);

label!(
    /// Types of the messages that drivers get.
    MessageOut, "type" {
        /// `WELCOME`
        Welcome = "welcome",
        /// `OFFER`
        Offer = "offer",
        /// `CONFIRMED`
        Confirmed = "confirmed",
        /// `DECLINED`
        Declined = "declined",
        /// `REVOKED`
        Revoked = "revoked",
        /// `STATE`
        State = "state",
        /// `TRIP_CANCELLED`
        TripCancelled = "trip_cancelled",
        /// `PONG`, and pong frames.
        Pong = "pong",
        /// `ERROR`
        Error = "error",
    }
);

label!(
    /// What a shard's memory is for.
    MemoryKind, "kind" {
        /// Drivers: the table, its index, and what actors keep beside it.
        Drivers = "drivers",
        /// Requests in memory: the table and its index; their logs are not counted.
        Requests = "requests",
        /// Connections: both tables, and what HTTP connections keep beside them but their input.
        Connections = "connections",
        /// The timer wheel.
        Timers = "timers",
        /// Output buffers that wait for the next connection with output.
        OutputBuffers = "output_buffers",
        /// Receive buffers, mapped whole and taken from the machine as they are used.
        ReceiveBuffers = "receive_buffers",
    }
);

label!(
    /// The state that a request ended in.
    RequestEnd, "state" {
        /// A driver has the trip.
        Accepted = "accepted",
        /// The caller took it back.
        Cancelled = "cancelled",
        /// Deadline or attempts used up.
        Unfulfilled = "unfulfilled",
    }
);

impl Label for DriverState {
    const KEY: &'static str = "state";
    const ALL: &'static [Self] = &[
        Self::Offline,
        Self::Available,
        Self::Offered,
        Self::EnRoute,
        Self::OnTrip,
    ];
    fn index(self) -> usize {
        self as usize
    }
    fn name(self) -> &'static str {
        self.as_str()
    }
}

impl Label for Priority {
    const KEY: &'static str = "priority";
    const ALL: &'static [Self] = &Self::ALL;
    fn index(self) -> usize {
        self as usize
    }
    fn name(self) -> &'static str {
        self.as_str()
    }
}
