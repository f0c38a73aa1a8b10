//! Frames in: parsed, unmasked where they lie, checked against RFC 6455 and put together to messages.
//!
//! A frame that lies whole in the input is handed on without a copy. What comes in part is copied into a [`Carry`],
//! which lives until the frame and its message are whole and grows with what has come, never with what was announced.

use super::{WsInput, WsPolicy, WsViolation, close_code};
use crate::wire::limits::CONTROL_LEN_MAX;
use std::io::Cursor;
use std::ops::ControlFlow;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// Longest header of a client's frame: two bytes, eight of length, four of mask (RFC 6455 §5.2).
const HEADER_LEN_MAX: usize = 14;

/// Decodes a client's frames. Owns nothing while no frame or message is in part.
#[derive(Debug, Default)]
pub struct WsDecoder {
    carry: Option<Box<Carry>>,
}

const _: () = assert!(size_of::<WsDecoder>() <= 8);

/// What is left of a frame or message that has not come whole.
#[derive(Debug, Default)]
struct Carry {
    /// The begin of a frame, shorter than its header.
    header: [u8; HEADER_LEN_MAX],
    header_len: u8,
    /// The frame whose payload is coming.
    frame: Option<Frame>,
    /// How much of that payload has come.
    frame_got: usize,
    /// The payload of a control frame, as far as it has come.
    control: Vec<u8>,
    /// The message that this and later frames belong to.
    message_kind: Option<MessageKind>,
    /// Its content, as far as it has come.
    message: Vec<u8>,
    /// How much of a text's content is known to be UTF-8.
    utf8_len: usize,
}

/// A checked header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Frame {
    kind: FrameKind,
    is_final: bool,
    payload_len: usize,
    mask: [u8; 4],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FrameKind {
    Ping,
    Pong,
    Close,
    /// The first frame of a message.
    First(MessageKind),
    Continuation,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MessageKind {
    Text,
    Binary,
}

impl WsDecoder {
    /// At the begin of a connection, right after the handshake.
    pub const fn new() -> Self {
        Self { carry: None }
    }

    /// Whether neither a frame nor a fragmented message is in part; no memory is held then.
    pub fn is_idle(&self) -> bool {
        self.carry.is_none()
    }

    /// Takes the next bytes of the connection, unmasks them in place and calls `on` for each message or control frame
    /// that is whole, in order. When `on` breaks, or after a [`WsInput::Close`], the rest of `bytes` is dropped, and the
    /// decoder must not be fed again.
    ///
    /// # Errors
    /// [`WsViolation`]: close the connection with it; the decoder must not be fed again.
    pub fn feed(
        &mut self,
        policy: WsPolicy,
        bytes: &mut [u8],
        on: &mut dyn FnMut(WsInput<'_>) -> ControlFlow<()>,
    ) -> Result<(), WsViolation> {
        let mut rest = bytes;
        loop {
            if let Some(carry) = self.carry.as_deref_mut().filter(|carry| carry.frame.is_some()) {
                let taken = carry.take_payload(rest)?;
                rest = &mut rest[taken..];
                if carry.frame_is_whole() {
                    let flow = carry.finish_frame(on)?;
                    if carry.is_empty() {
                        self.carry = None;
                    }
                    if flow.is_break() {
                        return Ok(());
                    }
                    continue;
                }
            }
            if rest.is_empty() {
                return Ok(());
            }
            let Some((frame, header_len)) = self.next_frame(policy, rest)? else {
                return Ok(());
            };
            rest = &mut rest[header_len..];
            if rest.len() < frame.payload_len || frame.extends_a_message() {
                self.carry.get_or_insert_default().begin(frame);
                continue;
            }
            let (payload, after) = rest.split_at_mut(frame.payload_len);
            rest = after;
            unmask(payload, frame.mask, 0);
            if deliver(frame.kind, payload, on)?.is_break() {
                return Ok(());
            }
        }
    }

    /// The next frame's header and how many bytes of `bytes` it takes; `None` when all of them are kept for later.
    fn next_frame(&mut self, policy: WsPolicy, bytes: &[u8]) -> Result<Option<(Frame, usize)>, WsViolation> {
        let (in_message, message_len) = match self.carry.as_deref() {
            Some(carry) => (carry.message_kind.is_some(), carry.message.len()),
            None => (false, 0),
        };
        let kept = self.carry.as_deref().map_or(0, |carry| usize::from(carry.header_len));
        debug_assert!(kept < HEADER_LEN_MAX);
        let mut joined = [0; HEADER_LEN_MAX];
        let window = if let (Some(carry), 1..) = (self.carry.as_deref(), kept) {
            let more = bytes.len().min(HEADER_LEN_MAX - kept);
            joined[..kept].copy_from_slice(&carry.header[..kept]);
            joined[kept..kept + more].copy_from_slice(&bytes[..more]);
            &joined[..kept + more]
        } else {
            &bytes[..bytes.len().min(HEADER_LEN_MAX)]
        };
        if let Some((frame, header_len)) = parse_header(window)? {
            check_frame(&frame, policy, in_message, message_len)?;
            if let Some(carry) = &mut self.carry {
                carry.header_len = 0;
                if carry.is_empty() {
                    self.carry = None;
                }
            }
            debug_assert!(header_len > kept);
            return Ok(Some((frame, header_len - kept)));
        }
        debug_assert!(window.len() < HEADER_LEN_MAX, "no header is longer");
        let len = window.len();
        let mut header = [0; HEADER_LEN_MAX];
        header[..len].copy_from_slice(window);
        let carry = self.carry.get_or_insert_default();
        carry.header = header;
        carry.header_len = len as u8;
        Ok(None)
    }
}

impl Frame {
    /// Whether its payload must be put together with that of other frames.
    fn extends_a_message(&self) -> bool {
        match self.kind {
            FrameKind::Ping | FrameKind::Pong | FrameKind::Close => false,
            FrameKind::First(_) => !self.is_final,
            FrameKind::Continuation => true,
        }
    }
}

impl Carry {
    fn begin(&mut self, frame: Frame) {
        debug_assert!(self.frame.is_none() && self.control.is_empty() && self.header_len == 0);
        self.frame = Some(frame);
        self.frame_got = 0;
        if let FrameKind::First(kind) = frame.kind {
            debug_assert!(self.message_kind.is_none() && self.message.is_empty());
            self.message_kind = Some(kind);
        }
    }

    /// Nothing is in part.
    fn is_empty(&self) -> bool {
        self.header_len == 0 && self.frame.is_none() && self.message_kind.is_none()
    }

    fn frame_is_whole(&self) -> bool {
        self.frame.is_some_and(|frame| frame.payload_len == self.frame_got)
    }

    /// Copies and unmasks what `bytes` has of the frame's payload, and says how much that was.
    fn take_payload(&mut self, bytes: &[u8]) -> Result<usize, WsViolation> {
        let Some(frame) = self.frame else { return Ok(0) };
        let take = bytes.len().min(frame.payload_len - self.frame_got);
        let is_control = matches!(frame.kind, FrameKind::Ping | FrameKind::Pong | FrameKind::Close);
        let buffer = if is_control {
            &mut self.control
        } else {
            &mut self.message
        };
        let start = buffer.len();
        buffer.extend_from_slice(&bytes[..take]);
        unmask(&mut buffer[start..], frame.mask, self.frame_got);
        self.frame_got += take;
        debug_assert!(self.frame_got <= frame.payload_len && self.control.len() <= CONTROL_LEN_MAX);
        if !is_control && self.message_kind == Some(MessageKind::Text) {
            self.check_utf8()?;
        }
        Ok(take)
    }

    /// RFC 6455 §8.1: text that cannot become UTF-8 any more fails at once, not when the message is whole.
    fn check_utf8(&mut self) -> Result<(), WsViolation> {
        match simdutf8::compat::from_utf8(&self.message[self.utf8_len..]) {
            Ok(_) => self.utf8_len = self.message.len(),
            Err(error) if error.error_len().is_some() => return Err(NOT_UTF8),
            // The last character is in part.
            Err(error) => self.utf8_len += error.valid_up_to(),
        }
        Ok(())
    }

    /// Hands on what the whole frame made whole, and forgets it.
    fn finish_frame(
        &mut self,
        on: &mut dyn FnMut(WsInput<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, WsViolation> {
        debug_assert!(self.frame_is_whole());
        let Some(frame) = self.frame.take() else {
            return Ok(ControlFlow::Continue(()));
        };
        match (frame.kind, self.message_kind) {
            (FrameKind::Ping | FrameKind::Pong | FrameKind::Close, _) => {
                let payload = std::mem::take(&mut self.control);
                deliver(frame.kind, &payload, on)
            }
            (FrameKind::First(_) | FrameKind::Continuation, Some(kind)) if frame.is_final => {
                let message = std::mem::take(&mut self.message);
                self.message_kind = None;
                self.utf8_len = 0;
                deliver(FrameKind::First(kind), &message, on)
            }
            (FrameKind::First(_) | FrameKind::Continuation, _) => Ok(ControlFlow::Continue(())),
        }
    }
}

const NOT_UTF8: WsViolation = violation(close_code::INVALID_PAYLOAD, "text is not UTF-8");

const fn violation(code: u16, reason: &'static str) -> WsViolation {
    WsViolation { code, reason }
}

const fn protocol(reason: &'static str) -> WsViolation {
    violation(close_code::PROTOCOL, reason)
}

/// A frame's header and its length; `None` when `bytes` ends in it. The rules that need nothing but the header.
fn parse_header(bytes: &[u8]) -> Result<Option<(Frame, usize)>, WsViolation> {
    let mut cursor = Cursor::new(bytes);
    // RFC 6455 §5.2: the only error of this function is a reserved opcode.
    let parsed = FrameHeader::parse(&mut cursor).map_err(|_| protocol("reserved opcode"))?;
    let Some((header, payload_len)) = parsed else {
        return Ok(None);
    };
    // RFC 6455 §5.2: reserved bits need an extension, and none is negotiated.
    if header.rsv1 || header.rsv2 || header.rsv3 {
        return Err(protocol("reserved bit set"));
    }
    // RFC 6455 §5.1.
    let Some(mask) = header.mask else {
        return Err(protocol("frame is not masked"));
    };
    // RFC 6455 §5.2: the shortest encoding of the length must be used, and its highest bit is 0.
    let len_is_minimal = match bytes[1] & 0x7f {
        126 => payload_len > 125,
        127 => payload_len > u64::from(u16::MAX) && payload_len >> 63 == 0,
        _ => true,
    };
    if !len_is_minimal {
        return Err(protocol("payload length badly encoded"));
    }
    let kind = match header.opcode {
        OpCode::Control(Control::Ping) => FrameKind::Ping,
        OpCode::Control(Control::Pong) => FrameKind::Pong,
        OpCode::Control(Control::Close) => FrameKind::Close,
        OpCode::Data(Data::Text) => FrameKind::First(MessageKind::Text),
        OpCode::Data(Data::Binary) => FrameKind::First(MessageKind::Binary),
        OpCode::Data(Data::Continue) => FrameKind::Continuation,
        OpCode::Control(Control::Reserved(_)) | OpCode::Data(Data::Reserved(_)) => {
            return Err(protocol("reserved opcode"));
        }
    };
    // A length that does not fit is over every bound below.
    let payload_len = usize::try_from(payload_len).unwrap_or(usize::MAX);
    let frame = Frame {
        kind,
        is_final: header.is_final,
        payload_len,
        mask,
    };
    Ok(Some((frame, cursor.position() as usize)))
}

/// The rules that need to know what came before.
fn check_frame(frame: &Frame, policy: WsPolicy, in_message: bool, message_len: usize) -> Result<(), WsViolation> {
    match frame.kind {
        FrameKind::Ping | FrameKind::Pong | FrameKind::Close => {
            // RFC 6455 §5.5.
            if !frame.is_final {
                return Err(protocol("control frame is fragmented"));
            }
            if frame.payload_len > CONTROL_LEN_MAX {
                return Err(protocol("control frame is too long"));
            }
            return Ok(());
        }
        // RFC 6455 §5.4.
        FrameKind::First(_) if in_message => return Err(protocol("new message inside a fragmented one")),
        FrameKind::Continuation if !in_message => return Err(protocol("continuation without a message")),
        // Contract §1; RFC 6455 §7.4.1.
        FrameKind::First(MessageKind::Binary) if !policy.accept_binary => {
            return Err(violation(close_code::UNSUPPORTED, "binary messages are not taken"));
        }
        FrameKind::First(_) | FrameKind::Continuation => {}
    }
    // Contract §1; RFC 6455 §7.4.1. Judged by the header, before anything is kept.
    if frame.payload_len > policy.message_len_max.saturating_sub(message_len) {
        return Err(violation(close_code::TOO_BIG, "message is too long"));
    }
    Ok(())
}

/// Hands on a whole message or control frame. Breaks after a close frame.
fn deliver(
    kind: FrameKind,
    payload: &[u8],
    on: &mut dyn FnMut(WsInput<'_>) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, WsViolation> {
    Ok(match kind {
        FrameKind::Ping => on(WsInput::Ping(payload)),
        FrameKind::Pong => on(WsInput::Pong(payload)),
        FrameKind::Close => {
            let _closed = on(WsInput::Close(parse_close(payload)?));
            ControlFlow::Break(())
        }
        FrameKind::First(MessageKind::Binary) => on(WsInput::Binary(payload)),
        // RFC 6455 §8.1. A continuation is delivered as what its message began as.
        FrameKind::First(MessageKind::Text) | FrameKind::Continuation => on(WsInput::Text(
            simdutf8::basic::from_utf8(payload).map_err(|_| NOT_UTF8)?,
        )),
    })
}

/// RFC 6455 §5.5.1: nothing, or a code and a reason in UTF-8.
fn parse_close(payload: &[u8]) -> Result<Option<(u16, &str)>, WsViolation> {
    match payload {
        [] => Ok(None),
        [_] => Err(protocol("close frame of one byte")),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !close_code_is_valid(code) {
                return Err(protocol("close code that must not be sent"));
            }
            let reason = simdutf8::basic::from_utf8(reason)
                .map_err(|_| violation(close_code::INVALID_PAYLOAD, "close reason is not UTF-8"))?;
            Ok(Some((code, reason)))
        }
    }
}

/// RFC 6455 §7.4: codes that may be on the wire. 1012–1014 were registered later.
pub(super) const fn close_code_is_valid(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// RFC 6455 §5.3, for bytes that begin `offset` bytes into the payload. Eight at a time.
fn unmask(bytes: &mut [u8], mut mask: [u8; 4], offset: usize) {
    mask.rotate_left(offset % 4);
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, tail) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in tail.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}
