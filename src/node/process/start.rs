//! The start of the shards' threads: what each gets, and what it does before it serves.

use super::ServeError;
use crate::cold::links::Links;
use crate::cold::registry::DriverRegistry;
use crate::cold::{Claims, Store};
use crate::config::Config;
use crate::journal::{Geometry, Incarnation, Owner, Writer, create_shard_dir};
use crate::limits;
use crate::net::{NetConfig, Waker};
use crate::shard::{self, Clock, Housekeeper, Inheritance, Machine, Mail, Orders, Parts, Rings, Shard, Shared};
use glommio::ExecutorJoinHandle;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

/// What all shards start with.
pub(super) struct Common<'a> {
    pub(super) incarnation: Incarnation,
    pub(super) config: &'a Arc<Config>,
    pub(super) shared: &'a Arc<Shared>,
    pub(super) clock: Clock,
    pub(super) store: &'a Arc<Store>,
    /// When there is a fleet.
    pub(super) registry: Option<&'a Arc<DriverRegistry>>,
    /// When that has links.
    pub(super) links: Option<&'a Arc<Links>>,
    /// When requests are owned by nodes.
    pub(super) claims: Option<&'a Arc<Claims>>,
    pub(super) room: Room,
}

/// How many connections there may be.
#[derive(Clone, Copy)]
pub(super) struct Room {
    pub(super) per_shard: u32,
    pub(super) per_ring: u32,
}

/// What one shard's thread starts with.
struct Begin {
    index: u16,
    shards: u16,
    incarnation: Incarnation,
    config: Arc<Config>,
    shared: Arc<Shared>,
    clock: Clock,
    mail: Mail,
    store: Arc<Store>,
    registry: Option<Arc<DriverRegistry>>,
    links: Option<Arc<Links>>,
    claims: Option<Arc<Claims>>,
    journal_dir: PathBuf,
    orders: Orders,
    inheritance: Inheritance,
    room: Room,
    /// Says that its requests are in its journal, or why they are not.
    heirs: Sender<Result<Waker, String>>,
    /// Gets its listener when everybody's are; nothing when the node gives up.
    go: Receiver<TcpListener>,
}

/// The node's ends of what shards are told and tell at their start.
pub(super) struct Starts {
    /// One message of each shard that has what it inherits in its journal; the waker is its ring's.
    pub(super) heirs: Receiver<Result<Waker, String>>,
    /// Where each shard waits for its listener, in the order of shards.
    pub(super) go: Vec<Sender<TcpListener>>,
}

/// Starts the shards' threads, in their order.
pub(super) fn spawn(
    common: &Common<'_>,
    inheritances: Vec<Inheritance>,
) -> Result<(Vec<ExecutorJoinHandle<()>>, Starts), ServeError> {
    let (orders, _detached) =
        shard::start_housekeeping().map_err(|error| ServeError::new("cannot start the housekeeping thread", error))?;
    let (config, incarnation) = (common.config, common.incarnation);
    let shards = config.shard_count();
    let (say, heirs) = channel();
    let (mut threads, mut go) = (Vec::new(), Vec::new());
    let mut begins = Vec::new();
    for (mail, inheritance) in shard::mail(shards, shard::mail_ring_len(shards))
        .into_iter()
        .zip(inheritances)
    {
        let index = mail.index();
        let owner = Owner {
            incarnation,
            shard: index,
        };
        let journal_dir = create_shard_dir(&config.data_dir, owner)
            .map_err(|error| ServeError::new("cannot make a journal directory", error))?;
        let (send_go, receive_go) = channel();
        go.push(send_go);
        begins.push(Begin {
            index,
            shards,
            incarnation,
            config: Arc::clone(config),
            shared: Arc::clone(common.shared),
            clock: common.clock,
            mail,
            store: Arc::clone(common.store),
            registry: common.registry.map(Arc::clone),
            links: common.links.map(Arc::clone),
            claims: common.claims.map(Arc::clone),
            journal_dir,
            orders: orders.clone(),
            inheritance,
            room: common.room,
            heirs: say.clone(),
            go: receive_go,
        });
    }
    for begin in begins {
        let index = begin.index;
        let thread = shard::spawn(index, config.pin_shards, move || async move { shard_main(begin) })
            .map_err(|error| ServeError::new("cannot start a shard", error))?;
        threads.push(thread);
    }
    Ok((threads, Starts { heirs, go }))
}

/// What other threads call when a shard is to look at its inbox.
fn waking(waker: &Waker) -> Box<dyn Fn() + Send + Sync> {
    let waker = waker.clone();
    Box::new(move || waker.wake())
}

/// The life of a shard's thread.
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
        fixed_files: begin.room.per_ring,
        recv_buffers: config.recv_buffers,
        recv_buffer_bytes: config.recv_buffer_bytes,
        output_bytes_max: config.output_queue_bytes_max as usize,
    };
    let ring = match Rings::new(&net_config, begin.room.per_shard) {
        Ok(ring) => ring,
        Err(error) => {
            drop(begin.heirs.send(Err(error.to_string())));
            return;
        }
    };
    let waker = ring.waker();
    let store_health = store.health();
    let handle = store.attach(index, waking(&waker));
    drop(store);
    let geometry = Geometry::new(config.journal_segment_bytes, crate::journal::COMMIT_BYTES_MAX)
        .expect("checked settings make a sound geometry");
    let owner = Owner {
        incarnation,
        shard: index,
    };
    let mut shard = Shard::<Machine>::new(Parts {
        index,
        shards,
        incarnation: incarnation.get(),
        config,
        shared,
        clock,
        mail,
        ring,
        store: handle,
        store_health,
        writer: Writer::new(owner, geometry),
        files: Housekeeper::new(begin.orders, begin.journal_dir, waker.clone()),
        registry: begin.registry.map(|registry| registry.attach(index, waking(&waker))),
        links: begin.links.map(|links| links.attach(index, waking(&waker))),
        claims: begin.claims.map(|claims| claims.attach(index, waking(&waker))),
    });
    shard.inherit(begin.inheritance);
    while !shard.is_heir() {
        shard.turn();
    }
    drop(begin.heirs.send(Ok(waker)));
    // Blocks this thread on purpose: nobody is served before every shard is ready and the old journals are gone.
    if let Ok(listener) = begin.go.recv() {
        shard.open(listener);
        while !shard.is_finished() {
            shard.turn();
        }
        shard.flush_log();
    }
}
