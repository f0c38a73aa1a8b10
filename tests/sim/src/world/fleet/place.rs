//! Where a node's owners run: tasks, polled in the order of their numbers whenever something has happened, and simulated time.

use super::Common;
use dispatchd::cold::owner::Place;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// Tasks that something has happened for.
#[derive(Default)]
struct Ready(Mutex<BTreeSet<u64>>);

struct Woken {
    ready: Arc<Ready>,
    number: u64,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.ready.add(self.number);
    }
}

impl Ready {
    fn add(&self, number: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(number);
    }

    fn first(&self) -> Option<u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_first()
    }
}

/// See the module. A clone is another handle of the same place.
#[derive(Clone)]
pub(super) struct SimPlace {
    common: Rc<Common>,
    spawned: Rc<RefCell<Vec<Task>>>,
    /// Unix time minus simulated time.
    offset_us: u64,
}

impl SimPlace {
    pub(super) fn new(common: &Rc<Common>, offset_us: u64) -> Self {
        Self {
            common: Rc::clone(common),
            spawned: Rc::default(),
            offset_us,
        }
    }
}

impl Place for SimPlace {
    fn now(&self) -> Duration {
        Duration::from_micros(self.common.now_us())
    }

    fn wall_us(&self) -> u64 {
        self.common.now_us() + self.offset_us
    }

    fn sleep(&self, time: Duration) -> impl Future<Output = ()> {
        let (sent, done) = slot();
        self.common.later(time.as_micros() as u64, move || sent.fill(()));
        done
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.spawned.borrow_mut().push(Box::pin(task));
    }
}

/// Tasks of one place.
pub(super) struct Tasks {
    place: SimPlace,
    tasks: BTreeMap<u64, Task>,
    next: u64,
    ready: Arc<Ready>,
}

impl Tasks {
    pub(super) fn of(place: &SimPlace) -> Self {
        Self {
            place: place.clone(),
            tasks: BTreeMap::new(),
            next: 0,
            ready: Arc::default(),
        }
    }

    /// Goes on with every task for which something has happened, until there is none.
    pub(super) fn go_on(&mut self) {
        loop {
            let spawned = std::mem::take(&mut *self.place.spawned.borrow_mut());
            for task in spawned {
                self.next += 1;
                self.tasks.insert(self.next, task);
                self.ready.add(self.next);
            }
            let Some(number) = self.ready.first() else { return };
            let Some(task) = self.tasks.get_mut(&number) else {
                continue;
            };
            let waker = Waker::from(Arc::new(Woken {
                ready: Arc::clone(&self.ready),
                number,
            }));
            if task.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                self.tasks.remove(&number);
            }
        }
    }
}

/// What is given once, later.
struct Slot<T> {
    value: Option<T>,
    waker: Option<Waker>,
}

/// The giving end.
pub(super) struct Filler<T>(Rc<RefCell<Slot<T>>>);

/// The taking end.
pub(super) struct Filled<T>(Rc<RefCell<Slot<T>>>);

/// Two ends of one slot.
pub(super) fn slot<T>() -> (Filler<T>, Filled<T>) {
    let slot = Rc::new(RefCell::new(Slot {
        value: None,
        waker: None,
    }));
    (Filler(Rc::clone(&slot)), Filled(slot))
}

impl<T> Filler<T> {
    pub(super) fn fill(self, value: T) {
        let waker = {
            let mut slot = self.0.borrow_mut();
            slot.value = Some(value);
            slot.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Future for Filled<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let mut slot = self.0.borrow_mut();
        if let Some(value) = slot.value.take() {
            return Poll::Ready(value);
        }
        slot.waker = Some(context.waker().clone());
        Poll::Pending
    }
}
