//! One run of a scenario, seen from above: starts the node and the load processes, breaks what is to be broken, and collects.
#![forbid(unsafe_code)]

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use super::sample::Sample;
use super::scenario::{FaultKind, Scenario};
use super::tally::{Counts, LATENCIES, Orders, Report};
use super::worker::TICK_NS;
use crate::measure::{Clock, Latencies};
use crate::report::Faults;
use crate::scenarios::Context;
use crate::server::{OwnedChild, Server, Setup, connections_for};

/// Drivers beyond which load processes need addresses of their own.
const DRIVERS_PER_ADDRESS_MAX: u32 = 25_000;
/// How long load processes may be silent before the run is given up.
const SILENCE_MAX: Duration = Duration::from_secs(120);

/// A tick of all load processes together.
pub struct Moment {
    /// Since the beginning, s.
    pub at_s: f64,
    /// Since the beginning.
    pub counts: Counts,
    /// Since the last moment, in the order of [`LATENCIES`].
    pub latencies: Vec<Latencies>,
}

/// Everything that a run gave.
pub struct Story {
    /// Before anybody was connected.
    pub empty: Sample,
    /// Looks, from the beginning.
    pub samples: Vec<Sample>,
    /// Ticks, from the beginning.
    pub moments: Vec<Moment>,
    /// Longest time that a load process took to connect its drivers, s.
    pub connect_s: f64,
    /// Requests read back.
    pub audited: u64,
    /// What makes the run invalid.
    pub faults: Faults,
}

struct LoadProcess {
    child: OwnedChild,
    stdin: ChildStdin,
}

struct Stage<'a> {
    scenario: &'a Scenario,
    context: &'a Context,
    server: Server,
    processes: Vec<LoadProcess>,
    reports: Receiver<(usize, io::Result<Report>)>,
    last: Vec<(Counts, u32)>,
    story: Story,
    restarting: bool,
}

/// Plays a scenario once.
///
/// # Errors
/// The node or a load process does not start or breaks off.
pub fn play(context: &Context, scenario: &Scenario, round: u32) -> io::Result<Story> {
    let mut setup = Setup {
        any_address: scenario.drivers > DRIVERS_PER_ADDRESS_MAX,
        ..context.setup.clone()
    };
    let settings = scenario.settings.iter().map(|(key, value)| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        format!("{key}={text}")
    });
    let own = std::mem::take(&mut setup.settings);
    let connections = connections_for(scenario.drivers, scenario.shards);
    setup.settings = [
        format!("shards={}", scenario.shards),
        format!("connections_max={connections}"),
    ]
    .into_iter()
    .chain(settings)
    .chain(own)
    .collect();
    let server = Server::start(&setup)?;
    let target = server.target();
    let empty = Sample::take(0.0, target.pid, target.address, &[])?;
    context.progress.phase("connect", u64::from(scenario.processes));
    let (sender, reports) = channel();
    let processes = (0..scenario.processes)
        .map(|process| {
            start_process(
                context,
                scenario,
                process,
                round,
                target.address,
                &setup,
                sender.clone(),
            )
        })
        .collect::<io::Result<Vec<_>>>()?;
    drop(sender);
    let mut stage = Stage {
        scenario,
        context,
        last: vec![(Counts::default(), 0); processes.len()],
        processes,
        reports,
        story: Story {
            empty,
            samples: Vec::new(),
            moments: Vec::new(),
            connect_s: 0.0,
            audited: 0,
            faults: Faults::default(),
        },
        restarting: false,
        server,
    };
    let played = stage.connect().and_then(|()| stage.run());
    played.map_err(|error| stage.server.explain(&error))?;
    let Stage { server, story, .. } = stage;
    server.stop()?;
    Ok(story)
}

fn start_process(
    context: &Context,
    scenario: &Scenario,
    process: u32,
    round: u32,
    address: SocketAddrV4,
    setup: &Setup,
    sender: Sender<(usize, io::Result<Report>)>,
) -> io::Result<LoadProcess> {
    let ip = if setup.any_address {
        Ipv4Addr::new(127, 0, 0, 1 + process as u8)
    } else {
        *address.ip()
    };
    let mut command = Command::new(&context.program);
    command.arg("load-process").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = OwnedChild::spawn(&mut command, setup.cores.client)?;
    let (mut stdin, stdout) = child
        .streams()
        .ok_or_else(|| io::Error::other("both streams were piped"))?;
    let orders = Orders {
        scenario: scenario.clone(),
        address: SocketAddrV4::new(ip, address.port()),
        process,
        round,
    };
    writeln!(stdin, "{}", serde_json::to_string(&orders)?)?;
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines() {
            let report = line.and_then(|line| serde_json::from_str(&line).map_err(io::Error::from));
            let is_last = matches!(report, Ok(Report::Done { .. }) | Err(_));
            if sender.send((process as usize, report)).is_err() || is_last {
                return;
            }
        }
        // Nobody listens when the run is over already.
        let _ = sender.send((process as usize, Err(io::ErrorKind::UnexpectedEof.into())));
    });
    Ok(LoadProcess { child, stdin })
}

impl Stage<'_> {
    /// Waits until all drivers are connected, and tells everybody to begin.
    fn connect(&mut self) -> io::Result<()> {
        for ready in 0..self.processes.len() {
            self.context.progress.at(ready as u64);
            match self.reports.recv_timeout(SILENCE_MAX) {
                Ok((_, Ok(Report::Ready { connect_s }))) => {
                    self.story.connect_s = self.story.connect_s.max(connect_s);
                }
                Ok((process, other)) => {
                    return Err(io::Error::other(format!("load process {process} says {other:?}")));
                }
                Err(_) => return Err(io::Error::other("drivers do not get connected")),
            }
        }
        for process in &mut self.processes {
            writeln!(process.stdin, "go")?;
        }
        Ok(())
    }

    fn run(&mut self) -> io::Result<()> {
        let clock = Clock::start();
        let mut faults: Vec<(f64, FaultKind)> = self
            .scenario
            .fault
            .iter()
            .map(|fault| (fault.at_s, fault.kind))
            .collect();
        faults.sort_by(|one, other| other.0.total_cmp(&one.0));
        let mut running = self.processes.len();
        let mut sample_ns = 0;
        let mut heard_ns = 0;
        self.context.progress.phase("run", self.scenario.secs() as u64);
        while running > 0 {
            let now_ns = clock.now_ns();
            let at_s = now_ns as f64 / 1e9;
            while faults.last().is_some_and(|fault| fault.0 <= at_s) {
                self.break_node(faults.pop().map(|fault| fault.1))?;
            }
            if self.restarting {
                self.restarting = !self.server.try_restart()?;
            }
            if now_ns >= sample_ns && at_s < self.scenario.secs() + 1.0 {
                sample_ns = now_ns + TICK_NS;
                self.sample(at_s);
            }
            match self.reports.recv_timeout(Duration::from_millis(20)) {
                Ok((process, report)) => {
                    heard_ns = now_ns;
                    running -= usize::from(self.heard(process, report?));
                }
                Err(RecvTimeoutError::Timeout) if now_ns < heard_ns + SILENCE_MAX.as_nanos() as u64 => {}
                Err(_) => return Err(io::Error::other("load processes are silent")),
            }
        }
        Ok(())
    }

    fn break_node(&mut self, kind: Option<FaultKind>) -> io::Result<()> {
        match kind {
            Some(FaultKind::Kill) => self.server.kill()?,
            Some(FaultKind::Drain) => self.server.drain()?,
            Some(FaultKind::ReconnectStorm | FaultKind::Stall) | None => return Ok(()),
        }
        self.restarting = true;
        Ok(())
    }

    /// A look at the node; while it is down there is nothing to see.
    fn sample(&mut self, at_s: f64) {
        let target = self.server.target();
        let load: Vec<u32> = self.processes.iter().map(|process| process.child.pid()).collect();
        let Ok(mut sample) = Sample::take(at_s, target.pid, target.address, &load) else {
            return;
        };
        for (counts, connected) in &self.last {
            sample.connected += f64::from(*connected);
            sample.posted += counts.posted as f64;
        }
        if let Some(before) = self.story.samples.last() {
            let share = |now: f64, then: f64| (now - then) / (sample.at_s - before.at_s);
            let cores = share(sample.cpu_s, before.cpu_s);
            let p99_ms = self.story.moments.last().map_or(f64::NAN, |moment| {
                moment.latencies[super::tally::Latency::Offer as usize].quantile_ms(0.99)
            });
            self.context.progress.at(at_s as u64);
            self.context.progress.live(format!(
                "{} connected, {:.0} offers/s, p99 {p99_ms:.1} ms, node {:.0}%, load {:.0}%",
                sample.connected,
                share(sample.posted, before.posted),
                100.0 * cores,
                100.0 * share(sample.load_s, before.load_s),
            ));
        }
        self.story.samples.push(sample);
    }

    /// Takes a report in; true when it was the process's last.
    fn heard(&mut self, process: usize, report: Report) -> bool {
        match report {
            Report::Ready { .. } => false,
            Report::Tick {
                at_s,
                connected,
                counts,
                latencies,
            } => {
                self.last[process] = (counts, connected);
                // Ticks of all processes belong together by their number; the first to tell one opens it.
                let number = (at_s * 1e9 / TICK_NS as f64).round().max(1.0) as usize - 1;
                let total = self.last.iter().map(|(counts, _)| counts);
                let sum = total.fold(Counts::default(), Counts::plus);
                while self.story.moments.len() <= number {
                    let at_s = (self.story.moments.len() + 1) as f64 * TICK_NS as f64 / 1e9;
                    self.story.moments.push(Moment {
                        at_s,
                        counts: sum,
                        latencies: std::iter::repeat_with(Latencies::new).take(LATENCIES.len()).collect(),
                    });
                }
                let moment = &mut self.story.moments[number];
                moment.counts = sum;
                for (merged, sparse) in moment.latencies.iter_mut().zip(&latencies) {
                    merged.add_sparse(sparse);
                }
                false
            }
            Report::Done { faults, audited } => {
                self.story.audited += audited;
                for (kind, (count, example)) in faults {
                    self.story.faults.merge(kind, count, example);
                }
                true
            }
        }
    }
}
