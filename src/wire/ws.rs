//! The WebSocket protocol, server side (RFC 6455): handshake, frames in, frames out. No extensions.

mod decode;
mod encode;
mod handshake;

use super::limits::MESSAGE_LEN_MAX;

pub use decode::WsDecoder;
pub use encode::{write_binary, write_close, write_ping, write_pong, write_text, write_text_long, write_text_whole};
pub use handshake::{AcceptKey, SUBPROTOCOL, accept, write_101};

/// Close codes of RFC 6455 §7.4.1 and of the contract.
pub mod close_code {
    /// Done.
    pub const NORMAL: u16 = 1000;
    /// A violation of the protocol.
    pub const PROTOCOL: u16 = 1002;
    /// Binary messages are not taken.
    pub const UNSUPPORTED: u16 = 1003;
    /// Stands for a close frame without a code; never on the wire.
    pub const NO_STATUS: u16 = 1005;
    /// Text that is not UTF-8.
    pub const INVALID_PAYLOAD: u16 = 1007;
    /// A message over the bound.
    pub const TOO_BIG: u16 = 1009;
    /// `draining`: come back later.
    pub const SERVICE_RESTART: u16 = 1012;
    /// `displaced`: the driver connected again.
    pub const DISPLACED: u16 = 4001;
    /// `unauthorized`
    pub const UNAUTHORIZED: u16 = 4003;
    /// `heartbeat lost`
    pub const HEARTBEAT_LOST: u16 = 4004;
    /// `slow consumer`
    pub const SLOW_CONSUMER: u16 = 4008;
}

/// What a server takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WsPolicy {
    /// Binary messages; without them they end the connection with 1003.
    pub accept_binary: bool,
    /// Longest message, in bytes, in one frame or many; one that is longer ends the connection with 1009.
    pub message_len_max: usize,
}

impl WsPolicy {
    /// What drivers may send (contract §1): text, at most [`MESSAGE_LEN_MAX`] bytes.
    pub const DRIVERS: Self = Self {
        accept_binary: false,
        message_len_max: MESSAGE_LEN_MAX,
    };
}

impl Default for WsPolicy {
    fn default() -> Self {
        Self::DRIVERS
    }
}

/// One whole message or control frame, unmasked and checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WsInput<'a> {
    /// A text message.
    Text(&'a str),
    /// A binary message.
    Binary(&'a [u8]),
    /// A ping: answer with a pong of the same payload.
    Ping(&'a [u8]),
    /// A pong.
    Pong(&'a [u8]),
    /// A close frame, with code and reason unless it was empty. Nothing after it counts: answer and close.
    Close(Option<(u16, &'a str)>),
}

/// Why the connection must be closed: the peer's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WsViolation {
    /// Code for the close frame: 1002, 1003, 1007 or 1009.
    pub code: u16,
    /// Reason for the close frame, at most 123 bytes.
    pub reason: &'static str,
}
