//! `dispatchd records export` on a file system that loses what was not synced.

use crate::support::{Setup, json};
use lossyfs::{Honesty, LossyDisk};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

fn records(arguments: &[&Path], command: &str) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_dispatchd"));
    program.args(["records", command]).args(arguments);
    program.output().expect("the program")
}

#[track_caller]
fn succeeded(done: &Output) {
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// A file that the command says it wrote is there, whole and under its name, when the power is lost right after.
#[tokio::test(flavor = "multi_thread")]
async fn an_export_outlives_the_power() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let (data, mounted) = (home.path().join("data"), home.path().join("mounted"));
    std::fs::create_dir(&mounted).expect("a mount point");
    let mut disk = match LossyDisk::mount(&mounted, 1, Honesty::Honest) {
        Ok(disk) => disk,
        Err(error) => {
            println!("SKIPPED: a lossy file system cannot be mounted here (root with /dev/fuse can): {error}");
            return;
        }
    };
    let mut node = Setup::shards(1).data(&data).start().await;
    for number in 0..20 {
        let request_id = format!("r-{number}");
        node.offer(&request_id, &["d"], &json!({})).await;
        node.cancel(&request_id).await.ok(200);
    }
    node.terminate();
    assert!(node.exit().await.success());
    // Which of the entries that were not synced survive is the seed's choice: one of these would be lost.
    for number in 0..8 {
        let file = mounted.join(format!("export-{number}.recs"));
        succeeded(&records(&[Path::new("--data"), &data, &file], "export"));
        disk.power_off(Duration::ZERO);
        disk.power_on().expect("the disk again");
        succeeded(&records(&[&file], "check"));
    }
}
