//! The net ring's accepts: slots that run out, multishot and single accepts, pauses and the end.

mod net_support;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;

use dispatchd::net::limits::{ACCEPT_BURST_MAX, ACCEPT_RESERVE_MAX};
use dispatchd::net::{NetConfig, NetEvent, bind_reuseport};
use net_support::{Shard, echo, pattern, small};

#[test]
fn accept_stops_when_slots_run_out_and_goes_on_when_they_are_freed() {
    let (mut shard, addr) = Shard::listening(&NetConfig {
        fixed_files: 16,
        ..small()
    });
    let waker = shard.net.waker();
    let mut clients = Vec::new();
    let mut conns = Vec::new();
    for _ in 0..16 {
        clients.push(TcpStream::connect(addr).unwrap());
        conns.push(shard.accept());
    }
    assert_eq!(shard.net.slots_free(), 0);
    shard.poll();
    let mut waiting: Vec<_> = (0..8).map(|_| TcpStream::connect(addr).unwrap()).collect();
    waker.wake();
    shard.woken();
    for conn in conns.drain(..8) {
        shard.net.abort(conn);
    }
    let mut accepted = Vec::new();
    let mut ended = 0;
    while accepted.len() < 8 {
        match shard.next() {
            NetEvent::Closed { .. } => ended += 1,
            NetEvent::Accepted { conn } => accepted.push(conn),
            other => panic!("unexpected {other:?}"),
        }
    }
    assert_eq!(ended, 8);
    // Those that waited are whole connections.
    for &conn in &accepted {
        shard.send(conn, b"!");
    }
    (0..8).for_each(|_| assert!(matches!(shard.next(), NetEvent::OutputDrained { .. })));
    for client in &mut waiting {
        client.read_exact(&mut [0]).unwrap();
    }
}

#[test]
fn more_clients_than_slots_are_all_served_in_the_end() {
    let (mut shard, addr) = Shard::listening(&NetConfig {
        fixed_files: 4,
        ..small()
    });
    let clients: Vec<_> = (0..64_u64)
        .map(|seed| {
            thread::spawn(move || {
                let sent = pattern(seed, 300);
                // None is lost to a burst into a full table: it waits to be accepted.
                let mut stream = TcpStream::connect(addr).unwrap();
                stream.write_all(&sent).unwrap();
                let mut received = vec![0; sent.len()];
                stream.read_exact(&mut received).unwrap();
                assert!(received == sent);
            })
        })
        .collect();
    let mut served = 0;
    while served < 64 {
        match shard.next() {
            NetEvent::Accepted { conn } => shard.net.start_recv(conn),
            NetEvent::Received { conn, buffer } => {
                let bytes = shard.net.bytes_mut(&buffer).to_vec();
                shard.net.recycle(buffer);
                if let Some(output) = shard.net.output(conn) {
                    output.extend_from_slice(&bytes);
                    served += usize::from(bytes.len() == 300);
                }
            }
            NetEvent::PeerClosed { conn } => shard.net.close_after_output(conn),
            NetEvent::Closed { .. } | NetEvent::OutputDrained { .. } => {}
            other => panic!("unexpected {other:?}"),
        }
    }
    while clients.iter().any(|client| !client.is_finished()) {
        shard.poll();
    }
    for client in clients {
        client.join().unwrap();
    }
}

/// A ring whose accept is a multishot one until a few hundred connections are there.
fn roomy() -> NetConfig {
    dispatchd::ops::process::raise_open_files();
    NetConfig {
        fixed_files: ACCEPT_BURST_MAX + ACCEPT_RESERVE_MAX,
        ..small()
    }
}

#[test]
fn nobody_is_lost_where_accepts_change_their_kind() {
    const BURSTS: [usize; 5] = [40, 300, 1, 1, 200];
    let (mut shard, addr) = Shard::listening(&roomy());
    for _ in 0..3 {
        let clients = thread::spawn(move || {
            let mut all = Vec::new();
            for burst in BURSTS {
                let mut fresh: Vec<_> = (0..burst).map(|_| TcpStream::connect(addr).unwrap()).collect();
                for stream in &mut fresh {
                    stream.write_all(b"!").unwrap();
                }
                for stream in &mut fresh {
                    stream.read_exact(&mut [0]).unwrap();
                }
                all.extend(fresh);
            }
        });
        echo(&mut shard, BURSTS.iter().sum());
        clients.join().unwrap();
        assert_eq!(shard.net.connections(), 0);
    }
}

#[test]
fn accepting_pauses_resumes_and_stops() {
    pauses_resumes_and_stops(&small());
    pauses_resumes_and_stops(&roomy());
}

fn pauses_resumes_and_stops(config: &NetConfig) {
    // The kernel ends some of the accepts that are cancelled in each.
    const STOP_TURNS: usize = 20;
    let (mut shard, addr) = Shard::listening(config);
    let waker = shard.net.waker();
    let _first = TcpStream::connect(addr).unwrap();
    shard.accept();
    shard.net.pause_accepting();
    shard.poll();
    let _second = TcpStream::connect(addr).unwrap();
    waker.wake();
    shard.woken();
    shard.net.resume_accepting();
    shard.accept();
    shard.net.stop_accepting();
    (0..STOP_TURNS).for_each(|_| shard.poll());
    assert_eq!(
        TcpStream::connect(addr).unwrap_err().kind(),
        ErrorKind::ConnectionRefused
    );
}

#[test]
fn accepted_sockets_inherit_nodelay_and_share_a_port() {
    let listener = bind_reuseport("127.0.0.1:0".parse().unwrap(), 16).unwrap();
    let addr = listener.local_addr().unwrap();
    let _client = TcpStream::connect(addr).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    assert!(accepted.nodelay().unwrap());
    bind_reuseport(addr, 16).expect("another shard binds the same address");
}
