//! An echo server for Autobahn's fuzzing client, made of what drivers' sockets are made of: the net ring, the HTTP head,
//! the handshake, the frame decoder and encoder. Only the policy differs from the product's: it takes binary messages
//! and messages up to [`MESSAGE_LEN_MAX`] bytes, because the suite's cases use both.
//!
//! Prints its address and serves on loopback until its standard input ends, so it never outlives who started it.
#![forbid(unsafe_code)]

use dispatchd::net::{ConnId, Net, NetConfig, NetEvent, bind_reuseport};
use dispatchd::wire::http::parse_head;
use dispatchd::wire::respond::{HttpDate, Reply};
use dispatchd::wire::ws::{self, WsDecoder, WsInput, WsPolicy, close_code};
use std::collections::HashMap;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::ControlFlow;
use std::thread;
use std::time::Duration;

/// Longest message of the suite, in bytes (cases 9.1.6 and 9.2.6).
const MESSAGE_LEN_MAX: usize = 16 << 20;
const POLICY: WsPolicy = WsPolicy {
    accept_binary: true,
    message_len_max: MESSAGE_LEN_MAX,
};
/// Connections that wait to be accepted; the suite opens one at a time.
const BACKLOG: i32 = 64;
/// Longest sleep; there is nothing to do then but to sleep again.
const SLEEP: Duration = Duration::from_secs(3600);

/// What a connection is at.
enum Conn {
    /// The handshake, as far as it has come.
    Handshake(Vec<u8>),
    /// Frames.
    Open(WsDecoder),
    /// We have said our last; what still comes is dropped until the peer closes, too.
    Lingering,
}

struct Server {
    net: Net,
    conns: HashMap<ConnId, Conn>,
}

fn main() -> io::Result<()> {
    let listener = bind_reuseport(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), BACKLOG)?;
    println!("{}", listener.local_addr()?);
    io::stdout().flush()?;
    thread::spawn(|| {
        let ended = io::copy(&mut io::stdin().lock(), &mut io::sink());
        std::process::exit(i32::from(ended.is_err()));
    });
    let config = NetConfig {
        fixed_files: 256,
        recv_buffers: 256,
        ..NetConfig::default()
    };
    let mut server = Server {
        net: Net::new(&config)?,
        conns: HashMap::new(),
    };
    server.net.listen(listener);
    let mut events = Vec::new();
    loop {
        server.net.turn(Some(SLEEP), &mut events)?;
        for event in events.drain(..) {
            server.step(event);
        }
    }
}

impl Server {
    fn step(&mut self, event: NetEvent) {
        match event {
            NetEvent::Accepted { conn } => {
                self.conns.insert(conn, Conn::Handshake(Vec::new()));
                self.net.start_recv(conn);
            }
            NetEvent::Received { conn, buffer } => {
                let mut bytes = self.net.bytes_mut(&buffer).to_vec();
                self.net.recycle(buffer);
                self.received(conn, &mut bytes);
            }
            NetEvent::PeerClosed { conn } => self.net.close_after_output(conn),
            NetEvent::Closed { conn, .. } => {
                self.conns.remove(&conn);
            }
            NetEvent::OutputDrained { .. } | NetEvent::Woken => {}
            NetEvent::HandedOver { .. }
            | NetEvent::HandOverReady { .. }
            | NetEvent::HandOverFailed { .. }
            | NetEvent::FileWritten { .. } => unreachable!("asked for by nobody"),
        }
    }

    fn received(&mut self, conn: ConnId, bytes: &mut [u8]) {
        match self.conns.remove(&conn) {
            Some(Conn::Handshake(mut input)) => {
                input.extend_from_slice(bytes);
                self.shake(conn, input);
            }
            Some(Conn::Open(decoder)) => self.frames(conn, decoder, bytes),
            Some(Conn::Lingering) => {
                self.conns.insert(conn, Conn::Lingering);
            }
            None => {}
        }
    }

    /// The opening handshake, judged as the product judges it; any path is the echo's.
    fn shake(&mut self, conn: ConnId, mut input: Vec<u8>) {
        let answer: Reply = match parse_head(&input) {
            Ok(None) => {
                self.conns.insert(conn, Conn::Handshake(input));
                return;
            }
            Ok(Some((head, consumed))) => match ws::accept(&head) {
                Ok(key) => {
                    if let Some(out) = self.net.output(conn) {
                        ws::write_101(out, &key);
                    }
                    return self.frames(conn, WsDecoder::new(), &mut input[consumed..]);
                }
                Err(problem) => problem.into(),
            },
            Err(error) => error.into(),
        };
        if let Some(out) = self.net.output(conn) {
            answer.write(out, &HttpDate::at(0), false, false);
        }
        self.linger(conn);
    }

    fn frames(&mut self, conn: ConnId, mut decoder: WsDecoder, bytes: &mut [u8]) {
        let Some(out) = self.net.output(conn) else { return };
        let mut closed = false;
        let result = decoder.feed(POLICY, bytes, &mut |input| {
            match input {
                WsInput::Text(text) => ws::write_text_whole(out, text),
                WsInput::Binary(bytes) => ws::write_binary(out, bytes),
                WsInput::Ping(payload) => ws::write_pong(out, payload),
                WsInput::Pong(_) => {}
                WsInput::Close(close) => {
                    // As the product answers a driver's close.
                    ws::write_close(out, close.map_or(close_code::NORMAL, |(code, _)| code), "");
                    closed = true;
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        });
        match result {
            Ok(()) if !closed => {
                self.conns.insert(conn, Conn::Open(decoder));
            }
            Ok(()) => self.linger(conn),
            Err(violation) => {
                ws::write_close(out, violation.code, violation.reason);
                self.linger(conn);
            }
        }
    }

    /// Our last words are out: the end of the connection is the peer's (RFC 9112 §9.6).
    fn linger(&mut self, conn: ConnId) {
        self.conns.insert(conn, Conn::Lingering);
        self.net.shutdown_write_after_output(conn);
    }
}
