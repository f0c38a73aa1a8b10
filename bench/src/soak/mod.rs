//! `soak`: a node under mixed load for an hour, and whether everything it holds stays flat.
//!
//! The load is the demo's fleet and matching engine (accept, decline, ignore, vanish and return, parallel offers, waits for busy
//! drivers, cancels, duplicates, trips), a second consumer of events that acknowledges late, a reader, and a client that sends
//! what is not allowed. The server is not pinned and has the settings of production but for a small block cache. When the load has ended, nothing may be
//! left open. See [`trend`] for the rule of flatness.
//!
//! A run in which not every series is flat goes on for half its time again, and the same rule is applied to the second half of all
//! of it. A run that is ended by a signal shows what was sampled before, and takes its server and its directory away.
#![forbid(unsafe_code)]

mod page;
mod samples;
mod strangers;
mod trend;

use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dispatchd::demo::RATE;
use dispatchd::demo::Tempo;
use dispatchd::demo::api::{ANSWER_MAX, Api, http_client};
use dispatchd::demo::city::City;
use dispatchd::demo::drivers::{self, World};
use dispatchd::demo::engine::Engine;
use dispatchd::demo::node::{self, Node};
use dispatchd::demo::observe::{Observer, total};
use dispatchd::ops::args::{real, whole, whole_of};
use dispatchd::say;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::ends::{Ended, Ends};
use crate::files::Files;
use crate::misuse::misuse;
use crate::server::Install;
use samples::{Judged, Sample};
use strangers::Notes;

/// How long what is open may take to end after the load did, and the sockets after that: the longest search, a trip, and the
/// time for which a driver without a socket is kept.
const END_MAX: Duration = Duration::from_secs(150);
/// Sockets that may be open at the end: the connection that asks, and one that is just being closed.
const SLOTS_AT_REST_MAX: f64 = 3.0;
/// Timers and descriptors that may be there at the end and were not before the load: of those same connections, and of a segment
/// of the journal that is kept for the next one.
const TIMERS_AT_REST_MAX: f64 = 3.0;
const DESCRIPTORS_AT_REST_MAX: f64 = 4.0;
/// Between two lines of progress.
const LINE_EVERY: Duration = Duration::from_secs(60);
/// How late the second consumer acknowledges.
const ACKNOWLEDGE_AFTER: Duration = Duration::from_secs(3);
/// Share of its time for which a run goes on when something is not flat.
const PROLONGED_BY: f64 = 0.5;
/// Shortest and longest run, min. In a shorter one everything still fills.
const MINUTES: std::ops::RangeInclusive<f64> = 10.0..=10_080.0;
/// Shortest and longest time between two samples, s.
const SAMPLE_SECS: std::ops::RangeInclusive<f64> = 0.5..=300.0;
/// One of so many samples may be missing.
const MISSED_SHARE: usize = 50;
/// Descriptors beside one per driver.
const DESCRIPTORS: u64 = 512;

/// The store's block cache: so small that it is full after minutes, since what surrounds a cached block is memory too.
const CACHE_BYTES: u64 = 4 << 20;

/// The load.
#[derive(Debug, Clone, clap::Args, Serialize)]
pub struct Options {
    /// How long, min, 10 at least; below an hour memory still fills. When something is not flat, half as long again
    #[arg(long, default_value_t = 60.0, value_parser = real(MINUTES, 60.0))]
    pub minutes: f64,
    /// Connected drivers
    #[arg(long, default_value_t = 3000, value_parser = whole::<u32>(10..=15_000, 3000))]
    pub drivers: u32,
    /// Requests per second
    #[arg(long, default_value_t = 90.0, value_parser = real(RATE, 90.0))]
    pub rate: f64,
    /// Shards of the server
    #[arg(long, default_value_t = 2, value_parser = whole::<u16>(1..=64, 2))]
    pub shards: u16,
    /// Decides every choice of the drivers and the engine
    #[arg(long, default_value_t = 1, value_parser = whole_of(1))]
    pub seed: u64,
    /// Between two samples, s
    #[arg(long, default_value_t = 5.0, value_parser = real(SAMPLE_SECS, 5.0))]
    pub sample_secs: f64,
}

/// What a run came to.
struct Results {
    parameters: Value,
    seconds: f64,
    /// Series that were not flat when the time asked for was over, for which the run went on.
    prolonged_for: Vec<&'static str>,
    faults: Vec<String>,
    counts: Value,
    series: Vec<Judged>,
}

impl Results {
    fn is_good(&self) -> bool {
        self.faults.is_empty() && self.series.iter().all(Judged::is_good)
    }

    fn to_json(&self) -> Value {
        let series: Vec<Value> = self.series.iter().map(Judged::to_json).collect();
        json!({
            "scenario": "soak", "parameters": self.parameters, "seconds": self.seconds, "passed": self.is_good(),
            "judged_from_s": self.seconds / 2.0, "prolonged_for": self.prolonged_for,
            "faults": self.faults, "counts": self.counts, "series": series,
        })
    }

    fn print(&self) {
        say!("soak of {:.1} min {}", self.seconds / 60.0, self.parameters);
        say!("{}", self.counts);
        if !self.prolonged_for.is_empty() {
            say!(
                "went on for half its time again, since these were not flat: {}",
                self.prolonged_for.join(", ")
            );
        }
        say!("judged from minute {:.1} on:", self.seconds / 120.0);
        for judged in &self.series {
            let (name, unit) = (judged.series.name, judged.series.unit);
            let trend = judged.trend.map_or("-".to_owned(), |trend| {
                let (level, slope) = (trend.level, trend.slope_per_hour);
                let (low, high) = (trend.slope_low_per_hour, trend.slope_high_per_hour);
                format!("level {level:>10.2}  per hour {slope:>+9.3} ({low:>+9.3} to {high:>+9.3})")
            });
            say!("{name:>18} {:<12} {trend}  {unit}", judged.word());
        }
        for fault in &self.faults {
            say!("FAULT: {fault}");
        }
    }
}

/// Runs the soak, prints and writes its results; status 1 when something was not flat, was left or was answered wrongly.
///
/// # Errors
/// So few samples that nothing could be judged; or the server cannot be started, ended by itself, or a file cannot be written.
pub fn run(install: &Install, options: &Options, files: Files<'_>) -> io::Result<ExitCode> {
    let most = trend::sample_secs_max(options.minutes * 60.0);
    if options.sample_secs > most {
        let (minutes, every) = (options.minutes, options.sample_secs);
        return Err(misuse(format!(
            "{minutes} min with a sample every {every} s cannot be judged: {most:.1} s at most"
        )));
    }
    node::kill_child_on_panic();
    node::allow_open_files(u64::from(options.drivers) + DESCRIPTORS).map_err(io::Error::other)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let mut ends = {
        let _context = runtime.enter();
        Ends::new()?
    };
    let home = tempfile::Builder::new()
        .prefix("dispatchd-soak-")
        .tempdir_in(&install.data_root)?;
    let mut settings = vec![
        format!("shards={}", options.shards),
        format!("store_cache_bytes={CACHE_BYTES}"),
    ];
    settings.extend_from_slice(&install.settings);
    let mut node = Node::start(&install.program, home.path(), settings)?;
    let http = http_client(ANSWER_MAX).map_err(io::Error::other)?;
    let ready = runtime.block_on(ends.or(node.ready(&http)))?;
    let results = ready
        .map_err(io::Error::other)
        .and_then(|_| load(&runtime, &mut node, http, options, &mut ends))
        .map_err(|error| io::Error::other(format!("{error}\n{}", node.log_tail())))?;
    results.print();
    files.write_with(&results.to_json(), || page::render(&results))?;
    Ok(if results.is_good() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn load(
    runtime: &tokio::runtime::Runtime,
    node: &mut Node,
    http: reqwest::Client,
    options: &Options,
    ends: &mut Ends,
) -> io::Result<Results> {
    let address = crate::server::ipv4(node.address())?;
    let observer = Arc::new(Observer::counting());
    let stop = AtomicBool::new(false);
    let notes = Notes::default();
    let mut play = Play {
        fresh: samples::take(address, node.pid())?,
        node,
        address,
        observer: &observer,
        options,
        begin: Instant::now(),
        samples: Vec::new(),
        prolonged_for: Vec::new(),
    };
    let (played, mut faults) = std::thread::scope(|threads| {
        threads.spawn(|| strangers::misbehave(address, "driver-00000", &stop, &notes));
        threads.spawn(|| strangers::read(address, options.drivers, &observer, &stop, &notes));
        // Whatever happens, the threads are told to end.
        let played = runtime.block_on(ends.or(play.run(http, &stop)));
        stop.store(true, Ordering::Relaxed);
        // What they hear from here on is of a server that is no longer there for anybody.
        let faults = played.is_err().then(|| notes.faults());
        if played.is_err() {
            play.node.kill();
        }
        (played, faults)
    });
    let mut faults = faults.take().unwrap_or_else(|| notes.faults());
    match played {
        Ok(left) => faults.extend(left?),
        Err(ended) => faults.push(play.interrupted(ended)),
    }
    let counters = &observer.counters;
    let not_taken = total(&counters.not_taken);
    if not_taken > 0 {
        faults.push(format!("{not_taken} requests were not taken for dispatch"));
    }
    Ok(Results {
        parameters: json!(options),
        seconds: play.samples.last().map_or(0.0, |(at, _)| *at),
        prolonged_for: play.prolonged_for,
        faults,
        counts: json!({
            "posted": total(&counters.posted), "accepted": total(&counters.accepted),
            "unfulfilled": total(&counters.unfulfilled), "cancelled": total(&counters.cancelled),
            "trips_ended": total(&counters.trips_ended), "offers_heard": total(&counters.offers),
            "redispatched": total(&counters.redispatched), "reconnects": total(&counters.reconnects),
            "duplicates_absorbed": total(&counters.duplicates_absorbed), "events": total(&counters.events),
            "turned_away": total(&counters.turned_away), "not_taken": total(&counters.not_taken),
            "bad_input": notes.bad_sent.load(Ordering::Relaxed), "reads": notes.reads.load(Ordering::Relaxed),
        }),
        series: Judged::all(&play.samples),
    })
}

/// A run under way.
struct Play<'a> {
    node: &'a mut Node,
    address: SocketAddrV4,
    observer: &'a Arc<Observer>,
    options: &'a Options,
    /// What the server held before anybody came.
    fresh: Sample,
    begin: Instant,
    /// Each with its time since the beginning, s.
    samples: Vec<(f64, Sample)>,
    prolonged_for: Vec<&'static str>,
}

impl Play<'_> {
    /// Plays to the end, and says what the server still holds then.
    async fn run(&mut self, http: reqwest::Client, stop: &AtomicBool) -> io::Result<Vec<String>> {
        let crowd = Crowd::start(self.node.address(), http, self.observer, self.options)?;
        self.begin = Instant::now();
        let seconds = self.options.minutes * 60.0;
        self.watch(seconds).await?;
        self.prolonged_for = samples::not_good(&self.samples);
        if !self.prolonged_for.is_empty() {
            eprintln!(
                "goes on for half its time again: not flat: {}",
                self.prolonged_for.join(", ")
            );
            self.watch(seconds * (1.0 + PROLONGED_BY)).await?;
        }
        stop.store(true, Ordering::Relaxed);
        Ok(crowd.rest(self.address, self.node.pid(), &self.fresh).await)
    }

    /// Takes samples until so many seconds after the beginning.
    async fn watch(&mut self, seconds: f64) -> io::Result<()> {
        let begin = self.begin;
        let (mut line_at, mut missed) = (begin.elapsed() + LINE_EVERY, 0);
        let mut ticks = tokio::time::interval(Duration::from_secs_f64(self.options.sample_secs));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while begin.elapsed().as_secs_f64() < seconds {
            ticks.tick().await;
            if let Some(status) = self.node.ended() {
                return Err(io::Error::other(format!("the node ended by itself: {status}")));
            }
            let at = begin.elapsed();
            let sample = match tokio::task::block_in_place(|| samples::take(self.address, self.node.pid())) {
                Ok(sample) => sample,
                Err(error) => {
                    eprintln!("no sample at {:.0} s: {error}", at.as_secs_f64());
                    missed += 1;
                    continue;
                }
            };
            if at >= line_at {
                line_at += LINE_EVERY;
                self.show(at, &sample);
            }
            self.samples.push((at.as_secs_f64(), sample));
        }
        // A machine that is busy with other things may be late now and then; a node that does not answer is another matter.
        if missed * MISSED_SHARE > self.samples.len() {
            return Err(io::Error::other(format!("{missed} samples could not be taken")));
        }
        Ok(())
    }

    fn show(&self, at: Duration, sample: &Sample) {
        let of = |name| samples::value_of(sample, name);
        eprintln!(
            "{:4.0} min  {} posted  {} accepted  resident {:.1} MiB  allocated {:.2} MiB  slots {:.0}  open {:.0}",
            at.as_secs_f64() / 60.0,
            total(&self.observer.counters.posted),
            total(&self.observer.counters.accepted),
            of("resident_less_kept"),
            of("allocated_less_kept"),
            of("ring_slots"),
            of("requests_open"),
        );
    }

    /// Says at once, and as a fault, what a signal ended.
    fn interrupted(&self, ended: Ended) -> String {
        let minutes = self.begin.elapsed().as_secs_f64() / 60.0;
        let what = format!("soak {ended} after {minutes:.1} of {} min", self.options.minutes);
        eprintln!("dispatchd-bench: {what}; what was sampled before it follows");
        format!("{what}: too short to say anything")
    }
}

/// Drivers, engine and consumers.
struct Crowd {
    engine: Arc<Engine>,
    drivers: JoinSet<()>,
    replay: JoinSet<()>,
    readers: JoinSet<()>,
}

impl Crowd {
    fn start(
        address: SocketAddr,
        http: reqwest::Client,
        observer: &Arc<Observer>,
        options: &Options,
    ) -> io::Result<Self> {
        let city = Arc::new(City::load().map_err(io::Error::other)?);
        let fleet = drivers::place(&city, options.drivers, options.seed);
        let api = Api::new(http, address, Arc::clone(observer));
        let world = World {
            api: api.clone(),
            observer: Arc::clone(observer),
            tempo: Tempo::DEMO,
        };
        let recorded = city.rides.len();
        let engine = Engine::new(&world, city, &fleet, options.seed);
        let ramp = Duration::from_secs_f64(f64::from(options.drivers) / 200.0);
        let drivers = drivers::start(&world, &fleet, options.seed, ramp);
        let (mut replay, mut readers) = (JoinSet::new(), JoinSet::new());
        let seconds_max = options.minutes * 60.0 * (1.0 + PROLONGED_BY);
        let count = (seconds_max * options.rate) as usize;
        let rides: Vec<usize> = (0..count).map(|number| number % recorded).collect();
        replay.spawn(Arc::clone(&engine).replay(rides, options.rate));
        readers.spawn(Arc::clone(&engine).follow_events());
        readers.spawn(acknowledge_late(api));
        Ok(Self {
            engine,
            drivers,
            replay,
            readers,
        })
    }

    /// Waits until everything has ended, lets everybody go, and says what the server still holds then. `fresh` is what it held
    /// before anybody came.
    async fn rest(mut self, address: SocketAddrV4, pid: Option<u32>, fresh: &Sample) -> Vec<String> {
        let mut left = Vec::new();
        self.engine.stop();
        let ended = async {
            while self.replay.join_next().await.is_some() {}
            while self.engine.unfinished() > 0 {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        if tokio::time::timeout(END_MAX, ended).await.is_err() {
            let unfinished = self.engine.unfinished();
            left.push(format!(
                "{unfinished} requests or trips have not ended {END_MAX:?} after the load"
            ));
        }
        self.drivers.shutdown().await;
        self.readers.shutdown().await;
        drop(self.engine);
        let begin = Instant::now();
        loop {
            let held = match tokio::task::block_in_place(|| samples::take(address, pid)) {
                Ok(sample) => held(&sample, fresh),
                Err(error) => vec![format!("no metrics at the end: {error}")],
            };
            if held.is_empty() || begin.elapsed() > END_MAX {
                left.extend(held);
                return left;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

/// What a server that nobody uses should not hold.
fn held(sample: &Sample, fresh: &Sample) -> Vec<String> {
    let at_first = |name, more| (name, samples::value_of(fresh, name) + more);
    let bounds = [
        at_first("timers_armed", TIMERS_AT_REST_MAX),
        at_first("fds_less_store", DESCRIPTORS_AT_REST_MAX),
        ("requests_open", 0.0),
        ("requests_waiting", 0.0),
        ("store_backlog", 0.0),
        ("store_queue", 0.0),
        ("polls_parked", 0.0),
        ("drivers", 0.0),
        ("ring_slots", SLOTS_AT_REST_MAX),
    ];
    let over = bounds.into_iter().filter_map(|(name, most)| {
        let value = samples::value_of(sample, name);
        // Not a number is over, too, on either side.
        (value.is_nan() || most.is_nan() || value > most)
            .then(|| format!("at rest, {name} is {value}, more than {most}"))
    });
    over.collect()
}

/// A second consumer, slower than the engine.
async fn acknowledge_late(api: Api) {
    loop {
        tokio::time::sleep(ACKNOWLEDGE_AFTER).await;
        if let Ok(lines) = api.events("soak-late", None, Duration::from_secs(1)).await
            && let Some(newest) = lines.last()
        {
            api.acknowledge("soak-late", newest.cursor).await;
        }
    }
}
