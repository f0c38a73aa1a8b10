//! Pure codecs: HTTP heads, WebSocket frames, JSON messages. Bytes in, values out.
//!
//! Must never: do I/O, read a clock, or keep state that belongs to a connection's owner. What a peer sends is an
//! error value, never a panic.
//!
//! In the order a byte travels: [`http`] cuts a request out of a connection's bytes, [`route`] says which endpoint it
//! is for, [`api`] reads its body and makes its answer, [`respond`] writes that answer. For a driver's socket [`ws`]
//! takes over after the handshake and [`driver`] reads and writes the messages. [`link`] is between the nodes of a fleet.
#![forbid(unsafe_code)]
// No clock, no threads, no sleep: the list is in `clippy.toml`.
#![deny(clippy::disallowed_methods)]

pub mod api;
pub mod driver;
mod fields;
pub mod http;
mod json;
pub mod limits;
pub mod link;
pub mod record;
pub mod respond;
pub mod route;
pub mod ws;
