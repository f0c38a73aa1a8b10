//! The disk behind the file system: takes its time to make things durable, and loses power.
//!
//! A sync is answered only when its time is up, by a thread of its own, several in any order: so a power cut finds writes in
//! flight, which may survive in part. After the cut everything fails until the power is back.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fuser::{Errno, ReplyEmpty, ReplyWrite};

use crate::file::{ChangeId, Losses};
use crate::tree::{Ino, Tree};

/// Longest time that the disk takes to make something durable, µs; the mean is half of it.
const SYNC_US_MAX: u64 = 800;
/// Longest sleep of the disk's thread without work.
const IDLE: Duration = Duration::from_secs(1);

/// Whether the disk keeps its word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Honesty {
    /// What is answered as durable is durable.
    Honest,
    /// Answers writes to files that were opened `O_DSYNC` or `O_SYNC` at once, and loses them at the next cut, as a disk does whose
    /// cache is volatile and who ignores that it must not be. All else is kept as promised.
    Lying,
}

/// What the disk was asked since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Writes that had to be durable when answered (`O_DSYNC`, `O_SYNC`).
    pub writes_durable: u64,
    /// Those among them that were direct (`O_DIRECT`).
    pub writes_direct: u64,
    /// Writes that had not.
    pub writes_volatile: u64,
    /// `fsync` and `fdatasync` of files.
    pub syncs: u64,
    /// `fsync` of directories.
    pub dir_syncs: u64,
    /// Syncs and durable writes under way when the power went.
    pub cut_in_flight: u64,
    /// Power cuts.
    pub cuts: u64,
    /// What was lost in them.
    pub losses: Losses,
}

/// Something to be made durable, and who waits for it.
pub(crate) enum Task {
    Write {
        ino: Ino,
        change: ChangeId,
        bytes: u32,
        reply: ReplyWrite,
    },
    Sync {
        ino: Ino,
        through: ChangeId,
        reply: ReplyEmpty,
    },
}

impl Task {
    fn fail(self) {
        match self {
            Self::Write { reply, .. } => reply.error(Errno::EIO),
            Self::Sync { reply, .. } => reply.error(Errno::EIO),
        }
    }

    fn answer(self) {
        match self {
            Self::Write { reply, bytes, .. } => reply.written(bytes),
            Self::Sync { reply, .. } => reply.ok(),
        }
    }
}

/// All state, under one lock.
pub(crate) struct State {
    pub(crate) tree: Tree,
    pub(crate) counts: Counts,
    honesty: Honesty,
    powered: bool,
    ended: bool,
    /// Somebody waits for a task, to cut the power in the middle of it.
    watched: bool,
    /// By the time at which each is done, and its number.
    tasks: BTreeMap<(Instant, u64), Task>,
    task_next: u64,
}

impl State {
    /// Whether anything works.
    pub(crate) fn is_powered(&self) -> bool {
        self.powered
    }
}

/// The disk, shared by the file system's sessions, its own thread and the test.
#[derive(Clone)]
pub(crate) struct Disk {
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl Disk {
    /// An empty one, with power.
    pub(crate) fn new(seed: u64, honesty: Honesty) -> Self {
        let state = State {
            tree: Tree::new(seed),
            counts: Counts::default(),
            honesty,
            powered: true,
            ended: false,
            watched: false,
            tasks: BTreeMap::new(),
            task_next: 0,
        };
        Self {
            shared: Arc::new((Mutex::new(state), Condvar::new())),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to make something durable; `dsync` says whether it is of a file that was opened `O_DSYNC`.
    pub(crate) fn begin(&self, mut state: MutexGuard<'_, State>, task: Task, dsync: bool) {
        if dsync && state.honesty == Honesty::Lying {
            if let Task::Write { ino, change, .. } = &task {
                state.tree.doom_write(*ino, *change);
            }
            drop(state);
            return task.answer();
        }
        let takes = Duration::from_micros(state.tree.random(SYNC_US_MAX));
        state.task_next += 1;
        let key = (Instant::now() + takes, state.task_next);
        state.tasks.insert(key, task);
        if std::mem::take(&mut state.watched) {
            let tasks = lose_power(&mut state);
            drop(state);
            tasks.into_values().for_each(Task::fail);
        }
        self.shared.1.notify_all();
    }

    /// Starts the thread that makes things durable.
    pub(crate) fn run(&self) -> std::io::Result<JoinHandle<()>> {
        let disk = self.clone();
        let thread = std::thread::Builder::new().name("platter".into());
        thread.spawn(move || disk.work())
    }

    fn work(&self) {
        let mut state = self.lock();
        while !state.ended {
            let now = Instant::now();
            match state.tasks.first_entry() {
                Some(first) if first.key().0 <= now => {
                    let task = first.remove();
                    match &task {
                        Task::Write { ino, change, .. } => state.tree.sync_write(*ino, *change),
                        Task::Sync { ino, through, .. } => state.tree.sync_through(*ino, *through),
                    }
                    task.answer();
                }
                first => {
                    let wait = first.map_or(IDLE, |first| first.key().0 - now);
                    let waited = self.shared.1.wait_timeout(state, wait);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }

    /// The power goes: what is under way fails, and from now on everything does. Waits up to `patience` for a moment in which
    /// something is under way.
    pub(crate) fn power_off(&self, patience: Duration) {
        let give_up = Instant::now() + patience;
        let mut state = self.lock();
        state.watched = state.tasks.is_empty();
        while state.watched {
            let left = give_up.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self
                .shared
                .1
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        state.watched = false;
        let tasks = lose_power(&mut state);
        drop(state);
        tasks.into_values().for_each(Task::fail);
    }

    /// The power is back: what survived is what there is.
    pub(crate) fn power_on(&self) -> Losses {
        let mut state = self.lock();
        assert!(!state.powered, "the power was off");
        let losses = state.tree.cut();
        state.counts.cuts += 1;
        state.counts.losses.add(losses);
        state.powered = true;
        losses
    }

    /// Ends the disk's thread.
    pub(crate) fn end(&self) {
        self.lock().ended = true;
        self.shared.1.notify_all();
    }
}

fn lose_power(state: &mut State) -> BTreeMap<(Instant, u64), Task> {
    state.powered = false;
    let tasks = std::mem::take(&mut state.tasks);
    state.counts.cut_in_flight += tasks.len() as u64;
    tasks
}
