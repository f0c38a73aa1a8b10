//! What each server under comparison is told, and how it answers: everything that differs between them, seen from the client.
//!
//! The work is always the same: one message from a client makes the server push one to the connection that it names.
#![forbid(unsafe_code)]

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use crate::message::{self, Message};
use crate::raw::Pair;
use crate::ws;

/// Bytes of the text that a peer pushes.
pub const PUSH_BYTES: usize = 300;

/// What a server's bytes mean while a connection opens.
#[derive(Debug, PartialEq, Eq)]
pub enum Greeting {
    /// Not whole yet.
    Partial,
    /// This much is understood; more is to come.
    Step(usize),
    /// This much is understood, and the connection is open.
    Open(usize),
}

/// A whole message of an open connection.
#[derive(Debug, PartialEq, Eq)]
pub struct Read {
    /// Its length, bytes.
    pub consumed: usize,
    /// Pushes in it.
    pub pushes: u32,
}

/// One kind of server, seen from the client. `answer` of the reading functions is sent when it is not empty.
pub trait Dialect {
    /// What opens a connection.
    fn hello(&self, connection: u32, into: &mut Vec<u8>);

    /// Reads what the server says to that; `step` counts the [`Greeting::Step`]s so far.
    ///
    /// # Errors
    /// Says what was not expected.
    fn greet(&self, connection: u32, step: u8, bytes: &[u8], answer: &mut Vec<u8>) -> Result<Greeting, String>;

    /// What connection `to` sends to be pushed to. Every connection orders its own, because a driver of dispatchd can do nothing else, and two
    /// sockets for a push cost more than one.
    fn order(&self, to: u32, into: &mut Vec<u8>);

    /// Reads what the server says on an open connection; `None` when it is not whole.
    ///
    /// # Errors
    /// Says what was not expected.
    fn read(&self, bytes: &[u8], answer: &mut Vec<u8>) -> Result<Option<Read>, String>;

    /// What ends a connection politely; the server ends it then.
    fn goodbye(&self, into: &mut Vec<u8>);
}

// ---- frames ------------------------------------------------------------------------------------------------------

struct Frame<'a> {
    opcode: OpCode,
    payload: &'a [u8],
    consumed: usize,
}

/// The frame at the beginning of `bytes`, of any opcode.
fn frame(bytes: &[u8]) -> Result<Option<Frame<'_>>, String> {
    let mut cursor = std::io::Cursor::new(bytes);
    let Some((header, length)) = FrameHeader::parse(&mut cursor).map_err(|error| error.to_string())? else {
        return Ok(None);
    };
    if header.mask.is_some() || !header.is_final {
        return Err(format!("frame is masked or fragmented: {header:?}"));
    }
    let start = cursor.position() as usize;
    let end = start + length as usize;
    Ok(bytes.get(start..end).map(|payload| Frame {
        opcode: header.opcode,
        payload,
        consumed: end,
    }))
}

fn is_control(opcode: OpCode) -> bool {
    matches!(opcode, OpCode::Control(Control::Ping | Control::Pong | Control::Close))
}

/// The end of a 101's head.
fn switched(bytes: &[u8]) -> Result<Option<usize>, String> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    if bytes.starts_with(b"HTTP/1.1 101 ") {
        Ok(Some(end + 4))
    } else {
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        Err(format!("the upgrade was refused: {head}"))
    }
}

// ---- the peers' WebSocket servers --------------------------------------------------------------------------------

/// The small servers in `bench/peers/`: a text that names a driver makes them push [`PUSH_BYTES`] to it.
pub struct Named;

impl Dialect for Named {
    fn hello(&self, connection: u32, into: &mut Vec<u8>) {
        ws::write_upgrade(into, "127.0.0.1", connection);
    }

    fn greet(&self, _: u32, _: u8, bytes: &[u8], _: &mut Vec<u8>) -> Result<Greeting, String> {
        Ok(switched(bytes)?.map_or(Greeting::Partial, Greeting::Open))
    }

    fn order(&self, to: u32, into: &mut Vec<u8>) {
        let mut name = Vec::with_capacity(16);
        message::write_driver_id(&mut name, to);
        ws::write_text(into, &name);
    }

    fn read(&self, bytes: &[u8], _: &mut Vec<u8>) -> Result<Option<Read>, String> {
        let Some(frame) = frame(bytes)? else { return Ok(None) };
        let is_push = frame.opcode == OpCode::Data(Data::Text) && frame.payload.len() == PUSH_BYTES;
        if !is_push && !is_control(frame.opcode) {
            let length = frame.payload.len();
            return Err(format!("unexpected frame {:?} of {length} bytes", frame.opcode));
        }
        Ok(Some(Read {
            consumed: frame.consumed,
            pushes: u32::from(is_push),
        }))
    }

    fn goodbye(&self, into: &mut Vec<u8>) {
        ws::write_close(into);
    }
}

// ---- the raw ring ------------------------------------------------------------------------------------------------

/// The raw ring: as many bytes as the peers', no meaning.
pub struct Raw {
    /// Opening and, if the server ends connections, closing.
    pub opening: Pair,
    /// Order and push.
    pub push: Pair,
    /// Length of the goodbye.
    pub goodbye: u32,
}

impl Raw {
    /// Bytes of the same length as the peers' messages.
    pub fn like_named() -> Self {
        let (mut hello, mut order, mut goodbye) = (Vec::new(), Vec::new(), Vec::new());
        Named.hello(0, &mut hello);
        Named.order(0, &mut order);
        Named.goodbye(&mut goodbye);
        Self {
            opening: Pair {
                request: hello.len() as u32,
                // The shortest 101 with a subprotocol.
                response: 166,
            },
            push: Pair {
                request: order.len() as u32,
                response: ws::unmasked_len(PUSH_BYTES),
            },
            goodbye: goodbye.len() as u32,
        }
    }
}

impl Dialect for Raw {
    fn hello(&self, _: u32, into: &mut Vec<u8>) {
        into.resize(self.opening.request as usize, b'x');
    }

    fn greet(&self, _: u32, _: u8, bytes: &[u8], _: &mut Vec<u8>) -> Result<Greeting, String> {
        let wanted = self.opening.response as usize;
        Ok(if bytes.len() < wanted {
            Greeting::Partial
        } else {
            Greeting::Open(wanted)
        })
    }

    fn order(&self, _: u32, into: &mut Vec<u8>) {
        into.resize(self.push.request as usize, b'x');
    }

    fn read(&self, bytes: &[u8], _: &mut Vec<u8>) -> Result<Option<Read>, String> {
        let consumed = self.push.response as usize;
        Ok((bytes.len() >= consumed).then_some(Read { consumed, pushes: 1 }))
    }

    fn goodbye(&self, into: &mut Vec<u8>) {
        into.resize(self.goodbye as usize, b'x');
    }
}

// ---- dispatchd ---------------------------------------------------------------------------------------------------

/// What a driver of dispatchd says to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gateway {
    /// `PING` → `PONG`: frames, JSON, the driver's actor, its session and its heartbeat timer.
    Heartbeat,
    /// A repeated `ACCEPT` → `CONFIRMED`: the same, and the letters to the request's actor and back.
    Answer,
}

impl Dialect for Gateway {
    fn hello(&self, connection: u32, into: &mut Vec<u8>) {
        ws::write_upgrade(into, "127.0.0.1", connection);
    }

    fn greet(&self, _: u32, step: u8, bytes: &[u8], _: &mut Vec<u8>) -> Result<Greeting, String> {
        if step == 0 {
            return Ok(switched(bytes)?.map_or(Greeting::Partial, Greeting::Step));
        }
        let Some(frame) = frame(bytes)? else {
            return Ok(Greeting::Partial);
        };
        match message::parse(frame.payload) {
            Message::Welcome { .. } => Ok(Greeting::Open(frame.consumed)),
            other => Err(format!("{other:?} instead of WELCOME")),
        }
    }

    fn order(&self, to: u32, into: &mut Vec<u8>) {
        match self {
            Self::Heartbeat => ws::write_text(into, message::PING),
            Self::Answer => {
                let mut accept = Vec::with_capacity(96);
                message::write_answer(&mut accept, "ACCEPT", to, 1);
                ws::write_text(into, &accept);
            }
        }
    }

    fn read(&self, bytes: &[u8], answer: &mut Vec<u8>) -> Result<Option<Read>, String> {
        let Some(frame) = frame(bytes)? else { return Ok(None) };
        let pushes = match (message::parse(frame.payload), self) {
            _ if is_control(frame.opcode) => 0,
            (Message::Pong, Self::Heartbeat) | (Message::Confirmed { .. }, Self::Answer) => 1,
            (Message::Offer { request, .. }, Self::Answer) => {
                self.order(request, answer);
                0
            }
            (Message::State(_), Self::Answer) => 0,
            (other, _) => return Err(format!("unexpected {other:?}")),
        };
        Ok(Some(Read {
            consumed: frame.consumed,
            pushes,
        }))
    }

    fn goodbye(&self, into: &mut Vec<u8>) {
        ws::write_close(into);
    }
}

// ---- NATS --------------------------------------------------------------------------------------------------------

/// nats-server: a driver subscribes to a subject of its own, and whoever orders publishes the push itself.
pub struct Nats;

impl Dialect for Nats {
    fn hello(&self, connection: u32, into: &mut Vec<u8>) {
        ws::write_upgrade(into, "127.0.0.1", connection);
    }

    fn greet(&self, connection: u32, step: u8, bytes: &[u8], answer: &mut Vec<u8>) -> Result<Greeting, String> {
        if step == 0 {
            return Ok(switched(bytes)?.map_or(Greeting::Partial, Greeting::Step));
        }
        let Some(frame) = frame(bytes)? else {
            return Ok(Greeting::Partial);
        };
        if step == 1 && frame.payload.starts_with(b"INFO ") {
            let mut commands =
                br#"CONNECT {"verbose":false,"pedantic":false,"lang":"bench","version":"1","protocol":1}"#.to_vec();
            commands.extend_from_slice(b"\r\nSUB d.");
            message::write_driver_id(&mut commands, connection);
            commands.extend_from_slice(b" 1\r\nPING\r\n");
            ws::write_binary(answer, &commands);
            return Ok(Greeting::Step(frame.consumed));
        }
        if step >= 2 && frame.payload.starts_with(b"PONG") {
            return Ok(Greeting::Open(frame.consumed));
        }
        if step >= 2 && frame.payload.starts_with(b"PING") {
            ws::write_binary(answer, b"PONG\r\n");
            return Ok(Greeting::Step(frame.consumed));
        }
        let said = String::from_utf8_lossy(frame.payload).into_owned();
        Err(format!("unexpected in step {step}: {said}"))
    }

    fn order(&self, to: u32, into: &mut Vec<u8>) {
        let mut command = Vec::with_capacity(PUSH_BYTES + 40);
        command.extend_from_slice(b"PUB d.");
        message::write_driver_id(&mut command, to);
        command.extend_from_slice(format!(" {PUSH_BYTES}\r\n").as_bytes());
        command.resize(command.len() + PUSH_BYTES, b'x');
        command.extend_from_slice(b"\r\n");
        ws::write_binary(into, &command);
    }

    fn read(&self, bytes: &[u8], answer: &mut Vec<u8>) -> Result<Option<Read>, String> {
        let Some(frame) = frame(bytes)? else { return Ok(None) };
        let mut pushes = 0;
        let mut rest = if is_control(frame.opcode) { &[] } else { frame.payload };
        while !rest.is_empty() {
            let line_end = rest
                .windows(2)
                .position(|window| window == b"\r\n")
                .ok_or("a NATS command is cut by its frame")?
                + 2;
            let (line, after) = rest.split_at(line_end);
            rest = after;
            if line.starts_with(b"MSG ") {
                rest = rest.get(PUSH_BYTES + 2..).ok_or("a NATS message is cut by its frame")?;
                pushes += 1;
            } else if line.starts_with(b"PING") {
                ws::write_binary(answer, b"PONG\r\n");
            } else if !line.starts_with(b"INFO ") {
                return Err(format!("unexpected {}", String::from_utf8_lossy(line)));
            }
        }
        Ok(Some(Read {
            consumed: frame.consumed,
            pushes,
        }))
    }

    fn goodbye(&self, into: &mut Vec<u8>) {
        ws::write_close(into);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unmasked(opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x80 | opcode];
        if payload.len() < 126 {
            bytes.push(payload.len() as u8);
        } else {
            bytes.push(126);
            bytes.extend_from_slice(&(payload.len() as u16).to_be_bytes());
        }
        bytes.extend_from_slice(payload);
        bytes
    }

    #[test]
    fn named_counts_whole_pushes_only() {
        let push = unmasked(1, &[b'x'; PUSH_BYTES]);
        let mut answer = Vec::new();
        let consumed = push.len();
        assert_eq!(Named.read(&push, &mut answer), Ok(Some(Read { consumed, pushes: 1 })));
        for cut in 0..push.len() {
            assert_eq!(Named.read(&push[..cut], &mut answer), Ok(None), "cut at {cut}");
        }
        assert!(Named.read(&unmasked(1, b"short"), &mut answer).is_err());
        assert_eq!(
            Named.read(&unmasked(9, b""), &mut answer),
            Ok(Some(Read { consumed: 2, pushes: 0 }))
        );
        assert!(answer.is_empty());
    }

    #[test]
    fn an_upgrade_is_whole_and_101_or_it_is_refused() {
        let good = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x81\x00";
        let mut answer = Vec::new();
        assert_eq!(Named.greet(0, 0, good, &mut answer), Ok(Greeting::Open(good.len() - 2)));
        assert_eq!(Named.greet(0, 0, &good[..20], &mut answer), Ok(Greeting::Partial));
        assert!(Named.greet(0, 0, b"HTTP/1.1 503 Busy\r\n\r\n", &mut answer).is_err());
    }

    #[test]
    fn the_gateway_answers_an_offer_and_counts_its_confirmation() {
        let mut answer = Vec::new();
        let offer = unmasked(1, br#"{"type":"OFFER","request_id":"bench-0000000007","attempt":1}"#);
        let read = Gateway::Answer.read(&offer, &mut answer).unwrap().unwrap();
        assert_eq!(read.pushes, 0);
        let mut expected = Vec::new();
        Gateway::Answer.order(7, &mut expected);
        assert_eq!(answer, expected);
        let confirmed = unmasked(
            1,
            br#"{"type":"CONFIRMED","request_id":"bench-0000000007","attempt":1,"trip_id":"t"}"#,
        );
        assert_eq!(
            Gateway::Answer.read(&confirmed, &mut answer).unwrap().unwrap().pushes,
            1
        );
        assert!(Gateway::Heartbeat.read(&confirmed, &mut answer).is_err());
    }

    #[test]
    fn nats_messages_of_one_frame_are_all_counted_and_pings_answered() {
        let mut commands = Vec::new();
        for _ in 0..2 {
            commands.extend_from_slice(b"MSG d.driver-000001 1 300\r\n");
            commands.extend_from_slice(&[b'x'; PUSH_BYTES]);
            commands.extend_from_slice(b"\r\n");
        }
        commands.extend_from_slice(b"PING\r\n");
        let bytes = unmasked(2, &commands);
        let mut answer = Vec::new();
        let read = Nats.read(&bytes, &mut answer).unwrap().unwrap();
        assert_eq!((read.pushes, read.consumed), (2, bytes.len()));
        assert!(!answer.is_empty());
        assert!(Nats.read(&unmasked(2, b"-ERR 'no'\r\n"), &mut answer).is_err());
        assert!(Nats.read(&unmasked(2, b"MSG a 1 300\r\nxx"), &mut answer).is_err());
    }
}
