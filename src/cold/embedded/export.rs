//! Everything that the store knows of dispatch records and ended requests, one after the other. For a store that no node
//! has open.

use super::codec::Decoder;
use super::config::StoreConfig;
use super::keys;
use super::tables::{Tables, broken};
use crate::cold::archive::Item;
use crate::cold::port::{Source, StoreError};
use crate::fsm::ids::DriverId;
use crate::fsm::types::RecordRow;
use std::path::Path;

/// A store that is read whole.
pub struct StoreExport {
    tables: Tables,
}

impl StoreExport {
    /// Opens the store in `dir`, as a node would.
    ///
    /// # Errors
    /// It is open elsewhere, damaged, or of another format.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let tables = Tables::open(dir, &StoreConfig::new(dir))?;
        Ok(Self { tables })
    }

    /// How far it is with each source.
    ///
    /// # Errors
    /// The disk, or damage.
    pub fn watermarks(&self) -> Result<Vec<(Source, u64)>, StoreError> {
        Ok(super::load_watermarks(&self.tables)?.into_iter().collect())
    }

    /// Gives everything to `each`: records by day, then ended requests.
    ///
    /// # Errors
    /// The disk, damage, or what `each` says.
    pub fn for_each(&self, mut each: impl FnMut(&Item) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let mut decoder = Decoder::default();
        for day in self.tables.rows.all().iter() {
            for entry in day.keyspace.iter() {
                let (key, value) = entry.into_inner().map_err(broken)?;
                let row = row_of(&key, &mut decoder, &value)?;
                each(&Item::Record(row))?;
            }
        }
        for span in self.tables.ended.all().iter() {
            for entry in span.keyspace.iter() {
                let ended = decoder.ended(&entry.value().map_err(broken)?)?;
                each(&Item::Request(Box::new(ended)))?;
            }
        }
        Ok(())
    }
}

fn row_of(key: &[u8], decoder: &mut Decoder, value: &[u8]) -> Result<RecordRow, StoreError> {
    let parts = || {
        let end = memchr::memchr(0, key)?;
        let driver_id = DriverId::parse(std::str::from_utf8(&key[..end]).ok()?).ok()?;
        Some((driver_id, keys::row_place(&key[end + 1..])?))
    };
    let damaged = || StoreError::broken("a dispatch record's key is damaged");
    let (driver_id, place) = parts().ok_or_else(damaged)?;
    Ok(place.record(driver_id, decoder.row(value)?))
}
