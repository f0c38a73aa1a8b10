//! Ports for nodes under test. Outside the kernel's ephemeral range: a node that is killed and started again must find its
//! port free, although many clients are connecting to it meanwhile (and a client that connects to a dead ephemeral port on
//! its own machine can even end up connected to itself).

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

const PORT_MIN: u32 = 10_000;
const PORT_COUNT: u32 = 20_000;
const TRIES_MAX: u32 = 1_000;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A free port on the loopback interface that this process has not handed out before.
///
/// # Panics
/// When none is found.
pub fn free_address() -> SocketAddr {
    free_listener().local_addr().expect("the address that was bound")
}

/// A listener on such a port. Who closes one and binds the port again may find it in use: a child that another test has just forked
/// holds the closed listener until its program begins.
///
/// # Panics
/// When none is found.
pub fn free_listener() -> TcpListener {
    // Test processes side by side begin at different places.
    let start = std::process::id().wrapping_mul(7_919);
    for _ in 0..TRIES_MAX {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = PORT_MIN + start.wrapping_add(step) % PORT_COUNT;
        let port = u16::try_from(port).expect("the range ends below 65,536");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if let Ok(listener) = TcpListener::bind(address) {
            return listener;
        }
    }
    panic!("no free port among {TRIES_MAX} from {PORT_MIN}");
}
