//! Power cuts under load, on a file system that loses what was not synced. Skipped, with a line that says so, where it cannot be
//! mounted (it takes root and `/dev/fuse`).

use crate::play::{self, setting};
use dispatchd::demo::crash::{CrashError, CrashReport, Power, is_lie_found};
use lossyfs::{Counts, Honesty, LossyDisk};
use std::io;

/// Cuts in a run; `CRASH_CUTS` says otherwise.
const CUTS: u32 = 10;
/// Cuts of a disk that lies, each of which loses what was promised.
const CUTS_LYING: u32 = 3;

struct Cuts(LossyDisk);

impl Power for Cuts {
    fn off(&mut self) {
        self.0.cut();
    }

    fn on(&mut self) -> io::Result<()> {
        self.0.power_on().map(drop)
    }
}

/// Cuts the power `cuts` times. `None`: skipped, and said so.
async fn play(cuts: u32, honesty: Honesty) -> Option<(Result<CrashReport, CrashError>, Counts)> {
    let options = play::options(cuts);
    let home = tempfile::tempdir().expect("a temporary directory");
    let data = home.path().join("data");
    std::fs::create_dir(&data).expect("a mount point");
    let disk = match LossyDisk::mount(&data, options.seed, honesty) {
        Ok(disk) => disk,
        Err(error) => {
            println!("SKIPPED: a lossy file system cannot be mounted here (root with /dev/fuse can): {error}");
            return None;
        }
    };
    let mut cuts = Cuts(disk);
    let played = play::run(home.path(), &options, Some(&mut cuts)).await;
    let counts = cuts.0.counts();
    println!("{counts:?}");
    Some((played, counts))
}

/// V.3: what was answered, confirmed or published is there after the power was lost at any instant.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_with_the_power() {
    let Some((played, counts)) = play(setting("CRASH_CUTS", CUTS), Honesty::Honest).await else {
        return;
    };
    let report = played.unwrap_or_else(|error| panic!("{error}"));
    report.print();
    assert!(!report.is_bad(), "{} violations", report.violations());
    assert!(
        counts.writes_durable > 0,
        "the journal's writes are durable ones: {counts:?}"
    );
    assert!(counts.losses.sectors_lost > 0, "the disk lost nothing: {counts:?}");
}

/// The check can fail: a disk that answers `O_DSYNC` writes without doing them loses what was promised, and that is found.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_lies_is_found_out() {
    let Some((played, _)) = play(CUTS_LYING, Honesty::Lying).await else {
        return;
    };
    match &played {
        Ok(report) => report.print(),
        Err(refusal) => println!("{refusal}"),
    }
    match is_lie_found(&played) {
        Ok(found) => assert!(found, "a lying disk lost nothing that was missed"),
        Err(error) => panic!("{error}"),
    }
}
