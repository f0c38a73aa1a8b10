//! The fixed rate: all servers of a round are up at once, and a short slice of load goes to one after the other, again and again.
//!
//! At this rate a server sleeps between two messages, and what a wake-up costs changes within seconds on a machine that is shared, by more
//! than the servers differ. Slices of a quarter of a second meet that alike; one stretch after the other does not.
#![forbid(unsafe_code)]

use std::io;

use super::catalogue::{Kind, Peer, Purpose, Started};
use super::client::{Client, Outcome, Pace, Times};
use super::dialect::Dialect;
use super::{Options, accept_all, add};
use crate::report::Run;
use crate::scenarios::Context;

/// Slices that the measured time of a server is cut into.
const SLICES: usize = 8;
/// Most unmeasured time before each, s: the caches are the last server's.
const WARMUP_S_MAX: f64 = 0.1;

/// A server with its connections; one whose load failed has no client any more.
struct Seat<'a> {
    server: &'a Started,
    client: Option<Client<'a>>,
    outcome: Outcome,
}

/// Adds the figures of the fixed rate to each server's run of this round. Servers that have failed already are left out.
///
/// # Errors
/// A server does not start or takes no connections; what goes wrong later is a fault of that server's run.
pub(super) fn measure(context: &Context, peers: &[Peer], options: &Options, runs: &mut [Run]) -> io::Result<()> {
    let taking_part = |(peer, run): &(&Peer, &mut Run)| peer.kind != Kind::DispatchdCycle && !run.figures.is_empty();
    let mut runs: Vec<(&Peer, &mut Run)> = peers.iter().zip(runs).filter(taking_part).collect();
    let dialects: Vec<Box<dyn Dialect>> = runs.iter().map(|(peer, _)| peer.dialect(Purpose::Push)).collect();
    let servers = runs
        .iter()
        .map(|(peer, _)| peer.start(context, options, Purpose::Push))
        .collect::<io::Result<Vec<Started>>>()?;
    let mut seats = Vec::new();
    for ((peer, _), (server, dialect)) in runs.iter().zip(servers.iter().zip(&dialects)) {
        context.progress.phase(&format!("connect to {}", peer.kind.name()), 1);
        let (target, connections) = (server.target(), options.connections);
        let explain = |error: io::Error| server.explain(&error);
        let mut client = Client::open(target, dialect.as_ref(), connections)?;
        client.connect_all(0..connections).map_err(explain)?;
        if peer.kind == Kind::DispatchdAnswer {
            accept_all(&mut client, target, connections).map_err(explain)?;
        }
        seats.push(Seat {
            server,
            client: Some(client),
            outcome: Outcome::default(),
        });
    }
    context.progress.phase("fixed rate, by turns", SLICES as u64);
    let times = Times {
        warmup_s: options.warmup_secs.min(WARMUP_S_MAX),
        measured_s: options.secs / SLICES as f64,
    };
    for slice in 0..SLICES {
        // Each slice begins with another server, so that none always follows the same one.
        let count = seats.len();
        for index in (0..count).map(|index| (index + slice) % count) {
            let seat = &mut seats[index];
            let Some(client) = &mut seat.client else { continue };
            match client.push(Pace::Open { rate: options.rate }, times) {
                Ok(outcome) => seat.outcome.add(&outcome),
                Err(error) => {
                    let error = seat.server.explain(&error);
                    runs[index].1.faults.add("fixed rate failed", || error.to_string());
                    seat.client = None;
                }
            }
        }
    }
    for (seat, (_, run)) in seats.into_iter().zip(&mut runs) {
        let Some(mut client) = seat.client else { continue };
        run.faults.add_all(client.take_faults());
        add(
            run,
            &seat.outcome,
            [
                "rate_cpu_us",
                "rate_per_s",
                "rate_p50",
                "rate_p99",
                "rate_server_core",
                "rate_client_core",
            ],
        );
    }
    servers.into_iter().try_for_each(Started::stop)
}
