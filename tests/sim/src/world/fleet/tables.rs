//! The tables that all nodes share, and a node's way to them. A call takes place as a whole, at one instant; its answer may get lost, and
//! the call then has taken place, has not, or does so when nobody waits for it any more.

use super::place::slot;
use super::{Common, Dice};
use crate::world::store::Place;
use compact_str::CompactString;
use dispatchd::cold::StoreError;
use dispatchd::cold::claims::Head;
use dispatchd::cold::owner::{Before, Binding, Failed, Found, FoundHead, FoundRow, OwnerRow, Ownership, Steps, Tables};
use dispatchd::fsm::ids::{DriverId, RequestId, TripId};
use dispatchd::fsm::types::{LogEntry, RecordRow, UnixMs};
use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Of calls without an answer, so many in a thousand had not arrived, and so many arrive late.
const NOT_ARRIVED_PERMILLE: u32 = 350;
const LATE_PERMILLE: u32 = 150;

/// A row that is written and deleted with times: the later one stands, of two at once the deletion.
#[derive(Clone, Copy, Debug, Default)]
struct Dated {
    added_us: i64,
    removed_us: i64,
}

impl Dated {
    fn is_there(self) -> bool {
        self.added_us > self.removed_us
    }
}

/// Who has a request.
struct Owned {
    owner: CompactString,
    incarnation: u64,
    epoch: u32,
    length: u32,
    head: Head,
}

#[derive(Default)]
struct Request {
    owned: Option<Owned>,
    rows: BTreeMap<(u32, u32), FoundRow>,
}

/// A record and the node that wrote it.
type Recorded = (RecordRow, CompactString);

/// What stands in the tables.
#[derive(Default)]
pub(super) struct Data {
    requests: BTreeMap<RequestId, Request>,
    bindings: BTreeMap<DriverId, RequestId>,
    trips: BTreeMap<TripId, RequestId>,
    open: BTreeMap<(String, i64), BTreeMap<RequestId, Dated>>,
    buckets: BTreeMap<String, BTreeMap<i64, Dated>>,
    beats: BTreeMap<String, i64>,
    records: BTreeMap<DriverId, BTreeMap<Place, Recorded>>,
}

impl Data {
    fn found(&self, id: &RequestId) -> Result<Option<Found>, Failed> {
        let Some(request) = self.requests.get(id) else {
            return Ok(None);
        };
        let owned = request.owned.as_ref();
        let head = FoundHead {
            owner: owned.map(|owned| owned.owner.clone()),
            incarnation: owned.map_or(0, |owned| owned.incarnation),
            epoch: owned.map_or(0, |owned| owned.epoch),
            length: owned.map(|owned| owned.length),
            trip_id: owned.and_then(|owned| owned.head.trip_id.clone()),
            ended_at_ms: owned.and_then(|owned| owned.head.ended_at_ms),
        };
        let rows = request.rows.values().cloned().collect();
        Ok(Found::of(id, rows, head)?)
    }

    fn owned(&self, id: &RequestId) -> Option<&Owned> {
        self.requests.get(id)?.owned.as_ref()
    }

    fn write(&mut self, id: &RequestId, row: FoundRow) {
        let request = self.requests.entry(id.clone()).or_default();
        request.rows.insert((row.epoch, row.seq), row);
    }
}

/// A node's end of the tables, in one life of it.
#[derive(Clone)]
pub(super) struct SimTables {
    common: Rc<Common>,
    data: Rc<RefCell<Data>>,
    node: u8,
    name: CompactString,
    alive: Rc<Cell<bool>>,
}

impl SimTables {
    pub(super) fn new(
        common: &Rc<Common>,
        data: &Rc<RefCell<Data>>,
        node: u8,
        name: CompactString,
        alive: &Rc<Cell<bool>>,
    ) -> Self {
        Self {
            common: Rc::clone(common),
            data: Rc::clone(data),
            node,
            name,
            alive: Rc::clone(alive),
        }
    }

    /// Whether they answer.
    pub(super) async fn probe(&self) -> Result<(), Failed> {
        self.ask(|_| ()).await
    }

    async fn ask<R: 'static>(&self, act: impl FnOnce(&mut Data) -> R + 'static) -> Result<R, Failed> {
        self.ask_with(Dice::All, act).await
    }

    async fn ask_with<R: 'static>(&self, dice: Dice, act: impl FnOnce(&mut Data) -> R + 'static) -> Result<R, Failed> {
        let (sent, done) = slot();
        self.call(dice, act, move |result| sent.fill(result));
        done.await
    }

    /// Makes a call; `done` hears what became of it, unless the node is gone by then.
    fn call<R: 'static>(
        &self,
        dice: Dice,
        act: impl FnOnce(&mut Data) -> R + 'static,
        done: impl FnOnce(Result<R, Failed>) + 'static,
    ) {
        let common = &self.common;
        let timeout_us = common.config.fleet_cassandra_timeout_ms * 1_000;
        let answer = Answer {
            common: Rc::clone(common),
            node: self.node,
            alive: Rc::clone(&self.alive),
            done: Rc::new(RefCell::new(Some(Box::new(done)))),
        };
        let late = answer.clone();
        common.later(timeout_us, move || late.give(Err(Failed::unknown("no answer in time"))));
        let mut there_us = common.way_us_of(dice, &common.tables, common.plan.tables_us);
        let mut back_us = Some(common.way_us_of(dice, &common.tables, common.plan.tables_us));
        let lost_permille = if common.is_until(&common.lost) {
            common.lost_permille.get()
        } else {
            common.plan.tables_lost_permille
        };
        if common.chance(dice, lost_permille) {
            back_us = None;
            if common.chance(dice, NOT_ARRIVED_PERMILLE) {
                return;
            }
            if common.chance(dice, LATE_PERMILLE) {
                there_us += common.draw_of(dice, (timeout_us / 2, 3 * timeout_us));
            }
        }
        let (data, common, node) = (Rc::clone(&self.data), Rc::clone(common), self.node);
        let at_tables = move || {
            if !common.reaches(&common.tables, node) {
                if common.chance(dice, 500) {
                    answer.give(Err(Failed::unknown("nobody there")));
                }
                return;
            }
            let result = act(&mut data.borrow_mut());
            let Some(back_us) = back_us else { return };
            let here = Rc::clone(&common);
            common.later(back_us, move || {
                if here.reaches(&here.tables, node) {
                    answer.give(Ok(result));
                }
            });
        };
        self.common.later(there_us, at_tables);
    }
}

type Done<R> = Box<dyn FnOnce(Result<R, Failed>)>;

/// Where the first of two answers goes.
struct Answer<R> {
    common: Rc<Common>,
    node: u8,
    alive: Rc<Cell<bool>>,
    done: Rc<RefCell<Option<Done<R>>>>,
}

impl<R> Clone for Answer<R> {
    fn clone(&self) -> Self {
        Self {
            common: Rc::clone(&self.common),
            node: self.node,
            alive: Rc::clone(&self.alive),
            done: Rc::clone(&self.done),
        }
    }
}

impl<R: 'static> Answer<R> {
    fn give(self, result: Result<R, Failed>) {
        let paused_us = self.common.paused_us(self.node);
        if paused_us > 0 {
            let common = Rc::clone(&self.common);
            return common.later(paused_us, move || self.give(result));
        }
        let done = self.done.borrow_mut().take();
        if let Some(done) = done.filter(|_| self.alive.get()) {
            done(result);
        }
    }
}

impl Tables for SimTables {
    async fn claim(&self, own: &Ownership<'_>, steps: Steps<'_>) -> Result<bool, Failed> {
        let (id, owned) = (own.request_id.clone(), self.owned(own));
        let row = self.row(own.epoch, steps, true);
        self.ask(move |data| {
            if data.owned(&id).is_some() {
                return false;
            }
            data.write(&id, row);
            data.requests.entry(id).or_default().owned = Some(owned);
            true
        })
        .await
    }

    async fn change(&self, own: &Ownership<'_>, before: Before<'_>, steps: Option<Steps<'_>>) -> Result<bool, Failed> {
        let (id, owned, owner) = (
            own.request_id.clone(),
            self.owned(own),
            CompactString::from(before.owner),
        );
        let (incarnation, epoch, length) = (before.incarnation, before.epoch, before.length);
        let row = steps.map(|steps| self.row(own.epoch, steps, true));
        self.ask(move |data| {
            let is_as_before = |had: &Owned| {
                had.owner == owner && had.incarnation == incarnation && had.epoch == epoch && had.length == length
            };
            if !data.owned(&id).is_some_and(is_as_before) {
                return false;
            }
            if let Some(row) = row {
                data.write(&id, row);
            }
            data.requests.entry(id).or_default().owned = Some(owned);
            true
        })
        .await
    }

    async fn owner_of(&self, request_id: &RequestId) -> Result<Option<OwnerRow>, Failed> {
        let id = request_id.clone();
        self.ask(move |data| {
            data.owned(&id).map(|owned| OwnerRow {
                owner: Some(owned.owner.to_string()),
                incarnation: owned.incarnation,
                epoch: owned.epoch,
                length: owned.length,
            })
        })
        .await
    }

    async fn decided(&self, request_id: &RequestId) -> Result<Option<Found>, Failed> {
        let id = request_id.clone();
        self.ask(move |data| data.found(&id)).await?
    }

    async fn request(&self, request_id: &RequestId) -> Result<Option<Found>, Failed> {
        self.decided(request_id).await
    }

    async fn keep_receipts(
        &self,
        request_id: &RequestId,
        epoch: u32,
        receipts: Steps<'_>,
        _at_ms: UnixMs,
    ) -> Result<(), Failed> {
        let (id, row) = (request_id.clone(), self.row(epoch, receipts, false));
        self.ask(move |data| data.write(&id, row)).await
    }

    async fn bind(&self, binding: &Binding<'_>) -> Result<bool, Failed> {
        let (driver, request) = (binding.driver_id.clone(), binding.request_id.clone());
        self.ask(move |data| {
            let is_free = !data.bindings.contains_key(&driver);
            if is_free {
                data.bindings.insert(driver, request);
            }
            is_free
        })
        .await
    }

    async fn rebind(&self, binding: &Binding<'_>, holder: &RequestId) -> Result<bool, Failed> {
        let (driver, request) = (binding.driver_id.clone(), binding.request_id.clone());
        let holder = holder.clone();
        self.ask(move |data| {
            let is_so = data.bindings.get(&driver) == Some(&holder);
            if is_so {
                data.bindings.insert(driver, request);
            }
            is_so
        })
        .await
    }

    async fn unbind(&self, driver_id: &DriverId, request_id: &RequestId) -> Result<bool, Failed> {
        let (driver, request) = (driver_id.clone(), request_id.clone());
        self.ask(move |data| {
            let is_so = data.bindings.get(&driver) == Some(&request);
            if is_so {
                data.bindings.remove(&driver);
            }
            is_so
        })
        .await
    }

    async fn holder_of(&self, driver_id: &DriverId) -> Result<Option<RequestId>, Failed> {
        let driver = driver_id.clone();
        self.ask(move |data| data.bindings.get(&driver).cloned()).await
    }

    async fn note_trip(&self, binding: &Binding<'_>) -> Result<(), Failed> {
        let (trip, request) = (binding.trip_id.clone(), binding.request_id.clone());
        self.ask(move |data| drop(data.trips.insert(trip, request))).await
    }

    async fn add_open(&self, owner: &str, bucket: i64, request_id: &RequestId, at_us: i64) -> Result<(), Failed> {
        let (owner, id) = (owner.to_owned(), request_id.clone());
        self.ask(move |data| {
            let dated = data.open.entry((owner, bucket)).or_default().entry(id).or_default();
            dated.added_us = dated.added_us.max(at_us);
        })
        .await
    }

    async fn remove_open(&self, owner: &str, bucket: i64, request_id: &RequestId, at_us: i64) -> Result<(), Failed> {
        let (owner, id) = (owner.to_owned(), request_id.clone());
        self.ask(move |data| {
            let dated = data.open.entry((owner, bucket)).or_default().entry(id).or_default();
            dated.removed_us = dated.removed_us.max(at_us);
        })
        .await
    }

    async fn open_in(&self, owner: &str, bucket: i64) -> Result<Vec<RequestId>, Failed> {
        let owner = owner.to_owned();
        self.ask(move |data| {
            let listed = data.open.get(&(owner, bucket)).into_iter().flatten();
            let there = listed.filter(|(_, dated)| dated.is_there());
            there.map(|(id, _)| id.clone()).collect()
        })
        .await
    }

    async fn add_bucket(&self, owner: &str, bucket: i64, at_us: i64) -> Result<(), Failed> {
        let owner = owner.to_owned();
        self.ask(move |data| {
            let dated = data.buckets.entry(owner).or_default().entry(bucket).or_default();
            dated.added_us = dated.added_us.max(at_us);
        })
        .await
    }

    async fn remove_bucket(&self, owner: &str, bucket: i64, at_us: i64) -> Result<(), Failed> {
        let owner = owner.to_owned();
        self.ask(move |data| {
            let dated = data.buckets.entry(owner).or_default().entry(bucket).or_default();
            dated.removed_us = dated.removed_us.max(at_us);
        })
        .await
    }

    async fn buckets_of(&self, owner: &str) -> Result<Vec<i64>, Failed> {
        let owner = owner.to_owned();
        self.ask(move |data| {
            let listed = data.buckets.get(&owner).into_iter().flatten();
            let there = listed.filter(|(_, dated)| dated.is_there());
            there.map(|(bucket, _)| *bucket).collect()
        })
        .await
    }

    async fn owners(&self) -> Result<Vec<String>, Failed> {
        self.ask(|data| {
            let has_any =
                |(_, buckets): &(&String, &BTreeMap<i64, Dated>)| buckets.values().any(|dated| dated.is_there());
            let owners = data.buckets.iter().filter(has_any);
            owners.map(|(owner, _)| owner.clone()).collect()
        })
        .await
    }

    async fn beat(&self, node: &str, beat: i64) -> Result<(), Failed> {
        let node = node.to_owned();
        self.ask_with(Dice::Beats, move |data| {
            data.beats.insert(node, beat);
        })
        .await
    }

    async fn beat_of(&self, node: &str) -> Result<Option<i64>, Failed> {
        let node = node.to_owned();
        self.ask_with(Dice::Beats, move |data| data.beats.get(&node).copied())
            .await
    }
}

impl SimTables {
    fn owned(&self, own: &Ownership<'_>) -> Owned {
        Owned {
            owner: self.name.clone(),
            incarnation: own.incarnation,
            epoch: own.epoch,
            length: own.length,
            head: own.head.clone(),
        }
    }

    fn row(&self, epoch: u32, steps: Steps<'_>, is_decided: bool) -> FoundRow {
        let entries: Vec<LogEntry> = steps.entries.to_vec();
        let (steps_of, receipts) = if is_decided {
            (Some(entries), None)
        } else {
            (None, Some(entries))
        };
        FoundRow {
            epoch,
            seq: steps.seq,
            steps: steps_of,
            receipts,
            node: self.name.clone(),
        }
    }

    /// Writes records that the node has committed.
    pub(super) async fn write_records(&self, rows: Vec<RecordRow>) -> Result<(), Failed> {
        let name = self.name.clone();
        self.ask(move |data| {
            for row in rows {
                let place = (Reverse(row.offer_sent_at_ms), row.request_id.clone(), row.attempt);
                let of_driver = data.records.entry(row.driver_id.clone()).or_default();
                of_driver.insert(place, (row, name.clone()));
            }
        })
        .await
    }
}

/// The node's store's end of the tables: questions that this node alone cannot answer.
pub(in crate::world) struct FarTables(pub(super) Rc<SimTables>);

impl FarTables {
    /// A request.
    pub(in crate::world) fn request(
        &self,
        id: &RequestId,
        done: impl FnOnce(Result<Option<Found>, StoreError>) + 'static,
    ) {
        let id = id.clone();
        self.0
            .call(Dice::All, move |data| data.found(&id), |result| done(flat(result)));
    }

    /// The request of a trip. One whose acceptance did not come about has another trip, or none.
    pub(in crate::world) fn trip(&self, id: &TripId, done: impl FnOnce(Result<Option<Found>, StoreError>) + 'static) {
        let id = id.clone();
        let act = move |data: &mut Data| {
            let Some(request) = data.trips.get(&id) else {
                return Ok(None);
            };
            let found = data.found(request)?;
            Ok(found.filter(|found| found.far.trip_id.as_ref() == Some(&id)))
        };
        self.0.call(Dice::All, act, |result| done(flat(result)));
    }

    /// All records of a driver.
    pub(in crate::world) fn records(
        &self,
        driver_id: &DriverId,
        done: impl FnOnce(Result<BTreeMap<Place, Recorded>, StoreError>) + 'static,
    ) {
        let id = driver_id.clone();
        let act = move |data: &mut Data| data.records.get(&id).cloned().unwrap_or_default();
        self.0.call(Dice::All, act, |result| {
            done(result.map_err(|error| unavailable(&error)));
        });
    }
}

fn unavailable(error: &Failed) -> StoreError {
    StoreError::unavailable(error.to_string())
}

fn flat<R>(result: Result<Result<R, Failed>, Failed>) -> Result<R, StoreError> {
    result.and_then(|inner| inner).map_err(|error| unavailable(&error))
}

/// A driver's rows here and those of all nodes, each with its node; what is in both is this node's.
pub(in crate::world) fn merge_rows<'a>(
    own: impl Iterator<Item = (&'a Place, &'a RecordRow)>,
    node: &str,
    mut found: BTreeMap<Place, Recorded>,
) -> BTreeMap<Place, Recorded> {
    for (place, row) in own {
        found.insert(place.clone(), (row.clone(), node.into()));
    }
    found
}
