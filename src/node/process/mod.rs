//! The node as a process of this machine: data directory, limits, signals, listeners, threads, and the end.
//!
//! Not in a build without the feature `fleet`, in which there are no clients of Redis and Cassandra: there is no program then, and
//! whoever brings a node up has a [`Host`](super::Host) of its own.

mod boot;
mod fleet;
mod identity;
mod reception;
pub mod records;
mod start;

use super::{ServeError, bring_up};
use crate::cold::Store;
use crate::config::Config;
use crate::journal::DataDirLock;
use crate::limits;
use crate::net::limits::LISTEN_BACKLOG;
use crate::net::{Net, NetConfig, Waker, bind_reuseport};
use crate::ops::health::{Health, Phase};
use crate::ops::notify;
use crate::ops::process;
use crate::ops::signals;
use crate::shard::Shared;
use boot::Boot;
use fleet::Membership;
pub use fleet::check as check_fleet;
use reception::Reception;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Locked memory without which glommio aborts, in bytes.
const LOCKED_MEMORY_MIN: u64 = 512 << 10;
/// How often, and after what pauses, a port in use is looked at again.
const PORT_LOOKS: u32 = 60;
/// See [`PORT_LOOKS`].
const PORT_PAUSE: Duration = Duration::from_millis(50);
/// How often the node looks whether its store has failed.
const STORE_PROBE: Duration = Duration::from_millis(200);
/// How long the end of a node waits for Cassandra to take what it still lacks; the outbox keeps the rest.
const CASSANDRA_PATIENCE: Duration = Duration::from_secs(1);

/// Runs a node until it has drained (`Ok`) or cannot go on.
///
/// # Errors
/// What could not be opened, read or bound; the message names it and what an operator can do.
///
/// # Panics
/// When a shard has ended and still holds the store: our bug.
pub fn serve(config: Config) -> Result<(), ServeError> {
    std::fs::create_dir_all(&config.data_dir).map_err(|error| {
        let what = format!("cannot make the data directory {}", config.data_dir.display());
        ServeError::new(what, error)
    })?;
    let _lock = DataDirLock::acquire(&config.data_dir).map_err(|error| ServeError::new("data directory", error))?;
    let config = Arc::new(identity::settle(config)?);
    let membership = Membership::of(&config)?;
    let open_files = process::raise_open_files();
    check_rings()?;
    check_descriptors(&config, open_files)?;
    let health = Arc::new(Health::new());
    let to_wake = Arc::new(OnceLock::new());
    let signals = watch_signals(&health, &to_wake)?;
    let (listener, address) = listen(&config)?;
    let reception = Reception::open(listener).map_err(|error| ServeError::new("cannot answer", error))?;

    health.advance(Phase::Recovering);
    let room = start::Room {
        per_shard: config.connections_per_shard(open_files),
        per_ring: config.connections_per_ring(open_files),
    };
    let boot = Boot::new(Arc::clone(&config), health, reception, address, room, to_wake);
    let mut boot = boot.in_fleet(membership);
    bring_up(&mut boot, &config)?;
    let boot::Running {
        shared,
        store,
        registry,
        links,
        cassandra,
        threads,
        wakers,
    } = boot.running();
    notify::ready("serving");
    let watchdog = watch_store(&shared, &store, wakers);
    for thread in threads {
        thread
            .join()
            .map_err(|error| ServeError::new("a shard failed", error))?;
    }
    shared.stop.store(true, Ordering::Relaxed);
    drop(watchdog.join());
    signals.stop();
    tracing::info!("drained");
    if let Some(registry) = registry.and_then(Arc::into_inner) {
        registry.shutdown();
    }
    if let Some(links) = links.and_then(Arc::into_inner) {
        links.shutdown();
    }
    if let Some(cassandra) = cassandra {
        cassandra.finish(CASSANDRA_PATIENCE);
    }
    let store = Arc::into_inner(store).expect("the shards that shared it have ended");
    store
        .shutdown()
        .map_err(|error| ServeError::new("the store did not end well", error))
}

/// From here on a signal ends the process in an orderly way; once the shards serve, the first drains them.
fn watch_signals(
    health: &Arc<Health>,
    to_wake: &Arc<OnceLock<Vec<Waker>>>,
) -> Result<signals::SignalWatch, ServeError> {
    let to_wake = Arc::clone(to_wake);
    let on_drain = move || {
        notify::stopping();
        to_wake.get().into_iter().flatten().for_each(Waker::wake);
    };
    signals::watch(Arc::clone(health), on_drain).map_err(|error| ServeError::new("cannot watch for signals", error))
}

/// Whether all rings of all shards fit the limit of open files; better now than with the journals read.
fn check_descriptors(config: &Config, open_files: u64) -> Result<(), ServeError> {
    let per_shard = config.connections_per_shard(open_files);
    let further = per_shard.div_ceil(config.connections_per_ring(open_files)) - 1;
    let needed = u64::from(config.shard_count()) * u64::from(further) * limits::DESCRIPTORS_OF_A_RING;
    if needed == 0 || needed + limits::DESCRIPTORS_RESERVED <= open_files {
        return Ok(());
    }
    let cause = format!(
        "connections_max = {per_shard} takes {} rings in each of {} shards under a limit of {open_files} open files, and their \
         descriptors do not fit it: raise the limit (LimitNOFILE=, ulimit -n) or lower connections_max",
        further + 1,
        config.shard_count()
    );
    Err(ServeError::new("cannot make the net rings", cause))
}

/// Whether this machine lets a process have rings, before glommio asks and aborts.
fn check_rings() -> Result<(), ServeError> {
    let locked = process::raise_locked_memory();
    if locked < LOCKED_MEMORY_MIN {
        let cause =
            format!("{locked} bytes of locked memory are allowed and {LOCKED_MEMORY_MIN} are needed (ulimit -l)");
        return Err(ServeError::new("cannot make rings", cause));
    }
    match Net::new(&NetConfig {
        fixed_files: 64,
        recv_buffers: 16,
        ..NetConfig::default()
    }) {
        Ok(_) => Ok(()),
        Err(error) => Err(ServeError::new(
            "cannot make an io_uring",
            format!("{error}; the kernel is too old, or forbids it (kernel.io_uring_disabled, seccomp of a container)"),
        )),
    }
}

/// The shards share their port among each other, which would let another node of the same user in unnoticed: so the
/// port must be free first. The kernel closes the sockets of a killed node's rings a moment after its death.
fn wait_for_port(address: SocketAddr) -> std::io::Result<()> {
    for _ in 0..PORT_LOOKS {
        match TcpListener::bind(address) {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => std::thread::sleep(PORT_PAUSE),
            other => return other.map(drop),
        }
    }
    TcpListener::bind(address).map(drop)
}

/// Binds the first listener.
fn listen(config: &Config) -> Result<(TcpListener, SocketAddr), ServeError> {
    let describe = |error: std::io::Error| ServeError::new("cannot listen", format!("{}: {error}", config.listen));
    wait_for_port(config.listen).map_err(describe)?;
    let listener = bind_reuseport(config.listen, LISTEN_BACKLOG).map_err(describe)?;
    let address = listener.local_addr().map_err(describe)?;
    tracing::info!(%address, "listening");
    Ok((listener, address))
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
                crate::ops::log::end();
                std::process::exit(1);
            }
            std::thread::park_timeout(STORE_PROBE);
        }
        if let Ok(Some(watchdog)) = watchdog {
            watchdog.stop();
        }
    })
}
