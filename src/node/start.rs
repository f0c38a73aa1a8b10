//! The start of the shards' threads: what each gets, and what it does before it serves.

use super::ServeError;
use super::recovery::Recovery;
use crate::cold::Store;
use crate::config::Config;
use crate::fsm::ids::{DriverId, RequestId, home_shard};
use crate::fsm::request::{Request, RequestEffect, ToDriver};
use crate::journal::{Geometry, Incarnation, Owner, Writer, create_shard_dir};
use crate::limits;
use crate::net::{Net, NetConfig, Waker};
use crate::shard::{self, Clock, Letter, Mailbox, Orders, Parts, Shard, Shared};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

/// What one shard's thread starts with.
pub(super) struct Begin {
    index: u16,
    shards: u16,
    incarnation: Incarnation,
    config: Arc<Config>,
    shared: Arc<Shared>,
    clock: Clock,
    mail: Mailbox<Box<Letter>>,
    store: Arc<Store>,
    journal_dir: PathBuf,
    orders: Orders,
    requests: Vec<Request>,
    bindings: Vec<(DriverId, RequestId, ToDriver)>,
    off_shift: Vec<(DriverId, u64)>,
    connections: u32,
    /// Says that its requests are in its journal, or why they are not.
    imaged: Sender<Result<Waker, String>>,
    /// Gets its listener when everybody's are; nothing when the node gives up.
    go: Receiver<TcpListener>,
}

impl Begin {
    /// Which shard.
    pub(super) fn index(&self) -> u16 {
        self.index
    }
}

/// The node's ends of what shards are told and tell at their start.
pub(super) struct Starts {
    /// One message of each shard; the waker is its ring's.
    pub(super) images: Receiver<Result<Waker, String>>,
    /// Where each shard waits for its listener, in the order of shards.
    pub(super) go: Vec<Sender<TcpListener>>,
}

/// What every shard starts with, in their order.
pub(super) fn begins(
    config: &Arc<Config>,
    shared: &Arc<Shared>,
    recovery: Recovery,
    connections: u32,
) -> Result<(Vec<Begin>, Starts), ServeError> {
    let Recovery {
        clock,
        store,
        incarnation,
        live,
        off_shift,
    } = recovery;
    let (orders, _detached) =
        shard::start_housekeeping().map_err(|error| ServeError::new("cannot start the housekeeping thread", error))?;
    let shards = config.shard_count();
    let (imaged, images) = channel();
    let (mut begins, mut go) = (Vec::new(), Vec::new());
    for mail in shard::mesh(shards) {
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
            shared: Arc::clone(shared),
            clock,
            mail,
            store: Arc::clone(&store),
            journal_dir,
            orders: orders.clone(),
            requests: Vec::new(),
            bindings: Vec::new(),
            off_shift: Vec::new(),
            connections,
            imaged: imaged.clone(),
            go: receive_go,
        });
    }
    distribute(&mut begins, live, off_shift, clock.now_ms());
    Ok((begins, Starts { images, go }))
}

/// Gives every shard the requests at home there, and what its drivers have to know.
fn distribute(begins: &mut [Begin], live: Vec<Request>, off_shift: Vec<(DriverId, u64)>, now_ms: u64) {
    let shards = begins.len() as u16;
    for request in live {
        let mut effects = Vec::new();
        request.rebind(&mut effects);
        for effect in effects {
            let RequestEffect::Driver { driver_id, message } = effect else {
                continue;
            };
            // An offer whose time ended while nobody ran is shown to nobody again: its request times it out.
            let is_over = matches!(message, ToDriver::Offer { expires_at_ms, .. } if expires_at_ms <= now_ms);
            if !is_over {
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

/// The life of a shard's thread.
pub(super) fn shard_main(begin: Begin) {
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
    if let Ok(listener) = begin.go.recv() {
        shard.serve(listener, adopted);
    }
}
