//! Names and directories of the journal, and the incarnation numbers.
//!
//! Creating and deleting directories is durable when a function returns: a directory whose entries changed is synced.
//! Blocking calls, made at boot and by housekeeping only.

use super::format::Owner;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

pub(super) const JOURNAL: &str = "journal";
const SEGMENT_SUFFIX: &str = ".seg";
/// A directory of this suffix is being deleted: nothing in it counts.
const DELETED_SUFFIX: &str = ".deleted";

/// Number of a boot of this node, from 1. A node alone counts its boots, as its data directory knows them. In a fleet others remember a
/// node's boots too, also when the directory is gone or is an old copy: there the number is at least the time of the boot in Unix milliseconds,
/// which no earlier boot had, as each takes longer than that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(u64);

impl Incarnation {
    /// The last one: exact in every JSON reader, and in Redis's Lua.
    pub const MAX: Self = Self((1 << 53) - 1);
    /// The last one that was counted, not made of a time: two million boots. `session = incarnation << 32 | counter` of a node alone stays
    /// below 2^53, hence the bound.
    pub const COUNTED_MAX: Self = Self((1 << 21) - 1);

    /// `number` from 1 to [`Self::MAX`]; `None` for another.
    pub const fn new(number: u64) -> Option<Self> {
        if number >= 1 && number <= Self::MAX.0 {
            Some(Self(number))
        } else {
            None
        }
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Begins a boot: makes the directory of the next incarnation under the data directory `root`, durably. The number
    /// is greater than every directory's and than `above` (the highest that is known from elsewhere, 0 if none), so that
    /// numbers are not used twice even when somebody deleted the journal. Finishes interrupted deletions.
    ///
    /// # Errors
    /// What the file system says, or that all numbers are used up.
    pub fn next(root: &Path, above: u64) -> io::Result<Self> {
        let journal = root.join(JOURNAL);
        if !journal.try_exists()? {
            fs::create_dir(&journal)?;
            sync_dir(root)?;
        }
        let mut highest = above;
        for name in names(&journal)? {
            let whole = name.strip_suffix(DELETED_SUFFIX).unwrap_or(&name);
            highest = highest.max(parse_number(whole, 8).unwrap_or(0));
            if whole.len() < name.len() && parse_number(whole, 8).is_some() {
                fs::remove_dir_all(journal.join(&name))?;
            }
        }
        let next = Self::new(highest + 1).ok_or_else(|| io::Error::other("all incarnation numbers are used up"))?;
        fs::create_dir(incarnation_dir(root, next))?;
        sync_dir(&journal)?;
        Ok(next)
    }

    /// All incarnations that have a directory under the data directory `root`, oldest first. Other names in there are
    /// logged and left alone.
    ///
    /// # Errors
    /// What the file system says; no journal at all is no error.
    pub fn list(root: &Path) -> io::Result<Vec<Self>> {
        numbered(&root.join(JOURNAL), "", 8, Self::new)
    }

    /// Deletes the incarnation's directory under the data directory `root`, durably. A crash in between leaves either
    /// all of it or nothing that counts: the directory is renamed first.
    ///
    /// # Errors
    /// What the file system says; an incarnation that is not there is no error.
    pub fn remove(self, root: &Path) -> io::Result<()> {
        let dir = incarnation_dir(root, self);
        let deleted = dir.with_file_name(format!("{:08}{DELETED_SUFFIX}", self.0));
        match fs::rename(&dir, &deleted) {
            Ok(()) => sync_dir(&root.join(JOURNAL))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
        fs::remove_dir_all(&deleted)?;
        sync_dir(&root.join(JOURNAL))
    }
}

impl std::fmt::Display for Incarnation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Directory of an incarnation under the data directory `root`.
pub fn incarnation_dir(root: &Path, incarnation: Incarnation) -> PathBuf {
    root.join(JOURNAL).join(format!("{incarnation:08}"))
}

/// Directory of a shard's journal under the data directory `root`.
pub fn shard_dir(root: &Path, owner: Owner) -> PathBuf {
    incarnation_dir(root, owner.incarnation).join(format!("{:04}", owner.shard))
}

/// File of a segment in a shard's directory.
pub fn segment_path(dir: &Path, segment: u64) -> PathBuf {
    dir.join(format!("{segment:08}{SEGMENT_SUFFIX}"))
}

/// Makes a shard's directory in its incarnation's, durably; returns its path. One that exists is taken as it is.
///
/// # Errors
/// What the file system says.
pub fn create_shard_dir(root: &Path, owner: Owner) -> io::Result<PathBuf> {
    let dir = shard_dir(root, owner);
    match fs::create_dir(&dir) {
        Ok(()) => sync_dir(&incarnation_dir(root, owner.incarnation))?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    Ok(dir)
}

/// Shards that have a directory in an incarnation's, in order.
pub(super) fn shards(root: &Path, incarnation: Incarnation) -> io::Result<Vec<u16>> {
    numbered(&incarnation_dir(root, incarnation), "", 4, |number| {
        u16::try_from(number).ok()
    })
}

/// Segments in a shard's directory, in order.
pub(super) fn segments(dir: &Path) -> io::Result<Vec<u64>> {
    numbered(dir, SEGMENT_SUFFIX, 8, |number| (number > 0).then_some(number))
}

/// Syncs a directory whose entries changed: a whole `fsync`, since `fdatasync` need not store entries.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn names(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

fn numbered<T: Ord>(dir: &Path, suffix: &str, width: usize, make: impl Fn(u64) -> Option<T>) -> io::Result<Vec<T>> {
    let mut found = Vec::new();
    for name in names(dir)? {
        let number = name
            .strip_suffix(suffix)
            .and_then(|digits| parse_number(digits, width))
            .and_then(&make);
        match number {
            Some(number) => found.push(number),
            None if name.ends_with(DELETED_SUFFIX) => {}
            None => tracing::warn!(dir = %dir.display(), name, "not a part of the journal, left alone"),
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// The number that a name of at least `width` digits, zero padded to that width and no further, stands for.
fn parse_number(digits: &str, width: usize) -> Option<u64> {
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = digits.parse().ok().filter(|_| plain)?;
    (format!("{number:0width$}") == digits).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        let check = |name: &str, expect: Option<u64>| assert_eq!(parse_number(name, 4), expect, "{name:?}");
        check("0000", Some(0));
        check("0042", Some(42));
        check("12345", Some(12345));
        check("42", None);
        check("00042", None);
        check("+042", None);
        check("", None);
        check("004x", None);
    }

    #[test]
    fn incarnations_only_grow() {
        let root = tempfile::tempdir().unwrap();
        let next = |above| Incarnation::next(root.path(), above).unwrap().get();
        assert_eq!(Incarnation::list(root.path()).unwrap(), []);
        assert_eq!(next(0), 1);
        assert_eq!(next(0), 2);
        assert_eq!(next(7), 8);
        Incarnation(8).remove(root.path()).unwrap();
        Incarnation(8).remove(root.path()).unwrap();
        assert_eq!(next(8), 9);
        // A deletion that a crash cut short neither counts nor frees its number.
        fs::rename(
            incarnation_dir(root.path(), Incarnation(9)),
            root.path().join("journal/00000009.deleted"),
        )
        .unwrap();
        assert_eq!(
            Incarnation::list(root.path()).unwrap(),
            [Incarnation(1), Incarnation(2)]
        );
        assert_eq!(next(0), 10);
        assert!(!root.path().join("journal/00000009.deleted").exists());
        assert_eq!(Incarnation::new(0), None);
        assert_eq!(Incarnation::new(1 << 53), None);
        // A time, after which they are counted on from there.
        assert_eq!(next(1_795_557_175_024), 1_795_557_175_025);
        assert_eq!(next(1_795_557_175_024), 1_795_557_175_026);
        let newest = Incarnation(1_795_557_175_026);
        assert_eq!(Incarnation::list(root.path()).unwrap().last(), Some(&newest));
        newest.remove(root.path()).unwrap();
        assert_eq!(next(0), 1_795_557_175_026, "the directory below it is there");
        let session_max = (Incarnation::COUNTED_MAX.get() << 32) | u64::from(u32::MAX);
        assert!(session_max < 1 << 53);
    }
}
