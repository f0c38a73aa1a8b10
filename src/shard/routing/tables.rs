//! What a shard knows of other nodes: where drivers are, who has which request, which calls were passed on. Bounded, and
//! nothing in it is needed for a promise.

use crate::fsm::ids::{DriverId, RequestId, TripId};
use crate::fsm::request::ReplyTo;
use std::collections::VecDeque;
use std::collections::hash_map::DefaultHasher;
use std::hash::{BuildHasherDefault, Hash};

/// Entries of a [`Memory`] that are surely kept.
const MEMORY_LEN: usize = 32_768;
/// Calls are marked by this bit, so that they are not taken for those of the shard's own connections.
const PASSED: u64 = 1 << 63;
/// How long the answer to a call that was passed on is waited for.
pub(super) const PASSED_MAX_MS: u64 = 5_000;
/// Most calls that are passed on at once; what is beyond is answered 429.
const PASSED_MAX: usize = 16_384;

/// A table that is walked in an order which follows from what was done with it, so that a run can be repeated.
pub(in crate::shard) type Table<K, V> = std::collections::HashMap<K, V, BuildHasherDefault<DefaultHasher>>;

/// What requests here have of a driver elsewhere, as was said last; it may be over.
#[derive(Clone, Debug, Default)]
pub(super) struct Given {
    pub(super) offer: Option<RequestId>,
    /// Whose offers to a driver on a trip come and go says nothing of the trip.
    pub(super) trip: Option<RequestId>,
}

impl Given {
    /// The trip's first.
    pub(super) fn into_requests(self) -> impl Iterator<Item = RequestId> {
        self.trip.into_iter().chain(self.offer)
    }
}

/// Keeps what was used last: at least [`MEMORY_LEN`] entries, at most twice as many.
pub(super) struct Memory<K, V> {
    young: Table<K, V>,
    old: Table<K, V>,
}

impl<K: Hash + Eq + Clone, V: Clone> Memory<K, V> {
    pub(super) fn new() -> Self {
        Self {
            young: Table::default(),
            old: Table::default(),
        }
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= MEMORY_LEN && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    pub(super) fn get(&mut self, key: &K) -> Option<V> {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let value = self.old.remove(key)?;
        self.insert(key.clone(), value.clone());
        Some(value)
    }

    pub(super) fn remove(&mut self, key: &K) {
        self.young.remove(key);
        self.old.remove(key);
    }

    /// Keeps those of which this holds.
    pub(super) fn retain(&mut self, mut keeps: impl FnMut(&V) -> bool) {
        self.young.retain(|_, value| keeps(value));
        self.old.retain(|_, value| keeps(value));
    }

    /// Everything, in any order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.young.iter().chain(&self.old)
    }
}

/// Where a driver is that is not here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The node's number; `None`: elsewhere, nobody said where.
    pub(super) peer: Option<u16>,
    /// Under which session.
    pub(super) session: u64,
}

/// Where drivers are that are not here, as it was said last. Of two words the one with the greater session stands.
pub(super) struct Places {
    known: Memory<DriverId, Place>,
    /// Drivers whose last node does not know them any more, and their sessions there.
    lost: Memory<DriverId, u64>,
}

impl Places {
    pub(super) fn new() -> Self {
        Self {
            known: Memory::new(),
            lost: Memory::new(),
        }
    }

    pub(super) fn get(&mut self, driver_id: &DriverId) -> Option<Place> {
        self.known.get(driver_id)
    }

    /// Somebody says where a driver is.
    pub(super) fn learn(&mut self, driver_id: &DriverId, place: Place) {
        let is_older =
            |known: Place| known.session > place.session || (known.session == place.session && place.peer.is_none());
        if !self.known.get(driver_id).is_some_and(is_older) {
            self.known.insert(driver_id.clone(), place);
        }
    }

    /// The node where the driver was under this session does not know it any more. True: nothing newer was known.
    pub(super) fn lose(&mut self, driver_id: &DriverId, session: u64) -> bool {
        let is_it = self.known.get(driver_id).is_some_and(|known| known.session == session);
        if is_it {
            self.known.insert(driver_id.clone(), Place { peer: None, session });
            self.lost.insert(driver_id.clone(), session);
        }
        is_it
    }

    /// Of a driver whose last node does not know it any more, when nothing newer is known: its session there.
    pub(super) fn lost_since(&mut self, driver_id: &DriverId) -> Option<u64> {
        let place = self.get(driver_id)?;
        let is_it = place.peer.is_none() && self.lost.get(driver_id) == Some(place.session);
        is_it.then_some(place.session)
    }

    /// A node has begun anew: it does not know which of the drivers that it had are elsewhere, and would speak for them.
    pub(super) fn forget_node(&mut self, peer: u16) {
        self.known.retain(|place| place.peer != Some(peer));
    }

    /// The driver is here, or the registry knows of no place.
    pub(super) fn forget(&mut self, driver_id: &DriverId) {
        self.known.remove(driver_id);
        self.lost.remove(driver_id);
    }
}

/// Which nodes have the requests, and the trips, of which drivers here or their answers spoke.
pub(super) struct Owners {
    requests: Memory<RequestId, u16>,
    /// A trip lasts longer; whenever its driver speaks of it, it is learned anew.
    trips: Memory<TripId, u16>,
}

impl Owners {
    pub(super) fn new() -> Self {
        Self {
            requests: Memory::new(),
            trips: Memory::new(),
        }
    }

    pub(super) fn learn(&mut self, request_id: RequestId, trip_id: Option<TripId>, peer: u16) {
        self.requests.insert(request_id, peer);
        if let Some(trip_id) = trip_id {
            self.trips.insert(trip_id, peer);
        }
    }

    /// The node that was known for a request does not have it, perhaps.
    pub(super) fn forget(&mut self, request_id: &RequestId) {
        self.requests.remove(request_id);
    }

    pub(super) fn of_request(&mut self, request_id: &RequestId) -> Option<u16> {
        self.requests.get(request_id)
    }

    pub(super) fn of_trip(&mut self, trip_id: &TripId) -> Option<u16> {
        self.trips.get(trip_id)
    }
}

/// Calls that were passed on to where they can be answered, and who waits for the answer.
pub(super) struct Passed {
    waiting: Table<u64, ReplyTo>,
    due: VecDeque<(u64, u64)>,
    next: u64,
}

impl Passed {
    /// Numbers begin at another place in each life of the node: an answer to an earlier one means nobody.
    pub(super) fn new(incarnation: u64) -> Self {
        Self {
            waiting: Table::default(),
            due: VecDeque::new(),
            next: (incarnation & 0xff_ffff) << 38,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= PASSED_MAX
    }

    /// The number under which the answer to `reply` comes back.
    pub(super) fn begin(&mut self, reply: ReplyTo, now_ms: u64) -> u64 {
        self.next += 1;
        let call = PASSED | self.next;
        self.waiting.insert(call, reply);
        self.due.push_back((now_ms + PASSED_MAX_MS, call));
        call
    }

    /// Whether a call's number is one of these.
    pub(super) fn is_passed(call: u64) -> bool {
        call & PASSED != 0
    }

    /// Who waits for this answer; nobody any more when it comes too late.
    pub(super) fn end(&mut self, call: u64) -> Option<ReplyTo> {
        self.waiting.remove(&call)
    }

    /// The next call whose time is over.
    pub(super) fn overdue(&mut self, now_ms: u64) -> Option<ReplyTo> {
        loop {
            let (due_ms, call) = *self.due.front()?;
            if due_ms > now_ms && self.waiting.contains_key(&call) {
                return None;
            }
            self.due.pop_front();
            if let Some(reply) = self.waiting.remove(&call) {
                return Some(reply);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn driver(number: usize) -> DriverId {
        DriverId::parse(&format!("d-{number}")).unwrap()
    }

    #[test]
    fn what_was_used_last_is_remembered() {
        let mut memory = Memory::new();
        for number in 0..3 * MEMORY_LEN {
            memory.insert(number, number);
            assert_eq!(memory.get(&0), Some(0), "{number}");
        }
        assert_eq!(memory.get(&(2 * MEMORY_LEN + 1)), Some(2 * MEMORY_LEN + 1));
        assert_eq!(memory.get(&1), None);
        assert!(memory.young.len() + memory.old.len() <= 2 * MEMORY_LEN);
    }

    #[test]
    fn the_later_session_says_where_a_driver_is() {
        let mut places = Places::new();
        let place = |peer, session| Place { peer, session };
        places.learn(&driver(1), place(Some(1), 10));
        places.learn(&driver(1), place(Some(2), 9));
        assert_eq!(places.get(&driver(1)), Some(place(Some(1), 10)));
        places.learn(&driver(1), place(None, 10));
        assert_eq!(places.get(&driver(1)), Some(place(Some(1), 10)));
        places.learn(&driver(1), place(None, 11));
        assert_eq!(places.get(&driver(1)), Some(place(None, 11)));
        places.learn(&driver(1), place(Some(3), 11));
        assert_eq!(places.get(&driver(1)), Some(place(Some(3), 11)));
        places.learn(&driver(2), place(Some(3), 1));
        places.learn(&driver(3), place(Some(2), 1));
        places.forget_node(3);
        assert_eq!((places.get(&driver(1)), places.get(&driver(2))), (None, None));
        places.forget(&driver(3));
        assert_eq!(places.get(&driver(3)), None);
    }

    #[test]
    fn a_call_is_answered_once_or_given_up() {
        let mut passed = Passed::new(3);
        let reply = |call| ReplyTo {
            node: 0,
            shard: 0,
            call,
        };
        let first = passed.begin(reply(1), 0);
        let second = passed.begin(reply(2), 10);
        assert!(Passed::is_passed(first) && first != second && !Passed::is_passed(1));
        assert_eq!(passed.end(first), Some(reply(1)));
        assert_eq!(passed.end(first), None);
        assert_eq!(passed.overdue(PASSED_MAX_MS + 9), None);
        assert_eq!(passed.overdue(PASSED_MAX_MS + 10), Some(reply(2)));
        assert_eq!(passed.overdue(u64::MAX), None);
        assert_ne!(
            Passed::new(4).begin(reply(1), 0),
            first,
            "another life has other numbers"
        );
    }
}
