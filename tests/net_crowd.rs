//! Connections of a crowd, which keep a multishot receive, and what their buffers hold.

mod net_support;

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};

use dispatchd::net::{CloseCause, ConnId, NetConfig, NetEvent};
use net_support::{Shard, small};

/// A multishot receive takes all that is there, a buffer after the other. After a pause a connection has one buffer in a turn, so that another
/// pause finds nothing that the kernel took beforehand.
#[test]
fn one_of_a_crowd_is_received_whole_until_it_is_paused() {
    const BUFFERS: usize = 4;
    let config = small();
    let (mut shard, addr) = Shard::listening(&config);
    let mut client = TcpStream::connect(addr).unwrap();
    let conn = shard.accept();
    let message = vec![7; BUFFERS * config.recv_buffer_bytes as usize];
    // All of it is in the socket before the receive begins.
    let mut in_one_turn = |shard: &mut Shard| {
        client.write_all(&message).unwrap();
        shard.net.start_recv(conn);
        shard.poll();
        let events = shard.events.drain(..).map(|event| match event {
            NetEvent::Received { buffer, .. } => shard.net.recycle(buffer),
            other => panic!("expected bytes: {other:?}"),
        });
        events.count()
    };
    shard.net.join_crowd(conn);
    assert_eq!(in_one_turn(&mut shard), BUFFERS);
    assert_eq!(in_one_turn(&mut shard), BUFFERS);
    shard.net.pause_recv(conn);
    shard.poll();
    assert_eq!(in_one_turn(&mut shard), 1);
    shard.receive(conn, message.len() - config.recv_buffer_bytes as usize);
}

/// One whose socket is always full has not all buffers for itself.
#[test]
fn a_flooder_starves_nobody() {
    const ROUNDS: usize = 20;
    const TURNS: usize = 4;
    let config = NetConfig {
        recv_buffers: 16,
        ..small()
    };
    let (mut shard, addr) = Shard::listening(&config);
    let [(mut flooder, flooding), (mut first, one), (mut second, other)] = [(); 3].map(|()| waiting(&mut shard, addr));
    flooder.set_nonblocking(true).unwrap();
    let chunk = vec![0; 64 << 10];
    for round in 0..ROUNDS {
        let flooded = loop {
            match flooder.write(&chunk) {
                Ok(written) => assert!(written > 0),
                Err(error) => break error.kind(),
            }
        };
        assert_eq!(flooded, ErrorKind::WouldBlock);
        first.write_all(b"!").unwrap();
        second.write_all(b"!").unwrap();
        let mut heard = Vec::new();
        for _ in 0..TURNS {
            shard.poll();
            while let Some(event) = shard.events.pop_front() {
                let NetEvent::Received { conn, buffer } = event else {
                    panic!("expected bytes: {event:?}")
                };
                heard.extend((conn != flooding).then_some(conn));
                shard.net.recycle(buffer);
            }
        }
        heard.sort();
        assert_eq!(heard, [one, other], "round {round}");
    }
}

/// One of a crowd, and its client, whose multishot receive waits.
fn waiting(shard: &mut Shard, addr: SocketAddr) -> (TcpStream, ConnId) {
    let mut client = TcpStream::connect(addr).unwrap();
    let conn = shard.accept();
    shard.net.join_crowd(conn);
    shard.net.start_recv(conn);
    client.write_all(b"beat").unwrap();
    assert_eq!(shard.receive(conn, 4), b"beat");
    shard.poll();
    (client, conn)
}

#[test]
fn one_of_a_crowd_is_closed_while_it_receives() {
    let (mut shard, addr) = Shard::listening(&small());
    for is_unread in [false, true] {
        for is_aborted in [false, true] {
            let (mut client, conn) = waiting(&mut shard, addr);
            if is_unread {
                client.write_all(b"unread").unwrap();
            }
            if is_aborted {
                shard.net.abort(conn);
            } else {
                shard.net.close_after_output(conn);
            }
            assert_eq!(shard.closed(conn), CloseCause::Local);
            assert_eq!(shard.net.connections(), 0);
        }
    }
    let (client, conn) = waiting(&mut shard, addr);
    drop(client);
    assert!(matches!(shard.next(), NetEvent::PeerClosed { .. }));
    shard.net.close_after_output(conn);
    assert_eq!(shard.closed(conn), CloseCause::Local);
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
    for (_, conn) in &crowd {
        shard.net.join_crowd(*conn);
    }
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
