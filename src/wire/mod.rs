//! Pure codecs: HTTP heads, WebSocket frames, JSON messages, journal records. Bytes in, values out.
//!
//! Must never: do I/O, read a clock, or keep state that belongs to a connection's owner.
#![forbid(unsafe_code)]

pub mod record;
