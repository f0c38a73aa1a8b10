//! What stands between the world and its clients: inputs, actions, and what an observer is told of the node.
//!
//! Times are simulated microseconds from the start of the run; they never fall. The node's own Unix time is
//! `now_us + wall_offset_us` of its last [`NodeEvent::Started`].

/// A connection, numbered by the actor that opens it. A number is used again only after `Refused`, `Closed` or `Reset`, or
/// after `Abort`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Conn(pub u32);

/// What happens to an actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input<'a> {
    /// The run begins; the first input of every actor.
    Start,
    /// The connection is established: the node's listener has it. Bytes may have been sent before already.
    Opened(Conn),
    /// Nobody listens. The connection is over.
    Refused(Conn),
    /// Bytes from the node, in order; at least one. Cut anywhere.
    Bytes(Conn, &'a [u8]),
    /// The node sends no more; it may still be sent to.
    HalfClosed(Conn),
    /// The connection is over: closed by both sides, after all that the node sent.
    Closed(Conn),
    /// The connection is over: reset, or cut. Bytes on their way are lost in both directions.
    Reset(Conn),
    /// The time of a [`Action::Wake`] has come; its token.
    Timer(u64),
}

/// What an actor does about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Connects to the node, of a fleet to any. `Opened` or `Refused` follows.
    Open(Conn),
    /// Connects to this node of a fleet.
    OpenAt(Conn, u8),
    /// Sends bytes. Allowed right after `Open`.
    Send(Conn, Vec<u8>),
    /// Sends no more (FIN), after what was sent before.
    HalfClose(Conn),
    /// Resets the connection at once. No further input names it.
    Abort(Conn),
    /// `true`: stops reading, so that the node's output backs up. `false`: reads again.
    Stall(Conn, bool),
    /// Asks for a [`Input::Timer`]; one in the past fires at once.
    Wake {
        /// When, in simulated microseconds.
        at_us: u64,
        /// Comes back with the timer.
        token: u64,
    },
}

/// A client. Everything that it does follows from its inputs and its own stream of random numbers
/// ([`crate::rng::Rng::stream`]).
pub trait Actor {
    /// Takes an input and appends what the actor does about it, in order, to `out` (empty when called).
    fn on(&mut self, input: Input<'_>, now_us: u64, out: &mut Vec<Action>);
}

/// What happens to the node, for the observer of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeEvent<'a> {
    /// It takes connections.
    Started {
        /// Boot number.
        incarnation: u64,
        /// The node's Unix time minus simulated time, in microseconds, for this boot.
        wall_offset_us: u64,
    },
    /// It did not start; why. It is tried again.
    RefusedToStart(&'a str),
    /// The process was killed (`kill -9`): the kernel keeps what it took.
    Killed,
    /// Power was lost: what was not durable may be lost or torn.
    PowerLost,
    /// The process ended itself because it could not go on without lying; what it said.
    Failed(&'a str),
    /// It was told to drain (SIGTERM).
    Draining,
    /// It has drained and ended.
    Drained,
    /// A fault of another kind begins or ends; what it is, for the timeline.
    Fault(&'a str),
    /// No fault is injected from here on.
    FaultsOver,
}

/// Who is told what happens to the node. Clients are told nothing: they see what the network shows.
pub trait Observer {
    /// The life of a node, by its number from 0.
    fn node(&mut self, node: u8, event: NodeEvent<'_>, now_us: u64);
}
