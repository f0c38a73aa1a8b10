//! A shard with more connections than a ring may have: several rings that look like one.

mod net_support;

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use dispatchd::net::{ConnId, Net, NetConfig, NetEvent, bind_reuseport};
use dispatchd::shard::{Ring, Rings};
use net_support::{pattern, small};

/// Longer than any test: a wake-up that is lost hangs.
const SLEEP: Duration = Duration::from_secs(3_600);
const RINGS: usize = 4;
const SLOTS: u32 = 64;
/// Every ring keeps some slots from accept.
const CLIENTS: usize = RINGS * 60;

fn listening() -> (Rings, SocketAddr) {
    let config = NetConfig {
        fixed_files: SLOTS,
        ..small()
    };
    let mut rings = Rings::new(&config, RINGS as u32 * SLOTS).unwrap();
    let listener = bind_reuseport("127.0.0.1:0".parse().unwrap(), 1_024).unwrap();
    let addr = listener.local_addr().unwrap();
    rings.listen(listener);
    (rings, addr)
}

fn turn(rings: &mut Rings) -> Vec<NetEvent> {
    let mut events = Vec::new();
    rings.turn(Some(SLEEP), &mut events).unwrap();
    events
}

/// Echoes what came, and closes when the peer does. Whether the connection is over.
fn answered(rings: &mut Rings, event: NetEvent) -> bool {
    match event {
        NetEvent::Received { conn, buffer } => {
            let bytes = rings.bytes_mut(&buffer).to_vec();
            rings.recycle(buffer);
            rings.output(conn).expect("open").extend_from_slice(&bytes);
        }
        NetEvent::PeerClosed { conn } => rings.close_after_output(conn),
        NetEvent::Closed { .. } => return true,
        NetEvent::OutputDrained { .. } | NetEvent::Woken => {}
        other => panic!("unexpected {other:?}"),
    }
    false
}

/// Echoes until `ends` connections have ended; the slots that were used.
fn echo(rings: &mut Rings, ends: usize) -> HashSet<u32> {
    let (mut ended, mut slots) = (0, HashSet::new());
    while ended < ends {
        for event in turn(rings) {
            match event {
                NetEvent::Accepted { conn } | NetEvent::HandedOver { conn, .. } => {
                    slots.insert(conn.slot());
                    rings.start_recv(conn);
                }
                other => ended += usize::from(answered(rings, other)),
            }
        }
    }
    slots
}

/// Connections that are made one after the other, each when the one before was answered.
fn connect(addr: SocketAddr) -> Vec<TcpStream> {
    let one = |_| {
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.write_all(b"!").unwrap();
        stream.read_exact(&mut [0]).unwrap();
        stream
    };
    (0..CLIENTS).map(one).collect()
}

/// Exchanges on all of them, one at a time and all at once, and ends.
fn exchange(mut streams: Vec<TcpStream>) {
    for round in 0..20_u64 {
        let sent = |number: usize| pattern(round << 32 | number as u64, 50 + number);
        let check = |stream: &mut TcpStream, number: usize| {
            let mut received = vec![0; sent(number).len()];
            stream.read_exact(&mut received).unwrap();
            assert_eq!(received, sent(number));
        };
        if round % 2 == 0 {
            for (number, stream) in streams.iter_mut().enumerate() {
                stream.write_all(&sent(number)).unwrap();
                check(stream, number);
            }
        } else {
            for (number, stream) in streams.iter_mut().enumerate() {
                stream.write_all(&sent(number)).unwrap();
            }
            for (number, stream) in streams.iter_mut().enumerate() {
                check(stream, number);
            }
        }
    }
}

fn rings_of(slots: &HashSet<u32>) -> HashSet<u32> {
    slots.iter().map(|slot| slot / SLOTS).collect()
}

#[test]
fn connections_fill_all_rings_and_each_is_heard() {
    let (mut rings, addr) = listening();
    let clients = thread::spawn(move || exchange(connect(addr)));
    let slots = echo(&mut rings, CLIENTS);
    clients.join().unwrap();
    assert_eq!(rings_of(&slots).len(), RINGS);
    assert_eq!(rings.connections(), 0);
}

#[test]
fn sockets_that_are_handed_over_find_a_ring_with_room() {
    let (mut rings, _) = listening();
    let target = rings.ring_fd();
    // Another shard, which accepts and hands everything over.
    let mut source = Net::new(&NetConfig {
        fixed_files: 256,
        ..small()
    })
    .unwrap();
    let listener = bind_reuseport("127.0.0.1:0".parse().unwrap(), 1_024).unwrap();
    let source_addr = listener.local_addr().unwrap();
    source.listen(listener);
    let clients = thread::spawn(move || exchange(connect(source_addr)));
    let (mut sent, mut failed, mut ended, mut slots) = (0_u64, 0, 0, HashSet::new());
    while ended < CLIENTS {
        let mut events = Vec::new();
        source.turn(Some(Duration::from_millis(1)), &mut events).unwrap();
        for event in events {
            match event {
                NetEvent::Accepted { conn } => {
                    sent += 1;
                    assert!(source.hand_over(conn, target, sent));
                }
                NetEvent::HandOverFailed { conn, token, .. } => {
                    // The first ring was full for a moment.
                    failed += 1;
                    assert!(source.hand_over(conn, target, token));
                }
                NetEvent::HandOverReady { .. } => {}
                other => panic!("unexpected {other:?}"),
            }
        }
        let mut events = Vec::new();
        rings.turn(Some(Duration::from_millis(1)), &mut events).unwrap();
        for event in events {
            match event {
                NetEvent::HandedOver { conn, token } => {
                    assert!(token >= 1 && token <= sent);
                    assert!(slots.insert(conn.slot()) || ended > 0);
                    rings.start_recv(conn);
                }
                other => ended += usize::from(answered(&mut rings, other)),
            }
        }
    }
    clients.join().unwrap();
    assert_eq!(rings_of(&slots).len(), RINGS, "{failed} came back");
    assert_eq!((source.connections(), rings.connections()), (0, 0));
}

#[test]
fn a_stale_name_reaches_nobody_in_any_ring() {
    let (mut rings, addr) = listening();
    let clients = thread::spawn(move || connect(addr));
    let mut conns: Vec<ConnId> = Vec::new();
    let mut answered = 0;
    while answered < CLIENTS {
        for event in turn(&mut rings) {
            match event {
                NetEvent::Accepted { conn } => {
                    conns.push(conn);
                    rings.start_recv(conn);
                }
                NetEvent::Received { conn, buffer } => {
                    rings.recycle(buffer);
                    rings.output(conn).expect("open").push(b'!');
                }
                NetEvent::OutputDrained { .. } => answered += 1,
                _ => {}
            }
        }
    }
    let clients = clients.join().unwrap();
    let mut closed = HashSet::new();
    for conn in &conns {
        rings.abort(*conn);
    }
    while closed.len() < conns.len() {
        for event in turn(&mut rings) {
            if let NetEvent::Closed { conn, .. } = event {
                assert!(closed.insert(conn));
            }
        }
    }
    assert_eq!(closed, conns.iter().copied().collect::<HashSet<_>>());
    for conn in conns {
        assert!(rings.output(conn).is_none());
        rings.start_recv(conn);
        assert!(!rings.hand_over(conn, -1, 1));
    }
    assert_eq!(rings.connections(), 0);
    drop(clients);
}

/// Turns until nothing is queued: what follows a start.
fn settle(rings: &mut Rings) {
    for _ in 0..10 {
        rings.turn(None, &mut Vec::new()).unwrap();
    }
}

/// Runs `test` on a thread and fails when it does not end: a lost wake-up hangs.
fn ends(test: impl FnOnce() + Send + 'static) {
    let (done, ended) = channel();
    thread::spawn(move || {
        test();
        done.send(()).unwrap();
    });
    assert!(
        ended.recv_timeout(Duration::from_secs(10)).is_ok(),
        "a wake-up was lost"
    );
}

#[test]
fn a_wake_up_by_a_thread_before_the_sleep_ends_it() {
    ends(|| {
        let mut rings = listening().0;
        settle(&mut rings);
        rings.waker().wake();
        let mut events = Vec::new();
        rings.turn(Some(Duration::from_secs(3_600)), &mut events).unwrap();
        assert!(events.iter().any(|event| matches!(event, NetEvent::Woken)));
    });
}

#[test]
fn a_wake_up_by_a_ring_before_the_sleep_ends_it() {
    ends(|| {
        let mut rings = listening().0;
        settle(&mut rings);
        let target = rings.ring_fd();
        thread::spawn(move || {
            let mut other = Net::new(&small()).unwrap();
            other.wake_ring(target);
            other.turn(None, &mut Vec::new()).unwrap();
            other.turn(None, &mut Vec::new()).unwrap();
        })
        .join()
        .unwrap();
        let mut events = Vec::new();
        rings.turn(Some(Duration::from_secs(3_600)), &mut events).unwrap();
        assert!(events.iter().any(|event| matches!(event, NetEvent::Woken)));
    });
}

/// A sleeper that only member rings wake, again and again, from every point of its turn.
#[test]
fn what_members_signal_is_never_slept_over() {
    ends(|| {
        let (mut rings, addr) = listening();
        let client = thread::spawn(move || {
            let mut streams = connect(addr);
            for round in 0..20_000_usize {
                // Most of them are in rings that do not accept any more, and that nothing but a signal makes the shard look at.
                let number = (round * 61) % streams.len();
                let stream = &mut streams[number];
                for _ in 0..(round * 7) % 300 {
                    std::hint::spin_loop();
                }
                stream.write_all(b"!").unwrap();
                stream.read_exact(&mut [0]).unwrap();
            }
        });
        let mut ended = 0;
        while ended < CLIENTS {
            let mut events = Vec::new();
            rings.turn(Some(Duration::from_secs(3_600)), &mut events).unwrap();
            for event in events {
                match event {
                    NetEvent::Accepted { conn } => rings.start_recv(conn),
                    NetEvent::Received { conn, buffer } => {
                        rings.recycle(buffer);
                        rings.output(conn).unwrap().push(b'!');
                    }
                    NetEvent::PeerClosed { conn } => rings.close_after_output(conn),
                    NetEvent::Closed { .. } => ended += 1,
                    _ => {}
                }
            }
        }
        client.join().unwrap();
    });
}

/// A crowd that connects while the shard is busy for a moment: how many of them are lost, and how many are never taken.
fn crowd(ring_slots: u32, rings: u32, clients: usize, per_turn: usize) -> (usize, usize, usize) {
    let config = NetConfig {
        fixed_files: ring_slots,
        ..small()
    };
    let mut rings = Rings::new(&config, rings * ring_slots).unwrap();
    let listener = bind_reuseport("127.0.0.1:0".parse().unwrap(), 4_096).unwrap();
    let addr = listener.local_addr().unwrap();
    rings.listen(listener);
    let (mut streams, mut accepted) = (Vec::new(), 0);
    let mut turn = |accepted: &mut usize, wait| {
        let mut events = Vec::new();
        rings.turn(wait, &mut events).unwrap();
        for event in events {
            match event {
                NetEvent::Accepted { .. } => *accepted += 1,
                NetEvent::Woken => {}
                other => panic!("unexpected {other:?}"),
            }
        }
    };
    turn(&mut accepted, None);
    while streams.len() < clients {
        // As many as come in one long turn.
        for _ in 0..per_turn.min(clients - streams.len()) {
            streams.push(TcpStream::connect(addr).unwrap());
        }
        turn(&mut accepted, None);
    }
    for _ in 0..1_000 {
        turn(&mut accepted, Some(Duration::from_millis(5)));
    }
    let waiting_long = clients - accepted;
    let _one_more = TcpStream::connect(addr).unwrap();
    for _ in 0..100 {
        turn(&mut accepted, Some(Duration::from_millis(5)));
    }
    let mut lost = 0;
    for stream in &mut streams {
        stream.set_nonblocking(true).unwrap();
        let ended = match stream.read(&mut [0]) {
            Ok(0) => true,
            Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
            Ok(_) => false,
        };
        lost += usize::from(ended);
    }
    (lost, waiting_long - lost, clients + 1 - lost - accepted)
}

/// Room for 8,192, half of it used: as with one ring, nobody waits for the next connection to be noticed, and none is lost where a
/// ring ends.
#[test]
fn a_crowd_is_taken_while_there_is_room() {
    for per_turn in [100, 4_096] {
        let (lost, waiting, _) = crowd(2_048, 4, 4_096, per_turn);
        assert_eq!((lost, waiting), (0, 0), "{per_turn} in a turn");
    }
}
