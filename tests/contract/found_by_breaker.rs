//! Confirmed faults, each by a test that fails until it is mended.

use crate::support::{Setup, json};
use std::time::Duration;

/// A second node (another data directory) on the port of a running one must not start: the kernel would deal the
/// connections out between the two, so that a request that one took is 404 at the other.
#[tokio::test]
async fn a_port_has_one_owner() {
    let first = Setup::shards(1).start().await;
    let mut second = Setup::shards(1).prepare();
    second.address = first.address;
    second.spawn();
    let ended = tokio::time::timeout(Duration::from_secs(5), second.exit()).await;
    assert!(ended.is_ok_and(|status| !status.success()), "two nodes serve {}", first.address);
}

/// W2.3, V.4: after a restart, an offer whose time was up while nobody ran is timed out; no driver is shown it again.
#[tokio::test]
async fn an_expired_offer_is_not_offered_after_a_restart() {
    const DRIVERS: usize = 40;
    let mut node = Setup::shards(4).start().await;
    let mut drivers = Vec::new();
    for number in 0..DRIVERS {
        let mut driver = node.driver(&format!("d{number}")).await;
        let more = json!({"offer_timeout_ms": 500});
        node.offer(&format!("r{number}"), &[&driver.id.clone()], &more).await;
        driver.expect("OFFER").await;
        drivers.push(driver);
    }
    node.kill_9();
    drop(drivers);
    tokio::time::sleep(Duration::from_secs(1)).await;
    node.spawn();
    let address = node.address;
    let connects = (0..DRIVERS).map(|number| {
        tokio::spawn(async move {
            let id = format!("d{number}");
            loop {
                if let Ok(driver) = crate::support::Driver::try_connect(address, &id).await {
                    return driver.welcome["state"].clone();
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
    });
    let mut offered = 0;
    for connect in connects.collect::<Vec<_>>() {
        offered += usize::from(connect.await.unwrap() == "offered");
    }
    assert_eq!(offered, 0, "of {DRIVERS} drivers were welcomed as `offered`, half a second after their offers' end");
}
