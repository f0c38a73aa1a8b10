//! A driver's app: it connects, beats, answers offers well and badly, drives its trips, and is as unreliable as its seed
//! wants.

mod mischief;

use super::todo::Todo;
use super::{Hours, Temper};
use crate::checks::{About, Check};
use crate::client::{Action, Actor, Conn, Input};
use crate::codec::messages::{self, Heard, Say};
use crate::codec::ws::{self, Handshake, Opcode};
use crate::ids::{Driver as DriverNo, Offer, Trip};
use crate::rng::Rng;
use crate::trips;
use crate::witness::Shared;
use crate::words::{DriverState, Move};

#[derive(Debug)]
struct Socket {
    conn: Conn,
    input: Vec<u8>,
    open: bool,
    welcomed: bool,
    closing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Connect,
    Beat(Conn),
    Answer { conn: Conn, offer: Offer, accept: bool },
    Drive { trip: Trip, stage: u8 },
    Mischief,
    ReadAgain(Conn),
    Speak(Conn),
    OnShift,
}

/// See the module.
#[derive(Debug)]
pub struct Driver {
    me: DriverNo,
    witness: Shared,
    rng: Rng,
    /// Of its words.
    words: Rng,
    hours: Hours,
    temper: Temper,
    sockets: Vec<Socket>,
    /// The offer that it last had.
    last_offer: Option<Offer>,
    babbled: bool,
    /// Says nothing on this one.
    silent: Option<Conn>,
    next_conn: u32,
    todo: Todo<Deed>,
    now_us: u64,
    /// For what it says, before that is masked.
    text: Vec<u8>,
}

impl Driver {
    /// The app of this driver.
    pub fn new(me: DriverNo, witness: Shared, rng: Rng, hours: Hours, temper: Temper) -> Self {
        Self {
            me,
            witness,
            words: rng.aside(),
            rng,
            hours,
            temper,
            sockets: Vec::new(),
            last_offer: None,
            babbled: false,
            silent: None,
            next_conn: 0,
            todo: Todo::new(),
            now_us: 0,
            text: Vec::new(),
        }
    }

    fn later(&mut self, most_ms: u64, deed: Deed, out: &mut Vec<Action>) {
        let at_us = self.now_us + self.rng.between(500, most_ms.max(1) * 1_000);
        self.todo.at(at_us, deed, out);
    }

    fn connect(&mut self, out: &mut Vec<Action>) {
        let conn = Conn(self.next_conn);
        self.next_conn += 1;
        let mut bytes = Vec::with_capacity(256);
        let id = {
            let mut witness = self.witness.borrow_mut();
            witness.at(self.now_us).socket_opened(self.me, conn.0);
            witness.ids.driver(self.me)
        };
        ws::handshake(&mut bytes, &id);
        out.push(Action::Open(conn));
        out.push(Action::Send(conn, bytes));
        self.sockets.push(Socket {
            conn,
            input: Vec::new(),
            open: false,
            welcomed: false,
            closing: false,
        });
    }

    /// The newest socket that may speak.
    fn socket(&self) -> Option<Conn> {
        let speaks = |socket: &&Socket| socket.welcomed && !socket.closing && self.silent != Some(socket.conn);
        self.sockets.iter().rev().find(speaks).map(|socket| socket.conn)
    }

    fn say(&mut self, conn: Conn, say: Say, out: &mut Vec<Action>) {
        self.text.clear();
        let mut witness = self.witness.borrow_mut();
        let witness = witness.at(self.now_us);
        messages::write(&mut self.text, say, &witness.ids);
        witness.said(self.me, conn.0, say);
        let mut bytes = Vec::with_capacity(self.text.len() + 8);
        let mask = self.rng.next() as u32;
        match say {
            Say::PingFrame => ws::ping(&mut bytes, mask),
            _ => ws::text(&mut bytes, &self.text, mask),
        }
        out.push(Action::Send(conn, bytes));
    }

    fn over(&mut self, conn: Conn, why: &str, out: &mut Vec<Action>) {
        let Some(index) = self.sockets.iter().position(|socket| socket.conn == conn) else {
            return;
        };
        self.sockets.remove(index);
        self.witness
            .borrow_mut()
            .at(self.now_us)
            .socket_over(self.me, conn.0, why);
        self.todo.drop_if(|deed| match deed {
            Deed::Beat(of) | Deed::ReadAgain(of) | Deed::Speak(of) | Deed::Answer { conn: of, .. } => *of == conn,
            _ => false,
        });
        if self.sockets.is_empty() {
            self.todo.drop_if(|deed| *deed == Deed::Connect);
            self.later(self.temper.reconnect_ms, Deed::Connect, out);
        }
    }

    fn abort(&mut self, conn: Conn, why: &str, out: &mut Vec<Action>) {
        out.push(Action::Abort(conn));
        self.over(conn, why, out);
    }

    fn bytes(&mut self, conn: Conn, bytes: &[u8], out: &mut Vec<Action>) {
        let Some(socket) = self.sockets.iter_mut().find(|socket| socket.conn == conn) else {
            return;
        };
        socket.input.extend_from_slice(bytes);
        let mut used = 0;
        if !socket.open {
            match ws::handshake_answer(&socket.input) {
                Ok(Handshake::More) => return,
                Ok(Handshake::Open(length)) => {
                    socket.open = true;
                    used = length;
                }
                Ok(Handshake::Refused(status)) => {
                    self.witness
                        .borrow_mut()
                        .at(self.now_us)
                        .handshake_refused(self.me, conn.0, status);
                    return self.abort(conn, &format!("handshake refused {status}"), out);
                }
                Err(bad) => return self.broken(format!("d{}: {bad}", self.me)),
            }
        }
        let input = std::mem::take(&mut socket.input);
        while let Some(length) = self.frame(conn, &input[used..], out) {
            used += length;
        }
        if let Some(socket) = self.sockets.iter_mut().find(|socket| socket.conn == conn) {
            socket.input = input;
            socket.input.drain(..used);
        }
    }

    /// Takes the first frame; its length.
    fn frame(&mut self, conn: Conn, input: &[u8], out: &mut Vec<Action>) -> Option<usize> {
        let socket = self.sockets.iter_mut().find(|socket| socket.conn == conn)?;
        match ws::frame(input) {
            Ok(None) => None,
            Err(bad) => {
                self.broken(format!("d{}: {bad}", self.me));
                None
            }
            Ok(Some((frame, length))) => {
                match frame.opcode {
                    Opcode::Text => self.text(conn, frame.payload, out),
                    Opcode::Pong => self.witness.borrow_mut().at(self.now_us).ponged_frame(self.me, conn.0),
                    Opcode::Ping => {
                        let mut bytes = Vec::new();
                        ws::pong(&mut bytes, frame.payload, self.rng.next() as u32);
                        out.push(Action::Send(conn, bytes));
                    }
                    Opcode::Close => {
                        socket.closing = true;
                        let code = frame
                            .payload
                            .first_chunk()
                            .map_or(1005, |code| u16::from_be_bytes(*code));
                        let reason = String::from_utf8_lossy(frame.payload.get(2..).unwrap_or_default());
                        self.witness
                            .borrow_mut()
                            .at(self.now_us)
                            .socket_closing(self.me, conn.0, code, &reason);
                        let mut bytes = Vec::new();
                        ws::close(&mut bytes, code, self.rng.next() as u32);
                        out.push(Action::Send(conn, bytes));
                        return None;
                    }
                }
                Some(length)
            }
        }
    }

    fn broken(&mut self, text: String) {
        self.witness
            .borrow_mut()
            .at(self.now_us)
            .broken(Check::Protocol, About::driver(self.me), text);
    }

    fn text(&mut self, conn: Conn, payload: &[u8], out: &mut Vec<Action>) {
        let heard = {
            let mut witness = self.witness.borrow_mut();
            let witness = witness.at(self.now_us);
            let read = std::str::from_utf8(payload)
                .map_err(|_| crate::codec::Bad::new("a text that is no text"))
                .and_then(|text| messages::read(text, &mut witness.ids, trips::is_of));
            match read {
                Ok(heard) => {
                    witness.heard(self.me, conn.0, heard);
                    heard
                }
                Err(bad) => {
                    return witness.broken(Check::Protocol, About::driver(self.me), format!("d{}: {bad}", self.me));
                }
            }
        };
        self.react(conn, heard, out);
    }

    fn react(&mut self, conn: Conn, heard: Heard, out: &mut Vec<Action>) {
        match heard {
            Heard::Welcome { state, trip, .. } => {
                if let Some(socket) = self.sockets.iter_mut().find(|socket| socket.conn == conn) {
                    socket.welcomed = true;
                }
                self.later(self.temper.heartbeat_ms, Deed::Beat(conn), out);
                if let Some(trip) = trip {
                    self.drive(trip, u8::from(state == DriverState::OnTrip) + 1, out);
                }
                if state == DriverState::Offline {
                    self.later(self.temper.mischief_ms * 2, Deed::OnShift, out);
                }
            }
            Heard::Offer { offer, .. } => self.consider(conn, offer, out),
            Heard::Confirmed { trip, .. } => self.drive(trip, 0, out),
            Heard::State {
                state: DriverState::Offline,
                ..
            } => self.later(self.temper.mischief_ms * 2, Deed::OnShift, out),
            Heard::State { trip: None, .. } | Heard::TripCancelled { .. } => {
                if !self.rng.chance(100) {
                    self.todo.drop_if(|deed| matches!(deed, Deed::Drive { .. }));
                }
            }
            Heard::Declined { .. }
            | Heard::Revoked { .. }
            | Heard::State { .. }
            | Heard::Pong { .. }
            | Heard::Error { .. } => {}
        }
    }

    /// What to do about an offer.
    fn consider(&mut self, conn: Conn, offer: Offer, out: &mut Vec<Action>) {
        if self.silent == Some(conn) {
            return;
        }
        self.last_offer = Some(offer);
        if self.rng.chance(self.temper.vanish) {
            return self.abort(conn, "vanishes with an offer in hand", out);
        }
        if self.rng.chance(600) {
            self.say(conn, Say::Ack(offer), out);
        }
        let roll = self.rng.below(1_000) as u32;
        let accept = roll < self.temper.accept;
        if !accept && roll >= self.temper.accept + self.temper.decline {
            return;
        }
        if self.rng.chance(self.temper.by_http) {
            let me = self.me;
            self.witness.borrow_mut().board.by_http.push_back((me, offer, accept));
            if !self.rng.chance(200) {
                return;
            }
        }
        self.later(self.temper.think_ms, Deed::Answer { conn, offer, accept }, out);
        if self.rng.chance(self.temper.double) {
            let accept = accept ^ self.rng.chance(300);
            self.later(self.temper.think_ms, Deed::Answer { conn, offer, accept }, out);
        }
    }

    /// Drives a trip, from a stage on, unless it does already.
    fn drive(&mut self, trip: Trip, stage: u8, out: &mut Vec<Action>) {
        self.todo
            .drop_if(|deed| matches!(deed, Deed::Drive { trip: other, .. } if *other == trip));
        self.later(self.temper.trip_ms, Deed::Drive { trip, stage }, out);
    }

    fn drive_on(&mut self, trip: Trip, stage: u8, out: &mut Vec<Action>) {
        let Some(conn) = self.socket() else {
            return self.later(1_000, Deed::Drive { trip, stage }, out);
        };
        let event = match stage {
            _ if stage > 0 && self.rng.chance(self.temper.give_up) => Move::Cancel,
            0 => Move::Arrived,
            1 => Move::Pickup,
            _ => Move::Complete,
        };
        self.say(conn, Say::Trip(trip, event), out);
        if self.rng.chance(self.temper.double) {
            self.say(conn, Say::Trip(trip, event), out);
        }
        if matches!(event, Move::Arrived | Move::Pickup) {
            self.later(self.temper.trip_ms, Deed::Drive { trip, stage: stage + 1 }, out);
        }
    }

    fn timer(&mut self, deed: Deed, out: &mut Vec<Action>) {
        match deed {
            Deed::Connect => {
                if self.sockets.is_empty() {
                    self.connect(out);
                }
            }
            Deed::Speak(conn) => {
                self.silent = self.silent.filter(|silent| *silent != conn);
                self.timer(Deed::Beat(conn), out);
            }
            Deed::Beat(conn) => {
                let beats = |socket: &Socket| socket.conn == conn && socket.welcomed && !socket.closing;
                if self.silent != Some(conn) && self.sockets.iter().any(beats) {
                    // Some apps beat by frames, and ask with a message now and then.
                    let by_frame = self.me % 5 == 3 && !self.now_us.is_multiple_of(3);
                    let say = if by_frame { Say::PingFrame } else { Say::Ping };
                    self.say(conn, say, out);
                    let at_us = self.now_us + self.temper.heartbeat_ms * 1_000;
                    self.todo.at(at_us, Deed::Beat(conn), out);
                }
            }
            Deed::Answer { conn, offer, accept } => {
                let say = if accept {
                    Say::Accept(offer)
                } else {
                    Say::Decline(offer)
                };
                let speaks = |socket: &Socket| socket.conn == conn && !socket.closing;
                if self.silent != Some(conn) && self.sockets.iter().any(speaks) {
                    self.say(conn, say, out);
                }
            }
            Deed::Drive { trip, stage } => self.drive_on(trip, stage, out),
            Deed::Mischief => self.mischief(out),
            Deed::ReadAgain(conn) => {
                let mut witness = self.witness.borrow_mut();
                witness.at(self.now_us).socket_reads_again(self.me, conn.0);
                out.push(Action::Stall(conn, false));
            }
            Deed::OnShift => match self.socket() {
                Some(conn) => self.say(conn, Say::Shift(true), out),
                None => self.later(1_000, Deed::OnShift, out),
            },
        }
    }
}

impl Actor for Driver {
    fn on(&mut self, input: Input<'_>, now_us: u64, out: &mut Vec<Action>) {
        self.now_us = now_us;
        match input {
            Input::Start => {
                self.later(self.temper.first_ms, Deed::Connect, out);
                self.later(self.temper.mischief_ms, Deed::Mischief, out);
            }
            Input::Opened(_) => {}
            Input::Bytes(conn, bytes) => self.bytes(conn, bytes, out),
            Input::HalfClosed(conn) => {
                self.witness.borrow_mut().at(now_us).socket_left(self.me, conn.0);
                self.abort(conn, "half-closed by the node", out);
            }
            Input::Refused(conn) => self.over(conn, "refused", out),
            Input::Closed(conn) => self.over(conn, "closed", out),
            Input::Reset(conn) => {
                self.witness.borrow_mut().at(now_us).socket_reset(self.me, conn.0);
                self.over(conn, "reset", out);
            }
            Input::Timer(token) => {
                let rests = now_us >= self.hours.rest_us;
                let deed = self.todo.take(token);
                let deed = deed.filter(|deed| {
                    !rests
                        || matches!(
                            deed,
                            Deed::Connect | Deed::Beat(_) | Deed::ReadAgain(_) | Deed::Speak(_)
                        )
                });
                if let Some(deed) = deed {
                    self.timer(deed, out);
                }
            }
        }
    }
}
