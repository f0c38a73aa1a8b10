//! Values of the embedded store: rkyv, checked when read. The store below adds checksums of its own to every block and
//! every batch, so that a value that fails the check here means a bug or another format, not a flipped bit.

use super::outbox::OutboxEntry;
use crate::cold::port::{DriverRecord, EndedRequest, StoreError};
use crate::fsm::ids::TripId;
use crate::fsm::types::{LogEntry, Published, RecordRow, ResponseType, UnixMs};
use rkyv::api::high::{HighSerializer, HighValidator, to_bytes_in_with_alloc};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::{Error, Strategy};
use rkyv::ser::allocator::{Arena, ArenaHandle};
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};

/// What a dispatch record holds beside its key.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(attr(allow(missing_docs)))]
pub struct RowTail {
    /// The trip, when this attempt won it.
    pub trip_id: Option<TripId>,
    /// Outcome.
    pub response_type: ResponseType,
    /// When the outcome was decided.
    pub response_at_ms: UnixMs,
}

/// Encodes values into one buffer that is used again and again.
#[derive(Default)]
pub struct Encoder {
    bytes: AlignedVec,
    arena: Arena,
}

impl Encoder {
    /// The encoded value, until the next call.
    ///
    /// # Errors
    /// Out of memory only.
    pub fn encode<T>(&mut self, value: &T) -> Result<&[u8], StoreError>
    where
        T: for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, Error>>,
    {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        self.bytes = to_bytes_in_with_alloc::<_, _, Error>(value, bytes, self.arena.acquire())
            .map_err(|error| StoreError::broken(format!("a value cannot be encoded: {error}")))?;
        Ok(&self.bytes)
    }
}

/// Adds an encoded event to a block.
pub fn push_event(block: &mut Vec<u8>, event: &[u8]) {
    let length = u32::try_from(event.len()).expect("an event is far below 4 GiB");
    block.extend_from_slice(&length.to_be_bytes());
    block.extend_from_slice(event);
}

/// The encoded events of a block, in order; `Err` where the block is damaged, and then no more.
pub fn events_of(block: &[u8]) -> impl Iterator<Item = Result<&[u8], StoreError>> {
    let mut rest = block;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut take = || {
            let (length, after) = rest.split_first_chunk::<4>()?;
            let (event, after) = after.split_at_checked(u32::from_be_bytes(*length) as usize)?;
            rest = after;
            Some(event)
        };
        let event = take().ok_or_else(|| StoreError::broken("a block of events is damaged"));
        if event.is_err() {
            rest = &[];
        }
        Some(event)
    })
}

/// Decodes values through one buffer that is aligned as rkyv needs it.
#[derive(Default)]
pub struct Decoder {
    bytes: AlignedVec,
}

impl Decoder {
    /// A request's life.
    ///
    /// # Errors
    /// The bytes are none.
    pub fn ended(&mut self, bytes: &[u8]) -> Result<EndedRequest, StoreError> {
        self.decode(bytes)
    }

    /// An event.
    ///
    /// # Errors
    /// The bytes are none.
    pub fn published(&mut self, bytes: &[u8]) -> Result<Published, StoreError> {
        self.decode(bytes)
    }

    /// A driver.
    ///
    /// # Errors
    /// The bytes are none.
    pub fn driver(&mut self, bytes: &[u8]) -> Result<DriverRecord, StoreError> {
        self.decode(bytes)
    }

    /// An entry of the outbox.
    ///
    /// # Errors
    /// The bytes are none.
    pub fn outbox(&mut self, bytes: &[u8]) -> Result<OutboxEntry, StoreError> {
        self.decode(bytes)
    }

    /// Steps of a request.
    ///
    /// # Errors
    /// The bytes are none.
    pub fn steps(&mut self, bytes: &[u8]) -> Result<Vec<LogEntry>, StoreError> {
        self.decode(bytes)
    }

    /// A whole dispatch record.
    ///
    /// # Errors
    /// The bytes are none.
    pub fn record(&mut self, bytes: &[u8]) -> Result<RecordRow, StoreError> {
        self.decode(bytes)
    }

    /// What a dispatch record holds beside its key.
    ///
    /// # Errors
    /// The bytes are none.
    pub fn row(&mut self, bytes: &[u8]) -> Result<RowTail, StoreError> {
        self.decode(bytes)
    }

    fn decode<T>(&mut self, bytes: &[u8]) -> Result<T, StoreError>
    where
        T: Archive,
        T::Archived: for<'a> CheckBytes<HighValidator<'a, Error>> + Deserialize<T, Strategy<rkyv::de::Pool, Error>>,
    {
        self.bytes.clear();
        self.bytes.extend_from_slice(bytes);
        rkyv::from_bytes::<T, Error>(&self.bytes)
            .map_err(|error| StoreError::broken(format!("a stored value is damaged: {error}")))
    }
}
