//! What is not durable yet is not said: the data directory is on a file system that is frozen for a while.

use crate::support::disk::SmallDisk;
use crate::support::{Node, Setup, json};
use tokio::task::JoinHandle;

const DISK_BYTES: u64 = 256 << 20;

fn driver_view(node: &Node, id: &str) -> JoinHandle<String> {
    let request = node.http.get(node.url(&format!("/v1/drivers/{id}")));
    tokio::spawn(async {
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), 200);
        answer.text().await.expect("a body")
    })
}

/// W4.2, H8.1, V.3: a change of shift is told, on the socket and to callers, when it is stored; and a driver is shown when the store
/// will know it again.
#[tokio::test]
async fn drivers_are_shown_as_they_are_stored() {
    let Some(disk) = SmallDisk::mount(DISK_BYTES) else {
        return;
    };
    let setup = Setup::shards(1).data(&disk.path().join("data"));
    let node = setup.set("disk_reserve_bytes", 0).start().await;
    let mut driver = node.driver("d1").await;
    assert_eq!(node.driver_view("d1").await["state"], "available");
    let Some(frozen) = disk.freeze() else { return };
    driver.send(&json!({"type": "STATE", "state": "offline"})).await;
    driver.fence().await;
    let mut newcomer = node.driver("d2").await;
    newcomer.fence().await;
    let views = [driver_view(&node, "d1"), driver_view(&node, "d2")];
    for _ in 0..20 {
        assert_eq!(node.get("/healthz").await.status, 200);
    }
    assert!(
        views.iter().all(|view| !view.is_finished()),
        "shown before it was stored"
    );
    drop(frozen);
    driver.expect_state("offline").await;
    for (view, state) in views.into_iter().zip(["offline", "available"]) {
        let view = view.await.expect("a view");
        assert!(view.contains(&format!("\"state\":\"{state}\"")), "{view}");
    }
}
