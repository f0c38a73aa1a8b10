//! The links' thread: the listener, one task for each node that is dialed, one for each connection that is served.

mod dial;
mod serve;
mod tls;

use super::port::{FromLinks, Inbox, LinksHandle, NewPeer, Peers, Waker};
use crate::cold::registry::{NodeList, OnNodes};
use crate::ops::metrics::{self, LinksMetrics};
use compact_str::CompactString;
use serve::Received;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
pub use tls::{LinkTls, TlsFiles};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};

/// Time for a connection to be made and for a greeting.
const GREETING_MAX: Duration = Duration::from_secs(1);
/// How often what is waiting is counted.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// Pause after a connection that could not be accepted: descriptors are short.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What links need to know of their node.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// Where to listen.
    pub listen: SocketAddr,
    /// The fleet; nodes of another are refused.
    pub fleet: CompactString,
    /// This node's name.
    pub node_id: CompactString,
    /// Which life of it this is.
    pub incarnation: u64,
    /// Its shards.
    pub shards: u16,
}

/// What all tasks share.
struct Core {
    config: LinkConfig,
    peers: Arc<Peers>,
    inboxes: Mutex<Vec<Option<Arc<Inbox>>>>,
    received: Mutex<HashMap<CompactString, Received>>,
    /// Where each node is, as its lease says.
    nodes: watch::Receiver<Arc<NodeList>>,
    /// Without it links are plain TCP.
    tls: Option<Arc<LinkTls>>,
    metrics: Arc<metrics::Registry>,
}

impl Core {
    fn metrics(&self) -> &LinksMetrics {
        self.metrics.links()
    }

    fn inboxes(&self) -> std::sync::MutexGuard<'_, Vec<Option<Arc<Inbox>>>> {
        self.inboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says something to all shards.
    fn tell_all(&self, message: &FromLinks) {
        for inbox in self.inboxes().iter().flatten() {
            inbox.send(message.clone());
        }
    }

    /// Where a shard hears of it.
    fn inbox_of(&self, shard: u16) -> Option<Arc<Inbox>> {
        self.inboxes().get(usize::from(shard))?.clone()
    }
}

/// The node's end of its links.
pub struct Links {
    core: Arc<Core>,
    address: SocketAddr,
    nodes: watch::Sender<Arc<NodeList>>,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Links {
    /// Listens and starts the thread. Nobody is dialed before [`Self::nodes_seen`].
    ///
    /// # Errors
    /// The address cannot be listened on, or the system has no thread for it.
    pub fn start(
        config: LinkConfig,
        tls: Option<Arc<LinkTls>>,
        metrics: Arc<metrics::Registry>,
    ) -> std::io::Result<Self> {
        let listener = std::net::TcpListener::bind(config.listen)?;
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let address = listener.local_addr()?;
        let (peers, added) = Peers::new(config.node_id.clone());
        let (nodes, nodes_seen) = watch::channel(Arc::default());
        let core = Arc::new(Core {
            inboxes: Mutex::new((0..config.shards).map(|_| None).collect()),
            config,
            peers: Arc::new(peers),
            received: Mutex::default(),
            nodes: nodes_seen,
            tls,
            metrics,
        });
        let (stop, stopped) = oneshot::channel();
        let listener = {
            let _inside = runtime.enter();
            TcpListener::from_std(listener)?
        };
        let run = run(Arc::clone(&core), listener, added, stopped);
        let thread = std::thread::Builder::new().name("links".to_owned()).spawn(move || {
            runtime.block_on(run);
            runtime.shutdown_background();
        })?;
        Ok(Self {
            core,
            address,
            nodes,
            stop,
            thread,
        })
    }

    /// Where this node listens for others.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A shard's way to other nodes; `waker` wakes the shard.
    ///
    /// # Panics
    /// When there is no such shard.
    pub fn attach(&self, shard: u16, waker: Waker) -> LinksHandle {
        let handle = LinksHandle::new(waker, Arc::clone(&self.core.peers));
        self.core.inboxes()[usize::from(shard)] = Some(handle.inbox());
        handle
    }

    /// What tells the links which nodes are alive, and where.
    pub fn watcher(&self) -> OnNodes {
        let (nodes, peers) = (self.nodes.clone(), Arc::clone(&self.core.peers));
        Box::new(move |list| {
            for node in list.nodes().iter().filter(|node| !node.link_address.is_empty()) {
                peers.number_of(&node.node_id);
            }
            nodes.send_replace(Arc::clone(list));
        })
    }

    /// Ends the thread. The shards have ended; what still waits goes out if it can at once.
    pub fn shutdown(self) {
        // The thread may have ended by itself.
        let _ = self.stop.send(());
        // A panic there has ended the process.
        drop(self.thread.join());
    }
}

/// The life of the thread.
async fn run(
    core: Arc<Core>,
    listener: TcpListener,
    mut added: mpsc::UnboundedReceiver<NewPeer>,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut count = tokio::time::interval(COUNT_EVERY);
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            Some(peer) = added.recv() => {
                tokio::spawn(dial::Dial::new(Arc::clone(&core), peer).run());
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => {
                    tokio::spawn(serve::serve(Arc::clone(&core), stream, from));
                }
                Err(error) => {
                    tracing::warn!(%error, "links: a node cannot be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            _ = count.tick() => core.metrics().queue.set(core.peers.waiting() as u64),
        }
    }
    // What the shards wrote last, answers of a drain among it, is given to the sockets.
    tokio::time::sleep(Duration::from_millis(20)).await;
}
