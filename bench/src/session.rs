//! The drivers' WebSocket connections and the matching engine's HTTP connections over one ring.
//!
//! Collects what arrives into [`Event`]s and leaves the reaction to the scenario ("collect, then run"): nothing here knows
//! what an offer is. Slots of the ring's table: driver `n` has slot `n`, HTTP connections follow behind the drivers.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::BorrowedFd;
use std::time::Duration;

use crate::measure::Clock;
use crate::message::{self, Message};
use crate::ring::{self, Chunk, Ring, SockAddr};
use crate::ws;
use https::HttpConnection;

mod connect;
mod event;
mod https;
mod place;

pub use event::{Event, EventKind, Gone};
pub use place::{CONNECTIONS_PER_ADDRESS, Place};

/// Longest sleep of one turn: scenarios check their bounds at least this often.
const SLEEP_MAX_NS: u64 = 200_000_000;
/// WebSocket close code of a server that restarts (RFC 6455's registry: Service Restart).
const CLOSE_RESTART: u16 = 1012;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Free,
    Upgrading,
    Open,
    Closing,
    /// The socket is done for; only its end is still to come.
    Ending,
}

struct Driver {
    phase: Phase,
    why: Option<Gone>,
    partial: Vec<u8>,
    /// Reads nothing and says nothing, as an app that hangs.
    stalled: bool,
}

/// When a message came and how long it was.
#[derive(Clone, Copy)]
struct Arrival {
    at_ns: u64,
    bytes: u32,
}

/// All connections of one scenario's run. See the module.
pub struct Session {
    ring: Ring,
    address: SockAddr,
    /// Local addresses, by slot; none: the kernel's choice.
    locals: Vec<SockAddr>,
    place: Place,
    host: String,
    tolerates_loss: bool,
    expected_accept: String,
    drivers: Vec<Driver>,
    connected: u32,
    upgrade_bytes: u32,
    https: Vec<HttpConnection>,
    http_next: usize,
    events: Vec<Event>,
    clock: Clock,
    heartbeat_ns: u64,
    heartbeats: VecDeque<(u64, u32)>,
    heartbeats_on: bool,
    heartbeats_sent: u64,
    scratch: Vec<u8>,
}

impl Session {
    /// Opens a ring for `drivers` (not yet connected) and connects `https` HTTP connections.
    ///
    /// # Errors
    /// The ring cannot be made (more than `RLIMIT_NOFILE` connections) or the server does not answer.
    pub fn open(address: SocketAddrV4, drivers: u32, https: u32) -> io::Result<Self> {
        Self::open_range(address, 0, drivers, https)
    }

    /// As [`Session::open`], for a load process that has a part of all drivers: the names begin with `first_driver`.
    ///
    /// # Errors
    /// As there.
    pub fn open_range(address: SocketAddrV4, first_driver: u32, drivers: u32, https: u32) -> io::Result<Self> {
        let place = Place {
            first_driver,
            local: (drivers + https > CONNECTIONS_PER_ADDRESS).then_some(Ipv4Addr::new(127, 0, 0, 2)),
            ..Place::default()
        };
        Self::open_as(place, address, drivers, https)
    }

    /// The same, as one of several sessions.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub fn open_as(place: Place, address: SocketAddrV4, drivers: u32, https: u32) -> io::Result<Self> {
        let driver = || Driver {
            phase: Phase::Free,
            why: None,
            partial: Vec::new(),
            stalled: false,
        };
        let mut session = Self {
            ring: Ring::new(drivers + https)?,
            address: SockAddr::new(address),
            locals: place.local_addresses(drivers + https),
            place,
            host: address.to_string(),
            tolerates_loss: false,
            expected_accept: ws::expected_accept(),
            drivers: std::iter::repeat_with(driver).take(drivers as usize).collect(),
            connected: 0,
            upgrade_bytes: 0,
            https: std::iter::repeat_with(HttpConnection::default)
                .take(https as usize)
                .collect(),
            http_next: 0,
            events: Vec::new(),
            clock: place.clock.unwrap_or_else(Clock::start),
            heartbeat_ns: u64::MAX,
            heartbeats: VecDeque::new(),
            heartbeats_on: true,
            heartbeats_sent: 0,
            scratch: Vec::new(),
        };
        session.open_https()?;
        Ok(session)
    }

    /// Nanoseconds since the session began, or since its [`Place`]'s clock did.
    pub fn now_ns(&self) -> u64 {
        self.clock.now_ns()
    }

    /// Drivers that this session has slots for.
    pub fn drivers(&self) -> u32 {
        self.drivers.len() as u32
    }

    /// Drivers whose WebSocket is open.
    pub fn connected(&self) -> u32 {
        self.connected
    }

    /// Whether this driver's WebSocket is open.
    pub fn is_open(&self, driver: u32) -> bool {
        self.drivers[driver as usize].phase == Phase::Open
    }

    /// Length of the server's last answer to an upgrade, bytes.
    pub fn upgrade_bytes(&self) -> u32 {
        self.upgrade_bytes
    }

    /// Heartbeats that were sent, from the beginning.
    pub fn heartbeats_sent(&self) -> u64 {
        self.heartbeats_sent
    }

    /// Stops (or resumes) the heartbeats that keep idle drivers connected.
    pub fn keep_alive(&mut self, on: bool) {
        self.heartbeats_on = on;
    }

    /// From now on, connections may be lost: HTTP connections end without a fault.
    pub fn tolerate_loss(&mut self) {
        self.tolerates_loss = true;
    }

    /// Cuts a driver's connection without a word, as a dead spot does; its [`EventKind::Gone`] follows.
    ///
    /// # Errors
    /// The ring's.
    pub fn cut(&mut self, driver: u32) -> io::Result<()> {
        if self.drivers[driver as usize].phase == Phase::Open && !self.drivers[driver as usize].stalled {
            self.break_off(driver, Gone::Closed)?;
        }
        Ok(())
    }

    /// Lets a driver's app hang: it reads nothing and says nothing until [`Session::resume`], a second later at the earliest.
    ///
    /// # Errors
    /// The ring's.
    pub fn stall(&mut self, driver: u32) -> io::Result<()> {
        let state = &mut self.drivers[driver as usize];
        if state.phase != Phase::Open || state.stalled {
            return Ok(());
        }
        state.stalled = true;
        self.ring.stop_receive(driver)
    }

    /// Ends [`Session::stall`].
    ///
    /// # Errors
    /// The ring's.
    pub fn resume(&mut self, driver: u32) -> io::Result<()> {
        let state = &mut self.drivers[driver as usize];
        if std::mem::take(&mut state.stalled) && state.phase == Phase::Open {
            self.ring.arm_receive(driver)?;
        }
        Ok(())
    }

    /// Starts a driver's connection: socket, connect, upgrade. Its `WELCOME` or its [`EventKind::Gone`] follows.
    ///
    /// # Errors
    /// The ring's.
    pub fn connect(&mut self, driver: u32) -> io::Result<()> {
        let state = &mut self.drivers[driver as usize];
        assert_eq!(state.phase, Phase::Free, "a driver connects once at a time");
        state.phase = Phase::Upgrading;
        state.why = None;
        state.partial.clear();
        state.stalled = false;
        let (host, number) = (&self.host, self.place.first_driver + driver);
        let local = self.locals.get((driver / CONNECTIONS_PER_ADDRESS) as usize);
        self.ring.connect_from(driver, local, &self.address, |block| {
            ws::write_upgrade(block, host, number);
        })
    }

    /// Closes a driver's WebSocket as RFC 6455 asks: our close frame, the server's, and the server ends the connection.
    ///
    /// # Errors
    /// The ring's.
    pub fn close(&mut self, driver: u32) -> io::Result<()> {
        let state = &mut self.drivers[driver as usize];
        assert_eq!(state.phase, Phase::Open, "only an open WebSocket can be closed");
        state.phase = Phase::Closing;
        self.connected -= 1;
        self.ring.send(driver, ws::write_close)
    }

    /// Sends a text message. A driver whose connection has just gone sends nothing; its `Gone` says so.
    ///
    /// # Errors
    /// The ring's.
    pub fn say(&mut self, driver: u32, write: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let state = &self.drivers[driver as usize];
        if state.phase != Phase::Open || state.stalled {
            return Ok(());
        }
        self.scratch.clear();
        write(&mut self.scratch);
        let payload = &self.scratch;
        self.ring.send(driver, |block| ws::write_text(block, payload))
    }

    /// One turn: send what is queued, sleep until something arrives or `until_ns`, collect all of it.
    ///
    /// # Errors
    /// The ring's.
    pub fn turn(&mut self, until_ns: u64) -> io::Result<()> {
        self.flush_https()?;
        let now_ns = self.now_ns();
        self.send_heartbeats(now_ns)?;
        let heartbeat_ns = self.heartbeats.front().map_or(u64::MAX, |(due_ns, _)| *due_ns);
        let until_ns = until_ns.min(heartbeat_ns).min(now_ns + SLEEP_MAX_NS);
        self.ring.wait(Duration::from_nanos(until_ns.saturating_sub(now_ns)))?;
        while let Some(event) = self.ring.next_event()? {
            self.ring_event(event)?;
        }
        Ok(())
    }

    /// Signals this eventfd whenever a turn would find something, for a thread that has several sessions and sleeps there;
    /// see [`Ring::signal`].
    ///
    /// # Errors
    /// The ring's.
    pub fn signal(&self, eventfd: BorrowedFd<'_>) -> io::Result<()> {
        self.ring.signal(eventfd)
    }

    /// Whether a turn that does not sleep would send or find anything.
    pub fn has_work(&mut self) -> bool {
        let waits = |connection: &HttpConnection| !connection.sending && !connection.pending.is_empty();
        self.ring.has_work() || self.https.iter().any(waits)
    }

    /// Takes the collected events; give the vector back with [`Session::recycle`].
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Gives the vector of [`Session::take_events`] back for reuse.
    pub fn recycle(&mut self, mut events: Vec<Event>) {
        events.clear();
        if self.events.is_empty() {
            self.events = events;
        }
    }

    fn ring_event(&mut self, event: ring::Event) -> io::Result<()> {
        match event {
            ring::Event::Data { slot, chunk } if slot < self.drivers() => self.driver_data(slot, chunk),
            ring::Event::Data { slot, chunk } => {
                self.http_data(slot, chunk);
                Ok(())
            }
            ring::Event::Sent { slot } => {
                if let Some(index) = slot.checked_sub(self.drivers()) {
                    self.https[index as usize].sending = false;
                }
                Ok(())
            }
            ring::Event::Failed { slot, errno } => {
                self.failed(slot, errno);
                Ok(())
            }
            ring::Event::Ended { slot, errno } => self.ended(slot, errno),
            ring::Event::Closed { slot } => {
                self.closed(slot);
                Ok(())
            }
            ring::Event::Accepted { .. } => unreachable!("a session listens nowhere"),
        }
    }

    fn driver_data(&mut self, slot: u32, chunk: Chunk) -> io::Result<()> {
        let at_ns = self.clock.now_ns();
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        bytes.append(&mut self.drivers[slot as usize].partial);
        self.ring.take_data(chunk, &mut bytes);
        let mut consumed = 0;
        if self.drivers[slot as usize].phase == Phase::Upgrading {
            consumed = self.upgrade(slot, &bytes)?;
        }
        while matches!(self.drivers[slot as usize].phase, Phase::Open | Phase::Closing) {
            match ws::next_frame(&bytes[consumed..]) {
                Ok(None) => break,
                Ok(Some(frame)) => {
                    let whole = &bytes[consumed..consumed + frame.end];
                    consumed += frame.end;
                    self.frame(
                        slot,
                        frame.kind,
                        &whole[frame.start..],
                        Arrival {
                            at_ns,
                            bytes: frame.end as u32,
                        },
                    )?;
                }
                Err(what) => self.break_off(slot, Gone::Lost(what))?,
            }
        }
        let driver = &mut self.drivers[slot as usize];
        if driver.phase != Phase::Ending {
            driver.partial.extend_from_slice(&bytes[consumed..]);
        }
        self.scratch = bytes;
        Ok(())
    }

    fn upgrade(&mut self, slot: u32, bytes: &[u8]) -> io::Result<usize> {
        match ws::read_upgrade(bytes, &self.expected_accept) {
            ws::Upgrade::Partial => Ok(0),
            ws::Upgrade::Open { consumed } => {
                self.drivers[slot as usize].phase = Phase::Open;
                self.connected += 1;
                self.upgrade_bytes = consumed as u32;
                Ok(consumed)
            }
            ws::Upgrade::Refused { status } => {
                self.break_off(slot, Gone::Refused { status })?;
                Ok(bytes.len())
            }
        }
    }

    fn frame(&mut self, driver: u32, kind: ws::Kind, payload: &[u8], arrival: Arrival) -> io::Result<()> {
        let Arrival { at_ns, bytes } = arrival;
        let phase = self.drivers[driver as usize].phase;
        match (kind, phase) {
            (ws::Kind::Text, Phase::Open) => {
                let message = message::parse(payload);
                if let Message::Welcome { heartbeat_ms, .. } = message
                    && !self.place.own_heartbeats
                {
                    self.heartbeat_ns = heartbeat_ms.max(1) * 1_000_000;
                    self.heartbeats.push_back((at_ns + self.heartbeat_ns, driver));
                }
                self.events.push(Event {
                    at_ns,
                    bytes,
                    kind: EventKind::Message { driver, message },
                });
                Ok(())
            }
            (ws::Kind::Close, Phase::Closing) => {
                self.drivers[driver as usize].why = Some(Gone::Closed);
                Ok(())
            }
            (ws::Kind::Close, _) => {
                let code = payload.first_chunk::<2>().map_or(0, |code| u16::from_be_bytes(*code));
                let why = match (code, retry_after_ms(payload)) {
                    (CLOSE_RESTART, Some(retry_after_ms)) => Gone::Draining { retry_after_ms },
                    _ => Gone::Lost(format!("the server closed with {code}")),
                };
                self.break_off(driver, why)
            }
            // A text may cross our close on its way; control frames ask nothing of a client that heartbeats itself.
            (ws::Kind::Text | ws::Kind::Control, _) => Ok(()),
        }
    }

    /// Ends a connection from our side at once.
    fn break_off(&mut self, slot: u32, why: Gone) -> io::Result<()> {
        let driver = &mut self.drivers[slot as usize];
        self.connected -= u32::from(driver.phase == Phase::Open);
        driver.phase = Phase::Ending;
        driver.why = Some(why);
        self.ring.stop_receive(slot)
    }

    fn failed(&mut self, slot: u32, errno: i32) {
        let what = || io::Error::from_raw_os_error(errno).to_string();
        if let Some(driver) = self.drivers.get_mut(slot as usize) {
            // The first failure names the cause; what it cancels only follows from it.
            driver.why.get_or_insert_with(|| Gone::Lost(what()));
        } else {
            self.http_fault(&what());
        }
    }

    fn http_fault(&mut self, what: &str) {
        if self.tolerates_loss {
            return;
        }
        let kind = EventKind::Fault(format!("HTTP connection: {what}"));
        let at_ns = self.clock.now_ns();
        self.events.push(Event { at_ns, bytes: 0, kind });
    }

    fn ended(&mut self, slot: u32, errno: i32) -> io::Result<()> {
        let what = || match errno {
            0 => "the server ended the connection".to_owned(),
            errno => io::Error::from_raw_os_error(errno).to_string(),
        };
        if let Some(driver) = self.drivers.get_mut(slot as usize) {
            if driver.stalled && errno == libc::ECANCELED {
                return Ok(());
            }
            self.connected -= u32::from(driver.phase == Phase::Open);
            driver.phase = Phase::Ending;
            driver.why.get_or_insert_with(|| Gone::Lost(what()));
        } else {
            self.https[(slot - self.drivers.len() as u32) as usize].open = false;
            self.http_fault(&what());
        }
        self.ring.close(slot)
    }

    fn closed(&mut self, slot: u32) {
        let at_ns = self.clock.now_ns();
        if let Some(driver) = self.drivers.get_mut(slot as usize) {
            driver.phase = Phase::Free;
            let why = driver.why.take().unwrap_or(Gone::Closed);
            self.events.push(Event {
                at_ns,
                bytes: 0,
                kind: EventKind::Gone { driver: slot, why },
            });
        } else {
            self.http_closed(slot - self.drivers.len() as u32, at_ns);
        }
    }

    fn send_heartbeats(&mut self, now_ns: u64) -> io::Result<()> {
        while let Some(&(due_ns, driver)) = self.heartbeats.front().filter(|(due_ns, _)| *due_ns <= now_ns) {
            self.heartbeats.pop_front();
            if self.drivers[driver as usize].phase != Phase::Open {
                continue;
            }
            self.heartbeats.push_back((due_ns + self.heartbeat_ns, driver));
            if self.heartbeats_on {
                self.heartbeats_sent += 1;
                self.say(driver, |payload| payload.extend_from_slice(message::PING))?;
            }
        }
        Ok(())
    }
}

/// The wait that the reason of a close frame asks for.
fn retry_after_ms(close: &[u8]) -> Option<u64> {
    let reason = std::str::from_utf8(close.get(2..)?).ok()?;
    let (_, number) = reason.split_once("retry_after_ms=")?;
    let digits = number.split(|letter: char| !letter.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_is_read_from_a_close_frames_reason() {
        assert_eq!(retry_after_ms(b"\x03\xf4draining retry_after_ms=1500"), Some(1500));
        assert_eq!(retry_after_ms(b"\x03\xf4retry_after_ms=7, please"), Some(7));
        for bad in [&b""[..], b"\x03\xf4", b"\x03\xf4draining", b"\x03\xf4retry_after_ms="] {
            assert_eq!(retry_after_ms(bad), None);
        }
    }
}
