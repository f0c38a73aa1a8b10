//! The order of a start, and what it stands on.

use super::{ServeError, heirs, recovery};
use crate::cold::{Source, StoreHandle, Waker};
use crate::config::Config;
use crate::fsm::ids::DriverId;
use crate::fsm::types::UnixMs;
use crate::journal::{Incarnation, RecoveredShard};
use crate::shard::{Inheritance, forgotten_before_ms};
use std::sync::mpsc::Receiver;

/// What a start stands on, in the order in which [`bring_up`] asks for it. The real one is a machine with its disk and
/// its threads; another one may stand here instead (a simulator's), and the order is the same code.
///
/// Every error ends the start; the next start begins from the beginning.
#[expect(clippy::missing_errors_doc, reason = "said once, above")]
pub trait Host {
    /// Reads every journal that earlier incarnations left, by incarnation, then by shard.
    fn journals(&mut self) -> Result<Vec<RecoveredShard>, ServeError>;
    /// Starts the node's clock, not behind `newest_ms`, and opens the store.
    fn open_store(&mut self, newest_ms: UnixMs) -> Result<(), ServeError>;
    /// The node's time. Asked only after [`Self::open_store`], like all that follows.
    fn now_ms(&self) -> UnixMs;
    /// How far the store is with each source.
    fn watermarks(&mut self) -> Vec<(Source, u64)>;
    /// Begins an incarnation, durably: greater than `above` and all that have a journal.
    fn begin_incarnation(&mut self, above: u64) -> Result<Incarnation, ServeError>;
    /// A way to the store that calls `waker`.
    fn attach(&mut self, waker: Waker) -> StoreHandle;
    /// Waits until the store has said something, or a moment; `woken` gets something when the waker is called.
    fn await_store(&mut self, woken: &Receiver<()>) -> Result<(), ServeError>;
    /// Drivers off shift on purpose since `after_ms`, and since when.
    fn off_shift_since(&mut self, after_ms: UnixMs) -> Result<Vec<(DriverId, UnixMs)>, ServeError>;
    /// Starts the shards, with new journals and what each inherits, in their order.
    fn start_shards(&mut self, incarnation: Incarnation, heirs: Vec<Inheritance>) -> Result<(), ServeError>;
    /// Waits until every shard is an heir ([`Shard::is_heir`](crate::shard::Shard::is_heir)).
    fn await_heirs(&mut self) -> Result<(), ServeError>;
    /// Deletes the journals of incarnations before this one, durably.
    fn forget_journals_before(&mut self, incarnation: Incarnation) -> Result<(), ServeError>;
    /// Lets the store forget how far it was with sources before this incarnation.
    fn forget_sources_before(&mut self, incarnation: Incarnation);
    /// Lets every shard serve.
    fn open_doors(&mut self) -> Result<(), ServeError>;
    /// Says that the next stage begins.
    fn enters(&mut self, stage: &str);
    /// Says that a stage goes on.
    fn goes_on(&mut self, stage: &str);
}

/// Starts a node. The numbers are those of the steps in [`crate::node`].
///
/// # Errors
/// What could not be done; nothing was promised to anybody then.
pub fn bring_up(host: &mut impl Host, config: &Config) -> Result<(), ServeError> {
    // (1)
    let recovered = recovery::understand(host.journals()?)?;
    host.enters("opening the store");
    host.open_store(recovered.newest_ms)?;
    let sources = host.watermarks();
    let highest = sources.iter().map(|(source, _)| source.incarnation).max().unwrap_or(0);
    let incarnation = host.begin_incarnation(above(config, highest, host.now_ms()))?;
    // (2)
    host.enters("feeding the store");
    recovery::feed_store(host, recovered.feed, sources)?;
    let forgotten_ms = forgotten_before_ms(host.now_ms(), config.off_shift_memory_ms);
    let off_shift = host.off_shift_since(forgotten_ms)?;
    host.enters("resuming requests");
    let (number, shards) = (incarnation.get(), config.shard_count());
    tracing::info!(
        incarnation = number,
        shards,
        requests = recovered.live.len(),
        "recovered"
    );
    // (3) and (4)
    let heirs = heirs::distribute(recovered.live, off_shift, shards, host.now_ms());
    host.start_shards(incarnation, heirs)?;
    host.await_heirs()?;
    // (5): the live requests are in the new journals and everything else is in the store.
    host.forget_journals_before(incarnation)?;
    host.forget_sources_before(incarnation);
    // (6)
    host.open_doors()
}

/// What this boot's incarnation is greater than: the `highest` that the data directory knows, and in a fleet every earlier one. Others remember
/// those (links, and what Cassandra says of whose a request is) when the directory is lost, or comes from a copy.
fn above(config: &Config, highest: u64, now_ms: UnixMs) -> u64 {
    if config.is_in_fleet() {
        highest.max(now_ms.saturating_sub(1))
    } else {
        highest
    }
}
