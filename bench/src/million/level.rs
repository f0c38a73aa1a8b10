//! One level: a fresh server, all its drivers, quiet, offers, a drain, the storm of reconnects, and the audits.
//!
//! Every wait is bounded: by a deadline, and by the time in which nothing moves. Whatever goes wrong, the load threads are
//! told to end and are joined, and the server is ended with its data directory.
#![forbid(unsafe_code)]

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::audits;
use super::kernel::{Memory, STRUCTURES, must_fit};
use super::people::{Manners, Story};
use super::timing::{Counts, Timings};
use super::worker::{Seen, Shared, Stage, Task, local_address, run as work};
use super::{Options, Scale};
use crate::measure::{Usage, UsageMeter};
use crate::report::{Faults, Progress, Run};
use crate::scenarios::Context;
use crate::server::{Server, Setup};

/// How often the conductor looks.
const LOOK: Duration = Duration::from_millis(50);
/// How long connecting, ending and draining may make no progress.
const STILL_MAX: Duration = Duration::from_secs(60);
/// Time for memory to settle before it is read.
const SETTLE: Duration = Duration::from_secs(2);
/// How long the server may take to end after the last driver was due to be closed, in all.
const END_GRACE: Duration = Duration::from_secs(20);

/// What a level has shown.
pub struct Level {
    /// Its drivers and their heartbeats.
    pub scale: Scale,
    /// Its shards.
    pub shards: u32,
    /// Figures, and what makes the level invalid.
    pub run: Run,
    /// Latencies of all threads.
    pub timings: Timings,
    /// Slab caches by growth, bytes.
    pub caches: Vec<(String, i64)>,
}

/// Runs a level.
///
/// # Errors
/// It does not fit, the server fails, or nothing moves; what goes wrong within the load is a fault of the level.
pub fn run(context: &Context, options: &Options, scale: Scale) -> io::Result<Level> {
    let drivers = scale.drivers;
    let (shards, parts) = (options.shards, options.parts_for(drivers));
    must_fit(drivers, parts)?;
    let drain_ms = options.drain_ms(drivers);
    let mut settings = vec![
        format!("shards={shards}"),
        format!("connections_max={}", options.connections_for(drivers)),
        format!("drain_ms={drain_ms}"),
        // Connecting a million takes longer than an idle HTTP connection may live.
        "http_idle_timeout_ms=3600000".to_owned(),
        format!("heartbeat_ms={}", options.heartbeat_seconds * 1_000),
    ];
    settings.extend(context.setup.settings.iter().cloned());
    let setup = Setup {
        settings,
        ..context.setup.clone()
    };
    let server = Server::start(&setup)?;
    let crew = Crew::start(&server, options, scale, parts)?;
    let mut conductor = Conductor {
        options,
        progress: &context.progress,
        scale,
        drivers: u64::from(drivers),
        crew,
        run: Run::default(),
        caches: Vec::new(),
        drain: Duration::from_millis(drain_ms),
    };
    let played = conductor.play(server);
    // In any case: no thread is left running.
    let seen = conductor.crew.end();
    let (server, sum) = match (played, seen) {
        (Ok(server), Ok(sum)) => (server, sum),
        (Ok(_), Err(error)) => return Err(error),
        (Err(error), Err(why)) => return Err(io::Error::other(format!("{error}\n  because of {why}"))),
        (Err(error), Ok(sum)) => {
            let faults: Vec<String> = sum.faults.lines().collect();
            return Err(io::Error::other(format!("{error}\n  faults: {}", faults.join("\n  "))));
        }
    };
    let Sum {
        counts,
        timings,
        faults,
        stories,
        missed,
    } = sum;
    let mut run = conductor.run;
    run.faults = faults;
    audits::compare(server.target().address, &stories, &mut run)?;
    server.stop()?;
    run.add("heartbeats_missed", "", missed as f64);
    add_counts(&mut run, counts);
    add_latencies(&mut run, &timings);
    Ok(Level {
        scale,
        shards,
        run,
        timings,
        caches: conductor.caches,
    })
}

/// The load threads.
struct Crew {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<io::Result<Vec<Seen>>>>,
}

/// What all threads have seen.
struct Sum {
    counts: Counts,
    timings: Timings,
    faults: Faults,
    stories: Vec<Story>,
    missed: u64,
}

impl Crew {
    fn start(server: &Server, options: &Options, scale: Scale, parts: u32) -> io::Result<Self> {
        let drivers = scale.drivers;
        let shared = Arc::new(Shared::new(parts));
        let mut crew = Self {
            shared: Arc::clone(&shared),
            threads: Vec::new(),
        };
        let second_ns = 1_000_000_000_u64;
        // Later than any run lasts.
        let never_ns = u64::MAX / 4;
        let offer_ns = second_ns.checked_div(u64::from(options.offers_per_second));
        let first_of = |part: u32| (u64::from(drivers) * u64::from(part) / u64::from(parts)) as u32;
        let threads = options.load_threads.min(parts);
        let mut tasks: Vec<Vec<Task>> = (0..threads).map(|_| Vec::new()).collect();
        for index in 0..parts {
            tasks[(index % threads) as usize].push(Task {
                index,
                first_driver: first_of(index),
                drivers: first_of(index + 1) - first_of(index),
                local: local_address(index),
                address: server.target().address,
                connecting_max: (options.connecting / parts).max(4),
                offer_interval_ns: offer_ns.map_or(never_ns, |ns| ns * u64::from(parts)),
                offer_offset_ns: offer_ns.map_or(never_ns, |ns| ns * u64::from(index)),
                heartbeat_ns: scale.heartbeat_ns,
                manners: options.manners(),
            });
        }
        for (index, tasks) in tasks.into_iter().enumerate() {
            let shared = Arc::clone(&shared);
            let name = format!("load-{index}");
            match thread::Builder::new().name(name).spawn(move || work(&tasks, &shared)) {
                Ok(thread) => crew.threads.push(thread),
                Err(error) => {
                    // Those that run are told to end; what they have seen is nothing yet.
                    let _ = crew.end();
                    return Err(error);
                }
            }
        }
        Ok(crew)
    }

    fn is_broken(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Ends all threads and adds up what they have seen.
    fn end(&mut self) -> io::Result<Sum> {
        self.shared.set(Stage::End);
        let mut sum = Sum {
            counts: Counts::default(),
            timings: Timings::default(),
            faults: Faults::default(),
            stories: Vec::new(),
            missed: 0,
        };
        let mut result = Ok(());
        for thread in self.threads.drain(..) {
            match thread.join() {
                Ok(Ok(parts)) => {
                    for seen in parts {
                        sum.counts.add(&seen.counts);
                        sum.timings.add(&seen.timings);
                        sum.faults.add_all(seen.faults);
                        sum.stories.extend(seen.stories);
                        sum.missed += seen.missed;
                    }
                }
                Ok(Err(error)) => result = Err(io::Error::other(format!("a load thread: {error}"))),
                Err(_) => result = Err(io::Error::other("a load thread panicked")),
            }
        }
        result.map(|()| sum)
    }
}

/// Leads all threads through the stages.
struct Conductor<'a> {
    options: &'a Options,
    progress: &'a Progress,
    scale: Scale,
    drivers: u64,
    crew: Crew,
    run: Run,
    caches: Vec<(String, i64)>,
    drain: Duration,
}

impl Conductor<'_> {
    fn play(&mut self, server: Server) -> io::Result<Server> {
        let loaded = self.load(&server).map_err(|error| server.explain(&error));
        loaded?;
        let server = self.drain(server)?;
        self.storm(&server).map_err(|error| server.explain(&error))?;
        Ok(server)
    }

    /// Connects everybody, stays quiet, offers.
    fn load(&mut self, server: &Server) -> io::Result<()> {
        let target = server.target();
        let before = Memory::read(target)?;
        let mut meter = UsageMeter::start(target.pid)?;
        let took = self.connect_all("connect")?;
        let usage = meter.lap()?;
        self.add_connects(["connect_s", "connects_per_s", "connect_server_cpu_us"], took, usage);
        self.pause("settle", SETTLE)?;
        let full = Memory::read(target)?;
        self.caches = full.grown_caches(&before);
        self.add_memory(&before, &full);
        meter.lap()?;
        let pongs = self.pongs();
        self.pause("quiet", Duration::from_secs(self.options.quiet_seconds))?;
        let usage = meter.lap()?;
        let beats = self.pongs() - pongs;
        self.run.add("heartbeats_per_s", "1/s", usage.per_second(beats));
        self.run.add("quiet_server_core", "% core", usage.server_percent());
        self.run.add("quiet_client_core", "% core", usage.client_percent());
        self.run
            .add("heartbeat_server_cpu_us", "µs", usage.server_us_per(beats));
        let quiet = Memory::read(target)?;
        meter.lap()?;
        self.offers(&mut meter, usage)?;
        let busy = Memory::read(target)?;
        self.add_work(&quiet, &busy);
        self.run
            .add("server_resident_after_offers", "MB", busy.server.resident as f64 / 1e6);
        self.run.add("slab_after_offers", "MB", busy.slab as f64 / 1e6);
        let lost = busy.metric("dispatchd_connections_closed_total{cause=\"heartbeat_lost\"}");
        self.run.add("sockets_closed_for_heartbeat", "", lost);
        Ok(())
    }

    /// What the server did for each offer, its trip and the heartbeats meanwhile included.
    fn add_work(&mut self, quiet: &Memory, busy: &Memory) {
        const PER_OFFER: [(&str, &str); 4] = [
            ("journal_writes_per_offer", "dispatchd_journal_commits_total"),
            ("letters_per_offer", "dispatchd_mailbox_letters_total"),
            ("turns_per_offer", "dispatchd_turns_total"),
            ("sleeps_per_offer", "dispatchd_ring_sleeps_total"),
        ];
        let name = "dispatchd_requests_received_total";
        let offers = busy.metric(name) - quiet.metric(name);
        for (figure, name) in PER_OFFER {
            self.run
                .add(figure, "", (busy.metric(name) - quiet.metric(name)) / offers);
        }
    }

    fn offers(&mut self, meter: &mut UsageMeter, quiet: Usage) -> io::Result<()> {
        let seconds = self.options.offer_seconds(self.scale.drivers);
        let (pongs, posted) = (self.pongs(), self.posted());
        self.crew.shared.set(Stage::Offers);
        self.pause("offers", Duration::from_secs_f64(seconds))?;
        self.crew.shared.set(Stage::Settle);
        let usage = meter.lap()?;
        let (beats, posted) = (self.pongs() - pongs, self.posted() - posted);
        self.run.add("offers_per_s", "1/s", usage.per_second(posted));
        self.run.add("busy_server_core", "% core", usage.server_percent());
        self.run.add("busy_client_core", "% core", usage.client_percent());
        // What is left when heartbeats cost what they cost in the quiet stage, trips included.
        let heartbeats_ns = quiet.server_ns as f64 / quiet.wall_ns as f64 * usage.wall_ns as f64;
        let per_offer = (usage.server_ns as f64 - heartbeats_ns) / 1e3 / posted as f64;
        self.run.add("offer_server_cpu_us", "µs", per_offer);
        self.run.add("busy_heartbeats_per_s", "1/s", usage.per_second(beats));
        let open = |shared: &Shared| shared.sum(|says| u64::from(says.open.load(Relaxed)));
        let most = open(&self.crew.shared);
        // What is still open when nothing moves any more is a fault, which the threads count themselves.
        let ended = self.wait_for("what is under way", most, |shared| most.saturating_sub(open(shared)));
        if let Err(error) = ended {
            self.check()?;
            self.say(&error.to_string());
        }
        Ok(())
    }

    /// Ends the server and starts it again.
    fn drain(&mut self, server: Server) -> io::Result<Server> {
        let shared = Arc::clone(&self.crew.shared);
        shared.set(Stage::Drain);
        // Every thread has seen the stage before the first close comes.
        thread::sleep(2 * LOOK);
        self.progress.phase("drain", self.drivers);
        let begun = Instant::now();
        let mut ended = begun;
        let timeout = self.drain + END_GRACE;
        let server = server.restart(timeout, || ended = Instant::now())?;
        self.run.add("drain_s", "s", (ended - begun).as_secs_f64());
        self.run.add("start_again_s", "s", ended.elapsed().as_secs_f64());
        let drained = |shared: &Shared| shared.sum(|says| u64::from(says.drained.load(Relaxed)));
        self.wait_for("drain", self.drivers, drained)?;
        self.say(&format!("drained in {:.1} s", (ended - begun).as_secs_f64()));
        Ok(server)
    }

    /// Everybody comes back at once.
    fn storm(&mut self, server: &Server) -> io::Result<()> {
        let mut meter = UsageMeter::start(server.target().pid)?;
        self.crew.shared.set(Stage::Storm);
        let took = self.connect_all("storm")?;
        let usage = meter.lap()?;
        self.add_connects(["storm_s", "storm_per_s", "storm_server_cpu_us"], took, usage);
        let refused = self.crew.shared.sum(|says| says.refused.load(Relaxed));
        self.run.add("connects_refused", "", refused as f64);
        // A whole interval of heartbeats: nobody was forgotten.
        self.pause(
            "after the storm",
            Duration::from_secs(self.options.heartbeat_seconds + 1),
        )
    }

    fn connect_all(&mut self, what: &'static str) -> io::Result<Duration> {
        let took = self.wait_for(what, self.drivers, Shared::connected)?;
        let rate = self.drivers as f64 / took.as_secs_f64();
        self.say(&format!(
            "{what}: all connected in {:.1} s, {rate:.0}/s",
            took.as_secs_f64()
        ));
        Ok(took)
    }

    fn add_connects(&mut self, [time, rate, cpu]: [&'static str; 3], took: Duration, usage: Usage) {
        self.run.add(time, "s", took.as_secs_f64());
        self.run.add(rate, "1/s", self.drivers as f64 / took.as_secs_f64());
        self.run.add(cpu, "µs", usage.server_us_per(self.drivers));
    }

    fn add_memory(&mut self, before: &Memory, full: &Memory) {
        const NAMES: [&str; STRUCTURES.len()] = [
            "user_drivers",
            "user_requests",
            "user_connections",
            "user_timers",
            "user_output_buffers",
            "user_receive_buffers_mapped",
        ];
        let drivers = self.drivers as f64;
        let mut add = |name, from: f64, to: f64| self.run.add(name, "B/driver", (to - from) / drivers);
        add("user_allocated", before.allocated, full.allocated);
        for (place, name) in NAMES.into_iter().enumerate() {
            add(name, before.structures[place], full.structures[place]);
        }
        add(
            "user_anonymous",
            before.server.anonymous as f64,
            full.server.anonymous as f64,
        );
        add("kernel_slab_both_ends", before.slab as f64, full.slab as f64);
        add(
            "kernel_socket_buffers",
            before.socket_buffers as f64,
            full.socket_buffers as f64,
        );
        add("kernel_page_tables", before.page_tables as f64, full.page_tables as f64);
        add(
            "load_generator_anonymous",
            before.client.anonymous as f64,
            full.client.anonymous as f64,
        );
        add("machine_in_all", before.in_use as f64, full.in_use as f64);
        let sockets = (full.sockets - before.sockets.min(full.sockets)) as f64;
        self.run.add("sockets_in_use", "", sockets);
        self.run
            .add("server_resident_before", "MB", before.server.resident as f64 / 1e6);
        self.run
            .add("server_resident_full", "MB", full.server.resident as f64 / 1e6);
        self.run.add("slab_full", "MB", full.slab as f64 / 1e6);
    }

    /// Waits until `reached` is `goal`, with a bound on how long it may stand still.
    fn wait_for(&self, what: &str, goal: u64, reached: impl Fn(&Shared) -> u64) -> io::Result<Duration> {
        self.progress.phase(what, goal);
        let begun = Instant::now();
        let (mut last, mut moved) = (0, begun);
        loop {
            let now = reached(&self.crew.shared);
            self.progress.at(now);
            if now >= goal {
                return Ok(begun.elapsed());
            }
            if now != last {
                (last, moved) = (now, Instant::now());
            }
            self.check()?;
            if moved.elapsed() > STILL_MAX {
                return Err(io::Error::other(format!("{what}: {now} of {goal}, and nothing moves")));
            }
            thread::sleep(LOOK);
        }
    }

    fn pause(&self, what: &str, time: Duration) -> io::Result<()> {
        self.progress.phase(what, time.as_secs());
        let begun = Instant::now();
        while begun.elapsed() < time {
            self.progress.at(begun.elapsed().as_secs());
            self.check()?;
            thread::sleep(LOOK.min(time.saturating_sub(begun.elapsed())));
        }
        self.say(&format!("{what}: {:.0} s", time.as_secs_f64()));
        Ok(())
    }

    fn check(&self) -> io::Result<()> {
        if self.crew.is_broken() {
            return Err(io::Error::other("a load thread has ended by itself"));
        }
        Ok(())
    }

    fn say(&self, what: &str) {
        eprintln!("million {}: {what}", self.scale);
    }

    fn pongs(&self) -> u64 {
        self.crew.shared.sum(|says| says.pongs.load(Relaxed))
    }

    fn posted(&self) -> u64 {
        self.crew.shared.sum(|says| says.posted.load(Relaxed))
    }
}

impl Options {
    fn manners(&self) -> Manners {
        Manners {
            think_ns: u64::from(self.think_ms) * 1_000_000,
            leg_ns: u64::from(self.trip_leg_ms) * 1_000_000,
            decline_percent: self.decline_percent,
            ignore_percent: self.ignore_percent,
            offer_timeout_ms: self.offer_timeout_ms,
        }
    }
}

fn add_counts(run: &mut Run, counts: Counts) {
    for (name, count) in [
        ("requests_posted", counts.posted),
        ("requests_confirmed", counts.confirmed),
        ("offers_declined", counts.declined),
        ("offers_timed_out", counts.timed_out),
        ("trips_completed", counts.trips),
        ("posts_without_a_free_driver", counts.starved),
    ] {
        run.add(name, "", count as f64);
    }
}

fn add_latencies(run: &mut Run, timings: &Timings) {
    for (name, quantile, latency) in [
        ("offer_p50", 0.5, &timings.offered),
        ("offer_p99", 0.99, &timings.offered),
        ("offer_p999", 0.999, &timings.offered),
        ("offer_max", 1.0, &timings.offered),
        ("confirm_p99", 0.99, &timings.confirmed),
        ("redispatch_p99", 0.99, &timings.reoffered),
        ("heartbeat_p99", 0.99, &timings.heartbeat),
        ("heartbeat_rush_p99", 0.99, &timings.heartbeat_rush),
        ("load_generator_late_p99", 0.99, &timings.late),
    ] {
        run.add(name, "ms", latency.quantile_ms(quantile));
    }
}
