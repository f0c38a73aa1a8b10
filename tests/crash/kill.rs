//! `kill -9`, fifty times at random instants under load.

use crate::play::{self, setting};

const KILLS: u32 = 50;

/// V.1, V.3, V.4, V.7, H7.2, H9.8, W2.2: no 2xx is lost, no `CONFIRMED` lost or doubled, every audit grows only at its end,
/// events once published stay as they are, every request comes to an end, one winner each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_or_doubled() {
    let options = play::options(setting("CRASH_KILLS", KILLS));
    let home = tempfile::tempdir().expect("a temporary directory");
    let report = play::run(home.path(), &options, None).await;
    let report = report.unwrap_or_else(|error| panic!("{error}"));
    report.print();
    assert!(!report.is_bad(), "{} violations", report.violations());
}
