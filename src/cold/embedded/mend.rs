//! What has to be looked at before the engine opens its directory, because the engine would not, or not strictly.
//!
//! The engine's write-ahead journals (`N.jnl`, format of fjall 3, version marker `FJL` 3) are batches: start (`1`, items
//! `u32`, seqno `u64`), items (`2`, type, compression, keyspace `u64`, key length `u16`, value length `u32`, stored
//! length `u32`, key, value), end (`3`, XXH3 of the items, marker), all little-endian, then zeros.
//!
//! - A batch that was being written at a power loss can have holes. The engine refuses to open then; nothing of that
//!   batch was ever reported stored, so it is **cut**.
//! - Whole batches behind a damaged place mean lost data. The engine cuts there in silence; here that is **refused**.
//! - A process that died while it made the directory leaves files that the engine stumbles over; they are **removed**.

use crate::cold::port::StoreError;
use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_64;

/// Ends every batch.
const MARKER: &[u8; 4] = b"FJL\x03";
const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;

/// Makes `dir` fit to be opened.
///
/// # Errors
/// It is open elsewhere, cannot be read, or is damaged.
pub fn mend(dir: &Path) -> Result<(), StoreError> {
    let unreadable = |error: std::io::Error| StoreError::unavailable(format!("the store cannot be read: {error}"));
    if !dir.exists() {
        return Ok(());
    }
    let Some(_lock) = lock(dir).map_err(unreadable)? else {
        return Err(StoreError::unavailable("the store is open in another process"));
    };
    let mut journals = journals(dir).map_err(unreadable)?;
    if is_unfinished(dir) {
        for (_, path) in journals {
            std::fs::remove_file(path).map_err(unreadable)?;
        }
        return match std::fs::remove_file(dir.join("version")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(unreadable(error)),
            _ => Ok(()),
        };
    }
    journals.sort_unstable();
    let newest = journals.last().map(|(number, _)| *number);
    for (number, path) in journals {
        let bytes = std::fs::read(&path).map_err(unreadable)?;
        match tail(&bytes) {
            Tail::Sound => {}
            Tail::Torn { from } if Some(number) == newest => {
                tracing::warn!(
                    journal = number,
                    from,
                    "a batch that was never finished is cut off the store's journal"
                );
                cut(&path, from as u64).map_err(unreadable)?;
            }
            Tail::Torn { from } | Tail::Damaged { from } => {
                return Err(StoreError::broken(format!(
                    "the store's journal {number} is damaged from byte {from} on, with stored data behind it"
                )));
            }
        }
    }
    Ok(())
}

/// Holds off other processes that keep to the engine's lock; `None`: one has it.
fn lock(dir: &Path) -> std::io::Result<Option<File>> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(dir.join("lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Whether the engine died before it had made the directory: its version comes last, and before any data.
fn is_unfinished(dir: &Path) -> bool {
    let has_version = std::fs::metadata(dir.join("version")).is_ok_and(|file| file.len() > 0);
    let has_data = std::fs::read_dir(dir.join("keyspaces")).is_ok_and(|mut entries| entries.next().is_some());
    !has_version && !has_data
}

fn journals(dir: &Path) -> std::io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let number = path
            .file_name()
            .and_then(|name| name.to_str()?.strip_suffix(".jnl")?.parse().ok());
        found.extend(number.map(|number| (number, path)));
    }
    Ok(found)
}

fn cut(path: &Path, length: u64) -> std::io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(length)?;
    file.sync_all()
}

/// How a journal ends.
#[derive(Debug, PartialEq, Eq)]
enum Tail {
    /// With a whole batch, then nothing or zeros.
    Sound,
    /// With something that is no whole batch, and nothing behind it.
    Torn { from: usize },
    /// There are whole batches behind something that is none.
    Damaged { from: usize },
}

fn tail(bytes: &[u8]) -> Tail {
    let mut at = 0;
    while let Some(end) = batch_end(bytes, at) {
        at = end;
    }
    let rest = &bytes[at..];
    if rest.iter().all(|byte| *byte == 0) {
        return Tail::Sound;
    }
    let starts = rest.iter().enumerate().filter(|(_, byte)| **byte == START);
    for (offset, _) in starts {
        if batch_end(bytes, at + offset).is_some() {
            return Tail::Damaged { from: at };
        }
    }
    Tail::Torn { from: at }
}

/// Where the batch that begins at `at` ends; `None` when no whole one begins there.
fn batch_end(bytes: &[u8], at: usize) -> Option<usize> {
    let (start, mut rest) = bytes.get(at..)?.split_first_chunk::<13>()?;
    if start[0] != START {
        return None;
    }
    let count = u32::from_le_bytes(*start[1..].first_chunk()?);
    let items = rest;
    for _ in 0..count {
        rest = rest.get(item_length(rest)?..)?;
    }
    let items = &items[..items.len() - rest.len()];
    let (end, _) = rest.split_first_chunk::<13>()?;
    let checksum = u64::from_le_bytes(*end[1..].first_chunk()?);
    let is_whole = end[0] == END && end.ends_with(MARKER) && checksum == xxh3_64(items);
    is_whole.then_some(at + start.len() + items.len() + end.len())
}

fn item_length(bytes: &[u8]) -> Option<usize> {
    match *bytes.first()? {
        CLEAR => Some(9),
        ITEM => {
            let head = bytes.first_chunk::<21>()?;
            let key = u16::from_le_bytes([head[11], head[12]]);
            let stored = u32::from_le_bytes([head[17], head[18], head[19], head[20]]);
            Some(head.len() + usize::from(key) + stored as usize)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(items: &[(&[u8], &[u8])]) -> Vec<u8> {
        let mut body = Vec::new();
        for (key, value) in items {
            body.extend([ITEM, 0, 0]);
            body.extend(7_u64.to_le_bytes());
            body.extend((key.len() as u16).to_le_bytes());
            body.extend((value.len() as u32).to_le_bytes());
            body.extend((value.len() as u32).to_le_bytes());
            body.extend(*key);
            body.extend(*value);
        }
        let mut bytes = vec![START];
        bytes.extend((items.len() as u32).to_le_bytes());
        bytes.extend(9_u64.to_le_bytes());
        bytes.extend(&body);
        bytes.push(END);
        bytes.extend(xxh3_64(&body).to_le_bytes());
        bytes.extend(MARKER);
        bytes
    }

    #[test]
    fn tails_are_told_apart() {
        let check = |parts: &[&[u8]], expect: Tail| assert_eq!(tail(&parts.concat()), expect);
        let one = batch(&[(b"a", b"1"), (b"b", &[0; 100])]);
        let two = batch(&[(b"c", b"3")]);
        let from = one.len();
        check(&[], Tail::Sound);
        check(&[&[0; 50]], Tail::Sound);
        check(&[&one, &two], Tail::Sound);
        check(&[&one, &two, &[0; 50]], Tail::Sound);
        for cut in 1..two.len() {
            check(&[&one, &two[..cut]], Tail::Torn { from });
            check(&[&one, &two[..cut], &[0; 50]], Tail::Torn { from });
        }
        for hole in 0..two.len() {
            let mut holed = two.clone();
            // The seqno is not covered by the checksum.
            if (5..13).contains(&hole) || holed[hole] == 0 {
                continue;
            }
            holed[hole] = 0;
            check(&[&one, &holed, &[0; 9]], Tail::Torn { from });
            check(&[&one, &holed, &one, &[0; 9]], Tail::Damaged { from });
        }
        check(&[&[9; 30], &one], Tail::Damaged { from: 0 });
        check(&[&[9; 30], &one[..from - 1]], Tail::Torn { from: 0 });
    }
}
