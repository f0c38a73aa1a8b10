//! A node that is killed again and again under load, and the auditor's verdict on what its clients were told meanwhile.
//!
//! The demo's drivers, matching engine and auditor, in the tempo of [`Tempo::CRASH`]; kills at instants given by a seed, some
//! of them while the node recovers from the one before. With a [`Power`] the disk loses its power at the same instant.

use super::Tempo;
use super::api::{ANSWER_MAX, Api, http_client};
use super::audit::{Verdict, judge};
use super::city::City;
use super::drivers::{self, World};
use super::engine::Engine;
use super::messages::{AuditView, Id};
use super::node::{Node, allow_open_files};
use super::observe::{ClassRound, Observer, Seen, total};
use super::{classes, readback, report};
use crate::say;
use hdrhistogram::Histogram;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Shortest and longest life of the node between two kills, in ms.
const UPTIME_MS: std::ops::Range<u64> = 20..1500;
/// How often a node is killed again before it is known to have recovered.
const KILLED_IN_RECOVERY: f64 = 0.2;
/// What everything open may take to end after the last kill.
const END_MAX: Duration = Duration::from_millis(Tempo::CRASH.deadline_ms + 12_000);
/// What one kill with all that follows may take, and everything else beside [`END_MAX`]: beyond it something hangs.
const KILL_MAX: Duration = Duration::from_secs(5);
const REST_MAX: Duration = Duration::from_secs(240);
/// Audits are read all the time; so many of the newest requests each time, with this pause and within this time.
const AUDITS_READ: usize = 24;
const AUDITS_EVERY: Duration = Duration::from_millis(150);
const AUDITS_MAX: Duration = Duration::from_millis(500);
/// Longest recovery that is told apart, in ms.
const RECOVERY_MS_MAX: u64 = 120_000;
/// Pause between two looks at a count.
const POLL: Duration = Duration::from_millis(20);
/// Descriptors beside one per driver.
const DESCRIPTORS: u64 = 512;

/// What to do.
#[derive(Clone, Debug)]
pub struct CrashOptions {
    /// How often the node is killed at least, 1 or more. Kills during a recovery count, and one more comes when all is over.
    pub kills: u32,
    /// Drivers that connect, 10–20,000.
    pub drivers: u32,
    /// Requests per second while the node lives.
    pub rate: f64,
    /// Decides the instants of the kills and every choice of the clients.
    pub seed: u64,
    /// `key=value` settings of the node, its shards among them.
    pub settings: Vec<String>,
}

/// The power of the disk on which the node's data directory stands.
pub trait Power: Send {
    /// Cuts it: nothing is written from now on, and what was not durable may be lost.
    fn off(&mut self);
    /// Brings it back, after the node is dead.
    ///
    /// # Errors
    /// The disk cannot be had again.
    fn on(&mut self) -> io::Result<()>;
}

/// Why there is no verdict.
#[derive(Debug)]
pub enum CrashError {
    /// The node ended by itself after a crash: it refused what that had left, or worse.
    Node(String),
    /// Something else stood in the way, a node that is slow to become ready among it.
    Other(String),
}

impl std::fmt::Display for CrashError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Node(text) | Self::Other(text) => f.write_str(text),
        }
    }
}

/// What it came to.
#[derive(Debug)]
pub struct CrashReport {
    /// The seven.
    pub verdicts: [Verdict; 7],
    /// Kills, and how many of them came before the node was known to have recovered from the one before.
    pub kills: (u32, u32),
    /// Requests posted, accepted, unfulfilled, cancelled.
    pub requests: [u64; 4],
    /// Audits read on the way, each to be found again at the end.
    pub audits: usize,
    /// From the start of the process to `/readyz` 200, in ms.
    pub recovery_ms: Histogram<u64>,
    /// The whole play.
    pub took: Duration,
}

impl CrashReport {
    /// Whether an invariant was violated, or one could not be checked at all.
    pub fn is_bad(&self) -> bool {
        report::is_bad(&self.verdicts)
    }

    /// Comparisons that failed.
    pub fn violations(&self) -> u64 {
        self.verdicts.iter().map(|verdict| verdict.violations).sum()
    }

    /// Prints everything to stdout.
    pub fn print(&self) {
        let (kills, in_recovery) = self.kills;
        let [posted, accepted, unfulfilled, cancelled] = self.requests;
        let at = |quantile| self.recovery_ms.value_at_quantile(quantile);
        say!("kills: {kills}, {in_recovery} of them during a recovery");
        say!("requests: {posted} posted, {accepted} accepted, {unfulfilled} unfulfilled, {cancelled} cancelled");
        say!("audits read before a kill: {}", self.audits);
        say!(
            "start to ready, ms: p50 {}, p90 {}, p99 {}, max {} ({} recoveries)",
            at(0.5),
            at(0.9),
            at(0.99),
            self.recovery_ms.max(),
            self.recovery_ms.len()
        );
        report::print_verdicts(&self.verdicts);
        say!("took {:.1} s", self.took.as_secs_f64());
    }
}

/// Whether a play on a disk that lies found it out: a promise was seen broken, or the node refused what was left of its data.
///
/// # Errors
/// Something else stood in the way of the play, which shows nothing.
pub fn is_lie_found(played: &Result<CrashReport, CrashError>) -> Result<bool, &CrashError> {
    match played {
        Ok(report) => Ok(report.violations() > 0),
        Err(CrashError::Node(_)) => Ok(true),
        Err(error @ CrashError::Other(_)) => Err(error),
    }
}

/// Kills a node, `program serve`, as `options` say, with its data under `home`, which is empty or holds a mounted `data`.
///
/// # Errors
/// Why there is no verdict; with the end of the node's log when the node is the cause.
pub async fn run(
    program: &Path,
    home: &Path,
    options: &CrashOptions,
    power: Option<&mut dyn Power>,
) -> Result<CrashReport, CrashError> {
    let mut play = Play::set(program, home, options).await?;
    let bound = REST_MAX + END_MAX + KILL_MAX * options.kills;
    let played = timeout(bound, play.acts(power)).await;
    let played = played.unwrap_or_else(|_| Err(CrashError::Other(format!("it took more than {} s", bound.as_secs()))));
    played.map_err(|error| match error {
        CrashError::Node(text) => {
            let log = play.node.log_tail();
            CrashError::Node(format!("{text}\n---- end of the node's log ----\n{log}"))
        }
        CrashError::Other(text) => CrashError::Other(text),
    })
}

type Audits = Arc<Mutex<Vec<(Id, AuditView)>>>;

struct Play<'a> {
    options: &'a CrashOptions,
    node: Node,
    http: reqwest::Client,
    world: World,
    engine: Arc<Engine>,
    rng: SmallRng,
    audits: Audits,
    kills: (u32, u32),
    recovery_ms: Histogram<u64>,
    tasks: JoinSet<()>,
    drivers: JoinSet<()>,
}

fn other(what: &'static str) -> impl Fn(io::Error) -> CrashError {
    move |error| CrashError::Other(format!("{what}: {error}"))
}

impl<'a> Play<'a> {
    async fn set(program: &Path, home: &Path, options: &'a CrashOptions) -> Result<Self, CrashError> {
        allow_open_files(u64::from(options.drivers) + DESCRIPTORS).map_err(CrashError::Other)?;
        let city = Arc::new(City::load().map_err(CrashError::Other)?);
        let mut node = Node::start(program, home, options.settings.clone()).map_err(other("cannot start a node"))?;
        let http = http_client(ANSWER_MAX).map_err(CrashError::Other)?;
        node.ready(&http)
            .await
            .map_err(|error| CrashError::Other(format!("{error}\n{}", node.log_tail())))?;
        let observer = Arc::new(Observer::default());
        let world = World {
            api: Api::new(http.clone(), node.address(), Arc::clone(&observer)),
            observer,
            tempo: Tempo::CRASH,
        };
        readback::enrol(&world.api).await.map_err(CrashError::Other)?;
        let fleet = drivers::place(&city, options.drivers, options.seed);
        let rides: Vec<usize> = {
            // More than the play can last.
            let seconds = f64::from(options.kills) * 4.0 * KILL_MAX.as_secs_f64();
            let count = (options.rate * seconds).clamp(1.0, 99_999.0) as usize;
            (0..count).map(|number| number % city.rides.len()).collect()
        };
        let engine = Engine::new(&world, city, &fleet, options.seed);
        let drivers = drivers::start(&world, &fleet, options.seed, Duration::from_millis(500));
        let mut tasks = JoinSet::new();
        let audits = Audits::default();
        tasks.spawn(Arc::clone(&engine).follow_events());
        tasks.spawn(Arc::clone(&engine).replay(rides, options.rate));
        tasks.spawn(read_audits(world.api.clone(), Arc::clone(&engine), Arc::clone(&audits)));
        Ok(Self {
            options,
            node,
            http,
            world,
            engine,
            rng: SmallRng::seed_from_u64(options.seed),
            audits,
            kills: (0, 0),
            recovery_ms: Histogram::new_with_max(RECOVERY_MS_MAX, 3).expect("constant bounds are valid"),
            tasks,
            drivers,
        })
    }

    async fn acts(&mut self, mut power: Option<&mut dyn Power>) -> Result<CrashReport, CrashError> {
        let begin = Instant::now();
        while self.kills.0 < self.options.kills {
            let uptime_ms = self.rng.random_range(UPTIME_MS);
            sleep(Duration::from_millis(uptime_ms)).await;
            self.kill(&mut power)?;
            self.recover(&mut power).await?;
        }
        self.engine.stop();
        let engine = Arc::clone(&self.engine);
        let all_over = async move {
            while engine.unfinished() > 0 {
                sleep(POLL).await;
            }
        };
        // What has not ended in time is the auditor's to say.
        let _ = timeout(END_MAX, all_over).await;
        // Once more, with everything at rest: what is read now has survived.
        self.kill(&mut power)?;
        self.recover(&mut power).await?;
        let class_rounds: Vec<ClassRound> = classes::run(&self.world, "end", classes::SPREAD_MAX).await;
        let audits = std::mem::take(&mut *self.audits.lock().unwrap_or_else(PoisonError::into_inner));
        let audits_read = audits.len();
        let evidence = readback::evidence(&self.world, audits, class_rounds).await;
        let evidence = evidence.map_err(CrashError::Other)?;
        self.tasks.shutdown().await;
        self.drivers.shutdown().await;
        let counters = &self.world.observer.counters;
        let requests = [
            &counters.posted,
            &counters.accepted,
            &counters.unfulfilled,
            &counters.cancelled,
        ];
        Ok(CrashReport {
            verdicts: judge(&evidence),
            kills: self.kills,
            requests: requests.map(total),
            audits: audits_read,
            recovery_ms: self.recovery_ms.clone(),
            took: begin.elapsed(),
        })
    }

    fn kill(&mut self, power: &mut Option<&mut dyn Power>) -> Result<(), CrashError> {
        if let Some(status) = self.node.ended() {
            return Err(CrashError::Node(format!("the node ended by itself: {status}")));
        }
        self.world.observer.note(Seen::NodeKilled);
        if let Some(power) = power {
            power.off();
        }
        self.node.kill();
        if let Some(power) = power {
            power.on().map_err(other("the disk does not come back"))?;
        }
        self.kills.0 += 1;
        Ok(())
    }

    /// Starts the node again; sometimes it is killed once more while it recovers.
    async fn recover(&mut self, power: &mut Option<&mut dyn Power>) -> Result<(), CrashError> {
        let mut begin = self.spawn()?;
        while self.rng.random_bool(KILLED_IN_RECOVERY) {
            // Within the time that recoveries have taken so far.
            let most_ms = self.recovery_ms.value_at_quantile(0.5).clamp(20, 1000);
            let pause_ms = self.rng.random_range(0..most_ms);
            sleep(Duration::from_millis(pause_ms)).await;
            self.kill(power)?;
            self.kills.1 += 1;
            begin = self.spawn()?;
        }
        self.node
            .ready(&self.http)
            .await
            .map_err(|error| match self.node.pid() {
                // Slow, which it may be on a sound disk as well.
                Some(_) => CrashError::Other(format!("{error}\n{}", self.node.log_tail())),
                None => CrashError::Node(error),
            })?;
        self.recovery_ms.saturating_record(begin.elapsed().as_millis() as u64);
        self.world.observer.note(Seen::NodeReady);
        Ok(())
    }

    fn spawn(&mut self) -> Result<Instant, CrashError> {
        let begin = Instant::now();
        self.node.spawn().map_err(other("cannot restart the node"))?;
        Ok(begin)
    }
}

/// Reads audits of the newest requests for ever; each must be how the audit begins at the end.
async fn read_audits(api: Api, engine: Arc<Engine>, into: Audits) {
    loop {
        sleep(AUDITS_EVERY).await;
        let found = readback::audits(&api, engine.newest(AUDITS_READ), AUDITS_MAX).await;
        into.lock().unwrap_or_else(PoisonError::into_inner).extend(found);
    }
}
