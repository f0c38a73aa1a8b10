//! `dispatchd records`: from the embedded store of a node that does not run, by way of a file, into the fleet's tables.
//!
//! For a node that ran without a fleet, and for what was committed while it had none. Both commands may be repeated: an export
//! only reads, an import writes the same rows again.

use super::ServeError;
use crate::cold::archive::{Head, Item, Reader, Writer};
use crate::cold::cassandra::{self, ENTRIES_MAX, Sink};
use crate::cold::embedded::{OutboxEntry, StoreExport};
use crate::cold::{CassandraConfig, StoreError};
use crate::config::Config;
use crate::journal::{DataDirLock, recover_dir};
use crate::node::recovery;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Entries written to Cassandra between two reads of the file.
const CHUNK: usize = ENTRIES_MAX;

/// Writes everything that the store of `config.data_dir` has into `file`, whole or not at all.
///
/// # Errors
/// The node runs, its journal holds what the store lacks, the store is damaged, or the file cannot be written.
pub fn export(config: Config, file: &Path, out: &mut impl Write) -> Result<(), ServeError> {
    let data_dir = config.data_dir.clone();
    if !data_dir.join("store").is_dir() {
        return Err(ServeError::new(
            "nothing to export",
            format!("{} has no store", data_dir.display()),
        ));
    }
    let _lock = DataDirLock::acquire(&data_dir).map_err(|error| ServeError::new("data directory", error))?;
    let config = super::identity::settle(config)?;
    let cannot = |error: StoreError| ServeError::new("cannot export", error);
    let store = StoreExport::open(&data_dir.join("store")).map_err(cannot)?;
    check_journal(&data_dir, &store)?;
    let part = file.with_extension("part");
    let unwritten = |error: std::io::Error| ServeError::new(format!("cannot write {}", file.display()), error);
    let target = BufWriter::new(File::create(&part).map_err(unwritten)?);
    let head = Head {
        node_id: config.node_id.to_string(),
        created_at_ms: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as u64),
    };
    let mut writer = Writer::begin(target, &head).map_err(cannot)?;
    store.for_each(|item| writer.push(item)).map_err(cannot)?;
    let (target, counts) = writer.finish().map_err(cannot)?;
    target
        .into_inner()
        .map_err(|error| unwritten(error.into_error()))?
        .sync_all()
        .map_err(unwritten)?;
    std::fs::rename(&part, file).map_err(unwritten)?;
    // The name too is to outlive the power.
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty());
    let dir = File::open(dir.unwrap_or(Path::new("."))).map_err(unwritten)?;
    dir.sync_all().map_err(unwritten)?;
    let said = writeln!(
        out,
        "{} dispatch records and {} ended requests of {} are in {}",
        counts.records,
        counts.requests,
        head.node_id,
        file.display()
    );
    said.map_err(unwritten)
}

/// What a killed node had committed and not stored yet would be missing in the file.
fn check_journal(data_dir: &Path, store: &StoreExport) -> Result<(), ServeError> {
    let cannot = |error: &dyn std::fmt::Display| ServeError::new("cannot export", error);
    let shards = recover_dir(data_dir).map_err(|error| cannot(&error))?;
    let feed = recovery::understand(shards)?.feed;
    let stored: BTreeMap<_, _> = store
        .watermarks()
        .map_err(|error| cannot(&error))?
        .into_iter()
        .collect();
    let lacks = |source, lsn| lsn > stored.get(source).copied().unwrap_or(0);
    let missing = feed.iter().filter(|commit| lacks(&commit.source, commit.lsn)).count();
    if missing == 0 {
        return Ok(());
    }
    Err(cannot(&format!(
        "the journal holds {missing} commits that the store lacks: start the node once, and end it with SIGTERM"
    )))
}

/// Checks a file whole and says what it holds.
///
/// # Errors
/// It cannot be read, or is damaged.
pub fn check(file: &Path, out: &mut impl Write) -> Result<(), ServeError> {
    let (mut reader, head) = open(file)?;
    while reader.read().map_err(|error| refused(file, error))?.is_some() {}
    let counts = reader.counts();
    let said = writeln!(
        out,
        "{} holds {} dispatch records and {} ended requests of {}",
        file.display(),
        counts.records,
        counts.requests,
        head.node_id
    );
    said.map_err(|error| ServeError::new("cannot write", error))
}

/// Writes what `file` holds to Cassandra, after it was checked whole.
///
/// # Errors
/// The file is damaged, or Cassandra cannot be used. What was written till then is complete in itself.
pub fn import(config: &CassandraConfig, file: &Path, out: &mut impl Write) -> Result<(), ServeError> {
    check(file, out)?;
    let unusable = |error| ServeError::new("cannot import", error);
    let work = cassandra::block_on(pour(config, file)).map_err(unusable)?;
    let (records, requests) = work?;
    let said = writeln!(
        out,
        "{records} dispatch records and {requests} ended requests are in keyspace {}; older ones are out of retention",
        config.keyspace
    );
    said.map_err(|error| ServeError::new("cannot write", error))
}

async fn pour(config: &CassandraConfig, file: &Path) -> Result<(u64, u64), ServeError> {
    let (mut reader, head) = open(file)?;
    let sink = Sink::open(config)
        .await
        .map_err(|error| ServeError::new("cannot import", error))?;
    loop {
        let mut entries = Vec::with_capacity(CHUNK);
        while entries.len() < CHUNK
            && let Some(item) = reader.read().map_err(|error| refused(file, error))?
        {
            entries.push(entry_of(item));
        }
        if entries.is_empty() {
            let metrics = sink.metrics();
            return Ok((metrics.records.get(), metrics.requests.get()));
        }
        let stored = sink.store(&entries, &head.node_id).await;
        stored.map_err(|error| ServeError::new("cannot import", error))?;
    }
}

fn entry_of(item: Item) -> OutboxEntry {
    let (rows, ended) = match item {
        Item::Record(row) => (vec![row], None),
        Item::Request(ended) => (Vec::new(), Some(*ended)),
    };
    OutboxEntry { at_ms: 0, rows, ended }
}

fn open(file: &Path) -> Result<(Reader<BufReader<File>>, Head), ServeError> {
    let opened = File::open(file).map_err(|error| ServeError::new(format!("cannot read {}", file.display()), error))?;
    Reader::begin(BufReader::new(opened)).map_err(|error| refused(file, error))
}

fn refused(file: &Path, error: StoreError) -> ServeError {
    ServeError::new(format!("cannot use {}", file.display()), error)
}
