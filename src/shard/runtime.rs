//! glommio: places and pins the shards' threads and runs their housekeeping, segment files above all.
//!
//! A shard's loop is the executor's main task and sleeps in its net ring; it yields to the executor only while a
//! housekeeping job is under way, so an offer never passes through glommio's scheduler or reactor.

use crate::journal::SegmentHeader;
use crate::journal::segments;
use glommio::channels::local_channel::{self, LocalReceiver, LocalSender};
use glommio::{ExecutorJoinHandle, GlommioError, LocalExecutorBuilder, Placement};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

/// Memory for glommio's own I/O buffers, bytes: enough for the housekeeping of one segment at a time.
const IO_MEMORY_BYTES: usize = 64 << 10;
/// Depth of glommio's rings.
const RING_DEPTH: usize = 128;
/// How soon a busy executor looks at other tasks.
const PREEMPT: Duration = Duration::from_millis(1);

/// Work for the housekeeping task.
pub(super) enum Job {
    /// Makes a segment.
    Create(SegmentHeader),
    /// Deletes segments, in this order.
    Remove(Vec<u64>),
}

/// Its result.
pub(super) enum Done {
    Created(u64, io::Result<File>),
    Removed(io::Result<()>),
}

/// The shard's end of its one housekeeping task.
pub(super) struct Housekeeper {
    jobs: LocalSender<Job>,
    done: Rc<RefCell<VecDeque<Done>>>,
    under_way: Rc<Cell<usize>>,
}

impl Housekeeper {
    /// Starts the task. Call on the shard's executor.
    pub(super) fn start(dir: PathBuf) -> Self {
        let (jobs, queue) = local_channel::new_unbounded();
        let done = Rc::new(RefCell::new(VecDeque::new()));
        glommio::spawn_local(keep_house(dir, queue, Rc::clone(&done))).detach();
        Self {
            jobs,
            done,
            under_way: Rc::new(Cell::new(0)),
        }
    }

    pub(super) fn send(&self, job: Job) {
        self.under_way.set(self.under_way.get() + 1);
        // The receiver lives as long as the executor.
        let sent = self.jobs.try_send(job);
        assert!(sent.is_ok(), "the housekeeping task lives as long as its shard");
    }

    /// Whether the executor must get its turns.
    pub(super) fn is_busy(&self) -> bool {
        self.under_way.get() > 0
    }

    pub(super) fn take(&self) -> Option<Done> {
        let done = self.done.borrow_mut().pop_front()?;
        self.under_way.set(self.under_way.get() - 1);
        Some(done)
    }
}

async fn keep_house(dir: PathBuf, queue: LocalReceiver<Job>, done: Rc<RefCell<VecDeque<Done>>>) {
    while let Some(job) = queue.recv().await {
        let result = match job {
            Job::Create(header) => Done::Created(header.segment, segments::create(&dir, &header).await),
            Job::Remove(ids) => Done::Removed(segments::remove(&dir, &ids).await),
        };
        done.borrow_mut().push_back(result);
    }
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
    LocalExecutorBuilder::new(placement)
        .name(&format!("shard-{index}"))
        .io_memory(IO_MEMORY_BYTES)
        .ring_depth(RING_DEPTH)
        .preempt_timer(PREEMPT)
        .spawn(main)
}
