//! The net ring over real sockets: echo, back-pressure, slow and failing peers, generations, buffers that run out.

mod net_support;

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;

use dispatchd::net::{CloseCause, ConnId, NetConfig, NetEvent};
use net_support::{Shard, echo, echo_to, pattern, small};

/// Sends `len` bytes while reading the echo, half-closes, and reads to the end.
fn echo_client(addr: SocketAddr, seed: u64, len: usize) {
    let sent = pattern(seed, len);
    let mut stream = TcpStream::connect(addr).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let copy = sent.clone();
    let writing = (len > 32 << 10).then(|| {
        thread::spawn(move || {
            writer.write_all(&copy).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        })
    });
    if writing.is_none() {
        stream.write_all(&sent).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
    }
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    assert!(received == sent, "seed {seed}: the echo of {len} bytes differs");
    writing.map(thread::JoinHandle::join).transpose().unwrap();
}

#[test]
fn a_thousand_connections_at_once_get_their_own_echo() {
    let config = NetConfig {
        fixed_files: 2048,
        recv_buffers: 256,
        ..small()
    };
    let (mut shard, addr) = Shard::listening(&config);
    let clients = thread::spawn(move || {
        let mut open: Vec<_> = (0..1000).map(|_| TcpStream::connect(addr).unwrap()).collect();
        for round in 0..3_u64 {
            for (number, stream) in open.iter_mut().enumerate() {
                stream
                    .write_all(&pattern(round << 32 | number as u64, 100 + number))
                    .unwrap();
            }
            for (number, stream) in open.iter_mut().enumerate() {
                let mut received = vec![0; 100 + number];
                stream.read_exact(&mut received).unwrap();
                assert_eq!(received, pattern(round << 32 | number as u64, 100 + number));
            }
        }
    });
    echo(&mut shard, 1000);
    clients.join().unwrap();
    assert_eq!((shard.net.connections(), shard.net.slots_free()), (0, 2048));
}

#[test]
fn large_echoes_pass_through_few_small_buffers() {
    [false, true].into_iter().for_each(large_echoes);
}

fn large_echoes(in_crowd: bool) {
    // Eight buffers of 256 bytes for 16 connections: nearly every receive ends with ENOBUFS and is armed again.
    let config = NetConfig {
        recv_buffers: 8,
        recv_buffer_bytes: 256,
        ..small()
    };
    let (mut shard, addr) = Shard::listening(&config);
    let clients: Vec<_> = (0..16)
        .map(|seed| thread::spawn(move || echo_client(addr, seed, 200_000)))
        .collect();
    echo_to(&mut shard, 16, in_crowd);
    for client in clients {
        client.join().unwrap();
    }
}

#[test]
fn connections_starve_while_the_owner_holds_all_buffers_and_go_on_after() {
    [false, true].into_iter().for_each(starve);
}

fn starve(in_crowd: bool) {
    let config = NetConfig {
        recv_buffers: 8,
        recv_buffer_bytes: 256,
        ..small()
    };
    let (mut shard, addr) = Shard::listening(&config);
    let waker = shard.net.waker();
    let clients: Vec<_> = (0..32).map(|_| TcpStream::connect(addr).unwrap()).collect();
    let conns: Vec<_> = clients.iter().map(|_| shard.accept()).collect();
    for &conn in &conns {
        if in_crowd {
            shard.net.join_crowd(conn);
        }
        shard.net.start_recv(conn);
    }
    for (seed, mut client) in clients.iter().enumerate() {
        client.write_all(&pattern(seed as u64, 1000)).unwrap();
    }
    let mut held = Vec::new();
    while held.len() < 8 {
        match shard.next() {
            NetEvent::Received { conn, buffer } => held.push((conn, buffer)),
            other => panic!("unexpected {other:?}"),
        }
    }
    // All are held: the ring sleeps rather than spins, and nothing is lost.
    waker.wake();
    shard.woken();
    let mut received: HashMap<ConnId, Vec<u8>> = HashMap::new();
    let mut take = |shard: &mut Shard, conn, buffer| {
        received
            .entry(conn)
            .or_default()
            .extend_from_slice(shard.net.bytes_mut(&buffer));
        shard.net.recycle(buffer);
        received.values().map(Vec::len).sum::<usize>() < 32 * 1000
    };
    for (conn, buffer) in held {
        take(&mut shard, conn, buffer);
    }
    while let NetEvent::Received { conn, buffer } = shard.next() {
        if !take(&mut shard, conn, buffer) {
            break;
        }
    }
    let mut all: Vec<_> = received.into_values().collect();
    let mut expected: Vec<_> = (0..32).map(|seed| pattern(seed, 1000)).collect();
    all.sort();
    expected.sort();
    assert!(all == expected);
}

#[test]
fn output_of_a_slow_reader_queues_and_arrives_whole() {
    const BYTES: usize = 24 << 20;
    let config = NetConfig {
        output_bytes_max: 32 << 20,
        ..small()
    };
    let (mut shard, addr) = Shard::listening(&config);
    let mut client = TcpStream::connect(addr).unwrap();
    let conn = shard.accept();
    let sent = pattern(1, BYTES);
    shard.send(conn, &sent[..BYTES / 2]);
    shard.poll();
    shard.send(conn, &sent[BYTES / 2..]);
    shard.poll();
    assert!(shard.net.output_len(conn) > 8 << 20, "a socket takes a few MiB of it");
    assert_eq!(shard.net.output_len(conn) + shard.net.output_room(conn), 32 << 20);
    assert!(shard.events.is_empty(), "not drained, not closed: {:?}", shard.events);
    let reader = thread::spawn(move || {
        let mut received = Vec::new();
        client.read_to_end(&mut received).unwrap();
        received
    });
    assert!(matches!(shard.next(), NetEvent::OutputDrained { .. }));
    assert_eq!(shard.net.output_len(conn), 0);
    shard.net.close_after_output(conn);
    assert_eq!(shard.closed(conn), CloseCause::Local);
    assert!(reader.join().unwrap() == sent);
}

#[test]
fn output_before_a_close_is_written_first() {
    let (mut shard, addr) = Shard::listening(&small());
    let mut client = TcpStream::connect(addr).unwrap();
    let conn = shard.accept();
    shard.send(conn, b"good");
    shard.send(conn, b"bye");
    shard.net.close_after_output(conn);
    assert!(shard.net.output(conn).is_none());
    assert!(matches!(shard.next(), NetEvent::OutputDrained { .. }));
    assert_eq!(shard.closed(conn), CloseCause::Local);
    let mut received = Vec::new();
    client.read_to_end(&mut received).unwrap();
    assert_eq!(received, b"goodbye");
}

#[test]
fn abort_drops_the_output_of_a_peer_that_does_not_read() {
    let (mut shard, addr) = Shard::listening(&small());
    let mut client = TcpStream::connect(addr).unwrap();
    let conn = shard.accept();
    shard.net.start_recv(conn);
    shard.send(conn, &pattern(2, 24 << 20));
    shard.poll();
    assert!(shard.net.output_len(conn) > 0);
    shard.net.abort(conn);
    assert!(shard.net.output(conn).is_none());
    assert_eq!(shard.closed(conn), CloseCause::Local);
    assert_eq!(shard.net.output_len(conn), 0);
    let error = client.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_reset_by_the_peer_closes_with_its_errno() {
    let (mut shard, addr) = Shard::listening(&small());
    let client = TcpStream::connect(addr).unwrap();
    let conn = shard.accept();
    shard.net.start_recv(conn);
    shard.poll();
    socket2::SockRef::from(&client)
        .set_linger(Some(std::time::Duration::ZERO))
        .unwrap();
    drop(client);
    assert_eq!(shard.closed(conn), CloseCause::Error(libc::ECONNRESET));
    assert_eq!(shard.net.connections(), 0);
}

#[test]
fn either_side_may_half_close() {
    let (mut shard, addr) = Shard::listening(&small());
    let mut client = TcpStream::connect(addr).unwrap();
    let conn = shard.accept();
    shard.net.start_recv(conn);
    shard.send(conn, b"last words");
    shard.net.shutdown_write_after_output(conn);
    assert!(shard.net.output(conn).is_none());
    let mut received = Vec::new();
    assert!(matches!(shard.next(), NetEvent::OutputDrained { .. }));
    shard.poll();
    client.read_to_end(&mut received).unwrap();
    assert_eq!(received, b"last words");
    client.write_all(b"answer").unwrap();
    assert_eq!(shard.receive(conn, 6), b"answer");
    client.shutdown(Shutdown::Write).unwrap();
    assert!(matches!(shard.next(), NetEvent::PeerClosed { .. }));
    shard.net.close_after_output(conn);
    assert_eq!(shard.closed(conn), CloseCause::Local);
}

#[test]
fn a_paused_connection_delivers_nothing_until_started_again() {
    let (mut shard, addr) = Shard::listening(&small());
    let waker = shard.net.waker();
    let mut client = TcpStream::connect(addr).unwrap();
    let conn = shard.accept();
    client.write_all(b"early").unwrap();
    waker.wake();
    shard.woken();
    shard.net.start_recv(conn);
    assert_eq!(shard.receive(conn, 5), b"early");
    shard.net.pause_recv(conn);
    shard.poll();
    client.write_all(b"late").unwrap();
    waker.wake();
    shard.woken();
    // Pause and start in one turn leave it running, in any order.
    shard.net.start_recv(conn);
    shard.net.pause_recv(conn);
    shard.net.start_recv(conn);
    assert_eq!(shard.receive(conn, 4), b"late");
    client.write_all(b"again").unwrap();
    assert_eq!(shard.receive(conn, 5), b"again");
}

/// Pausing and going on at every moment of a receive loses and repeats nothing.
#[test]
fn pauses_at_any_moment_neither_lose_nor_repeat_bytes() {
    [false, true].into_iter().for_each(pause_at_any_moment);
}

fn pause_at_any_moment(in_crowd: bool) {
    const ROUNDS: usize = 500;
    let (mut shard, addr) = Shard::listening(&small());
    let mut client = TcpStream::connect(addr).unwrap();
    let conn = shard.accept();
    let sent = pattern(7, ROUNDS * 3);
    let mut got = Vec::new();
    for (round, bytes) in sent.chunks(3).enumerate() {
        client.write_all(bytes).unwrap();
        // Back in the crowd after three pauses: multishot receives from the next message to the next pause.
        if in_crowd && round % 4 == 3 {
            shard.net.join_crowd(conn);
        }
        shard.net.start_recv(conn);
        // Paused before the ring was entered, after it, after bytes were found, or not at all; on again at once or later.
        (0..round % 3).for_each(|_| shard.poll());
        if round % 4 < 3 {
            shard.net.pause_recv(conn);
        }
        if round % 2 == 0 {
            shard.net.start_recv(conn);
        }
        shard.poll();
        while let Some(event) = shard.events.pop_front() {
            let NetEvent::Received { buffer, .. } = event else {
                panic!("expected bytes: {event:?}")
            };
            got.extend_from_slice(shard.net.bytes_mut(&buffer));
            shard.net.recycle(buffer);
        }
    }
    shard.net.start_recv(conn);
    let rest = shard.receive(conn, sent.len() - got.len());
    got.extend_from_slice(&rest);
    assert_eq!(got, sent);
}

#[test]
fn a_stale_id_reaches_nobody() {
    let (mut shard, addr) = Shard::listening(&NetConfig {
        fixed_files: 1,
        ..small()
    });
    let first_client = TcpStream::connect(addr).unwrap();
    let first = shard.accept();
    shard.net.abort(first);
    assert_eq!(shard.closed(first), CloseCause::Local);
    drop(first_client);
    let mut client = TcpStream::connect(addr).unwrap();
    let second = shard.accept();
    assert_eq!(first.slot(), second.slot());
    assert_ne!(first, second);
    shard.net.start_recv(second);
    shard.send(second, b"to the second");
    assert!(shard.net.output(first).is_none());
    assert_eq!(shard.net.output_len(first), 0);
    shard.net.pause_recv(first);
    shard.net.start_recv(first);
    shard.net.shutdown_write_after_output(first);
    shard.net.close_after_output(first);
    shard.net.abort(first);
    assert!(!shard.net.hand_over(first, -1, 0));
    assert!(!shard.net.cancel_hand_over(first));
    assert!(matches!(shard.next(), NetEvent::OutputDrained { conn } if conn == second));
    let mut received = [0; 13];
    client.read_exact(&mut received).unwrap();
    assert_eq!(&received, b"to the second");
    client.write_all(b"alive").unwrap();
    assert_eq!(shard.receive(second, 5), b"alive");
}
