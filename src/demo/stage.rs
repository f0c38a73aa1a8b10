//! The play in its acts: connect, replay, kill and restart, wait for every end, read back, judge.

use super::api::{ANSWER_MAX, Api, http_client};
use super::city::{City, Place};
use super::drivers::World;
use super::engine::Engine;
use super::latency::Latencies;
use super::messages::{AuditView, Id};
use super::node::{Node, allow_open_files};
use super::observe::{ClassRound, Evidence, Observer, Seen, total};
use super::progress::Progress;
use super::report::Report;
use super::{DemoOptions, Tempo, classes, drivers, readback, sample};
use crate::say;
use std::collections::BTreeSet;
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};

/// Connects per second at the start.
const CONNECTS_PER_S: f64 = 1000.0;
/// Longest wait for all drivers to be connected.
const CONNECT_MAX: Duration = Duration::from_secs(45);
/// How long before the kill the audits are read that must be found again after it.
const READ_BEFORE_KILL: Duration = Duration::from_secs(4);
/// What a search and a trip may take beyond the last POST, with time for a driver to come back.
const END_MAX: Duration = Duration::from_millis(Tempo::DEMO.deadline_ms + 25_000);
/// POSTs of before the kill that are repeated after it.
const REPEATED_AFTER_KILL: usize = 200;
/// Pause between two looks at a count.
const POLL: Duration = Duration::from_millis(20);
/// Descriptors beside one per driver.
const DESCRIPTORS: u64 = 512;
/// What the whole demo may take beyond its replay.
const DEMO_MAX: Duration = Duration::from_secs(240);

/// Plays everything; the node is gone when this returns.
pub async fn play(options: DemoOptions) -> ExitCode {
    match interruptible(options).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("the demo failed: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn interruptible(options: DemoOptions) -> Result<ExitCode, String> {
    let no_signals = |error: std::io::Error| format!("cannot watch for signals: {error}");
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(no_signals)?;
    let home = tempfile::Builder::new()
        .prefix("dispatchd-demo-")
        .tempdir()
        .map_err(|error| format!("no temporary directory: {error}"))?;
    tokio::select! {
        // The play first: at its end it waits for Ctrl-C itself.
        biased;
        done = Stage::run(options, home.path()) => done,
        _ = tokio::signal::ctrl_c() => Ok(ExitCode::from(130)),
        _ = terminate.recv() => Ok(ExitCode::from(143)),
        _ = hangup.recv() => Ok(ExitCode::from(129)),
    }
}

/// Everything that lives through the play.
struct Stage {
    options: DemoOptions,
    node: Node,
    http: reqwest::Client,
    world: World,
    engine: Arc<Engine>,
    progress: Progress,
    rides: Vec<usize>,
    fleet: Vec<(Id, Place)>,
    /// Drivers and the engine's reading of events.
    tasks: Vec<JoinSet<()>>,
}

/// What the play yields beside the observations.
#[derive(Default)]
struct Yield {
    before_kill: Vec<(Id, AuditView)>,
    class_rounds: Vec<ClassRound>,
    restart: Duration,
    reconnect: Duration,
    replay: Duration,
}

impl Stage {
    async fn run(options: DemoOptions, home: &Path) -> Result<ExitCode, String> {
        let begin = Instant::now();
        let mut stage = Self::set(options, home).await?;
        let bound = DEMO_MAX + Duration::from_secs_f64(stage.rides.len() as f64 / stage.options.rate);
        let played = timeout(bound, stage.acts(begin)).await;
        stage.progress.finish();
        let played = played.unwrap_or_else(|_| Err(format!("it took more than {} s", bound.as_secs())));
        let bad = played.as_ref().map_or(true, Report::is_bad);
        if bad {
            eprintln!("---- end of the node's log ----\n{}", stage.node.log_tail());
        }
        played?.print(&stage.world.observer.counters);
        if stage.options.keep {
            stage.keep().await;
        }
        Ok(if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    async fn set(options: DemoOptions, home: &Path) -> Result<Self, String> {
        allow_open_files(u64::from(options.drivers) + DESCRIPTORS)?;
        let city = Arc::new(City::load()?);
        let rides = sample(city.rides.len(), options.ride_count(city.rides.len()));
        let fleet = drivers::place(&city, options.drivers, options.seed);
        let mut settings = Vec::new();
        if options.shards > 0 {
            settings.push(format!("shards={}", options.shards));
        }
        let no_node = |error: std::io::Error| format!("cannot start a node: {error}");
        let program = std::env::current_exe().map_err(no_node)?;
        let mut node = Node::start(&program, home, settings).map_err(no_node)?;
        let http = http_client(ANSWER_MAX)?;
        if let Err(error) = node.ready(&http).await {
            return Err(format!("{error}\n---- end of the node's log ----\n{}", node.log_tail()));
        }
        let observer = Arc::new(Observer::default());
        let api = Api::new(http.clone(), node.address(), Arc::clone(&observer));
        let world = World {
            api,
            observer,
            tempo: Tempo::DEMO,
        };
        Ok(Self {
            engine: Engine::new(&world, city, &fleet, options.seed),
            progress: Progress::new(rides.len() as u64),
            options,
            node,
            http,
            world,
            rides,
            fleet,
            tasks: Vec::new(),
        })
    }

    async fn acts(&mut self, begin: Instant) -> Result<Report, String> {
        readback::enrol(&self.world.api).await?;
        let ramp = Duration::from_secs_f64(self.fleet.len() as f64 / CONNECTS_PER_S);
        let drivers = drivers::start(&self.world, &self.fleet, self.options.seed, ramp);
        self.tasks.push(drivers);
        let took = self.until_connected(self.fleet.len()).await?;
        let drivers = self.fleet.len();
        self.progress
            .say(&format!("{drivers} drivers connected in {:.1} s", took.as_secs_f64()));

        let mut reader = JoinSet::new();
        reader.spawn(Arc::clone(&self.engine).follow_events());
        self.tasks.push(reader);
        let mut found = Yield::default();
        self.replay(&mut found).await?;
        let evidence = self.read_back(&mut found).await?;
        Ok(Report {
            latencies: Latencies::of(&evidence),
            verdicts: super::audit::judge(&evidence),
            restart: found.restart,
            reconnect: found.reconnect,
            replay: found.replay,
            total: begin.elapsed(),
        })
    }

    /// The trips, with the kill in the middle, until all of them are over or their time is.
    async fn replay(&mut self, found: &mut Yield) -> Result<(), String> {
        let begin = Instant::now();
        let half = self.rides.len() as u64 / 2;
        let rides = std::mem::take(&mut self.rides);
        let replay = spawn(Arc::clone(&self.engine).replay(rides, self.options.rate));
        let rounds = spawn(class_rounds(self.world.clone(), "before"));
        let observer = Arc::clone(&self.world.observer);
        let half_posted = async {
            while total(&observer.counters.posted) < half {
                sleep(POLL).await;
            }
        };
        self.watch(half_posted).await?;
        found.class_rounds.extend(self.watch(rounds).await?);
        found.before_kill = self.read_before_kill().await?;
        self.kill_and_restart(found).await?;

        let rounds = spawn(class_rounds(self.world.clone(), "after"));
        let known: BTreeSet<Id> = found
            .before_kill
            .iter()
            .map(|(request, _)| Id::clone(request))
            .collect();
        let repeated: Vec<Id> = known.into_iter().rev().take(REPEATED_AFTER_KILL).collect();
        let engine = Arc::clone(&self.engine);
        let repeats = spawn(async move { engine.repeat(&repeated).await });
        found.class_rounds.extend(self.watch(rounds).await?);
        self.watch(repeats).await?;
        self.watch(replay).await?;

        let engine = Arc::clone(&self.engine);
        let all_over = async move {
            while engine.unfinished() > 0 {
                sleep(POLL).await;
            }
        };
        let ended = self.watch(timeout(END_MAX, all_over)).await?.is_ok();
        found.replay = begin.elapsed();
        self.progress.say(&if ended {
            "every request has ended and every trip is over; reading everything back".into()
        } else {
            format!("{} requests or trips have not ended in time", self.engine.unfinished())
        });
        Ok(())
    }

    /// Audits of everything so far, and once more of the newest, which are the ones in flight.
    async fn read_before_kill(&mut self) -> Result<Vec<(Id, AuditView)>, String> {
        let (api, observer) = (self.world.api.clone(), Arc::clone(&self.world.observer));
        self.progress.say("reading the audits that must be found again");
        let reading = async move {
            let mut audits = readback::audits(&api, readback::posted(&observer.snapshot()), READ_BEFORE_KILL).await;
            let rides = readback::posted(&observer.snapshot()).into_iter().rev();
            let newest = rides.take(REPEATED_AFTER_KILL).collect();
            audits.extend(readback::audits(&api, newest, READ_BEFORE_KILL).await);
            audits
        };
        self.watch(reading).await
    }

    async fn kill_and_restart(&mut self, found: &mut Yield) -> Result<(), String> {
        let pid = self.node.pid().unwrap_or_default();
        self.progress.say(&format!("SIGKILL to the node (pid {pid})"));
        self.world.observer.note(Seen::NodeKilled);
        let killed = Instant::now();
        self.node.kill();
        self.node
            .spawn()
            .map_err(|error| format!("cannot restart the node: {error}"))?;
        self.node.ready(&self.http).await?;
        self.world.observer.note(Seen::NodeReady);
        found.restart = killed.elapsed();
        let seconds = found.restart.as_secs_f64();
        self.progress
            .say(&format!("restarted on the same data: ready after {seconds:.2} s"));
        // A few have just vanished of their own will.
        let nearly_all = self.fleet.len() - self.fleet.len() / 50;
        found.reconnect = self.until_connected(nearly_all).await?;
        Ok(())
    }

    /// Waits until so many drivers of the fleet are connected.
    async fn until_connected(&mut self, wanted: usize) -> Result<Duration, String> {
        let since = Instant::now();
        let observer = Arc::clone(&self.world.observer);
        let connected = async {
            while (total(&observer.counters.connected) as usize) < wanted {
                sleep(POLL).await;
            }
        };
        let arrived = self.watch(timeout(CONNECT_MAX, connected)).await?;
        let now = total(&observer.counters.connected);
        arrived.map_err(|_| {
            format!(
                "{now} of {wanted} drivers are connected after {} s",
                CONNECT_MAX.as_secs()
            )
        })?;
        Ok(since.elapsed())
    }

    /// Waits for `work`, shows the progress meanwhile, and notices a node that ends by itself.
    async fn watch<T>(&mut self, work: impl Future<Output = T>) -> Result<T, String> {
        let mut work = pin!(work);
        let mut tick = interval(self.progress.tick());
        loop {
            tokio::select! {
                done = &mut work => return Ok(done),
                _ = tick.tick() => {
                    self.progress.show(&self.world.observer.counters);
                    if let Some(status) = self.node.ended() {
                        return Err(format!("the node ended by itself: {status}"));
                    }
                }
            }
        }
    }

    /// Everything that the clients saw and that the node says now.
    async fn read_back(&mut self, found: &mut Yield) -> Result<Evidence, String> {
        let world = self.world.clone();
        let before_kill = std::mem::take(&mut found.before_kill);
        let class_rounds = std::mem::take(&mut found.class_rounds);
        self.watch(async move { readback::evidence(&world, before_kill, class_rounds).await })
            .await?
    }

    /// Leaves everything running and says how to try it, until Ctrl-C.
    async fn keep(&mut self) {
        let url = format!("http://{}", self.node.address());
        let driver = &self.fleet[0].0;
        say!("\nThe node goes on at {url} with {} drivers. Try:\n", self.fleet.len());
        say!("  curl -s {url}/v1/drivers/{driver}");
        say!(
            "  curl -s {url}/v1/dispatch/offer -H 'content-type: application/json' \\\n    \
             -d '{{\"request_id\":\"mine-1\",\"candidates\":[\"{driver}\",\"{}\"],\"trip\":{{\"duration_s\":600}}}}'",
            self.fleet[1].0
        );
        say!("  curl -s {url}/v1/dispatch/audit/mine-1");
        say!("  curl -s '{url}/v1/events?consumer=me&limit=10'");
        say!("  curl -s {url}/metrics\n\nCtrl-C ends it.");
        // Without a handler for Ctrl-C the play could not have begun.
        let _ = tokio::signal::ctrl_c().await;
    }
}

/// Starts `work` beside the play; a task that panicked takes the demo with it.
async fn joined<T>(handle: tokio::task::JoinHandle<T>) -> T {
    handle.await.expect("a task of the demo panicked")
}

fn spawn<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> impl Future<Output = T> {
    joined(tokio::spawn(work))
}

async fn class_rounds(world: World, name: &'static str) -> Vec<ClassRound> {
    classes::run(&world, name, classes::SPREAD_MAX).await
}
