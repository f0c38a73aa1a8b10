//! What the tests of the net ring share: a ring with its events, and patterned bytes.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use dispatchd::net::{ConnId, Net, NetConfig, NetEvent, RecvBuffer, bind_reuseport};

/// A turn that sleeps so long without an event has lost one: only the test of sleeps themselves waits for time to pass.
pub const LOST: Duration = Duration::from_secs(60);

pub struct Shard {
    pub net: Net,
    pub events: VecDeque<NetEvent>,
    /// Where it listens.
    pub addr: Option<SocketAddr>,
    fresh: Vec<NetEvent>,
}

impl Shard {
    pub fn new(config: &NetConfig) -> Self {
        let net = Net::new(config).expect("io_uring is there");
        Self {
            net,
            events: VecDeque::new(),
            addr: None,
            fresh: Vec::new(),
        }
    }

    /// A ring that accepts on a port of its own.
    pub fn listening(config: &NetConfig) -> (Self, SocketAddr) {
        let mut shard = Self::new(config);
        let listener = bind_reuseport("127.0.0.1:0".parse().unwrap(), 4096).unwrap();
        let addr = listener.local_addr().unwrap();
        shard.net.listen(listener);
        shard.addr = Some(addr);
        (shard, addr)
    }

    /// One turn that does not sleep.
    pub fn poll(&mut self) {
        self.net.turn(None, &mut self.fresh).unwrap();
        self.events.extend(self.fresh.drain(..));
    }

    /// The next event, slept for.
    pub fn next(&mut self) -> NetEvent {
        let mut turns_empty = 0;
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            let asleep = std::time::Instant::now();
            self.net.turn(Some(LOST), &mut self.fresh).unwrap();
            self.events.extend(self.fresh.drain(..));
            turns_empty += 1;
            assert!(asleep.elapsed() < LOST, "an event was lost");
            assert!(turns_empty < 100_000, "the ring spins");
        }
    }

    /// The next connection from the listener.
    pub fn accept(&mut self) -> ConnId {
        match self.next() {
            NetEvent::Accepted { conn } => conn,
            other => panic!("expected a connection: {other:?}"),
        }
    }

    /// Sleeps until someone calls the waker and asserts that nothing else happened before.
    pub fn woken(&mut self) {
        match self.next() {
            NetEvent::Woken => {}
            other => panic!("expected a wake-up: {other:?}"),
        }
    }

    /// Receives until `len` bytes of `conn` came.
    pub fn receive(&mut self, conn: ConnId, len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < len {
            match self.next() {
                NetEvent::Received { conn: from, buffer } => {
                    assert_eq!(from, conn);
                    bytes.extend_from_slice(self.net.bytes_mut(&buffer));
                    self.net.recycle(buffer);
                }
                other => panic!("expected bytes: {other:?}"),
            }
        }
        bytes
    }

    pub fn send(&mut self, conn: ConnId, bytes: &[u8]) {
        self.net.output(conn).expect("open for output").extend_from_slice(bytes);
    }

    pub fn closed(&mut self, conn: ConnId) -> dispatchd::net::CloseCause {
        match self.next() {
            NetEvent::Closed { conn: gone, cause } if gone == conn => cause,
            other => panic!("expected the end of {conn:?}: {other:?}"),
        }
    }
}

/// Sizes for tests: as small as the limits allow.
pub fn small() -> NetConfig {
    NetConfig {
        sq_entries: 64,
        cq_entries: 8192,
        fixed_files: 64,
        recv_buffers: 64,
        recv_buffer_bytes: 4096,
        ..NetConfig::default()
    }
}

/// Sends back what has come.
pub fn echo_one(shard: &mut Shard, conn: ConnId, buffer: RecvBuffer) {
    let bytes = shard.net.bytes_mut(&buffer).to_vec();
    shard.send(conn, &bytes);
    shard.net.recycle(buffer);
}

/// Echoes until `ends` connections have ended.
pub fn echo(shard: &mut Shard, ends: usize) {
    echo_to(shard, ends, false);
}

/// [`echo`], whose connections are those of a crowd.
pub fn echo_to(shard: &mut Shard, ends: usize, in_crowd: bool) {
    let mut ended = 0;
    while ended < ends {
        match shard.next() {
            NetEvent::Accepted { conn } => {
                if in_crowd {
                    shard.net.join_crowd(conn);
                }
                shard.net.start_recv(conn);
            }
            NetEvent::Received { conn, buffer } => echo_one(shard, conn, buffer),
            NetEvent::PeerClosed { conn } => shard.net.close_after_output(conn),
            NetEvent::Closed { .. } => ended += 1,
            NetEvent::OutputDrained { .. } => {}
            other => panic!("unexpected {other:?}"),
        }
    }
}

/// `len` bytes that differ by position and by `seed`.
pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(step).collect()
}
