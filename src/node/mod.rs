//! One node: recovery, the shards, and the end.
//!
//! The order of a start is what keeps promises across crashes. (1) Every older journal is read. (2) What the store
//! does not have of it yet is fed to it. (3) Requests that are not over are written into the new journals, durably.
//! (4) Only then the old journals go. (5) Drivers are bound to their offers and trips. (6) Only then anybody is
//! served. A crash anywhere in between repeats the same steps.
#![forbid(unsafe_code)]

mod recovery;

use crate::cold::{Store, StoreConfig, Surroundings};
use crate::config::Config;
use crate::fsm::ids::{DriverId, RequestId, home_shard};
use crate::fsm::request::{Request, RequestEffect, ToDriver};
use crate::journal::{DataDirLock, Geometry, Incarnation, Owner, Writer, create_shard_dir};
use crate::limits;
use crate::net::{Net, NetConfig, Waker, bind_reuseport};
use crate::ops::health::{Health, Phase};
use crate::ops::metrics::Registry;
use crate::ops::{notify, process, signals};
use crate::shard::{self, Clock, Letter, Mailbox, Orders, Parts, Shard, Shared};
use recovery::Recovered;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier};
use std::time::Duration;

/// Connections that wait in a listener's backlog.
const LISTEN_BACKLOG: i32 = 4_096;
/// How often the node looks whether its store has failed.
const STORE_PROBE: Duration = Duration::from_millis(200);

/// Why a node did not start or did not end well.
#[derive(Debug)]
pub struct ServeError {
    what: &'static str,
    cause: String,
}

impl ServeError {
    fn new(what: &'static str, cause: impl std::fmt::Display) -> Self {
        Self {
            what,
            cause: cause.to_string(),
        }
    }
}

impl std::fmt::Display for ServeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.what, self.cause)
    }
}

impl std::error::Error for ServeError {}

/// What one shard's thread starts with.
struct Begin {
    index: u16,
    shards: u16,
    incarnation: Incarnation,
    config: Arc<Config>,
    shared: Arc<Shared>,
    clock: Clock,
    mail: Mailbox<Box<Letter>>,
    store: Arc<Store>,
    listener: TcpListener,
    journal_dir: PathBuf,
    orders: Orders,
    requests: Vec<Request>,
    bindings: Vec<(DriverId, RequestId, ToDriver)>,
    off_shift: Vec<(DriverId, u64)>,
    connections: u32,
    imaged: Sender<Result<Waker, String>>,
    go: Arc<Barrier>,
}

/// Runs a node until it has drained (`Ok`) or cannot go on.
///
/// # Errors
/// What could not be opened, read or bound; the message names it and what an operator can do.
pub fn serve(config: Config) -> Result<(), ServeError> {
    let config = Arc::new(config);
    let shards = config.shard_count();
    std::fs::create_dir_all(&config.data_dir)
        .map_err(|error| ServeError::new("cannot make the data directory", error))?;
    let _lock = DataDirLock::acquire(&config.data_dir).map_err(|error| ServeError::new("data directory", error))?;
    let open_files = process::raise_open_files();
    let shared = Arc::new(Shared {
        health: Arc::new(Health::new()),
        registry: Arc::new(Registry::new(shards)),
        stop: AtomicBool::new(false),
        away: AtomicUsize::new(0),
        done: AtomicUsize::new(0),
    });
    let listeners = listeners(&config, shards)?;

    shared.health.advance(Phase::Recovering);
    let recovered = recovery::read(&config.data_dir)?;
    let clock = Clock::start(recovered.newest_ms);
    let store = open_store(&config, clock)?;
    let highest = store
        .watermarks()
        .iter()
        .map(|(source, _)| source.incarnation)
        .max()
        .unwrap_or(0);
    let incarnation = Incarnation::next(&config.data_dir, highest)
        .map_err(|error| ServeError::new("cannot begin a new incarnation of the journal", error))?;
    let Recovered { feed, live, .. } = recovered;
    recovery::feed_store(&store, feed)?;
    let off_shift = store
        .off_shift_since(clock.now_ms().saturating_sub(config.off_shift_memory_ms))
        .map_err(|error| ServeError::new("cannot read the store", error))?;
    tracing::info!(
        incarnation = incarnation.get(),
        shards,
        requests = live.len(),
        "recovered"
    );

    let store = Arc::new(store);
    let (orders, _detached) =
        shard::start_housekeeping().map_err(|error| ServeError::new("cannot start the housekeeping thread", error))?;
    let (imaged, images) = channel();
    let go = Arc::new(Barrier::new(usize::from(shards) + 1));
    let mut begins = Vec::new();
    for (mail, listener) in shard::mesh(shards).into_iter().zip(listeners) {
        let index = mail.index();
        let owner = Owner {
            incarnation,
            shard: index,
        };
        let journal_dir = create_shard_dir(&config.data_dir, owner)
            .map_err(|error| ServeError::new("cannot make a journal directory", error))?;
        begins.push(Begin {
            index,
            shards,
            incarnation,
            config: Arc::clone(&config),
            shared: Arc::clone(&shared),
            clock,
            mail,
            store: Arc::clone(&store),
            listener,
            journal_dir,
            orders: orders.clone(),
            requests: Vec::new(),
            bindings: Vec::new(),
            off_shift: Vec::new(),
            connections: config.connections_per_shard(open_files),
            imaged: imaged.clone(),
            go: Arc::clone(&go),
        });
    }
    drop((imaged, orders));
    distribute(&mut begins, live, off_shift, shards);
    run(&config, &shared, store, begins, &images, &go, incarnation)
}

fn listeners(config: &Config, shards: u16) -> Result<Vec<TcpListener>, ServeError> {
    let describe = |error: std::io::Error| ServeError::new("cannot listen", format!("{}: {error}", config.listen));
    let first = bind_reuseport(config.listen, LISTEN_BACKLOG).map_err(describe)?;
    let address = first.local_addr().map_err(describe)?;
    tracing::info!(%address, "listening");
    let mut listeners = vec![first];
    for _ in 1..shards {
        listeners.push(bind_reuseport(address, LISTEN_BACKLOG).map_err(describe)?);
    }
    Ok(listeners)
}

fn open_store(config: &Config, clock: Clock) -> Result<Store, ServeError> {
    let dir = config.data_dir.join("store");
    let surroundings = Surroundings {
        now_ms: Arc::new(move || clock.now_ms()),
        ..Surroundings::of_machine(&config.data_dir)
    };
    let store_config = StoreConfig {
        records_retention_days: config.records_retention_days,
        idempotency_retention_days: config.idempotency_retention_days,
        events_retention_ms: config.events_retention_ms,
        events_bytes_max: config.events_bytes_max,
        disk_reserve_bytes: config.disk_reserve_bytes,
        surroundings,
        ..StoreConfig::new(&dir)
    };
    Store::open(&dir, store_config).map_err(|error| ServeError::new("cannot open the store", error))
}

/// Gives every shard the requests at home there, and what its drivers have to know.
fn distribute(begins: &mut [Begin], live: Vec<Request>, off_shift: Vec<(DriverId, u64)>, shards: u16) {
    for request in live {
        let mut effects = Vec::new();
        request.rebind(&mut effects);
        for effect in effects {
            if let RequestEffect::Driver { driver_id, message } = effect {
                let home = usize::from(home_shard(driver_id.hash64(), shards));
                begins[home].bindings.push((driver_id, request.id().clone(), message));
            }
        }
        let home = usize::from(home_shard(request.id().hash64(), shards));
        begins[home].requests.push(request);
    }
    for (driver_id, since_ms) in off_shift {
        let home = usize::from(home_shard(driver_id.hash64(), shards));
        begins[home].off_shift.push((driver_id, since_ms));
    }
}

fn run(
    config: &Config,
    shared: &Arc<Shared>,
    store: Arc<Store>,
    begins: Vec<Begin>,
    images: &Receiver<Result<Waker, String>>,
    go: &Barrier,
    incarnation: Incarnation,
) -> Result<(), ServeError> {
    let shards = begins.len();
    let mut threads = Vec::new();
    for begin in begins {
        let index = begin.index;
        let thread = shard::spawn(index, config.pin_shards, move || async move { shard_main(begin) })
            .map_err(|error| ServeError::new("cannot start a shard", error))?;
        threads.push(thread);
    }
    let mut wakers = Vec::new();
    for _ in 0..shards {
        let waker = images
            .recv()
            .map_err(|_| ServeError::new("a shard ended before it began", "see the log"))?;
        wakers.push(waker.map_err(|error| ServeError::new("cannot make a net ring", error))?);
    }
    forget_old(config, &store, incarnation)?;
    let to_wake = wakers.clone();
    let signals = signals_watch(shared, to_wake)?;
    go.wait();
    shared.health.advance(Phase::Serving);
    notify::ready("serving");
    let watchdog = watch_store(shared, &store, wakers);
    for thread in threads {
        thread
            .join()
            .map_err(|error| ServeError::new("a shard failed", error))?;
    }
    shared.stop.store(true, Ordering::Relaxed);
    drop(watchdog.join());
    signals.stop();
    tracing::info!("drained");
    let store = Arc::into_inner(store).expect("the shards that shared it have ended");
    store
        .shutdown()
        .map_err(|error| ServeError::new("the store did not end well", error))
}

fn signals_watch(shared: &Arc<Shared>, wakers: Vec<Waker>) -> Result<signals::SignalWatch, ServeError> {
    let on_drain = move || {
        notify::stopping();
        wakers.iter().for_each(Waker::wake);
    };
    signals::watch(Arc::clone(&shared.health), on_drain)
        .map_err(|error| ServeError::new("cannot watch for signals", error))
}

/// The live requests are in the new journals and everything else is in the store: the old journals go.
fn forget_old(config: &Config, store: &Store, incarnation: Incarnation) -> Result<(), ServeError> {
    let old = Incarnation::list(&config.data_dir).map_err(|error| ServeError::new("cannot list journals", error))?;
    for old in old.into_iter().filter(|old| *old < incarnation) {
        old.remove(&config.data_dir)
            .map_err(|error| ServeError::new("cannot remove an old journal", error))?;
    }
    store.forget_sources_before(incarnation.get());
    Ok(())
}

/// Ends the process when the store has failed for good: the journal has what it lacks. Pets the service manager's
/// watchdog while all is well.
fn watch_store(shared: &Arc<Shared>, store: &Store, wakers: Vec<Waker>) -> std::thread::JoinHandle<()> {
    let (shared, health) = (Arc::clone(shared), store.health());
    std::thread::spawn(move || {
        let shards = wakers.len() as u16;
        let wake_all = move || wakers.iter().for_each(Waker::wake);
        let probe = notify::turn_probe(Arc::clone(&shared.registry), shards, wake_all);
        let watchdog = notify::Watchdog::start(probe);
        while !shared.stop.load(Ordering::Relaxed) {
            if health.fatal() {
                let error = health.last_error().unwrap_or_default();
                tracing::error!(
                    error,
                    "the store failed: ending the process; the journal is recovered at the next start"
                );
                std::process::exit(1);
            }
            std::thread::park_timeout(STORE_PROBE);
        }
        if let Ok(Some(watchdog)) = watchdog {
            watchdog.stop();
        }
    })
}

fn shard_main(begin: Begin) {
    let Begin {
        index,
        shards,
        incarnation,
        config,
        shared,
        clock,
        mail,
        store,
        ..
    } = begin;
    let net_config = NetConfig {
        sq_entries: limits::NET_SQ_ENTRIES,
        cq_entries: limits::NET_CQ_ENTRIES,
        fixed_files: begin.connections,
        recv_buffers: config.recv_buffers,
        recv_buffer_bytes: config.recv_buffer_bytes,
        output_bytes_max: config.output_queue_bytes_max as usize,
    };
    let net = match Net::new(&net_config) {
        Ok(net) => net,
        Err(error) => {
            drop(begin.imaged.send(Err(error.to_string())));
            return;
        }
    };
    let waker = net.waker();
    let store_health = store.health();
    let handle = {
        let waker = waker.clone();
        store.attach(index, Box::new(move || waker.wake()))
    };
    drop(store);
    let geometry = Geometry::new(config.journal_segment_bytes, crate::journal::COMMIT_BYTES_MAX)
        .expect("checked settings make a sound geometry");
    let writer = Writer::new(
        Owner {
            incarnation,
            shard: index,
        },
        geometry,
    );
    let incarnation = incarnation.get();
    let (journal_dir, orders) = (begin.journal_dir, begin.orders);
    let parts = Parts {
        index,
        shards,
        incarnation,
        config,
        shared,
        clock,
        mail,
        net,
        store: handle,
        store_health,
        writer,
        journal_dir,
        orders,
    };
    let mut shard = Shard::new(parts);
    let adopted = shard.adopt_all(begin.requests, begin.off_shift);
    shard.rebind_all(begin.bindings);
    drop(begin.imaged.send(Ok(waker)));
    // Blocks this thread on purpose: nobody is served before every shard is ready and the old journals are gone.
    begin.go.wait();
    shard.serve(begin.listener, adopted);
}
