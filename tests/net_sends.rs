//! What the owner hears of what it sent, and when.

mod net_support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use dispatchd::net::limits::SEND_BYTES_QUIET_MAX;
use dispatchd::net::{CloseCause, ConnId, NetEvent};
use net_support::{Shard, pattern, small};

/// Answers of a client that are looked at.
const ANSWERS: usize = 60;

fn crowded() -> (Shard, ConnId, TcpStream) {
    let (mut shard, addr) = Shard::listening(&small());
    let client = TcpStream::connect(addr).unwrap();
    let conn = shard.accept();
    shard.net.join_crowd(conn);
    (shard, conn, client)
}

/// A client that answers each message of four bytes with four, until the end.
fn echo(mut client: TcpStream) {
    let mut message = [0; 4];
    while client.read_exact(&mut message).is_ok() {
        client.write_all(&message).unwrap();
    }
}

/// What is written to one of a crowd is not told, ends no sleep, and leaves its buffer behind: a turn is over with the client's answer.
#[test]
fn what_one_of_a_crowd_was_sent_is_not_told() {
    let (mut shard, conn, client) = crowded();
    shard.net.start_recv(conn);
    let client = std::thread::spawn(|| echo(client));
    let mut turns = 0;
    for _ in 0..ANSWERS {
        shard.send(conn, b"push");
        let mut events = Vec::new();
        while events.is_empty() {
            turns += 1;
            shard.net.turn(Some(Duration::from_secs(60)), &mut events).unwrap();
            assert!(!shard.net.has_output(), "all was written with that turn");
            assert_eq!(shard.net.output_len(conn), 0);
        }
        match events.pop() {
            Some(NetEvent::Received { buffer, .. }) => shard.net.recycle(buffer),
            other => panic!("expected an answer: {other:?}"),
        }
        assert!(events.is_empty(), "{events:?}");
    }
    // A turn may end early once in a while.
    assert!(turns < ANSWERS * 3 / 2, "{turns} turns");
    assert_eq!(shard.net.take_counts().bytes_sent, 4 * ANSWERS as u64);
    shard.net.close_after_output(conn);
    shard.closed(conn);
    client.join().unwrap();
}

/// It is told when the owner asks for it, once.
#[test]
fn what_one_of_a_crowd_was_sent_is_told_when_asked_for() {
    let (mut shard, conn, mut client) = crowded();
    shard.send(conn, b"one");
    shard.net.tell_drained(conn);
    assert!(matches!(shard.next(), NetEvent::OutputDrained { conn: drained } if drained == conn));
    shard.send(conn, b"two");
    shard.poll();
    assert!(shard.events.is_empty(), "{:?}", shard.events);
    shard.net.close_after_output(conn);
    shard.closed(conn);
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, b"onetwo");
}

/// A socket that does not take all gets the rest when it does.
#[test]
fn what_a_full_socket_of_a_crowd_does_not_take_waits_for_it() {
    let (mut shard, conn, mut client) = crowded();
    let chunk = pattern(7, SEND_BYTES_QUIET_MAX);
    let mut chunks = 0;
    while !shard.net.has_output() {
        shard.send(conn, &chunk);
        chunks += 1;
        shard.poll();
        assert!(chunks < 10_000, "a socket takes no end of bytes");
    }
    // What comes now is sent after that, and told.
    shard.send(conn, &chunk);
    chunks += 1;
    shard.net.tell_drained(conn);
    shard.poll();
    assert!(shard.net.output_len(conn) > SEND_BYTES_QUIET_MAX);
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        client.read_to_end(&mut bytes).unwrap();
        bytes
    });
    assert!(matches!(shard.next(), NetEvent::OutputDrained { conn: drained } if drained == conn));
    shard.net.close_after_output(conn);
    shard.closed(conn);
    assert!(reader.join().unwrap() == chunk.repeat(chunks), "every byte, in order");
}

/// One whose socket is full keeps nobody else's output back.
#[test]
fn a_full_socket_of_a_crowd_keeps_no_other_back() {
    let (mut shard, full, _client) = crowded();
    let mut client = TcpStream::connect(shard.addr.unwrap()).unwrap();
    let other = shard.accept();
    shard.net.join_crowd(other);
    let chunk = pattern(7, SEND_BYTES_QUIET_MAX);
    let mut sent = 0;
    while !shard.net.has_output() {
        shard.send(full, &chunk);
        shard.send(other, b"push");
        sent += 1;
        shard.poll();
        assert_eq!(
            shard.net.output_len(other),
            0,
            "the turn in which the other is full, too"
        );
    }
    assert!(shard.net.output_len(full) > 0);
    let mut bytes = vec![0; 4 * sent];
    client.read_exact(&mut bytes).unwrap();
    assert_eq!(bytes, b"push".repeat(sent));
}

/// One that is gone is closed with the error of the send, which nobody had waited for.
#[test]
fn a_send_to_one_of_a_crowd_that_is_gone_closes_it() {
    let (mut shard, conn, client) = crowded();
    // Nothing is received here, so only a send can tell.
    drop(client);
    let mut sends = 0;
    while let Some(out) = shard.net.output(conn) {
        out.extend_from_slice(b"more");
        shard.poll();
        sends += 1;
        assert!(sends < 1_000_000, "a socket that is gone takes no end of bytes");
    }
    let cause = shard.closed(conn);
    assert!(
        matches!(cause, CloseCause::Error(libc::EPIPE | libc::ECONNRESET)),
        "{cause:?}"
    );
}
