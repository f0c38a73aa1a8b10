//! What owners stand on: the tables that all nodes share, and the place where their tasks run. Cassandra and a runtime stand
//! behind it, or what a simulator has in their place.
//!
//! Every call on [`Tables`] is done, refused, or *not known*: an error may come before or after what was asked has taken place, and what
//! was asked may take place long after the error. Whoever asked settles that by asking again.
#![expect(async_fn_in_trait, reason = "tasks stay on one thread")]

use crate::cold::claims::Head;
use crate::cold::owner::Found;
use crate::cold::port::StoreError;
use crate::fsm::ids::{DriverId, RequestId, TripId};
use crate::fsm::types::{LogEntry, UnixMs};
use futures_util::future::{Either, select};
use std::fmt::Display;
use std::pin::pin;
use std::time::Duration;

/// Why something is not done, or not known to be done.
#[derive(Debug)]
pub struct Failed {
    why: String,
    is_broken: bool,
}

impl Failed {
    /// It cannot be said whether it was done; why.
    pub fn unknown(why: impl Display) -> Self {
        Self {
            why: why.to_string(),
            is_broken: false,
        }
    }

    /// It is to be tried again at once, in effect: somebody else was faster.
    pub(super) fn again(why: &str) -> Self {
        Self::unknown(why)
    }

    /// What is stored cannot be understood.
    pub fn broken(why: &str) -> Self {
        Self {
            why: why.to_owned(),
            is_broken: true,
        }
    }

    /// Whether what is stored cannot be understood, so that trying again does not help.
    pub fn is_broken(&self) -> bool {
        self.is_broken
    }
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self {
            is_broken: !error.retry,
            why: error.message,
        }
    }
}

impl Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.why)
    }
}

/// Who is to own a request, and what stands of it then.
#[derive(Clone, Copy, Debug)]
pub struct Ownership<'a> {
    /// Which.
    pub request_id: &'a RequestId,
    /// The owner's boot; the owner is the node that asks.
    pub incarnation: u64,
    /// How often the request changed its owner.
    pub epoch: u32,
    /// Steps that are stored then.
    pub length: u32,
    /// When it was received.
    pub received_at_ms: UnixMs,
    /// What stands once per request.
    pub head: &'a Head,
}

/// How a request must stand with its owner for a change. The epoch is among it: a node may lose a request and get it back as long as it
/// was, and what it wanted to change before that must not be done then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Before<'a> {
    /// The owner's name.
    pub owner: &'a str,
    /// Its boot.
    pub incarnation: u64,
    /// How often the request changed its owner.
    pub epoch: u32,
    /// Steps that are stored.
    pub length: u32,
}

/// Steps of a request and the number of the first of them, from 1.
#[derive(Clone, Copy, Debug)]
pub struct Steps<'a> {
    /// See above.
    pub seq: u32,
    /// Not empty.
    pub entries: &'a [LogEntry],
}

/// A binding of a driver to a request's trip, and when the request was received.
#[derive(Clone, Copy, Debug)]
pub struct Binding<'a> {
    /// Who.
    pub driver_id: &'a DriverId,
    /// To which request.
    pub request_id: &'a RequestId,
    /// To which trip of it.
    pub trip_id: &'a TripId,
    /// When it was received.
    pub received_at_ms: UnixMs,
}

/// How a request stands with its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerRow {
    /// Its name; `None`: the row has none.
    pub owner: Option<String>,
    /// Its boot.
    pub incarnation: u64,
    /// How often the request changed its owner.
    pub epoch: u32,
    /// Steps that are stored.
    pub length: u32,
}

impl OwnerRow {
    /// Whether the request stands so.
    pub fn is(&self, before: Before<'_>) -> bool {
        let as_before = |owner| Before {
            owner,
            incarnation: self.incarnation,
            epoch: self.epoch,
            length: self.length,
        };
        self.owner.as_deref().map(as_before) == Some(before)
    }
}

/// The tables that all nodes share. What has a condition answers whether it held; see the module for what an error means.
pub trait Tables: 'static {
    /// Makes a request this node's, with its steps, if there is none of this id.
    async fn claim(&self, own: &Ownership<'_>, steps: Steps<'_>) -> Result<bool, Failed>;
    /// Changes a request that is as in `before`, and adds steps to it.
    async fn change(&self, own: &Ownership<'_>, before: Before<'_>, steps: Option<Steps<'_>>) -> Result<bool, Failed>;
    /// How a request stands, as the last condition left it.
    async fn owner_of(&self, request_id: &RequestId) -> Result<Option<OwnerRow>, Failed>;
    /// A whole request, as the last condition left it.
    async fn decided(&self, request_id: &RequestId) -> Result<Option<Found>, Failed>;
    /// A whole request, as most copies have it.
    async fn request(&self, request_id: &RequestId) -> Result<Option<Found>, Failed>;
    /// Keeps receipts of a request, the first of them noted at `at_ms`, in a row of their own.
    async fn keep_receipts(
        &self,
        request_id: &RequestId,
        epoch: u32,
        receipts: Steps<'_>,
        at_ms: UnixMs,
    ) -> Result<(), Failed>;

    /// Binds a driver whom nothing binds.
    async fn bind(&self, binding: &Binding<'_>) -> Result<bool, Failed>;
    /// Binds a driver whom this request bound.
    async fn rebind(&self, binding: &Binding<'_>, holder: &RequestId) -> Result<bool, Failed>;
    /// Releases a driver whom this request binds.
    async fn unbind(&self, driver_id: &DriverId, request_id: &RequestId) -> Result<bool, Failed>;
    /// The request that binds a driver, as the last condition left it.
    async fn holder_of(&self, driver_id: &DriverId) -> Result<Option<RequestId>, Failed>;
    /// Notes the request of a trip.
    async fn note_trip(&self, binding: &Binding<'_>) -> Result<(), Failed>;

    /// Puts a request on a node's list of open ones, in a partition of it. Of two writes the later one stands.
    async fn add_open(&self, owner: &str, bucket: i64, request_id: &RequestId, at_us: i64) -> Result<(), Failed>;
    /// Takes it off.
    async fn remove_open(&self, owner: &str, bucket: i64, request_id: &RequestId, at_us: i64) -> Result<(), Failed>;
    /// What is on the list in a partition.
    async fn open_in(&self, owner: &str, bucket: i64) -> Result<Vec<RequestId>, Failed>;
    /// Puts a partition on a node's list of partitions.
    async fn add_bucket(&self, owner: &str, bucket: i64, at_us: i64) -> Result<(), Failed>;
    /// Takes it off.
    async fn remove_bucket(&self, owner: &str, bucket: i64, at_us: i64) -> Result<(), Failed>;
    /// A node's partitions.
    async fn buckets_of(&self, owner: &str) -> Result<Vec<i64>, Failed>;
    /// Nodes that have partitions.
    async fn owners(&self) -> Result<Vec<String>, Failed>;

    /// Says that a node lives: a number that is another one each time.
    async fn beat(&self, node: &str, beat: i64) -> Result<(), Failed>;
    /// What a node said last, if it did within a day.
    async fn beat_of(&self, node: &str) -> Result<Option<i64>, Failed>;
}

/// Where owners' tasks run, and its time.
pub trait Place: Clone + 'static {
    /// Time that never falls, since any beginning.
    fn now(&self) -> Duration;
    /// Unix time, microseconds.
    fn wall_us(&self) -> u64;
    /// Returns when so much time has gone by.
    fn sleep(&self, time: Duration) -> impl Future<Output = ()>;
    /// Runs a task beside the others.
    fn spawn(&self, task: impl Future<Output = ()> + 'static);
}

/// What `work` gives; `None`: it took longer than `time`, and was dropped.
pub(super) async fn within<F: Future>(place: &impl Place, time: Duration, work: F) -> Option<F::Output> {
    match select(pin!(work), pin!(place.sleep(time))).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(_) => None,
    }
}
