//! What `dispatchd journal dump` and `dispatchd journal check` do. Reads only; takes no lock, so that a running node's
//! journal can be looked at (its last write may then look torn).

use super::format::Owner;
use super::recover::{RecoverError, on_executor, owners, scan_shard};
use super::scan::{Scan, TornTail};
use crate::aligned::AlignedBuffer;
use std::io::{self, Write};
use std::path::Path;

/// Prints every record under the data directory `root`, a line each:
/// `incarnation/shard/segment @offset lsn record`. Torn ends are lines that begin with `#`.
///
/// Damage is a line that begins with `#`, too, and the next journal follows.
///
/// # Errors
/// [`RecoverError`]: there is no journal, or the first damage, after everything was printed. [`RecoverError::Output`]: `out` failed.
pub fn dump(root: &Path, out: &mut dyn Write) -> Result<(), RecoverError> {
    must_hold_journals(root)?;
    on_executor(root, async {
        let mut buffer = AlignedBuffer::new();
        let mut damage = Ok(());
        for owner in owners(root)? {
            let Owner { incarnation, shard } = owner;
            let mut printed = Ok(());
            let mut print = |found: super::Found| {
                let super::Found {
                    segment,
                    offset,
                    lsn,
                    record,
                } = found;
                if printed.is_ok() {
                    let place = format_args!("{incarnation:08}/{shard:04}/{segment:08} @{offset}");
                    printed = writeln!(out, "{place} {lsn} {record:?}");
                }
            };
            let scan = scan_shard(root, owner, &mut buffer, &mut print).await;
            printed.map_err(RecoverError::Output)?;
            match scan {
                Ok(Scan {
                    torn_tail: Some(TornTail { segment, offset }),
                    ..
                }) => {
                    let place = format_args!("{incarnation:08}/{shard:04}/{segment:08} @{offset}");
                    writeln!(out, "# {place} torn write, cut").map_err(RecoverError::Output)?;
                }
                Ok(_) => {}
                Err(error) => {
                    writeln!(out, "# {incarnation:08}/{shard:04} {error}").map_err(RecoverError::Output)?;
                    damage = damage.and(Err(error));
                }
            }
        }
        damage
    })
}

/// An empty answer about a directory that holds no journal would look like a good one.
fn must_hold_journals(root: &Path) -> Result<(), RecoverError> {
    let journals = root.join(super::layout::JOURNAL);
    match std::fs::metadata(&journals) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(RecoverError::io(&journals)(io::ErrorKind::NotADirectory.into())),
        Err(source) => Err(RecoverError::io(&journals)(source)),
    }
}

/// What [`check`] found in one journal.
#[derive(Debug)]
pub struct Checked {
    /// Whose journal.
    pub owner: Owner,
    /// What it holds, without the records, or why it cannot be used.
    pub result: Result<Scan, RecoverError>,
    /// Records read, up to the damage if there is any.
    pub records: u64,
}

/// What [`check`] found.
#[derive(Debug, Default)]
pub struct Report {
    /// One for each journal, by incarnation and shard.
    pub journals: Vec<Checked>,
}

impl Report {
    /// 0: all is whole (a torn end is); 1: something is damaged or unreadable, the node would not start.
    pub fn exit_status(&self) -> u8 {
        u8::from(self.journals.iter().any(|journal| journal.result.is_err()))
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut records = 0;
        for Checked {
            owner: Owner { incarnation, shard },
            result,
            records: read,
        } in &self.journals
        {
            records += read;
            write!(f, "{incarnation:08}/{shard:04}: {read} records")?;
            match result {
                Ok(scan) => {
                    write!(
                        f,
                        " in {} blocks, {} bytes, {} segments",
                        scan.blocks, scan.bytes, scan.segments
                    )?;
                    match scan.torn_tail {
                        Some(TornTail { segment, offset }) => {
                            writeln!(f, "; torn write in segment {segment} at {offset}, cut")?;
                        }
                        None => writeln!(f)?,
                    }
                }
                Err(error) => writeln!(f, " before: {error}")?,
            }
        }
        let bad = self.journals.iter().filter(|journal| journal.result.is_err()).count();
        write!(f, "{} journals, {records} records, {bad} damaged", self.journals.len())
    }
}

/// Reads everything under the data directory `root` as a start would, past damage to the next journal.
///
/// # Errors
/// Only when `root` holds no journal, or the directories themselves cannot be listed.
pub fn check(root: &Path) -> Result<Report, RecoverError> {
    must_hold_journals(root)?;
    on_executor(root, async {
        let mut report = Report::default();
        let mut buffer = AlignedBuffer::new();
        let owners = owners(root)?;
        if owners.is_empty() {
            let journals = root.join(super::layout::JOURNAL);
            return Err(RecoverError::io(&journals)(io::Error::other(
                "there is no journal in it",
            )));
        }
        for owner in owners {
            let mut records = 0;
            let result = scan_shard(root, owner, &mut buffer, &mut |_| records += 1).await;
            report.journals.push(Checked { owner, result, records });
        }
        Ok(report)
    })
}

/// [`check`] for a command: prints the report to `out` and returns the exit status.
///
/// # Errors
/// As [`check`]; [`RecoverError::Output`]: `out` failed.
pub fn check_command(root: &Path, out: &mut dyn Write) -> Result<u8, RecoverError> {
    let report = check(root)?;
    let printed: io::Result<()> = writeln!(out, "{report}");
    printed.map_err(RecoverError::Output)?;
    Ok(report.exit_status())
}
