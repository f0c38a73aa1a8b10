//! TCP proxies between the processes of a stage, each connection of which passes, stalls or is cut, as its owner is dealt with.
//!
//! A connection's owner is the dispatchd node that opened it. It is told by the kernel's tables: the socket with the other
//! end's port, and whose descriptor that is. So one proxy in front of a service is enough for a fault of one node alone, also
//! where nodes find the service's addresses by themselves.
#![forbid(unsafe_code)]

use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OnceCell, watch};
use tokio::task::AbortHandle;

/// What becomes of a connection's bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flow {
    /// They arrive.
    #[default]
    Pass,
    /// They wait, and so do new connections: what a network does that loses everything.
    Stall,
    /// Connections are reset, and so are new ones.
    Cut,
}

/// Whose connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Everybody's.
    All,
    /// Those that this node opened, counted from 0.
    Node(usize),
}

/// Pids of the nodes, by which owners are found; `None`: it does not run.
pub type Pids = Arc<Mutex<Vec<Option<u32>>>>;

/// Most nodes.
const NODES_MAX: usize = 3;

/// How each node's connections are dealt with.
#[derive(Clone, Copy, Debug)]
struct Rules {
    nodes: [Flow; NODES_MAX],
    /// Of connections whose owner is not found.
    others: Flow,
}

/// A connection, and whose it is, once somebody had to know: the kernel's tables are long on a busy machine.
struct Connection {
    peer: SocketAddr,
    own: SocketAddr,
    pids: Pids,
    owner: OnceCell<Option<usize>>,
}

impl Connection {
    async fn flow(&self, rules: Rules) -> Flow {
        if rules.nodes.iter().all(|flow| *flow == rules.others) {
            return rules.others;
        }
        let find = || async {
            let (peer, own, pids) = (self.peer, self.own, Arc::clone(&self.pids));
            let found = tokio::task::spawn_blocking(move || owner_of(peer, own, &pids)).await;
            found.unwrap_or(None)
        };
        rules.of(*self.owner.get_or_init(find).await)
    }
}

impl Rules {
    fn of(self, owner: Option<usize>) -> Flow {
        owner
            .and_then(|owner| self.nodes.get(owner))
            .copied()
            .unwrap_or(self.others)
    }
}

/// A listener whose connections go on to one address. It ends when dropped, with all connections.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    rules: watch::Sender<Rules>,
    accepts: AbortHandle,
}

/// Bytes taken over at once.
const CHUNK_BYTES: usize = 16 << 10;
/// For an address that is still in use.
const BIND_TRIES: u32 = 50;
const BIND_PAUSE: Duration = Duration::from_millis(100);
/// The kernel's table is read in pieces, between which sockets come and go, and one that is there all the time may be left out.
const TABLE_READS: u32 = 5;
/// How long a connection to the service may take.
const CONNECT_MAX: Duration = Duration::from_secs(2);

impl Proxy {
    /// Listens on `listen` (port 0: any) for connections to `target`.
    ///
    /// # Errors
    /// The address cannot be had.
    pub async fn start(listen: SocketAddrV4, target: SocketAddrV4, pids: &Pids) -> io::Result<Self> {
        let listener = bind(listen).await?;
        let address = listener.local_addr()?;
        let rules = watch::Sender::new(Rules {
            nodes: [Flow::Pass; NODES_MAX],
            others: Flow::Pass,
        });
        let accepts = tokio::spawn(accept(listener, target.into(), rules.subscribe(), Arc::clone(pids)));
        Ok(Self {
            address,
            rules,
            accepts: accepts.abort_handle(),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Deals so with connections from now on, those that are open among them.
    pub fn set(&self, whose: Whose, flow: Flow) {
        self.rules.send_modify(|rules| match whose {
            Whose::All => {
                rules.nodes.fill(flow);
                rules.others = flow;
            }
            Whose::Node(node) => rules.nodes[node] = flow,
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The connections' tasks see that the rules are gone.
        self.accepts.abort();
    }
}

/// Binds, after the listener of an earlier proxy is gone, which ends soon after it was dropped.
async fn bind(address: SocketAddrV4) -> io::Result<TcpListener> {
    for _ in 0..BIND_TRIES {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => tokio::time::sleep(BIND_PAUSE).await,
            bound => return bound,
        }
    }
    TcpListener::bind(address).await
}

async fn accept(listener: TcpListener, target: SocketAddr, rules: watch::Receiver<Rules>, pids: Pids) {
    loop {
        // Out of descriptors for a moment, or a peer that is gone already.
        let Ok((socket, peer)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let Ok(own) = socket.local_addr() else { continue };
        let connection = Connection {
            peer,
            own,
            pids: Arc::clone(&pids),
            owner: OnceCell::new(),
        };
        let rules = rules.clone();
        tokio::spawn(async move {
            // Whatever ends it, both ends are reset: nobody's FIN was seen by then, or it was passed on.
            let _ = carry(socket, target, &connection, rules).await;
        });
    }
}

/// One connection, to its end.
async fn carry(
    near: TcpStream,
    target: SocketAddr,
    connection: &Connection,
    mut rules: watch::Receiver<Rules>,
) -> io::Result<()> {
    reset_when_dropped(&near)?;
    until_passes(&mut rules, connection).await?;
    let far = tokio::time::timeout(CONNECT_MAX, TcpStream::connect(target)).await??;
    reset_when_dropped(&far)?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let (near, far) = (near.into_split(), far.into_split());
    let there = pump(near.0, far.1, connection, rules.clone());
    let back = pump(far.0, near.1, connection, rules);
    tokio::try_join!(there, back).map(drop)
}

/// A connection that is cut is reset, not ended politely.
fn reset_when_dropped(socket: &TcpStream) -> io::Result<()> {
    Ok(rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO))?)
}

/// Copies one direction until its end is passed on.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    connection: &Connection,
    mut rules: watch::Receiver<Rules>,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        until_passes(&mut rules, connection).await?;
        let count = tokio::select! {
            count = from.read(&mut buffer) => count?,
            changed = rules.changed() => {
                changed.map_err(|_| cut())?;
                continue;
            }
        };
        // What was read before a stall arrives after it.
        until_passes(&mut rules, connection).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..count]).await?;
    }
}

/// Waits while the owner's connections stall.
///
/// # Errors
/// They are cut.
async fn until_passes(rules: &mut watch::Receiver<Rules>, connection: &Connection) -> io::Result<()> {
    loop {
        let now = *rules.borrow_and_update();
        match connection.flow(now).await {
            Flow::Pass => return Ok(()),
            Flow::Cut => return Err(cut()),
            Flow::Stall => rules.changed().await.map_err(|_| cut())?,
        }
    }
}

fn cut() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

/// The node whose socket has this address and is connected to that one.
fn owner_of(peer: SocketAddr, own: SocketAddr, pids: &Pids) -> Option<usize> {
    let (SocketAddr::V4(peer), SocketAddr::V4(own)) = (peer, own) else {
        return None;
    };
    let read = || inode_of(&std::fs::read_to_string("/proc/net/tcp").ok()?, peer, own);
    let inode = (0..TABLE_READS).find_map(|_| read())?;
    let link = format!("socket:[{inode}]");
    let pids = pids.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let has = |pid: u32| {
        let open = std::fs::read_dir(format!("/proc/{pid}/fd"));
        let mut open = open.into_iter().flatten().flatten();
        open.any(|entry| std::fs::read_link(entry.path()).is_ok_and(|to| to.as_os_str() == link.as_str()))
    };
    pids.into_iter().position(|pid| pid.is_some_and(has))
}

/// The inode of the socket with these addresses in the kernel's table (`proc_net_tcp.rst`: addresses in hexadecimal, the
/// IPv4 address as a number in the machine's order). Many sockets may have one local address: those that wait after their end among them.
fn inode_of(table: &str, local: SocketAddrV4, remote: SocketAddrV4) -> Option<u64> {
    let shown = |address: SocketAddrV4| {
        let number = u32::from_ne_bytes(address.ip().octets());
        format!("{number:08X}:{:04X}", address.port())
    };
    let wanted = format!(" {} {} ", shown(local), shown(remote));
    let line = table.lines().find(|line| line.contains(&wanted))?;
    line.split_ascii_whitespace().nth(9)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const ANY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);

    /// A server that sends back what it gets, behind a proxy that knows this process as node 1.
    async fn echo() -> (Proxy, Pids) {
        let listener = TcpListener::bind(ANY).await.unwrap();
        let SocketAddr::V4(target) = listener.local_addr().unwrap() else {
            unreachable!("it was bound to IPv4")
        };
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = socket.split();
                    tokio::io::copy(&mut from, &mut to).await
                });
            }
        });
        let pids: Pids = Arc::new(Mutex::new(vec![None, Some(std::process::id()), None]));
        (Proxy::start(ANY, target, &pids).await.unwrap(), pids)
    }

    async fn answers(socket: &mut TcpStream) -> io::Result<()> {
        socket.write_all(b"x").await?;
        let mut byte = [0];
        socket.read_exact(&mut byte).await.map(drop)
    }

    #[tokio::test]
    async fn a_connection_passes_stalls_goes_on_and_is_cut() {
        let (proxy, _pids) = echo().await;
        let mut socket = TcpStream::connect(proxy.address()).await.unwrap();
        answers(&mut socket).await.unwrap();
        proxy.set(Whose::Node(1), Flow::Stall);
        socket.write_all(b"late").await.unwrap();
        let mut four = [0; 4];
        // Nothing may come: there is no event to wait for.
        let early = tokio::time::timeout(Duration::from_millis(50), socket.read_exact(&mut four)).await;
        assert!(early.is_err(), "it was passed on");
        proxy.set(Whose::Node(1), Flow::Pass);
        socket.read_exact(&mut four).await.unwrap();
        assert_eq!(&four, b"late");
        proxy.set(Whose::All, Flow::Cut);
        assert!(answers(&mut socket).await.is_err());
        let again = TcpStream::connect(proxy.address()).await;
        if let Ok(mut socket) = again {
            assert!(answers(&mut socket).await.is_err());
        }
        proxy.set(Whose::All, Flow::Pass);
        let mut socket = TcpStream::connect(proxy.address()).await.unwrap();
        answers(&mut socket).await.unwrap();
    }

    #[tokio::test]
    async fn others_are_left_alone() {
        let (proxy, pids) = echo().await;
        proxy.set(Whose::Node(0), Flow::Cut);
        proxy.set(Whose::Node(2), Flow::Stall);
        let mut socket = TcpStream::connect(proxy.address()).await.unwrap();
        answers(&mut socket).await.unwrap();
        // A new connection of a node that is cut off.
        pids.lock().unwrap().swap(0, 1);
        let mut other = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(answers(&mut other).await.is_err());
        answers(&mut socket).await.unwrap();
    }

    #[test]
    fn sockets_are_found_in_the_kernel_s_table() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                     0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 123 1 0000\n   \
                     1: 0100007F:C350 0100007F:0050 06 00000000:00000000 03:00001770 00000000     0        0 0 3 0000\n   \
                     2: 0100007F:C350 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 456 1 0000\n";
        let at = |port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        assert_eq!(inode_of(table, at(50000), at(8080)), Some(456));
        assert_eq!(inode_of(table, at(1), at(8080)), None);
        assert_eq!(inode_of(table, at(50000), at(81)), None);
    }
}
