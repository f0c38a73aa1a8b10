//! The raw-ring server's loop. It does nothing that a server could leave out, and nothing else.
#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use super::{Pair, Progress};
use crate::ring::{Event, Ring};
use dispatchd::say;

/// Connections that have not been accepted yet, at most (bounded by the system's `somaxconn`).
const BACKLOG: i32 = 4096;
/// Longest sleep; the loop has nothing to do then but to sleep again.
const SLEEP: Duration = Duration::from_secs(3600);

/// What the raw server does.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Connections at once, at most
    #[arg(long)]
    pub slots: u32,
    /// Message sizes, REQUEST:RESPONSE in bytes, comma-separated
    #[arg(long, value_delimiter = ',', required = true)]
    pub pairs: Vec<Pair>,
    /// End a connection after its last pair instead of starting over
    #[arg(long)]
    pub close: bool,
}

impl Options {
    /// As arguments of `raw-server`.
    pub fn to_arguments(&self) -> Vec<String> {
        let pairs: Vec<String> = self.pairs.iter().map(Pair::to_string).collect();
        let mut arguments = vec![
            "--slots".into(),
            self.slots.to_string(),
            "--pairs".into(),
            pairs.join(","),
        ];
        arguments.extend(self.close.then(|| "--close".into()));
        arguments
    }
}

/// Serves until the process is killed. Prints its address first.
///
/// # Errors
/// The ring's, or a socket's.
pub fn run(options: &Options) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    // Listening again only widens the backlog. Accepted sockets inherit TCP_NODELAY.
    rustix::net::listen(&listener, BACKLOG)?;
    rustix::net::sockopt::set_tcp_nodelay(&listener, true)?;
    say!("{}", listener.local_addr()?);
    io::stdout().flush()?;
    let longest = options.pairs.iter().map(|pair| pair.response).max().unwrap_or(1);
    let bytes: &'static [u8] = Box::leak(vec![b'x'; longest as usize].into_boxed_slice());
    let first = Progress {
        pair: 0,
        missing: options.pairs[0].request,
    };
    let mut connections = vec![first; options.slots as usize];
    let mut ring = Ring::new(options.slots)?;
    ring.accept_all(&listener)?;
    loop {
        ring.wait(SLEEP)?;
        while let Some(event) = ring.next_event()? {
            match event {
                Event::Accepted { slot } => {
                    connections[slot as usize] = first;
                    ring.arm_receive(slot)?;
                }
                Event::Data { slot, chunk } => {
                    let mut arrived = chunk.len();
                    ring.release(chunk);
                    let progress = &mut connections[slot as usize];
                    while arrived >= progress.missing {
                        arrived -= progress.missing;
                        let response = options.pairs[usize::from(progress.pair)].response;
                        let next = (usize::from(progress.pair) + 1) % options.pairs.len();
                        *progress = Progress {
                            pair: next as u8,
                            missing: options.pairs[next].request,
                        };
                        ring.send_static(slot, &bytes[..response as usize])?;
                        if options.close && next == 0 {
                            ring.stop_receive(slot)?;
                            arrived = 0;
                        }
                    }
                    progress.missing -= arrived;
                }
                Event::Ended { slot, .. } => ring.close(slot)?,
                // A send fails when its peer has gone; the receive's end follows.
                Event::Sent { .. } | Event::Failed { .. } | Event::Closed { .. } => {}
            }
        }
    }
}
