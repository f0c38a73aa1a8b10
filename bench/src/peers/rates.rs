//! The fixed rate: all servers of a round are up at once, and a short slice of load goes to one after the other, again and again.
//!
//! At this rate a server sleeps between two messages, and what a wake-up costs changes within seconds on a machine that is shared, by more
//! than the servers differ. Short slices meet that alike; one stretch after the other does not.
#![forbid(unsafe_code)]

use std::io;

use super::catalogue::{Kind, Peer, Purpose, Started};
use super::client::{Client, Outcome, Times};
use super::dialect::Dialect;
use super::{Options, SETTLE, accept_all, add, fixed};
use crate::chance::Chance;
use crate::report::{Run, median};
use crate::scenarios::Context;

/// Slices that the measured time of a server is cut into.
const SLICES: usize = 8;
/// Most unmeasured time before each, s: the caches are the last server's.
const WARMUP_S_MAX: f64 = 0.1;
/// A fault of a run.
const FAILED: &str = "fixed rate failed";

/// A server that takes part.
struct Seat<'a> {
    run: &'a mut Run,
    server: Started,
    client: Client<'a>,
    /// All slices together.
    outcome: Outcome,
    /// The 99th percentile of each slice, ms.
    slices_p99: Vec<f64>,
}

impl<'a> Seat<'a> {
    /// Starts a server and opens its connections.
    fn take(
        context: &Context,
        peer: &Peer,
        options: &Options,
        dialect: &'a dyn Dialect,
        run: &'a mut Run,
    ) -> Option<Self> {
        let connections = options.connections;
        let open = |server: &Started| -> io::Result<Client<'a>> {
            let target = server.target();
            let mut client = Client::open(target, dialect, connections)?;
            client.connect_all(0..connections)?;
            if peer.kind == Kind::DispatchdAnswer {
                accept_all(&mut client, target, connections)?;
            }
            Ok(client)
        };
        let taken = peer.start(context, options, Purpose::Push).and_then(|server| {
            let client = open(&server).map_err(|error| server.explain(&error))?;
            Ok((server, client))
        });
        match taken {
            Ok((server, client)) => Some(Self {
                run,
                server,
                client,
                outcome: Outcome::default(),
                slices_p99: Vec::new(),
            }),
            Err(error) => {
                run.faults.add(FAILED, || error.to_string());
                None
            }
        }
    }

    fn load(&mut self, context: &Context, options: &Options, times: Times) -> io::Result<Outcome> {
        let pushed = self.client.push(fixed(context, options.rate), times);
        pushed.map_err(|error| self.server.explain(&error))
    }

    /// Its figures, and its end.
    fn leave(mut self) {
        self.run.faults.add_all(self.client.take_faults());
        add(
            self.run,
            &self.outcome,
            [
                "rate_cpu_us",
                "rate_per_s",
                "rate_p50",
                "rate_p99_pooled",
                "rate_server_core",
                "rate_client_core",
            ],
        );
        // A machine that stands still for a few milliseconds is the pooled tail of whoever had the turn.
        if let Some(p99) = median(self.slices_p99.into_iter()) {
            self.run.add("rate_p99", "ms", p99);
        }
        drop(self.client);
        if let Err(error) = self.server.stop() {
            self.run.faults.add(FAILED, || error.to_string());
        }
    }
}

/// Adds the figures of the fixed rate to each server's run of this round. Servers that have failed already are left out; what goes wrong
/// here is a fault of that server's run.
pub(super) fn measure(context: &Context, peers: &[Peer], options: &Options, runs: &mut [Run]) {
    let dialects: Vec<Box<dyn Dialect>> = peers.iter().map(|peer| peer.dialect(Purpose::Push)).collect();
    let mut seats = Vec::new();
    for ((peer, dialect), run) in peers.iter().zip(&dialects).zip(runs) {
        if peer.kind != Kind::DispatchdCycle && !run.figures.is_empty() {
            context.progress.phase(&format!("connect to {}", peer.kind.name()), 1);
            seats.extend(Seat::take(context, peer, options, dialect.as_ref(), run));
        }
    }
    // What so many connections left to be done is done before anything is measured.
    std::thread::sleep(SETTLE);
    context.progress.phase("fixed rate, by turns", SLICES as u64);
    let first = Times {
        warmup_s: 0.0,
        measured_s: options.warmup_secs,
    };
    let slice = Times {
        warmup_s: options.warmup_secs.min(WARMUP_S_MAX),
        measured_s: options.secs / SLICES as f64,
    };
    // In another order each time, so that none always follows the same one.
    let mut chance = Chance::new(1);
    for round in 0..=SLICES {
        shuffle(&mut seats, &mut chance);
        let mut index = 0;
        while index < seats.len() {
            // The first is for code that becomes fast, and memory that becomes large enough, as it is used.
            let times = if round == 0 { first } else { slice };
            match seats[index].load(context, options, times) {
                Ok(outcome) => {
                    if round > 0 {
                        seats[index].slices_p99.push(outcome.latencies.quantile_ms(0.99));
                        seats[index].outcome.add(&outcome);
                    }
                    index += 1;
                }
                Err(error) => {
                    let mut seat = seats.remove(index);
                    seat.run.faults.add_all(seat.client.take_faults());
                    seat.run.faults.add(FAILED, || error.to_string());
                    drop(seat);
                    std::thread::sleep(SETTLE);
                }
            }
        }
    }
    seats.into_iter().for_each(Seat::leave);
}

/// Fisher and Yates.
fn shuffle(seats: &mut [Seat<'_>], chance: &mut Chance) {
    for last in (1..seats.len()).rev() {
        seats.swap(last, chance.below(last + 1));
    }
}
