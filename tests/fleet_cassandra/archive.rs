//! `dispatchd records`: what a node had before it joined a fleet, in the fleet's tables.

use crate::cluster::{scratch, shared, unique};
use crate::support::{Setup, eventually, json};
use std::process::{Command, Output};

fn export(data: &std::path::Path, file: &std::path::Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dispatchd"))
        .args(["records", "export", "--data"])
        .arg(data)
        .arg(file)
        .output()
        .expect("the program")
}

#[track_caller]
fn succeeded(done: &Output, expect: &str) {
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && said.contains(expect), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_brings_its_records_along() {
    let Some(shared) = shared().await else { return };
    let data = tempfile::tempdir().unwrap();
    let name = unique("n");
    let alone = Setup::shards(2)
        .set("node_id", &name)
        .set("drain_ms", 0)
        .data(data.path());
    let mut node = alone.start().await;
    let driver = unique("d");
    let ids: Vec<String> = (0..30).map(|_| unique("r")).collect();
    for id in &ids {
        node.ended_request(id, &driver).await;
    }
    let whole = node.records_lately(&driver).await;
    assert_eq!(whole.len(), ids.len());
    let file = scratch("export").with_extension("recs");
    let refused = export(data.path(), &file);
    assert!(
        !refused.status.success() && !file.exists(),
        "a node that runs is not exported"
    );
    // What is open when it ends is no part of the archive, and does not keep it back.
    let open = unique("d");
    let mut offered = node.driver(&open).await;
    node.offer(&unique("r"), &[&open], &json!({"offer_timeout_ms": 120_000}))
        .await;
    offered.expect("OFFER").await;
    offered.fence().await;
    node.terminate();
    assert!(node.exit().await.success());

    // Twice: the same again.
    for _ in 0..2 {
        succeeded(&export(data.path(), &file), "30 dispatch records and 30 ended requests");
        let path = file.to_str().unwrap();
        let done = shared
            .cluster
            .command(&["records", "import", path], &shared.cluster.keyspace);
        succeeded(&done, "30 dispatch records and 30 ended requests are in keyspace");
    }
    let session = shared.cluster.session().await;
    assert_eq!(shared.cluster.records_of(&session, &driver).await, 30);

    // A node that never saw any of it shows all of it.
    let other = shared.cluster.node(&unique("n")).start().await;
    assert_eq!(other.records_lately(&driver).await, whole);
    let known = async || {
        let answer = other.get(&format!("/v1/dispatch/audit/{}", ids[0])).await;
        (answer.status == 200).then_some(())
    };
    eventually("the other node to know the request", known).await;

    // A file with a turned bit is refused before anything is written.
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(&file, bytes).unwrap();
    let done = shared
        .cluster
        .command(&["records", "import", file.to_str().unwrap()], &shared.cluster.keyspace);
    assert!(!done.status.success());
    assert!(
        String::from_utf8_lossy(&done.stderr).contains("damaged at byte"),
        "{done:?}"
    );
    std::fs::remove_file(&file).unwrap();
}
