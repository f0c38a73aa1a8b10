//! When the owner hears that what it sent was written.

mod net_support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use dispatchd::net::limits::SEND_BYTES_PATIENT_MAX;
use dispatchd::net::{ConnId, NetEvent};
use net_support::{Shard, pattern, small};

/// Answers of a client that are looked at.
const ANSWERS: usize = 60;

/// A client that answers each message of four bytes with four, until the end.
fn echo(mut client: TcpStream) {
    let mut message = [0; 4];
    while client.read_exact(&mut message).is_ok() {
        client.write_all(&message).unwrap();
    }
}

/// In how many turns came, with what the client answered, that the message before it was written: then one turn was enough for both.
fn heard_together(shard: &mut Shard, conn: ConnId, hurry: bool) -> usize {
    let mut together = 0;
    for _ in 0..ANSWERS {
        shard.send(conn, b"push");
        if hurry {
            shard.net.hurry();
        }
        let (mut drained, mut answered) = (false, false);
        while !(drained && answered) {
            let mut events = Vec::new();
            shard.net.turn(Some(Duration::from_secs(60)), &mut events).unwrap();
            let before = drained;
            for event in events {
                match event {
                    NetEvent::OutputDrained { .. } => {
                        assert!(!answered, "what was written before the answer is told before it");
                        drained = true;
                    }
                    NetEvent::Received { buffer, .. } => {
                        shard.net.recycle(buffer);
                        answered = true;
                    }
                    other => panic!("expected an answer: {other:?}"),
                }
            }
            together += usize::from(!before && drained && answered);
        }
    }
    together
}

#[test]
fn one_of_a_crowd_costs_one_turn_unless_the_owner_is_in_a_hurry() {
    let (mut shard, addr) = Shard::listening(&small());
    let client = TcpStream::connect(addr).unwrap();
    let conn = shard.accept();
    shard.net.allow_busy(conn);
    shard.net.start_recv(conn);
    let client = std::thread::spawn(|| echo(client));
    // Nearly all, unless the client's answer takes longer than `SENT_UNSEEN_MAX`; and hardly any.
    assert!(heard_together(&mut shard, conn, false) > ANSWERS / 2);
    assert!(heard_together(&mut shard, conn, true) < ANSWERS / 2);
    shard.net.close_after_output(conn);
    shard.closed(conn);
    client.join().unwrap();
}

/// A socket that takes nothing now gets the rest when it does.
#[test]
fn what_a_full_socket_of_a_crowd_does_not_take_waits_for_it() {
    let (mut shard, addr) = Shard::listening(&small());
    let mut client = TcpStream::connect(addr).unwrap();
    let conn = shard.accept();
    shard.net.allow_busy(conn);
    let chunk = pattern(7, SEND_BYTES_PATIENT_MAX);
    let mut chunks = 0;
    loop {
        shard.send(conn, &chunk);
        chunks += 1;
        shard.poll();
        shard.poll();
        if shard.events.pop_front().is_none() {
            break;
        }
        assert!(chunks < 10_000, "a socket takes no end of bytes");
    }
    assert!(shard.net.has_output());
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        client.read_to_end(&mut bytes).unwrap();
        bytes
    });
    match shard.next() {
        NetEvent::OutputDrained { conn: drained } => assert_eq!(drained, conn),
        other => panic!("expected the rest to be written: {other:?}"),
    }
    shard.net.close_after_output(conn);
    shard.closed(conn);
    assert!(reader.join().unwrap() == chunk.repeat(chunks), "every byte, in order");
}
