//! A TCP proxy for one address, which lets bytes pass, or not, or others.

use crate::support::ports;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What becomes of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// They pass.
    Pass,
    /// They wait; connections stand.
    Stall,
    /// Connections are closed, and new ones at once.
    Cut,
}

/// The proxy; ends when dropped.
pub struct Proxy {
    pub address: SocketAddr,
    mode: watch::Sender<Mode>,
    /// Chunks of which one bit is turned.
    harm: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub fn start(to: SocketAddr) -> Self {
        let listener = ports::free_listener();
        let address = listener.local_addr().expect("its address");
        listener
            .set_nonblocking(true)
            .expect("a listener that waits for nobody");
        let listener = TcpListener::from_std(listener).expect("a listener of this runtime");
        let (mode, seen) = watch::channel(Mode::Pass);
        let harm = Arc::new(AtomicU64::new(0));
        let task = tokio::spawn(accept(listener, to, seen, Arc::clone(&harm)));
        Self {
            address,
            mode,
            harm,
            task,
        }
    }

    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Turns a bit of the next chunk towards the node.
    pub fn harm_once(&self) {
        self.harm.store(1, Ordering::SeqCst);
    }

    /// Whether that has been done.
    pub fn has_harmed(&self) -> bool {
        self.harm.load(Ordering::SeqCst) == 0
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, to: SocketAddr, mode: watch::Receiver<Mode>, harm: Arc<AtomicU64>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            return;
        };
        let (mode, harm) = (mode.clone(), Arc::clone(&harm));
        tokio::spawn(async move {
            let mut watched = mode.clone();
            if *watched.borrow_and_update() == Mode::Cut {
                return;
            }
            let Ok(far) = TcpStream::connect(to).await else {
                return;
            };
            for one in [&stream, &far] {
                one.set_nodelay(true).expect("an option");
            }
            let (near_read, near_write) = stream.into_split();
            let (far_read, far_write) = far.into_split();
            let there = carry(near_read, far_write, mode.clone(), Some(harm));
            let back = carry(far_read, near_write, mode, None);
            tokio::select! {
                () = there => {}
                () = back => {}
                _ = watched.wait_for(|mode| *mode == Mode::Cut) => {}
            }
        });
    }
}

async fn carry(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut mode: watch::Receiver<Mode>,
    harm: Option<Arc<AtomicU64>>,
) {
    let mut chunk = vec![0; 16 << 10];
    loop {
        let Ok(count @ 1..) = from.read(&mut chunk).await else {
            return;
        };
        if mode.wait_for(|mode| *mode != Mode::Stall).await.is_err() {
            return;
        }
        if let Some(harm) = &harm
            && harm.swap(0, Ordering::SeqCst) > 0
        {
            chunk[count / 2] ^= 1;
        }
        if to.write_all(&chunk[..count]).await.is_err() {
            return;
        }
    }
}
