//! Accepting: the listener, when accepts are in flight and which, and what stops them.
//!
//! Accept stops a little before the table is full, because a connection that the kernel accepts without a free slot is lost
//! (`ENFILE`); it goes on when slots were freed. It never spins: after a lack of resources it waits for a freed slot, or
//! [`ACCEPT_RETRY_MS`].
#![forbid(unsafe_code)]

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::limits::{
    ACCEPT_BURST_MAX, ACCEPT_RESERVE_DIVISOR, ACCEPT_RESERVE_MAX, ACCEPT_RETRY_MS, SINGLE_ACCEPTS_MAX,
};
use super::ring::Ring;
use super::tag::Op;
use super::{Net, NetEvent};

/// Binds a listener with `SO_REUSEPORT` (one per shard on the same address), `SO_REUSEADDR` and `TCP_NODELAY`, which
/// accepted sockets inherit (tcp(7)).
///
/// # Errors
/// Whatever `socket`, `bind` and `listen` answer.
pub fn bind_reuseport(addr: SocketAddr, backlog: i32) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&addr.into())?;
    socket.listen(backlog)?;
    Ok(socket.into())
}

/// What is in flight of accepts.
///
/// The kernel takes a connection before it looks for a slot, and resets one that finds none. A multishot accept takes all that came, so it runs
/// only while there are slots for more than can have come; with fewer, single accepts are in flight, no more of them than slots.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Accept {
    /// Nothing.
    #[default]
    Idle,
    /// A multishot accept.
    Multishot,
    /// So many single ones.
    Single(u32),
    /// So many of either kind, to end soon.
    Cancelled(u32),
}

/// The listener of a ring and the state of its accept.
#[derive(Default)]
pub(super) struct Acceptor {
    listener: Option<TcpListener>,
    accept: Accept,
    paused: bool,
    stopped: bool,
    full: bool,
    retry_at: Option<Instant>,
}

impl Acceptor {
    /// How long the ring may sleep before accept must be tried again; `None`: as long as it likes.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        let at = self
            .retry_at
            .filter(|_| self.listener.is_some() && !self.paused && !self.stopped)?;
        Some(at.saturating_duration_since(Instant::now()))
    }

    /// A slot was freed: what lacked may be there again.
    pub(super) fn slot_freed(&mut self) {
        self.retry_at = None;
    }

    /// Brings the accept in flight to where it should be. Called once a turn.
    pub(super) fn flush(&mut self, ring: &mut Ring, slots_max: u32, slots_free: u32) {
        self.full = !has_room(slots_max, slots_free, self.full);
        if self.retry_at.is_some_and(|at| Instant::now() >= at) {
            self.retry_at = None;
        }
        let wanted = self.is_wanted();
        let Some(listener) = &self.listener else { return };
        let reserve = reserve(slots_max);
        let spare = slots_free.saturating_sub(reserve);
        // Sockets handed over took slots that accepts in flight were meant for, and half of what is kept for such.
        let is_short = |armed| armed > spare + reserve / 2;
        let is_roomy = spare > ACCEPT_BURST_MAX;
        match self.accept {
            Accept::Idle if self.stopped => self.listener = None,
            Accept::Idle if wanted && is_roomy => {
                ring.accept_multishot(listener.as_raw_fd());
                self.accept = Accept::Multishot;
            }
            Accept::Idle if wanted => self.fill(ring, 0, spare),
            Accept::Multishot if !wanted || !is_roomy => self.cancel(ring, 1),
            Accept::Single(armed) if !wanted || is_short(armed) => self.cancel(ring, armed),
            Accept::Single(armed) if wanted && !is_roomy => self.fill(ring, armed, spare),
            // With room again they go on until each has taken a connection.
            Accept::Idle | Accept::Multishot | Accept::Single(_) | Accept::Cancelled(_) => {}
        }
    }

    /// Has single accepts in flight, as many as there are spare slots but not too many at once; `armed` of them are.
    fn fill(&mut self, ring: &mut Ring, armed: u32, spare: u32) {
        let Some(listener) = &self.listener else { return };
        let most = spare.min(SINGLE_ACCEPTS_MAX);
        for _ in armed..most {
            ring.accept(listener.as_raw_fd());
        }
        self.accept = Accept::Single(armed.max(most));
    }

    fn cancel(&mut self, ring: &mut Ring, armed: u32) {
        ring.cancel_every(Op::Accept);
        self.accept = Accept::Cancelled(armed);
    }

    fn is_wanted(&self) -> bool {
        let able = !self.full && self.retry_at.is_none();
        self.listener.is_some() && !self.paused && !self.stopped && able
    }

    /// Whether [`Self::flush`] would start the accept.
    pub(super) fn is_due(&self) -> bool {
        self.accept == Accept::Idle && self.is_wanted()
    }

    /// Takes the last completion of an accept, which ended with `result`.
    fn ended(&mut self, result: i32) {
        self.accept = match self.accept {
            Accept::Single(armed @ 2..) => Accept::Single(armed - 1),
            Accept::Cancelled(armed @ 2..) => Accept::Cancelled(armed - 1),
            Accept::Multishot | Accept::Single(_) | Accept::Cancelled(_) => Accept::Idle,
            Accept::Idle => unreachable!("one is in flight"),
        };
        let passing = [
            libc::ECANCELED,
            libc::ECONNABORTED,
            libc::EINTR,
            libc::EAGAIN,
            libc::EPROTO,
        ];
        if result < 0 && !passing.contains(&-result) {
            self.retry_at = Some(Instant::now() + Duration::from_millis(ACCEPT_RETRY_MS));
        }
    }
}

/// Whether accept may run with so many free slots. A quarter of the reserve is hysteresis: one freed slot does not restart
/// what the next accept stops again.
fn has_room(slots_max: u32, slots_free: u32, was_full: bool) -> bool {
    let reserve = reserve(slots_max);
    slots_free > if was_full { reserve + reserve / 4 } else { reserve }
}

/// Slots that are kept from accept.
fn reserve(slots_max: u32) -> u32 {
    (slots_max / ACCEPT_RESERVE_DIVISOR).min(ACCEPT_RESERVE_MAX)
}

impl Net {
    /// Whether this ring has slots for connections from a listener, by some more than it keeps from accept.
    pub fn has_room(&self) -> bool {
        has_room(self.slots.slots_max(), self.slots.free(), true)
    }

    /// Gives the listener back when this ring has no room for what comes from it, so that another ring may take it; what
    /// waits in its backlog stays there. `None` as well while the accept is on its way to its end.
    pub fn release_listener(&mut self) -> Option<TcpListener> {
        let acceptor = &mut self.acceptor;
        let idle = acceptor.full && acceptor.accept == Accept::Idle && !acceptor.stopped;
        if idle { acceptor.listener.take() } else { None }
    }

    /// Takes a bound listener (see [`bind_reuseport`]) and accepts from it. One per ring.
    ///
    /// # Panics
    /// When the ring already has or had one.
    pub fn listen(&mut self, listener: TcpListener) {
        assert!(
            self.acceptor.listener.is_none() && !self.acceptor.stopped,
            "a ring has one listener"
        );
        self.acceptor.listener = Some(listener);
    }

    /// Ends accepting for good and closes the listener within a few turns; what waits in its backlog is reset. Connections
    /// accepted before that may still be reported.
    pub fn stop_accepting(&mut self) {
        self.acceptor.stopped = true;
    }

    /// Accepts no more until [`Self::resume_accepting`]; new connections wait in the listener's backlog. Connections accepted
    /// before the next turn may still be reported.
    pub fn pause_accepting(&mut self) {
        self.acceptor.paused = true;
    }

    /// Undoes [`Self::pause_accepting`].
    pub fn resume_accepting(&mut self) {
        self.acceptor.paused = false;
    }

    /// A completion of the accept.
    pub(super) fn on_accept(&mut self, result: i32, more: bool, events: &mut Vec<NetEvent>) {
        if !more {
            self.acceptor.ended(result);
        }
        if let Ok(slot) = u32::try_from(result) {
            let conn = self.install(slot, events);
            events.push(NetEvent::Accepted { conn });
        }
    }
}
