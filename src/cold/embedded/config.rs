//! How a store is opened: retention, sizes, and the clock and the disk as it sees them.

use super::readers::FarAsk;
use crate::cold::port::StoreError;
use crate::fsm::types::UnixMs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc::UnboundedSender;

/// The contract's least memory of ended ids, in days.
pub const IDEMPOTENCY_RETENTION_DAYS_MIN: u32 = 7;
/// Longest retention that can be set, in days.
pub const RETENTION_DAYS_MAX: u32 = 3_650;
/// Smallest bound of kept events, in bytes.
pub const EVENTS_BYTES_MIN: u64 = 1 << 20;
/// Smallest block cache, in bytes.
pub const CACHE_BYTES_MIN: u64 = 1 << 20;

/// The clock and the disk as the store sees them; tests drive both.
#[derive(Clone)]
pub struct Surroundings {
    /// Unix milliseconds; never falls.
    pub now_ms: Arc<dyn Fn() -> UnixMs + Send + Sync>,
    /// Bytes that are free on the store's disk.
    pub bytes_free: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl Surroundings {
    /// This machine's clock (its time now, monotonic from then on) and the disk that holds `dir`.
    pub fn of_machine(dir: &Path) -> Self {
        let start = Instant::now();
        let start_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as u64);
        let dir = dir.to_path_buf();
        let bytes_free = move || match rustix::fs::statvfs(&dir) {
            Ok(disk) => disk.f_bavail.saturating_mul(disk.f_frsize),
            // A disk that cannot be asked is found out by the write itself.
            Err(_) => u64::MAX,
        };
        Self {
            now_ms: Arc::new(move || start_ms + start.elapsed().as_millis() as u64),
            bytes_free: Arc::new(bytes_free),
        }
    }
}

/// How to open a [`Store`](super::Store).
#[derive(Clone)]
pub struct StoreConfig {
    /// Dispatch records and audits are kept this many days at least, 1–[`RETENTION_DAYS_MAX`]; records at most one day
    /// more, audits at most a quarter more.
    pub records_retention_days: u32,
    /// Ids of ended requests are remembered this many days at least,
    /// [`IDEMPOTENCY_RETENTION_DAYS_MIN`]–[`RETENTION_DAYS_MAX`]. The longer of the two rules for ended requests.
    pub idempotency_retention_days: u32,
    /// Events are kept this long when not every consumer has acknowledged them, and at most 1/16 longer. Not 0.
    pub events_retention_ms: u64,
    /// Bytes of events that are kept at most (before compression, after encoding); at least [`EVENTS_BYTES_MIN`].
    pub events_bytes_max: u64,
    /// Below this many free bytes on the disk nothing is written.
    pub disk_reserve_bytes: u64,
    /// Block cache of the store, bytes, at least [`CACHE_BYTES_MIN`]. Should hold the filters of ended ids, about 2 bytes per id, so that asking for
    /// an id that never ended stays off the disk.
    pub cache_bytes: u64,
    /// Clock and disk.
    pub surroundings: Surroundings,
    /// The fleet's store, which gets what is committed here and is asked for what is not known here.
    pub fleet: Option<FleetLink>,
}

/// The embedded store's way to the fleet's.
#[derive(Clone)]
pub struct FleetLink {
    /// Questions that this node alone cannot answer.
    pub asks: UnboundedSender<FarAsk>,
    /// Bytes that may wait for the fleet's store before no new requests are taken.
    pub outbox_bytes_max: u64,
}

impl StoreConfig {
    /// The defaults of the contract for a store in `dir`, with the machine's clock and disk.
    pub fn new(dir: &Path) -> Self {
        Self {
            records_retention_days: 30,
            idempotency_retention_days: 7,
            events_retention_ms: 7 * super::keys::DAY_MS,
            events_bytes_max: 16 << 30,
            disk_reserve_bytes: 512 << 20,
            cache_bytes: 64 << 20,
            surroundings: Surroundings::of_machine(dir),
            fleet: None,
        }
    }

    /// Days for which ended requests are kept.
    pub(super) fn ended_retention_days(&self) -> u32 {
        self.records_retention_days.max(self.idempotency_retention_days)
    }

    /// Refuses values out of range.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        let within = |name: &str, value: u64, least: u64, most: u64| {
            if (least..=most).contains(&value) {
                return Ok(());
            }
            Err(StoreError::invalid(format!(
                "{name} is {value}, allowed is {least} to {most}"
            )))
        };
        let days_max = u64::from(RETENTION_DAYS_MAX);
        let idempotency_min = u64::from(IDEMPOTENCY_RETENTION_DAYS_MIN);
        within(
            "records_retention_days",
            self.records_retention_days.into(),
            1,
            days_max,
        )?;
        within(
            "idempotency_retention_days",
            self.idempotency_retention_days.into(),
            idempotency_min,
            days_max,
        )?;
        within("events_retention_ms", self.events_retention_ms, 1, u64::MAX)?;
        within("events_bytes_max", self.events_bytes_max, EVENTS_BYTES_MIN, u64::MAX)?;
        within("store_cache_bytes", self.cache_bytes, CACHE_BYTES_MIN, u64::MAX)
    }
}
