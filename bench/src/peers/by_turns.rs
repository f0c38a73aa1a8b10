//! What servers are compared in by turns: all servers of a round are up at once, and a short slice of load goes to one after the other,
//! again and again.
//!
//! What a message costs changes within minutes on a machine that is shared, by more than the servers differ, and what a wake-up costs
//! within seconds. Short slices meet that alike; one stretch after the other does not. Who has not the turn is stopped, so that what its
//! runtime does from time to time is not somebody else's tail, and a slice of the fixed rate in which other processes of the machine ran for
//! longer than a 99th percentile leaves out is measured again (`others.rs`).
#![forbid(unsafe_code)]

use std::io;

use super::catalogue::{Kind, Peer, Purpose, Started};
use super::client::{Client, Outcome, Pace, Times};
use super::dialect::Dialect;
use super::others::{self, Others, Quiet};
use super::{Options, SETTLE, accept_all};
use crate::chance::Chance;
use crate::report::{Run, median};
use crate::scenarios::Context;
use crate::server::Cores;

/// Slices that the measured time of a server is cut into.
const SLICES: usize = 8;
/// Most unmeasured time before each, s: the caches are the last server's.
const WARMUP_S_MAX: f64 = 0.1;
/// A fault of a run.
const FAILED: &str = "by turns failed";

/// A load that goes to all servers by turns.
struct Course {
    what: &'static str,
    pace: Pace,
    /// Times that a slice is measured at most.
    tries: usize,
    /// The figures: CPU of the server, pushes per second, latencies (the 99th percentile as the median of the slices', then of all
    /// pushes), busy cores, the most that other processes ran
    /// in a slice, and the slices that it took.
    names: [&'static str; 9],
}

impl Course {
    /// The fixed rate, then as many as a server takes.
    fn all(context: &Context, options: &Options) -> [Self; 2] {
        [
            Self {
                what: "fixed rate, by turns",
                pace: super::fixed(context, options.rate),
                tries: others::TRIES,
                names: [
                    "rate_cpu_us",
                    "rate_per_s",
                    "rate_p50",
                    "rate_p99",
                    "rate_p99_pooled",
                    "rate_server_core",
                    "rate_client_core",
                    "rate_others_percent",
                    "rate_tries",
                ],
            },
            Self {
                what: "saturation, by turns",
                pace: Pace::Closed {
                    in_flight: options.in_flight,
                },
                // What the kernel's threads run here is partly the server's own work.
                tries: 1,
                names: [
                    "busy_cpu_us",
                    "push_per_s",
                    "busy_p50",
                    "busy_p99",
                    "busy_p99_pooled",
                    "busy_server_core",
                    "busy_client_core",
                    "busy_others_percent",
                    "busy_tries",
                ],
            },
        ]
    }
}

/// A server that takes part.
struct Seat<'a> {
    run: &'a mut Run,
    server: Started,
    cores: Cores,
    client: Client<'a>,
    /// All slices together.
    outcome: Outcome,
    /// The 99th percentile of each slice, ms.
    slices_p99: Vec<f64>,
    /// The most that other processes ran in one of them, %; not a number while none is known.
    others_percent: f64,
    /// Slices that were measured, those that were measured again included.
    tries: usize,
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
                cores: context.cores(),
                client,
                outcome: Outcome::default(),
                slices_p99: Vec::new(),
                others_percent: f64::NAN,
                tries: 0,
            }),
            Err(error) => {
                run.faults.add(FAILED, || error.to_string());
                None
            }
        }
    }

    /// Its turn, again if the machine disturbs it, `tries` times at most.
    fn load(&mut self, pace: Pace, times: Times, tries: usize) -> io::Result<Quiet<Outcome>> {
        others::quietest(
            tries,
            times.measured_s,
            self,
            |seat| Others::than(&[std::process::id(), seat.server.target().pid], seat.cores),
            |seat| seat.server.go_on(),
            |seat| {
                let pushed = seat.client.push(pace, times);
                let outcome = pushed.map_err(|error| seat.server.explain(&error))?;
                seat.server.pause()?;
                Ok(outcome)
            },
        )
    }

    /// The figures of a course that is over.
    fn note(&mut self, course: &Course) {
        let outcome = std::mem::take(&mut self.outcome);
        let stalled_percent = outcome.stalled_percent();
        let Outcome {
            usage,
            operations,
            latencies,
            ..
        } = outcome;
        // A machine that stands still for a few milliseconds is the pooled tail of whoever had the turn.
        let p99 = median(std::mem::take(&mut self.slices_p99).into_iter()).unwrap_or(f64::NAN);
        let figures = [
            ("µs", usage.server_us_per(operations)),
            ("1/s", usage.per_second(operations)),
            ("ms", latencies.quantile_ms(0.5)),
            ("ms", p99),
            ("ms", latencies.quantile_ms(0.99)),
            ("% core", usage.server_percent()),
            ("% core", usage.client_percent()),
            ("%", std::mem::replace(&mut self.others_percent, f64::NAN)),
            ("", std::mem::take(&mut self.tries) as f64),
        ];
        for (name, (unit, value)) in course.names.into_iter().zip(figures) {
            self.run.add(name, unit, value);
        }
        if let Pace::Open { .. } = course.pace {
            super::note_stalled(self.run, "rate_stalled_percent", stalled_percent);
        }
    }

    /// Its end.
    fn leave(mut self) {
        self.run.faults.add_all(self.client.take_faults());
        // Stopped, it would not act on SIGTERM.
        let resumed = self.server.go_on();
        drop(self.client);
        if let Err(error) = resumed.and_then(|()| self.server.stop()) {
            self.run.faults.add(FAILED, || error.to_string());
        }
    }

    /// Its end before the others'.
    fn fail(mut self, error: &io::Error) {
        self.run.faults.add_all(self.client.take_faults());
        self.run.faults.add(FAILED, || error.to_string());
    }
}

/// Adds the figures of all courses to each server's run of this round. Servers that have failed already are left out; what goes wrong
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
    for index in (0..seats.len()).rev() {
        if let Err(error) = seats[index].server.pause() {
            seats.remove(index).fail(&error);
        }
    }
    // In another order each time, so that none always follows the same one.
    let mut chance = Chance::new(1);
    for course in Course::all(context, options) {
        context.progress.phase(course.what, SLICES as u64);
        drive(&course, options, &mut seats, &mut chance);
    }
    seats.into_iter().for_each(Seat::leave);
}

/// One course. Who fails in it leaves.
fn drive(course: &Course, options: &Options, seats: &mut Vec<Seat<'_>>, chance: &mut Chance) {
    let first = Times {
        warmup_s: 0.0,
        measured_s: options.warmup_secs,
    };
    let slice = Times {
        warmup_s: options.warmup_secs.min(WARMUP_S_MAX),
        measured_s: options.secs / SLICES as f64,
    };
    for round in 0..=SLICES {
        shuffle(seats, chance);
        let mut index = 0;
        while index < seats.len() {
            let seat = &mut seats[index];
            // The first is for code that becomes fast, and memory that becomes large enough, as it is used.
            let (times, tries) = if round == 0 { (first, 1) } else { (slice, course.tries) };
            match seat.load(course.pace, times, tries) {
                Ok(slice) => {
                    if round > 0 {
                        seat.slices_p99.push(slice.value.latencies.quantile_ms(0.99));
                        seat.others_percent = seat.others_percent.max(slice.others_percent);
                        seat.tries += slice.tries;
                        seat.outcome.add(&slice.value);
                    }
                    index += 1;
                }
                Err(error) => {
                    seats.remove(index).fail(&error);
                    std::thread::sleep(SETTLE);
                }
            }
        }
    }
    for seat in seats {
        seat.note(course);
    }
}

/// Fisher and Yates.
fn shuffle(seats: &mut [Seat<'_>], chance: &mut Chance) {
    for last in (1..seats.len()).rev() {
        seats.swap(last, chance.below(last + 1));
    }
}
