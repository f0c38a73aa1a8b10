//! Connections that move from one ring to another, with bytes under way.

mod net_support;

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::RawFd;
use std::sync::mpsc;
use std::thread;

use dispatchd::net::{CloseCause, ConnId, NetConfig, NetEvent};
use net_support::{Shard, echo_one, pattern, small};

const ROUNDS: u64 = 1000;
const CLIENTS: u64 = 8;

/// What the source knows of a connection: bytes read so far, and whether it was told to leave.
type Readers = HashMap<ConnId, (Vec<u8>, bool)>;

/// Accepts, greets, reads at least one byte, and hands over with all bytes that came.
fn source(shard: &mut Shard, target_ring: RawFd, mailbox: &mpsc::Sender<(u64, Vec<u8>)>) {
    let (mut read, mut token): (Readers, u64) = (HashMap::new(), 0);
    while token < ROUNDS || shard.net.connections() > 0 {
        match shard.next_or_idle() {
            None | Some(NetEvent::OutputDrained { .. } | NetEvent::PeerClosed { .. }) => {}
            Some(NetEvent::Accepted { conn }) => {
                read.insert(conn, (Vec::new(), false));
                shard.net.start_recv(conn);
            }
            Some(NetEvent::Received { conn, buffer }) => {
                let (bytes, leaving) = read.get_mut(&conn).expect("announced as ready means quiet");
                bytes.extend_from_slice(shard.net.bytes_mut(&buffer));
                shard.net.recycle(buffer);
                if !*leaving {
                    *leaving = true;
                    shard.send(conn, b"greeting");
                    assert!(shard.net.hand_over(conn, target_ring, token));
                    assert!(shard.net.output(conn).is_none());
                    token += 1;
                }
            }
            Some(NetEvent::HandOverReady { conn, token }) => {
                let (bytes, _) = read.remove(&conn).expect("ready once");
                mailbox.send((token, bytes)).unwrap();
            }
            Some(other) => panic!("source: {other:?}"),
        }
    }
}

/// Echoes what the mailbox brought and then what the socket brings.
fn target(shard: &mut Shard, mailbox: &mpsc::Receiver<(u64, Vec<u8>)>) {
    let (mut travelled, mut ended) = (HashMap::new(), 0);
    while ended < ROUNDS {
        match shard.next() {
            NetEvent::HandedOver { token, conn } => {
                travelled.extend(mailbox.try_iter());
                let bytes = travelled
                    .remove(&token)
                    .expect("what was posted before the hand-over is there after it");
                shard.send(conn, &bytes);
                shard.net.start_recv(conn);
            }
            NetEvent::Received { conn, buffer } => echo_one(shard, conn, buffer),
            NetEvent::PeerClosed { conn } => shard.net.close_after_output(conn),
            NetEvent::Closed { cause, .. } => {
                assert_eq!(cause, CloseCause::Local);
                ended += 1;
            }
            NetEvent::OutputDrained { .. } => {}
            other => panic!("target: {other:?}"),
        }
    }
    assert_eq!(shard.net.connections(), 0);
}

impl Shard {
    /// The next event, or `None` after a turn without one (a silent close).
    fn next_or_idle(&mut self) -> Option<NetEvent> {
        if self.events.is_empty() {
            let mut fresh = Vec::new();
            self.net
                .turn(Some(std::time::Duration::from_secs(1)), &mut fresh)
                .unwrap();
            self.events.extend(fresh);
        }
        self.events.pop_front()
    }
}

#[test]
fn a_thousand_hand_overs_lose_no_byte() {
    let (addr_sender, addr) = mpsc::channel();
    let (ring_sender, target_ring) = mpsc::channel();
    let (mailbox_sender, mailbox) = mpsc::channel();
    let (done_sender, done) = mpsc::channel::<()>();
    let source_thread = thread::spawn(move || {
        let (mut shard, addr) = Shard::listening(&small());
        addr_sender.send(addr).unwrap();
        source(&mut shard, target_ring.recv().unwrap(), &mailbox_sender);
        done_sender.send(()).unwrap();
    });
    let target_thread = thread::spawn(move || {
        let mut shard = Shard::new(&small());
        ring_sender.send(shard.net.ring_fd()).unwrap();
        target(&mut shard, &mailbox);
        done.recv().unwrap();
    });
    let addr = addr.recv().unwrap();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            thread::spawn(move || {
                for round in 0..ROUNDS / CLIENTS {
                    let sent = pattern(client << 32 | round, 1 + (round as usize * 97) % 20_000);
                    let mut stream = TcpStream::connect(addr).unwrap();
                    // Many small pieces, so that some come before, some during and some after the hand-over.
                    sent.chunks(1 + round as usize % 700)
                        .for_each(|piece| stream.write_all(piece).unwrap());
                    stream.shutdown(Shutdown::Write).unwrap();
                    let mut received = Vec::new();
                    stream.read_to_end(&mut received).unwrap();
                    assert!(received.starts_with(b"greeting"), "client {client} round {round}");
                    assert!(received[8..] == sent, "client {client} round {round}: the echo differs");
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    source_thread.join().unwrap();
    target_thread.join().unwrap();
}

/// Two rings on this thread, one connection at the first.
fn pair(target: &NetConfig) -> (Shard, Shard, TcpStream, ConnId) {
    let (mut source, addr) = Shard::listening(&small());
    let client = TcpStream::connect(addr).unwrap();
    let conn = source.accept();
    source.net.start_recv(conn);
    (source, Shard::new(target), client, conn)
}

fn ready(source: &mut Shard, conn: ConnId, token: u64) {
    match source.next() {
        NetEvent::HandOverReady {
            conn: named,
            token: told,
        } => assert_eq!((named, told), (conn, token)),
        other => panic!("expected the announcement: {other:?}"),
    }
}

#[test]
fn a_full_target_leaves_the_connection_where_it_was() {
    let (mut source, mut target, mut client, conn) = pair(&NetConfig {
        fixed_files: 1,
        ..small()
    });
    assert!(source.net.hand_over(conn, target.net.ring_fd(), 1));
    assert!(!source.net.hand_over(conn, target.net.ring_fd(), 2), "it is leaving");
    ready(&mut source, conn, 1);
    source.poll();
    let NetEvent::HandedOver { token: 1, conn: moved } = target.next() else {
        panic!("expected the socket")
    };
    source.poll();
    source.poll();
    assert_eq!((source.net.connections(), target.net.connections()), (0, 1));

    let mut second_client = source_client(&mut source);
    assert!(source.net.hand_over(second_client.1, target.net.ring_fd(), 3));
    ready(&mut source, second_client.1, 3);
    source.poll();
    target.poll();
    let NetEvent::HandOverFailed {
        token: 3,
        conn: stayed,
        errno,
    } = source.next()
    else {
        panic!("expected a failure")
    };
    assert_eq!((stayed, errno), (second_client.1, libc::ENFILE));
    source.net.start_recv(stayed);
    second_client.0.write_all(b"still here").unwrap();
    assert_eq!(source.receive(stayed, 10), b"still here");

    target.net.start_recv(moved);
    client.write_all(b"there").unwrap();
    assert_eq!(target.receive(moved, 5), b"there");
}

fn source_client(source: &mut Shard) -> (TcpStream, ConnId) {
    let addr = source.addr.expect("it listens");
    let client = TcpStream::connect(addr).unwrap();
    let conn = source.accept();
    source.net.start_recv(conn);
    (client, conn)
}

#[test]
fn a_hand_over_can_be_taken_back_until_it_left() {
    let (mut source, mut target, mut client, conn) = pair(&small());
    let ring = target.net.ring_fd();
    // Before it was announced, after, and again with another token in between: only the last one counts.
    assert!(source.net.hand_over(conn, ring, 1));
    assert!(source.net.cancel_hand_over(conn));
    assert!(!source.net.cancel_hand_over(conn), "it is not leaving");
    assert!(source.net.hand_over(conn, ring, 2));
    ready(&mut source, conn, 2);
    assert!(source.net.cancel_hand_over(conn));
    source.net.start_recv(conn);
    client.write_all(b"stay").unwrap();
    assert_eq!(source.receive(conn, 4), b"stay");
    assert!(source.net.hand_over(conn, ring, 3));
    ready(&mut source, conn, 3);
    assert!(source.net.cancel_hand_over(conn));
    assert!(source.net.hand_over(conn, ring, 4));
    ready(&mut source, conn, 4);
    source.poll();
    assert!(matches!(target.next(), NetEvent::HandedOver { token: 4, .. }));
    assert!(!source.net.cancel_hand_over(conn), "it left");
}

#[test]
fn a_connection_that_is_aborted_while_leaving_ends_here() {
    let (mut source, target, _client, conn) = pair(&small());
    assert!(source.net.hand_over(conn, target.net.ring_fd(), 1));
    source.net.abort(conn);
    assert_eq!(source.closed(conn), CloseCause::Local);
    let (_client, conn) = source_client(&mut source);
    assert!(source.net.hand_over(conn, target.net.ring_fd(), 2));
    ready(&mut source, conn, 2);
    source.net.close_after_output(conn);
    assert_eq!(source.closed(conn), CloseCause::Local);
    assert_eq!(target.net.connections(), 0);
}

#[test]
fn a_target_that_is_no_ring_is_a_failure() {
    let (mut source, target, mut client, conn) = pair(&small());
    drop(target);
    let file = std::fs::File::open("/dev/null").unwrap();
    assert!(source.net.hand_over(conn, std::os::fd::AsRawFd::as_raw_fd(&file), 5));
    ready(&mut source, conn, 5);
    let NetEvent::HandOverFailed { token: 5, errno, .. } = source.next() else {
        panic!("expected a failure")
    };
    assert_eq!(errno, libc::EBADFD);
    source.net.start_recv(conn);
    client.write_all(b"ok").unwrap();
    assert_eq!(source.receive(conn, 2), b"ok");
}

/// Connections handed over take slots that the target's accepts in flight were meant for.
#[test]
fn no_connection_is_lost_for_slots_that_hand_overs_took() {
    const MOVED: u64 = 50;
    let (mut target, addr) = Shard::listening(&small());
    let (mut source, source_addr) = Shard::listening(&small());
    target.poll();
    let mut moved = Vec::new();
    for token in 0..MOVED {
        moved.push(TcpStream::connect(source_addr).unwrap());
        let conn = source.accept();
        assert!(source.net.hand_over(conn, target.net.ring_fd(), token));
        assert!(matches!(source.next(), NetEvent::HandOverReady { .. }));
        source.poll();
        assert!(matches!(target.next(), NetEvent::HandedOver { .. }));
    }
    // The kernel ends some of the accepts that are cancelled in each turn.
    (0..20).for_each(|_| target.poll());
    let crowd: Vec<_> = (0..40).map(|_| TcpStream::connect(addr).unwrap()).collect();
    (0..200).for_each(|_| target.poll());
    let is_lost = |mut stream: &TcpStream| {
        stream.set_nonblocking(true).unwrap();
        let read = stream.read(&mut [0]);
        read.map_or_else(|error| error.kind() != ErrorKind::WouldBlock, |_| true)
    };
    assert_eq!(crowd.iter().filter(|stream| is_lost(stream)).count(), 0);
    let accepted = target
        .events
        .iter()
        .filter(|event| matches!(event, NetEvent::Accepted { .. }));
    assert!(accepted.count() > 0);
}
