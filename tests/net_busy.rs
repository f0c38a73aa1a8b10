//! Connections that receive often, and keep a multishot receive for it.

mod net_support;

use std::io::Write;
use std::net::TcpStream;

use dispatchd::net::CloseCause;
use net_support::{Shard, small};

#[test]
fn a_connection_is_busy_while_it_receives_often() {
    let (mut shard, addr) = Shard::listening(&small());
    let mut client = TcpStream::connect(addr).unwrap();
    let conn = shard.accept();
    shard.net.allow_busy(conn);
    shard.net.start_recv(conn);
    let mut exchange = |shard: &mut Shard| {
        client.write_all(b"beat").unwrap();
        assert_eq!(shard.receive(conn, 4), b"beat");
        shard.net.busy_connections()
    };
    // A heartbeat now and then.
    for _ in 0..5 {
        assert_eq!(exchange(&mut shard), 0);
        (0..2).for_each(|_| shard.net.trim());
    }
    // One after the other: busy from the one after `RECEIVES_OF_BUSY` on, and as long as none is missing for two sweeps.
    let busy: Vec<_> = (0..6).map(|_| exchange(&mut shard)).collect();
    assert_eq!(busy, [0, 0, 0, 1, 1, 1]);
    shard.net.trim();
    assert_eq!(exchange(&mut shard), 1);
    shard.net.trim();
    assert_eq!(shard.net.busy_connections(), 1);
    shard.net.trim();
    assert_eq!(shard.net.busy_connections(), 0);
    // Idle again: whatever comes while the multishot receive is being cancelled arrives once.
    assert_eq!(exchange(&mut shard), 0);
    (0..2).for_each(|_| shard.net.trim());
    shard.poll();
    assert_eq!(exchange(&mut shard), 0);
}

#[test]
fn a_connection_that_leaves_while_busy_is_forgotten() {
    let (mut shard, addr) = Shard::listening(&small());
    let mut client = TcpStream::connect(addr).unwrap();
    let conn = shard.accept();
    shard.net.allow_busy(conn);
    shard.net.start_recv(conn);
    for _ in 0..5 {
        client.write_all(b"beat").unwrap();
        assert_eq!(shard.receive(conn, 4), b"beat");
    }
    assert_eq!(shard.net.busy_connections(), 1);
    shard.net.abort(conn);
    assert_eq!(shard.closed(conn), CloseCause::Local);
    shard.net.trim();
    assert_eq!(shard.net.busy_connections(), 0);
}

/// A pause takes the right to be busy, and without it a pause finds nothing that the kernel took beforehand.
#[test]
fn a_connection_that_was_paused_is_not_busy() {
    let (mut shard, addr) = Shard::listening(&small());
    let mut client = TcpStream::connect(addr).unwrap();
    let conn = shard.accept();
    shard.net.allow_busy(conn);
    shard.net.start_recv(conn);
    shard.net.pause_recv(conn);
    shard.net.start_recv(conn);
    for _ in 0..10 {
        client.write_all(b"beat").unwrap();
        assert_eq!(shard.receive(conn, 4), b"beat");
        assert_eq!(shard.net.busy_connections(), 0);
    }
}
