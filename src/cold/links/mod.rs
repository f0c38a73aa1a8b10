//! Links between the nodes of a fleet: persistent TCP, or TLS on it, one connection per ordered pair of nodes.
//!
//! One thread with a runtime of its own (`net/`) listens, dials every node that the registry lists with an address for links,
//! and carries what shards write to each other ([`port`]). Who made a connection sends letters on it and hears
//! acknowledgements; what the other has to say goes over the connection that the other made.
//!
//! **Nothing is lost by a cut.** Letters have numbers; whoever sent one keeps it until it is acknowledged and sends it again
//! on the next connection, and the receiver knows what it has had. So a link is like a ring between shards that takes longer,
//! as long as both processes live and neither is away for [`port::PATIENCE`]. What is beyond is lost and the shards are
//! told ([`FromLinks::Lost`]); so they are when a process has begun anew ([`FromLinks::Up`]).
//!
//! **Bounds.** [`port::QUEUE_LETTERS_MAX`] letters wait for one node and as many again may be unacknowledged; what is beyond
//! is refused at once. A receiver whose shards do not keep up stops reading.
//!
//! **A cut is seen** within [`port::SILENCE_MAX`]: an idle connection is asked every quarter of that, and one that does not
//! answer is closed and made again, with growing pauses.
//!
//! Must never: make a shard wait, give a shard a letter twice, or use a byte of a frame whose checksum is wrong.
#![forbid(unsafe_code)]

#[cfg(feature = "fleet")]
mod net;
pub mod port;

#[cfg(feature = "fleet")]
pub use net::{LinkConfig, LinkTls, Links, TlsFiles};
pub use port::{FromLinks, LinksHandle, Peers, Refused};
