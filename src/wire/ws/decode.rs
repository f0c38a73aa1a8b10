//! Frames in.

use super::{WsInput, WsPolicy, WsViolation};
use std::ops::ControlFlow;

/// What is left of a frame or message that has not come whole.
#[derive(Debug)]
struct Carry {
    message: Vec<u8>,
}

/// Decodes a client's frames. Owns nothing while no frame or message is in part.
#[derive(Debug, Default)]
pub struct WsDecoder {
    carry: Option<Box<Carry>>,
}

const _: () = assert!(size_of::<WsDecoder>() <= 8);

impl WsDecoder {
    /// At the begin of a connection, right after the handshake.
    pub const fn new() -> Self {
        Self { carry: None }
    }

    /// Whether a frame or a fragmented message is in part, and so memory is held.
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
        let _ = on(WsInput::Text(""));
        todo!(
            "{policy:?} {} {:?}",
            bytes.len(),
            self.carry.as_ref().map(|carry| carry.message.len())
        )
    }
}
