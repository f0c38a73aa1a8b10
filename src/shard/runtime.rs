//! glommio: places and pins the shards' threads, and runs the node's housekeeping (segment files) on an executor of
//! its own.
//!
//! A shard's loop is its executor's only task and never yields: it sleeps in the net ring, so an offer never passes
//! through glommio's scheduler or reactor. Zeroing a segment costs milliseconds of a core, which no shard is to pay.
//!
//! glommio 0.9.0 parks for good with a runnable task when its preempt timer expires between polling I/O and running
//! tasks (`run_task_queues` answers "nothing ran"); a busy machine does that within minutes at 1 ms. No task here
//! needs to be preempted, so the timer is set where it never expires.
#![forbid(unsafe_code)]

use super::platform::{Done, Files, Job};
use crate::journal::segments;
use crate::net::Waker;
use glommio::{ExecutorJoinHandle, GlommioError, LocalExecutorBuilder, Placement};
use std::fs::File;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// Memory for glommio's own I/O buffers, bytes: enough for one segment at a time.
const IO_MEMORY_BYTES: usize = 64 << 10;
/// Depth of glommio's rings.
const RING_DEPTH: usize = 128;
/// See above.
const PREEMPT: Duration = Duration::from_secs(3_600);

struct Order {
    job: Job,
    dir: PathBuf,
    done: Sender<Done<File>>,
    waker: Waker,
}

/// The node's housekeeping thread; ends when the last clone of its [`Orders`] is gone.
#[derive(Clone, Debug)]
pub(crate) struct Orders(Sender<Order>);

/// Starts the housekeeping thread.
///
/// # Errors
/// When the thread or glommio's rings cannot be made.
pub(crate) fn start_housekeeping() -> Result<(Orders, ExecutorJoinHandle<()>), GlommioError<()>> {
    let (orders, queue) = channel();
    let thread = builder(Placement::Unbound, "housekeeping").spawn(move || keep_house(queue))?;
    Ok((Orders(orders), thread))
}

async fn keep_house(queue: Receiver<Order>) {
    // The only task of its executor may block for work.
    while let Ok(Order { job, dir, done, waker }) = queue.recv() {
        let result = match job {
            Job::Create(header) => Done::Created(header.segment, segments::create(&dir, &header).await),
            Job::Remove(ids) => Done::Removed(segments::remove(&dir, &ids).await),
        };
        // A shard that has ended does not wait for this.
        if done.send(result).is_ok() {
            waker.wake();
        }
    }
}

/// A shard's way to the housekeeping thread.
#[derive(Debug)]
pub struct Housekeeper {
    orders: Orders,
    dir: PathBuf,
    sender: Sender<Done<File>>,
    done: Receiver<Done<File>>,
    waker: Waker,
}

impl Housekeeper {
    /// `dir` is the journal of the shard whose ring `waker` wakes.
    pub(crate) fn new(orders: Orders, dir: PathBuf, waker: Waker) -> Self {
        let (sender, done) = channel();
        Self {
            orders,
            dir,
            sender,
            done,
            waker,
        }
    }
}

impl Files for Housekeeper {
    type File = File;

    fn send(&self, job: Job) {
        let (dir, done, waker) = (self.dir.clone(), self.sender.clone(), self.waker.clone());
        let sent = self.orders.0.send(Order { job, dir, done, waker });
        assert!(sent.is_ok(), "the housekeeping thread outlives the shards");
    }

    fn take(&self) -> Option<Done<File>> {
        self.done.try_recv().ok()
    }
}

fn builder(placement: Placement, name: &str) -> LocalExecutorBuilder {
    LocalExecutorBuilder::new(placement)
        .name(name)
        .io_memory(IO_MEMORY_BYTES)
        .ring_depth(RING_DEPTH)
        .preempt_timer(PREEMPT)
}

/// Starts a shard's thread; `main` makes its main task there.
///
/// # Errors
/// When the thread or glommio's rings cannot be made.
pub(crate) fn spawn<F>(
    index: u16,
    pin: bool,
    main: impl FnOnce() -> F + Send + 'static,
) -> Result<ExecutorJoinHandle<()>, GlommioError<()>>
where
    F: Future<Output = ()> + 'static,
{
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let placement = if pin {
        Placement::Fixed(usize::from(index) % cores)
    } else {
        Placement::Unbound
    };
    builder(placement, &format!("shard-{index}")).spawn(main)
}
