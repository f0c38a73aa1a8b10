//! What one process has of the fleet: its owners, its end of the tables, of the registry and of the links. Gone with the process.

use super::place::{SimPlace, Tasks};
use super::registry::{Client, Ends};
use super::tables::{FarTables, SimTables};
use super::{Fleet, links};
use crate::plan::node_name;
use compact_str::CompactString;
use dispatchd::cold::links::LinksHandle;
use dispatchd::cold::owner::{Owner, OwnerConfig, Place, Reach};
use dispatchd::cold::registry::port::{BATCHES_MAX, CLAIMS_MAX, LOOKUPS_MAX, Presence};
use dispatchd::cold::registry::{NodeList, NodeSeen, RegistryHandle};
use dispatchd::cold::{Claims, ClaimsHandle, StoreHealth};
use dispatchd::fsm::types::RecordRow;
use dispatchd::ops::health::{Phase, Readiness};
use dispatchd::shard::Shared;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc as std_mpsc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Records that a node has committed and the tables do not have yet. They outlive the process, like the store that holds them.
pub(in crate::world) type Outbox = Rc<RefCell<VecDeque<RecordRow>>>;

/// Most of them that are written at once.
const RECORDS_MAX: usize = 64;
/// How often it is looked for records.
const CARRY_EVERY: Duration = Duration::from_millis(50);

/// Which process.
pub(in crate::world) struct Who {
    pub(in crate::world) node: u8,
    /// Counted from 1 over all of its starts.
    pub(in crate::world) boot: u32,
    pub(in crate::world) incarnation: u64,
    /// Unix time minus simulated time.
    pub(in crate::world) offset_us: u64,
}

/// See the module.
pub(in crate::world) struct Member {
    alive: Rc<Cell<bool>>,
    node: u8,
    incarnation: u64,
    tasks: Tasks,
    claims: Claims,
    client: Rc<Client>,
    /// What handles of shards are made of.
    registry: RegistryParts,
    life: Rc<links::Life>,
    tables: Rc<SimTables>,
    common: Rc<super::Common>,
    woken: Arc<AtomicU32>,
}

struct RegistryParts {
    claims: mpsc::Sender<(dispatchd::cold::registry::port::Reply, dispatchd::cold::registry::Claim)>,
    batches: mpsc::Sender<dispatchd::cold::registry::port::Batch>,
    lookups: mpsc::Sender<(
        dispatchd::cold::registry::port::LookupReply,
        dispatchd::cold::registry::Lookup,
    )>,
    presence: Arc<Presence>,
}

impl Fleet {
    /// A process joins.
    pub(in crate::world) fn join(
        &self,
        who: &Who,
        shared: &Arc<Shared>,
        health: &Arc<StoreHealth>,
        outbox: &Outbox,
        woken: &Arc<AtomicU32>,
    ) -> Member {
        let common = &self.common;
        let config = &common.config;
        let name = CompactString::from(node_name(who.node));
        let alive = Rc::new(Cell::new(true));
        let tables = SimTables::new(common, &self.tables, who.node, name.clone(), &alive);
        let tables = Rc::new(tables);
        let place = SimPlace::new(common, who.offset_us);
        let timeout = Duration::from_millis(config.fleet_cassandra_timeout_ms);
        let writes_max = config.fleet_cassandra_writes_max as usize;
        let measured = shared.registry.cassandra();
        let reach = Reach::new(place.clone(), writes_max, timeout, Arc::clone(health), measured);
        let reach = on_this_thread(reach);
        let (ask, asked) = mpsc::unbounded_channel();
        let claims = Claims::new(ask, config.shards);
        let of_owner = OwnerConfig {
            node_id: name.to_string(),
            timeout,
            background_max: (writes_max / 2).max(1),
            has_registry: true,
        };
        let (found, ready) = watch::channel(None);
        let owner = Owner::new(of_owner, &reach, ready, claims.inboxes());
        let tasks = Tasks::of(&place);
        run(&place, &tables, &reach, found, outbox);
        place.spawn(owner.serve(asked));
        let of_life = (who.node, name.clone(), who.incarnation, config.shards);
        let life = links::Life::begin(common, &self.lives, of_life, &alive);
        let (client, registry) = self.client(who, &name, &alive, shared, &life);
        Member {
            alive,
            node: who.node,
            incarnation: who.incarnation,
            tasks,
            claims,
            client,
            registry,
            life,
            tables,
            common: Rc::clone(common),
            woken: Arc::clone(woken),
        }
    }

    fn client(
        &self,
        who: &Who,
        name: &CompactString,
        alive: &Rc<Cell<bool>>,
        shared: &Arc<Shared>,
        life: &Rc<links::Life>,
    ) -> (Rc<Client>, RegistryParts) {
        let (claims, claims_taken) = mpsc::channel(CLAIMS_MAX);
        let (batches, batches_taken) = mpsc::channel(BATCHES_MAX);
        let (lookups, lookups_taken) = mpsc::channel(LOOKUPS_MAX);
        let presence = Arc::new(Presence::default());
        let ends = Ends {
            claims: claims_taken,
            batches: batches_taken,
            lookups: lookups_taken,
            presence: Arc::clone(&presence),
        };
        let (shared, node_id) = (Arc::clone(shared), name.clone());
        let sign = move || NodeSeen {
            address: node_id.clone(),
            link_address: node_id.clone(),
            drivers: shared.registry.totals().drivers_connected,
            is_serving: shared.health.phase() == Phase::Serving,
            is_ready: shared.health.readiness() == Readiness::Ready,
            node_id: node_id.clone(),
        };
        let life = Rc::clone(life);
        let on_nodes = move |nodes: &Arc<NodeList>| life.nodes_seen(nodes);
        let client = Client::start(
            &self.common,
            &self.registry,
            (who.node, name.clone(), who.boot.into()),
            alive,
            ends,
            Box::new(sign),
            Box::new(on_nodes),
        );
        let parts = RegistryParts {
            claims,
            batches,
            lookups,
            presence,
        };
        (client, parts)
    }
}

/// Connects to the tables, looks whether they answer, and carries records away, for ever.
fn run(
    place: &SimPlace,
    tables: &Rc<SimTables>,
    reach: &Arc<Reach<SimPlace>>,
    found: watch::Sender<Option<Arc<SimTables>>>,
    outbox: &Outbox,
) {
    let (of_link, at_link, reach_link) = (place.clone(), Rc::clone(tables), Arc::clone(reach));
    place.spawn(async move {
        while at_link.probe().await.is_err() {
            of_link.sleep(Duration::from_millis(200)).await;
        }
        reach_link.set_up(true);
        found.send_replace(Some(on_this_thread(at_link.as_ref().clone())));
        let say = |result: Result<(), &_>| {
            reach_link.set_up(result.is_ok());
        };
        reach_link.watch(async || at_link.probe().await, say).await;
    });
    let (of_carrier, tables, reach) = (place.clone(), Rc::clone(tables), Arc::clone(reach));
    let outbox = Rc::clone(outbox);
    place.spawn(async move {
        loop {
            let rows: Vec<RecordRow> = outbox.borrow().iter().take(RECORDS_MAX).cloned().collect();
            if rows.is_empty() || !reach.is_up() {
                of_carrier.sleep(CARRY_EVERY).await;
                continue;
            }
            let count = rows.len();
            match tables.write_records(rows).await {
                Ok(()) => drop(outbox.borrow_mut().drain(..count)),
                Err(_) => reach.wait_out(CARRY_EVERY).await,
            }
        }
    });
}

/// Owners share things by what could go to another thread; here they stay on theirs.
fn on_this_thread<T>(shared: T) -> Arc<T> {
    Arc::new(shared)
}

impl Member {
    fn waker(&self, shard: u16) -> Box<dyn Fn() + Send + Sync> {
        let (woken, bit) = (Arc::clone(&self.woken), 1 << shard);
        Box::new(move || {
            woken.fetch_or(bit, Ordering::Relaxed);
        })
    }

    /// A shard's ends.
    pub(in crate::world) fn attach(&self, shard: u16) -> (RegistryHandle, LinksHandle, ClaimsHandle) {
        let parts = &self.registry;
        let registry = RegistryHandle::new(
            self.waker(shard),
            parts.claims.clone(),
            parts.batches.clone(),
            parts.lookups.clone(),
            Arc::clone(&parts.presence),
        );
        self.client.attach(registry.inbox());
        let links = LinksHandle::new(self.waker(shard), Arc::clone(self.life.peers()));
        self.life.attach(links.inbox());
        (registry, links, self.claims.attach(shard, self.waker(shard)))
    }

    /// For the node's store.
    pub(in crate::world) fn far(&self) -> FarTables {
        FarTables(Rc::clone(&self.tables))
    }

    /// Whether it is known whether this node's name is free.
    pub(in crate::world) fn has_lease_word(&self) -> bool {
        self.client.has_said()
    }

    /// All shards are attached. Says when what the last boot had is taken over.
    pub(in crate::world) fn begin(&self) -> std_mpsc::Receiver<()> {
        self.claims.begin(self.incarnation)
    }

    /// The node serves: its lease says so at once.
    pub(in crate::world) fn sign_now(&self) {
        self.registry.presence.hurry();
    }

    /// Does what there is to do.
    pub(in crate::world) fn go_on(&mut self) {
        if self.common.paused_us(self.node) > 0 {
            return;
        }
        self.client.go_on();
        self.life.go_on();
        self.tasks.go_on();
    }

    /// The process has ended in an orderly way.
    pub(in crate::world) fn gives_back_lease(&self) {
        self.client.give_back();
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.alive.set(false);
        self.life.ends();
    }
}
