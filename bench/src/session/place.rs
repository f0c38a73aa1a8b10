//! Where a session stands among others, and the local addresses of its connections.
#![forbid(unsafe_code)]

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::measure::Clock;
use crate::ring::SockAddr;

/// Connections of one local address. It has 28,232 ports (`ip_local_port_range`), but connecting looks at all even ones before
/// it takes the first odd one: beyond 14,000 every connect costs milliseconds.
pub const CONNECTIONS_PER_ADDRESS: u32 = 10_000;

/// Where a session stands among others of the same run, and how it behaves; see [`Session::open_as`](super::Session::open_as).
#[derive(Debug, Clone, Copy, Default)]
pub struct Place {
    /// Number of the session's first driver in the whole run; the session itself counts its drivers from 0.
    pub first_driver: u32,
    /// First local address of its connections; the next ones follow, each for [`CONNECTIONS_PER_ADDRESS`]. `None`: as the
    /// kernel chooses.
    pub local: Option<Ipv4Addr>,
    /// The scenario sends heartbeats itself.
    pub own_heartbeats: bool,
    /// The clock of sessions that share a thread; without one a session starts its own.
    pub clock: Option<Clock>,
}

impl Place {
    /// Addresses by slot; none: the kernel's choice.
    pub(super) fn local_addresses(&self, connections: u32) -> Vec<SockAddr> {
        let Some(first) = self.local else { return Vec::new() };
        let address = |place| Ipv4Addr::from(u32::from(first) + place);
        (0..connections.div_ceil(CONNECTIONS_PER_ADDRESS))
            .map(|place| SockAddr::new(SocketAddrV4::new(address(place), 0)))
            .collect()
    }
}
