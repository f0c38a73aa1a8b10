//! What the system refuses is said, with its cause, and never taken for something else.

use super::support::owner;
use dispatchd::journal::segments;
use dispatchd::journal::{
    Damage, DamageKind, DataDirLock, Incarnation, LockError, RecoverError, create_shard_dir, inspect, recover_dir,
    segment_path,
};
use glommio::{LocalExecutorBuilder, Placement};
use std::error::Error;
use std::io;
use std::path::Path;

fn run<T>(work: impl Future<Output = T>) -> T {
    LocalExecutorBuilder::new(Placement::Unbound).make().unwrap().run(work)
}

/// A data directory whose `journal` is a file.
fn without_directory() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("journal"), "not a directory").unwrap();
    root
}

fn cause(error: &dyn Error) -> Option<String> {
    error.source().map(ToString::to_string)
}

#[test]
fn errors_name_their_place_and_their_cause() {
    let system = || io::Error::other("the disk is gone");
    let path = || "/data/x".into();
    let read = RecoverError::Io {
        path: path(),
        source: system(),
    };
    assert_eq!(read.to_string(), "cannot read the journal at /data/x: the disk is gone");
    assert_eq!(cause(&read).as_deref(), Some("the disk is gone"));
    let output = RecoverError::Output(system());
    assert_eq!(output.to_string(), "cannot print the journal: the disk is gone");
    assert_eq!(cause(&output).as_deref(), Some("the disk is gone"));
    let damage = Damage {
        owner: owner(3, 1),
        segment: 2,
        offset: 4096,
        kind: DamageKind::NotABlock,
    };
    let damaged = RecoverError::Damage {
        path: path(),
        damage: damage.clone(),
    };
    assert_eq!(damaged.to_string(), format!("/data/x: {damage}"));
    assert_eq!(cause(&damaged), Some(damage.to_string()));
    let lock = LockError::Io {
        path: path(),
        source: system(),
    };
    assert_eq!(lock.to_string(), "cannot lock /data/x: the disk is gone");
    assert_eq!(cause(&lock).as_deref(), Some("the disk is gone"));
    let taken = LockError::Taken {
        path: path(),
        holder: String::new(),
    };
    assert_eq!(
        taken.to_string(),
        "/data/x is locked: process unknown uses this data directory"
    );
    assert_eq!(cause(&taken), None);
}

/// The message of a taken lock names the process, the one that holds it now.
#[test]
fn a_lock_names_its_holder() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("LOCK"), "99999999 and more than that").unwrap();
    let _held = DataDirLock::acquire(root.path()).unwrap();
    let refused = DataDirLock::acquire(root.path()).unwrap_err().to_string();
    let expect = format!("process {} uses this data directory", std::process::id());
    assert!(refused.ends_with(&expect), "{refused}");
}

#[test]
fn a_journal_that_is_no_directory_is_an_error() {
    let root = without_directory();
    let kind = io::ErrorKind::NotADirectory;
    assert_eq!(Incarnation::list(root.path()).unwrap_err().kind(), kind);
    assert_eq!(Incarnation::next(root.path(), 0).unwrap_err().kind(), kind);
    let first = Incarnation::new(1).unwrap();
    assert_eq!(first.remove(root.path()).unwrap_err().kind(), kind);
    assert_eq!(create_shard_dir(root.path(), owner(1, 0)).unwrap_err().kind(), kind);
    let error = recover_dir(root.path()).unwrap_err();
    assert!(matches!(&error, RecoverError::Io { .. }), "{error}");
    assert!(error.to_string().contains(root.path().to_str().unwrap()), "{error}");
    // Commands name what they looked for.
    let journals = root.path().join("journal");
    let expect = format!("cannot read the journal at {}: not a directory", journals.display());
    assert_eq!(inspect::check(root.path()).unwrap_err().to_string(), expect);
    assert_eq!(
        inspect::dump(root.path(), &mut Vec::new()).unwrap_err().to_string(),
        expect
    );
}

/// A shard's directory stands in its incarnation's, which is made first; one that is there is taken as it is.
#[test]
fn a_shards_directory_is_made_once() {
    let root = tempfile::tempdir().unwrap();
    let missing = create_shard_dir(root.path(), owner(1, 4)).unwrap_err();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    let incarnation = Incarnation::next(root.path(), 0).unwrap();
    assert_eq!(incarnation.get(), 1);
    let dir = create_shard_dir(root.path(), owner(1, 4)).unwrap();
    std::fs::write(segment_path(&dir, 1), "here to stay").unwrap();
    assert_eq!(create_shard_dir(root.path(), owner(1, 4)).unwrap(), dir);
    assert!(segment_path(&dir, 1).exists());
}

#[test]
fn what_cannot_be_removed_is_an_error() {
    let root = tempfile::tempdir().unwrap();
    let remove = |dir: &Path, ids: &[u64]| run(segments::remove(dir, ids));
    // A directory where a segment should be, and one more that could be removed, but not in this order.
    std::fs::create_dir(segment_path(root.path(), 1)).unwrap();
    std::fs::write(segment_path(root.path(), 2), "later").unwrap();
    let kind = remove(root.path(), &[1, 2]).unwrap_err().kind();
    assert_eq!(kind, io::ErrorKind::IsADirectory);
    assert!(
        segment_path(root.path(), 2).exists(),
        "oldest first, or a crash leaves a hole"
    );
    remove(root.path(), &[2]).unwrap();
    assert!(!segment_path(root.path(), 2).exists());
    // The directory itself cannot be synced.
    let gone = remove(&root.path().join("gone"), &[1]).unwrap_err();
    assert_eq!(gone.kind(), io::ErrorKind::NotFound);
}
