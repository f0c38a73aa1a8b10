//! One row: drivers, a matching engine and consumers against the nodes, a fault in the middle, an audit at the end. Clients and
//! auditor are the demo's.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dispatchd::demo::api::Api;
use dispatchd::demo::audit::{self, Verdict};
use dispatchd::demo::city::City;
use dispatchd::demo::drivers::{self, World};
use dispatchd::demo::engine::Engine;
use dispatchd::demo::messages::{AuditView, Id, is_end};
use dispatchd::demo::observe::{Allowance, ClassRound, Evidence, FinalView, Observer, Seen, total};
use dispatchd::demo::{Tempo, classes, readback};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::reach::{self, Reach};
use super::rows::Row;
use super::seen::{self, Figures, Times};
use super::services::Services;
use super::town::Town;

/// How fast everybody plays: whole trips within seconds, and offers that outlive a short fault.
pub const TEMPO: Tempo = Tempo {
    offer_timeout_ms: 2500,
    deadline_ms: 12_000,
    busy_wait_ms: 1000,
    haste: 5,
    silence_ms_max: 2000,
};
/// Over which drivers connect at the start, and how long most of them may take.
const RAMP: Duration = Duration::from_secs(1);
const CONNECT_MAX: Duration = Duration::from_secs(20);
/// Load before the fault, and after it was mended: until all is well, or so long.
const BEFORE: Duration = Duration::from_secs(4);
const AFTER: std::ops::Range<Duration> = Duration::from_secs(4)..Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What everything open may take to end after the last POST.
const END_MAX: Duration = Duration::from_millis(TEMPO.deadline_ms + 8000);
/// Until what ended is in Cassandra.
const CARRIED_MAX: Duration = Duration::from_secs(15);
/// Gauges are this old at most, and nothing waits when they say so that often.
const GAUGES_EVERY: Duration = Duration::from_millis(300);
const CALM_LOOKS: u32 = 3;
/// When so much of the load waits for its answer, the matching engine posts no more until some has come: engines are bounded, too,
/// and what a long fault piles up is not to be what the row shows.
const WAITING_MAX: Duration = Duration::from_secs(8);
/// Longest load that is prepared for.
const LOAD_MAX: Duration = Duration::from_secs(300);
/// Audits of so many of the newest requests are read all the time, with this pause.
const AUDITS_READ: usize = 12;
const AUDITS_EVERY: Duration = Duration::from_millis(250);
const AUDITS_MAX: Duration = Duration::from_secs(1);
/// Tries of the play about priority classes, which a slow moment makes void.
const CLASS_TRIES: usize = 3;
/// How far apart its requests may come: each takes a decision by Cassandra, on a busy machine. The nodes' ageing step is longer.
const CLASS_SPREAD_MAX: Duration = Duration::from_secs(10);
/// The nodes' setting `ingress_age_step_ms`.
pub const AGE_STEP_MS: u64 = 15_000;
const _: () = assert!(CLASS_SPREAD_MAX.as_millis() < AGE_STEP_MS as u128);
/// Pause between two looks at a count.
const POLL: Duration = Duration::from_millis(50);

/// The load of a row.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Drivers.
    pub drivers: u32,
    /// Requests per second.
    pub rate: f64,
    /// Decides every choice of the clients.
    pub seed: u64,
}

/// What a row came to.
pub struct Played {
    /// The contract's seven.
    pub verdicts: [Verdict; 7],
    /// Any node answers.
    pub reach: Reach,
    /// What clients saw.
    pub figures: Figures,
    /// Requests posted, accepted, unfulfilled, cancelled, and not taken for dispatch by any node.
    pub requests: [u64; 5],
    /// Nodes that ended by themselves.
    pub ended: Vec<String>,
}

/// Plays a row.
///
/// # Errors
/// The fault could not be made or mended, or the nodes cannot be read at the end: there is no verdict.
pub async fn play(town: &mut Town, services: &Services, row: &Row, load: Load) -> io::Result<Played> {
    let mut crowd = Crowd::start(town, load).await?;
    sleep(BEFORE).await;
    let fault = crowd.observer.elapsed();
    crowd.observer.note(Seen::NodeKilled);
    row.begin(town, services).await?;
    sleep(row.lasts).await;
    row.mend(town, services).await?;
    let mended = crowd.observer.elapsed();
    let times = crowd.until_well(fault, mended).await;
    crowd.engine.stop();
    crowd.until_over().await;
    let class_rounds = crowd.class_rounds().await;
    let ended = town.ended();
    until_carried(town).await;
    let (evidence, by_node) = crowd.evidence(class_rounds, row.pause_ms()).await?;
    seen::write(&town.home().join("seen.txt"), &evidence, times)?;
    crowd.tasks.shutdown().await;
    crowd.drivers.shutdown().await;
    let counters = &crowd.observer.counters;
    let requests = [
        &counters.posted,
        &counters.accepted,
        &counters.unfulfilled,
        &counters.cancelled,
        &counters.not_taken,
    ];
    Ok(Played {
        verdicts: audit::judge(&evidence),
        reach: reach::judge(&evidence, &by_node, times),
        figures: Figures::of(&evidence.observations, times),
        requests: requests.map(total),
        ended,
    })
}

type Audits = Arc<Mutex<Vec<(Id, AuditView)>>>;

/// Everybody but the nodes.
struct Crowd {
    observer: Arc<Observer>,
    world: World,
    engine: Arc<Engine>,
    drivers_wanted: u64,
    audits: Audits,
    tasks: JoinSet<()>,
    drivers: JoinSet<()>,
}

impl Crowd {
    async fn start(town: &Town, load: Load) -> io::Result<Self> {
        let city = Arc::new(City::load().map_err(io::Error::other)?);
        let observer = Arc::new(Observer::default());
        let addresses = town.addresses();
        let world = World {
            api: Api::of_fleet(town.http(), &addresses, Arc::clone(&observer)),
            observer: Arc::clone(&observer),
            tempo: TEMPO,
        };
        readback::enrol(&world.api).await.map_err(io::Error::other)?;
        let fleet = drivers::place(&city, load.drivers, load.seed);
        let count = (load.rate * LOAD_MAX.as_secs_f64()) as usize;
        let rides = (0..count).map(|number| number % city.rides.len()).collect();
        let engine = Engine::new(&world, city, &fleet, load.seed);
        let drivers = drivers::start(&world, &fleet, load.seed, RAMP);
        let (mut tasks, audits) = (JoinSet::new(), Audits::default());
        tasks.spawn(Arc::clone(&engine).follow_events());
        // Readers of their own: what they are refused is not what callers see.
        let reader = Api::of_fleet(town.http(), &addresses, Arc::new(Observer::counting()));
        tasks.spawn(read_audits(reader, Arc::clone(&engine), Arc::clone(&audits)));
        let mut crowd = Self {
            observer,
            world,
            engine: Arc::clone(&engine),
            drivers_wanted: u64::from(load.drivers) * 9 / 10,
            audits,
            tasks,
            drivers,
        };
        crowd.until_connected().await?;
        let waiting_max = (load.rate * WAITING_MAX.as_secs_f64()) as usize;
        crowd
            .tasks
            .spawn(engine.replay_while(rides, load.rate, waiting_max.max(1)));
        Ok(crowd)
    }

    async fn until_connected(&self) -> io::Result<()> {
        let connected = async {
            while total(&self.observer.counters.connected) < self.drivers_wanted {
                sleep(POLL).await;
            }
        };
        let counted = timeout(CONNECT_MAX, connected).await;
        counted.map_err(|_| {
            let connected = total(&self.observer.counters.connected);
            io::Error::other(format!("{connected} drivers are connected after {CONNECT_MAX:?}"))
        })
    }

    /// Goes on with the load until clients see that all is well, or for as long as they may wait for that.
    async fn until_well(&self, fault: Duration, mended: Duration) -> Times {
        loop {
            sleep(LOOK_EVERY).await;
            let end = self.observer.elapsed();
            let times = Times { fault, mended, end };
            let after = end.saturating_sub(mended);
            let is_well = || Figures::of(&self.observer.snapshot(), times).well_after.is_some();
            if after >= AFTER.end || (after >= AFTER.start && is_well()) {
                return times;
            }
        }
    }

    /// Waits until every request and trip has ended; what has not in time is the auditor's to say.
    async fn until_over(&self) {
        let over = async {
            while self.engine.unfinished() > 0 {
                sleep(POLL).await;
            }
        };
        let _ = timeout(END_MAX, over).await;
    }

    async fn class_rounds(&self) -> Vec<ClassRound> {
        for number in 0..CLASS_TRIES {
            let rounds = classes::run(&self.world, &format!("end-{number}"), CLASS_SPREAD_MAX).await;
            if !rounds.is_empty() {
                return rounds;
            }
        }
        Vec::new()
    }

    /// All that was seen, and what each node says at the end.
    async fn evidence(
        &self,
        class_rounds: Vec<ClassRound>,
        pause_ms: u64,
    ) -> io::Result<(Evidence, Vec<BTreeMap<Id, FinalView>>)> {
        let before_kill = std::mem::take(&mut *self.audits.lock().unwrap_or_else(PoisonError::into_inner));
        evidence(&self.world, before_kill, class_rounds, pause_ms).await
    }
}

/// All that `world` saw, and what each node says now that all is over.
///
/// # Errors
/// A node's event stream cannot be read.
pub async fn evidence(
    world: &World,
    before_kill: Vec<(Id, AuditView)>,
    class_rounds: Vec<ClassRound>,
    pause_ms: u64,
) -> io::Result<(Evidence, Vec<BTreeMap<Id, FinalView>>)> {
    let mut open = readback::posted(&world.observer.snapshot());
    let mut by_node: Vec<BTreeMap<Id, FinalView>> = world.api.each().map(|_| BTreeMap::new()).collect();
    let since = Instant::now();
    // Nothing is late before its deadline.
    while !open.is_empty() {
        let reading = world.api.each().map(|api| {
            let open = open.clone();
            async move { readback::finals(&api, open).await }
        });
        for (known, read) in by_node.iter_mut().zip(futures_util::future::join_all(reading).await) {
            known.extend(read);
        }
        if since.elapsed() > Duration::from_millis(world.tempo.deadline_ms) {
            break;
        }
        open.retain(|request| by_node.iter().any(|finals| is_open(finals.get(request))));
        sleep(POLL).await;
    }
    let streams = readback::streams_again(&world.api).await;
    let events_again =
        streams.map_err(|error| io::Error::other(format!("an event stream cannot be read again: {error}")))?;
    let evidence = Evidence {
        observations: world.observer.snapshot(),
        started_unix: world.observer.started_unix(),
        before_kill,
        finals: merge(&by_node),
        events_again,
        class_rounds,
        fleet: Some(Allowance { pause_ms }),
    };
    Ok((evidence, by_node))
}

/// Whether a node shows it as not ended.
fn is_open(view: Option<&FinalView>) -> bool {
    let view = view.and_then(|view| view.view.as_ref());
    view.is_some_and(|view| !is_end(&view.state))
}

/// Of each request what the first node says that knows it, and what another node says as the second reading.
fn merge(by_node: &[BTreeMap<Id, FinalView>]) -> BTreeMap<Id, FinalView> {
    let mut merged: BTreeMap<Id, FinalView> = BTreeMap::new();
    for finals in by_node {
        for (request, view) in finals {
            let known = merged.entry(Id::clone(request)).or_default();
            if known.audit.is_none() {
                *known = view.clone();
            } else if view.audit.is_some() {
                known.audit_again.clone_from(&view.audit);
            }
        }
    }
    merged
}

/// Waits until what the nodes have stored is in Cassandra, for a while.
pub async fn until_carried(town: &Town) {
    let (since, mut calm) = (Instant::now(), 0);
    while since.elapsed() < CARRIED_MAX && calm < CALM_LOOKS {
        let mut waiting = 0.0;
        for index in 0..town.size() {
            let text = town.metrics(index).await.unwrap_or_default();
            waiting += super::metrics::sum(&text, "dispatchd_cassandra_backlog_commits").unwrap_or(1.0);
            waiting += super::metrics::sum(&text, "dispatchd_store_backlog_records").unwrap_or(1.0);
        }
        calm = if waiting == 0.0 { calm + 1 } else { 0 };
        sleep(GAUGES_EVERY).await;
    }
}

/// Reads audits of the newest requests for ever; each must be found again at the end.
async fn read_audits(api: Api, engine: Arc<Engine>, into: Audits) {
    loop {
        sleep(AUDITS_EVERY).await;
        let found = readback::audits(&api, engine.newest(AUDITS_READ), AUDITS_MAX).await;
        into.lock().unwrap_or_else(PoisonError::into_inner).extend(found);
    }
}
