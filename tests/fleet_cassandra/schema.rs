//! `dispatchd schema apply` and `check`, and that the tables fit what nodes will do with them.

use crate::cluster::{shared, unique};
use crate::support::eventually;
use scylla::value::Row;

fn lines(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schema_is_made_checked_and_made_again() {
    let Some(shared) = shared().await else { return };
    let cluster = shared.cluster;
    let keyspace = unique("schema").replace('-', "_");
    let check = |arguments: &[&str], status: i32, expect: &str| {
        let done = cluster.command(arguments, &keyspace);
        let said = lines(&done.stdout) + &lines(&done.stderr);
        assert_eq!(done.status.code(), Some(status), "{arguments:?}: {said}");
        assert!(said.contains(expect), "{arguments:?}: {said}");
    };
    check(&["schema", "check"], 1, "is missing");
    check(&["schema", "apply"], 1, "--replication says not how many copies");
    check(&["schema", "apply"], 1, "such as --replication datacenter1=1");
    check(&["schema", "apply", "--replication", "many"], 2, "simple=COPIES");
    check(&["schema", "apply", "--replication", "simple=1"], 0, "applied 1: ");
    check(&["schema", "apply"], 0, "has schema version 2");
    check(
        &["schema", "apply", "--replication", "simple=3"],
        1,
        "change it with ALTER KEYSPACE",
    );
    check(&["schema", "check"], 0, "schema version 2, this program needs 2");
    let session = cluster.session().await;
    // Without a table, and then as the version before had left it.
    let forget = format!("DELETE FROM {keyspace}.schema_migrations WHERE version = 2");
    session
        .query_unpaged(format!("DROP TABLE {keyspace}.beats"), ())
        .await
        .unwrap();
    check(&["schema", "check"], 1, &forget);
    session.query_unpaged(forget, ()).await.unwrap();
    check(&["schema", "check"], 1, "migration 2 is not applied");
    check(&["schema", "apply"], 0, "applied 2: ");
    check(&["schema", "check"], 0, "schema version 2, this program needs 2");
    let drop = format!("ALTER TABLE {keyspace}.dispatch_records DROP trip_id");
    session.query_unpaged(drop, ()).await.unwrap();
    check(&["schema", "check"], 1, "dispatch_records.trip_id is missing");
    // The way out is what is said: a node says it too, and it works.
    let add = format!("ALTER TABLE {keyspace}.dispatch_records ADD trip_id text");
    check(&["schema", "apply"], 1, &add);
    let mut node = cluster
        .node(&unique("n"))
        .set("fleet_cassandra_keyspace", &keyspace)
        .prepare();
    node.spawn();
    let said = async || node.logged().contains(&add).then_some(());
    eventually("the node to say what is damaged", said).await;
    session.query_unpaged(add.as_str(), ()).await.unwrap();
    node.until_ready().await;
    check(&["schema", "check"], 0, "schema version 2");
    let elsewhere = ["schema", "check", "--set", "fleet_cassandra_datacenter=nowhere"];
    check(
        &elsewhere,
        1,
        "fleet_cassandra_datacenter is nowhere, and the cluster has no such datacenter; it has: datacenter1",
    );
    node.kill_9();
    session
        .query_unpaged(format!("DROP KEYSPACE {keyspace}"), ())
        .await
        .unwrap();
}

/// A claim takes a request once; a transition adds its steps only while owner, incarnation and attempt are as it thinks.
#[tokio::test(flavor = "multi_thread")]
async fn claims_and_transitions_fit_the_table_of_requests() {
    let Some(shared) = shared().await else { return };
    let session = shared.cluster.session().await;
    let table = format!("{}.requests", shared.cluster.keyspace);
    let request_id = unique("claim");
    let applied = async |text: String| {
        let rows = session
            .query_unpaged(text, ())
            .await
            .unwrap()
            .into_rows_result()
            .unwrap();
        let row = rows.first_row::<Row>().unwrap();
        row.columns[0]
            .as_ref()
            .and_then(scylla::value::CqlValue::as_boolean)
            .unwrap()
    };
    let claim = |owner: &str| {
        format!(
            "BEGIN BATCH
               INSERT INTO {table} (request_id, owner, incarnation, attempt) VALUES ('{request_id}', '{owner}', 7, 1) IF NOT EXISTS;
               INSERT INTO {table} (request_id, epoch, seq, steps) VALUES ('{request_id}', 0, 1, 0x01);
             APPLY BATCH"
        )
    };
    assert!(applied(claim("a")).await);
    assert!(!applied(claim("b")).await);
    let transition = |incarnation: u64, attempt: u32, seq: u32| {
        format!(
            "BEGIN BATCH
               UPDATE {table} SET attempt = {} WHERE request_id = '{request_id}' IF owner = 'a' AND incarnation = {incarnation} AND attempt = {attempt};
               INSERT INTO {table} (request_id, epoch, seq, steps) VALUES ('{request_id}', 0, {seq}, 0x01);
             APPLY BATCH",
            attempt + 1
        )
    };
    assert!(applied(transition(7, 1, 2)).await);
    assert!(!applied(transition(7, 1, 3)).await);
    assert!(!applied(transition(6, 2, 3)).await);
    let text = format!("SELECT seq FROM {table} WHERE request_id = '{request_id}'");
    let rows = session
        .query_unpaged(text, ())
        .await
        .unwrap()
        .into_rows_result()
        .unwrap();
    let seqs: Vec<i32> = rows.rows::<(i32,)>().unwrap().map(|row| row.unwrap().0).collect();
    assert_eq!(seqs, [1, 2]);
}
