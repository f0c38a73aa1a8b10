//! What a crash leaves in conflict is settled at the next start, and a port has one owner.

use crate::support::{Driver, Node, Setup, eventually, json, number as number_of, within};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

/// A second node (another data directory) on the port of a running one must not start: the kernel would deal the
/// connections out between the two, so that a request that one took is 404 at the other.
#[tokio::test]
async fn a_port_has_one_owner() {
    let first = Setup::shards(1).start().await;
    let mut second = Setup::shards(1).prepare();
    second.address = first.address;
    second.spawn();
    let ended = tokio::time::timeout(Duration::from_secs(5), second.exit()).await;
    assert!(
        ended.is_ok_and(|status| !status.success()),
        "two nodes serve {}",
        first.address
    );
}

/// W2.3, V.4: after a restart, an offer whose time was up while nobody ran is timed out; no driver is shown it again.
#[tokio::test]
async fn an_expired_offer_is_not_offered_after_a_restart() {
    const DRIVERS: usize = 40;
    let mut node = Setup::shards(4).start().await;
    let mut drivers = Vec::new();
    let mut end_ms = 0;
    for number in 0..DRIVERS {
        let mut driver = node.driver(&format!("d{number}")).await;
        let more = json!({"offer_timeout_ms": 500});
        node.offer(&format!("r{number}"), &[&driver.id.clone()], &more).await;
        end_ms = end_ms.max(number_of(&driver.expect("OFFER").await, "expires_at_ms"));
        drivers.push(driver);
    }
    node.kill_9();
    drop(drivers);
    let is_over = || async { (UNIX_EPOCH.elapsed().unwrap().as_millis() > u128::from(end_ms)).then_some(()) };
    eventually("the end of the last offer", is_over).await;
    node.spawn();
    let address = node.address;
    let connects = (0..DRIVERS).map(|number| {
        tokio::spawn(async move {
            let id = format!("d{number}");
            let welcomed = || async { Driver::try_connect(address, &id).await.ok() };
            eventually("the node's return", welcomed).await.welcome["state"].clone()
        })
    });
    let mut offered = 0;
    for connect in connects.collect::<Vec<_>>() {
        offered += usize::from(connect.await.unwrap() == "offered");
    }
    assert_eq!(
        offered, 0,
        "of {DRIVERS} drivers were welcomed as `offered` after their offers' end"
    );
}

/// Kills the node while offers are on their way to drivers who already hold `z-*`, and starts it again. Ids before
/// `z-` in the alphabet, since recovery goes by id. It dies when so many POSTs have been answered, another number each time.
async fn crash_under_offers_to_taken_drivers(accept: bool) {
    const DRIVERS: usize = 10;
    let mut node = Setup::shards(4).start().await;
    for round in 0..20 {
        let mut drivers = Vec::new();
        for number in 0..DRIVERS {
            let id = format!("d{round}-{number}");
            let mut driver = node.driver(&id).await;
            let first = format!("z-{id}");
            node.offer(&first, &[&id], &json!({"offer_timeout_ms": 600_000})).await;
            let offer = driver.expect("OFFER").await;
            if accept {
                driver.accept(&offer).await;
            }
            drivers.push(driver);
        }
        let mut posts = tokio::task::JoinSet::new();
        for number in 0..DRIVERS * 20 {
            let id = format!("d{round}-{}", number % DRIVERS);
            let body = crate::support::api::offer(&format!("a{number}-{id}"), &[&id], &json!({}));
            let post = node.http.post(node.url("/v1/dispatch/offer")).json(&body);
            posts.spawn(post.send());
        }
        for _ in 0..round * 5 {
            within("an answer to a POST", posts.join_next()).await;
        }
        node.kill_9();
        node.spawn();
        node.until_ready().await;
        for driver in drivers {
            let view = node.driver_view(&driver.id).await;
            if accept {
                assert_eq!(view["state"], "en_route_to_pickup", "round {round}: {view}");
            } else {
                let held = format!("z-{}", driver.id);
                assert_eq!(view["offer"]["request_id"], held, "round {round}: {view}");
            }
        }
    }
}

/// V.3: a node always starts again, and a driver keeps its trip.
#[tokio::test]
async fn a_crash_under_offers_to_drivers_on_a_trip() {
    crash_under_offers_to_taken_drivers(true).await;
}

/// V.4: the offer that the driver holds is the one that is resumed, not one that was about to be refused.
#[tokio::test]
async fn a_crash_under_offers_to_offered_drivers() {
    crash_under_offers_to_taken_drivers(false).await;
}

/// A trip of `d1` in this node, which then ends; its id.
async fn trip_and_kill(node: &mut Node, request_id: &str) -> String {
    let mut driver = node.driver("d1").await;
    node.offer(request_id, &["d1"], &json!({})).await;
    let offer = driver.expect("OFFER").await;
    let trip_id = driver.accept(&offer).await;
    node.kill_9();
    trip_id
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("a new directory");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let (from, name) = {
            let entry = entry.expect("a directory entry");
            (entry.path(), entry.file_name())
        };
        if from.is_dir() {
            copy_dir(&from, &to.join(name));
        } else {
            std::fs::copy(&from, to.join(name)).expect("a copy");
        }
    }
}

/// V.2, V.3: a directory that says of one driver that it has two trips (here: the journals of two nodes put together) is
/// started all the same. One trip binds the driver; the other is kept, and ends when somebody ends it.
#[tokio::test]
async fn two_trips_of_one_driver_are_survived() {
    let setup = || Setup::shards(1).set("journal_segment_bytes", 2 << 20);
    let mut node = setup().start().await;
    let first = trip_and_kill(&mut node, "r1").await;
    let mut other = setup().start().await;
    // Another number of incarnation.
    other.crash_and_restart().await;
    let second = trip_and_kill(&mut other, "r2").await;
    let incarnation = Path::new("journal").join("00000002");
    copy_dir(&other.data().join(&incarnation), &node.data().join(&incarnation));

    node.spawn();
    node.until_ready().await;
    let view = node.driver_view("d1").await;
    assert_eq!(
        (&view["state"], &view["trip_id"]),
        (&json!("en_route_to_pickup"), &json!(first))
    );
    for request_id in ["r1", "r2"] {
        assert_eq!(node.view(request_id).await["state"], "ACCEPTED");
    }
    let mut driver = node.driver("d1").await;
    assert_eq!(driver.welcome["trip_id"], first);
    node.cancel_trip(&second).await.ok(200);
    assert_eq!(node.driver_view("d1").await["trip_id"], first);
    driver.trip(&first, "complete").await;
    driver.expect_state("available").await;
    node.crash_and_restart().await;
    assert_eq!(node.driver_view("d1").await["state"], "offline");
}
