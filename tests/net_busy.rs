//! Connections that receive often, and keep a multishot receive for it.

mod net_support;

use std::io::Write;
use std::net::{SocketAddr, TcpStream};

use dispatchd::net::limits::BUSY_CHECKED_PER_TURN;
use dispatchd::net::{CloseCause, ConnId, NetConfig, NetEvent};
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
        (0..2).for_each(|_| trim(&mut shard));
    }
    // One after the other: busy from the one after `RECEIVES_OF_BUSY` on, and as long as none is missing for two sweeps.
    let busy: Vec<_> = (0..6).map(|_| exchange(&mut shard)).collect();
    assert_eq!(busy, [0, 0, 0, 1, 1, 1]);
    trim(&mut shard);
    assert_eq!(exchange(&mut shard), 1);
    trim(&mut shard);
    assert_eq!(shard.net.busy_connections(), 1);
    trim(&mut shard);
    assert_eq!(shard.net.busy_connections(), 0);
    // Idle again: whatever comes while the multishot receive is being cancelled arrives once.
    assert_eq!(exchange(&mut shard), 0);
    (0..2).for_each(|_| trim(&mut shard));
    assert_eq!(exchange(&mut shard), 0);
}

/// A crowd that falls silent at once is put away a few at a time.
#[test]
fn a_turn_puts_away_few_of_a_silent_crowd() {
    const CROWD: usize = 60;
    let (mut shard, addr) = Shard::listening(&small());
    let mut crowd = crowd(&mut shard, addr, CROWD);
    for (client, conn) in &mut crowd {
        for _ in 0..4 {
            client.write_all(b"beat").unwrap();
            assert_eq!(shard.receive(*conn, 4), b"beat");
        }
    }
    assert_eq!(shard.net.busy_connections(), CROWD);
    shard.net.trim();
    shard.net.trim();
    shard.poll();
    assert_eq!(shard.net.busy_connections(), CROWD - BUSY_CHECKED_PER_TURN);
    shard.poll();
    assert_eq!(shard.net.busy_connections(), 0);
    // All of them are heard as before, in a poll or in what is left of the multishot receive.
    for (client, conn) in &mut crowd {
        client.write_all(b"beat").unwrap();
        assert_eq!(shard.receive(*conn, 4), b"beat");
    }
}

/// As many connections as are allowed keep a multishot receive from the start, whoever comes later waits in a poll, and takes the place of
/// one that has gone.
#[test]
fn few_of_a_crowd_keep_a_multishot_receive() {
    let (mut shard, addr) = Shard::listening(&NetConfig {
        multishots_kept: 2,
        ..small()
    });
    let mut crowd = crowd(&mut shard, addr, 4);
    assert_eq!(shard.net.multishots(), 2);
    for (client, conn) in &mut crowd {
        client.write_all(b"beat").unwrap();
        assert_eq!(shard.receive(*conn, 4), b"beat");
    }
    (0..3).for_each(|_| trim(&mut shard));
    assert_eq!(shard.net.multishots(), 2, "no silence takes it away");
    let (_, gone) = crowd.remove(0);
    shard.net.abort(gone);
    assert_eq!(shard.closed(gone), CloseCause::Local);
    assert_eq!(shard.net.multishots(), 1);
    let (client, conn) = crowd.last_mut().unwrap();
    client.write_all(b"beat").unwrap();
    assert_eq!(shard.receive(*conn, 4), b"beat");
    shard.poll();
    assert_eq!(shard.net.multishots(), 2);
    client.write_all(b"beat").unwrap();
    assert_eq!(shard.receive(*conn, 4), b"beat");
}

/// A ring that has received more at once than it does now gives the memory back, but none in which something lies that nobody has
/// taken yet.
#[test]
fn memory_that_is_given_back_has_nothing_in_it() {
    // More than the buffers that are always offered.
    const CROWD: usize = 200;
    const TRIMS: usize = 4;
    // A submission queue that is full after eight receives: the others are submitted while they are armed, and end unseen.
    let (mut shard, addr) = Shard::listening(&NetConfig {
        sq_entries: 8,
        recv_buffers: 256,
        fixed_files: 256,
        ..small()
    });
    let mut crowd: Vec<_> = (0..CROWD)
        .map(|_| (TcpStream::connect(addr).unwrap(), shard.accept()))
        .collect();
    for round in 0..4_u8 {
        for (client, _) in &mut crowd {
            client.write_all(&[round + 1; 100]).unwrap();
        }
        for (_, conn) in &crowd {
            shard.net.start_recv(*conn);
        }
        // The goal falls from all buffers, which the shortage of the first round asked for, to as many as are always offered.
        (0..TRIMS).for_each(|_| shard.net.trim());
        let mut missing = CROWD * 100;
        while missing > 0 {
            let NetEvent::Received { conn, buffer } = shard.next() else {
                panic!("expected bytes")
            };
            let bytes = shard.net.bytes_mut(&buffer);
            assert!(bytes.iter().all(|byte| *byte == round + 1), "{conn:?}: {bytes:?}");
            missing -= bytes.len();
            shard.net.recycle(buffer);
            shard.net.pause_recv(conn);
        }
        shard.poll();
    }
}

/// Connections that may be busy and are read.
fn crowd(shard: &mut Shard, addr: SocketAddr, count: usize) -> Vec<(TcpStream, ConnId)> {
    let one = |_| {
        let client = TcpStream::connect(addr).unwrap();
        let conn = shard.accept();
        shard.net.allow_busy(conn);
        shard.net.start_recv(conn);
        (client, conn)
    };
    (0..count).map(one).collect()
}

/// A second passes, and the turn after it.
fn trim(shard: &mut Shard) {
    shard.net.trim();
    shard.poll();
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
    trim(&mut shard);
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
