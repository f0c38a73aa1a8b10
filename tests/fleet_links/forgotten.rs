//! What binds a driver is not forgotten, whatever else was offered to it meanwhile, and for however long a link is away.

use crate::fleet::{Fleet, response, until_metric};
use crate::proxy::Mode;
use crate::support::{eventually, json, within};
use dispatchd::cold::links::port::PATIENCE;

/// A driver at the second of three nodes has a trip of the first one, and refuses an offer of node `by`; then the driver's node dies. Gives
/// the trip.
async fn refused_beside_a_trip(by: usize) -> (Fleet, String) {
    let mut fleet = Fleet::start(3).await;
    let mut driver = fleet.driver(1, "d-1").await;
    fleet.offer(0, "r-1", &["d-1"], &json!({})).await;
    let offer = driver.expect("OFFER").await;
    let trip_id = driver.accept(&offer).await;
    fleet.until_bound("d-1", "r-1").await;
    fleet.offer(by, "r-2", &["d-1"], &json!({})).await;
    fleet.until_audited(by, "r-2", "OFFER_REFUSED").await;
    fleet.nodes[1].kill_9();
    (fleet, trip_id)
}

/// A node's request was refused by a driver with a trip of another node's. The driver's node dies: the driver comes to the one that was
/// refused, and has its trip.
#[tokio::test]
async fn a_refused_offer_does_not_hide_a_trip() {
    let (fleet, trip_id) = refused_beside_a_trip(2).await;
    let driver = fleet.nodes[2].driver("d-1").await;
    assert_eq!(driver.welcome["trip_id"], trip_id.as_str(), "{}", driver.welcome);
}

/// The same with the node that has the trip: what it offered since does not hide it.
#[tokio::test]
async fn a_refused_offer_of_the_owner_does_not_hide_a_trip() {
    let (fleet, trip_id) = refused_beside_a_trip(0).await;
    let driver = fleet.nodes[0].driver("d-1").await;
    assert_eq!(driver.welcome["trip_id"], trip_id.as_str(), "{}", driver.welcome);
}

/// No driver has two trips, also when the registry is all that knows of the first one.
#[tokio::test]
async fn a_driver_does_not_get_a_second_trip() {
    let (fleet, first) = refused_beside_a_trip(2).await;
    let driver = fleet.nodes[2].driver("d-1").await;
    assert_eq!(driver.welcome["trip_id"], first, "{}", driver.welcome);
    fleet.until_registered(2, "d-1").await;
    fleet.offer(2, "r-3", &["d-1"], &json!({})).await;
    fleet.until_audited(2, "r-3", "OFFER_REFUSED").await;
}

/// A trip is cancelled while the link to its driver's node is away for longer than anything is looked for: the driver hears so when the
/// link is back.
#[tokio::test]
async fn a_trip_that_ends_while_a_link_is_away_for_long_ends() {
    let fleet = Fleet::start(2).await;
    let mut driver = fleet.driver(1, "d-1").await;
    fleet.offer(0, "r-1", &["d-1"], &json!({})).await;
    let offer = driver.expect("OFFER").await;
    driver.answer("ACK", &offer).await;
    let trip_id = driver.accept(&offer).await;
    fleet.until_audited(0, "r-1", "OFFER_ACKED").await;
    driver.fence().await;
    fleet.set_links_of(1, Mode::Cut);
    for node in &fleet.nodes {
        until_metric(node, "dispatchd_links_up", |up| up == 0).await;
    }
    let cancelled = fleet.nodes[0]
        .post(&format!("/v1/trips/{trip_id}/cancel"), &json!({}))
        .await;
    cancelled.ok(200);
    // How long that lasts is what this test is about.
    let pause = PATIENCE + std::time::Duration::from_secs(4);
    let until = tokio::time::Instant::now() + pause;
    while tokio::time::Instant::now() < until {
        driver.fence().await;
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    fleet.set_links_of(1, Mode::Pass);
    fleet.until_linked().await;
    let heard = within("the end of the trip", driver.next()).await;
    assert_eq!(heard["type"], "TRIP_CANCELLED", "{heard}");
    driver.expect_state("available").await;
}

/// A call about an offer that nobody knows is answered, also when its driver comes and goes between nodes that cannot speak.
#[tokio::test]
async fn a_call_about_an_unknown_offer_is_answered_when_its_driver_comes_again() {
    let fleet = Fleet::start(2).await;
    drop(fleet.driver(0, "d-1").await);
    fleet.set_links_of(1, Mode::Cut);
    for node in &fleet.nodes {
        until_metric(node, "dispatchd_links_up", |up| up == 0).await;
    }
    let driver = fleet.driver(1, "d-1").await;
    let call = async {
        fleet.nodes[1]
            .post("/v1/dispatch/response", &response("d-1", "r-77", "ACCEPT"))
            .await
    };
    let moves = async {
        // The call is at the driver's home by then.
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        drop(driver);
        let other = fleet.driver(0, "d-1").await;
        drop(other);
        fleet.driver(1, "d-1").await
    };
    let (answer, _driver) = tokio::join!(call, moves);
    assert!([404, 503].contains(&answer.status), "{}", answer.status);
}

/// A driver who was away for longer than its time comes to another node: who offered to it at the one before finds it.
#[tokio::test]
async fn a_driver_who_comes_to_another_node_after_its_time_is_offered() {
    let fleet = Fleet::start_with(3, |setup| setup.set("driver_ttl_ms", 100)).await;
    let mut driver = fleet.driver(1, "d-1").await;
    fleet.offer(0, "r-1", &["d-1"], &json!({})).await;
    let offer = driver.expect("OFFER").await;
    driver.answer("DECLINE", &offer).await;
    driver.expect_declined(&offer).await;
    drop(driver);
    let gone = || async {
        let mut client = fleet.redis.client().await;
        let mut exists = redis::cmd("EXISTS");
        exists.arg("driver:d-1");
        let there: i64 = exists.query_async(&mut client.0).await.expect("EXISTS");
        (there == 0).then_some(())
    };
    eventually("the driver's time to be over", gone).await;
    let mut driver = fleet.driver(2, "d-1").await;
    fleet.offer(0, "r-2", &["d-1"], &json!({})).await;
    let refused = fleet.until_audited(0, "r-2", "OFFER_REFUSED");
    tokio::select! {
        offer = driver.expect("OFFER") => assert_eq!(offer["request_id"], "r-2"),
        () = refused => panic!("a driver who is at gw-2 is taken for offline: {:?}", fleet.audit(0, "r-2").await),
    }
}

/// A driver who lost its socket keeps its state for `driver_ttl_ms`, for every node: the offer waits for the reconnect.
#[tokio::test]
async fn a_driver_without_a_socket_is_found_for_as_long_as_it_is_kept() {
    let fleet = Fleet::start_with(2, |setup| {
        setup
            .set("heartbeat_ms", 500)
            .set("driver_ttl_ms", 60_000)
            .set("fleet_redis_driver_ttl_ms", 1_000)
    })
    .await;
    drop(fleet.driver(1, "d-1").await);
    let kept = || async {
        let mut client = fleet.redis.client().await;
        let mut left = redis::cmd("PTTL");
        left.arg("driver:d-1");
        let left_ms: i64 = left.query_async(&mut client.0).await.expect("PTTL");
        (left_ms > 10_000).then_some(())
    };
    eventually("the entry to last as long as the driver is kept", kept).await;
    assert_eq!(fleet.view(1, "d-1").await["state"], "available");
    fleet.offer(0, "r-1", &["d-1"], &json!({})).await;
    let mut driver = fleet.nodes[1].driver("d-1").await;
    let refused = fleet.until_audited(0, "r-1", "OFFER_REFUSED");
    tokio::select! {
        offer = driver.expect("OFFER") => assert_eq!(offer["request_id"], "r-1"),
        () = refused => panic!("a driver who is kept is taken for offline: {:?}", fleet.audit(0, "r-1").await),
    }
}

/// Many drivers were offered something at a node that dies, and do not come back. Others are found and offered as before.
#[tokio::test]
async fn drivers_of_a_dead_node_do_not_keep_others_from_being_found() {
    const DRIVERS: usize = 37_000;
    const CANDIDATES: usize = 64;
    let mut fleet = Fleet::start(3).await;
    let id = |number: usize| format!("x-{number}");
    let mut client = fleet.redis.client().await;
    let mut pipe = redis::pipe();
    for number in 0..DRIVERS {
        let key = format!("driver:{}", id(number));
        pipe.cmd("HSET")
            .arg(key)
            .arg("node")
            .arg("gw-1")
            .arg("session")
            .arg(5)
            .ignore();
    }
    pipe.query_async::<()>(&mut client.0).await.expect("HSET");
    let mut last = String::new();
    for from in (0..DRIVERS).step_by(CANDIDATES) {
        let ids: Vec<String> = (from..DRIVERS.min(from + CANDIDATES)).map(id).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        last = format!("r-{from}");
        fleet.offer(0, &last, &ids, &json!({"deadline_ms": 600_000})).await;
        if from % (20 * CANDIDATES) == 0 {
            fleet.until_audited(0, &last, "CANDIDATES_EXHAUSTED").await;
        }
    }
    fleet.until_audited(0, &last, "CANDIDATES_EXHAUSTED").await;
    fleet.nodes[1].kill_9();
    until_metric(&fleet.nodes[0], "dispatchd_links_up", |up| up == 1).await;
    let mut driver = fleet.driver(2, "d-1").await;
    fleet
        .offer(0, "r-1", &["d-1"], &json!({"offer_timeout_ms": 10_000}))
        .await;
    let ended = fleet.until_audited(0, "r-1", "OFFER_TIMED_OUT");
    tokio::select! {
        offer = driver.expect("OFFER") => assert_eq!(offer["request_id"], "r-1"),
        () = ended => panic!("d-1 is connected and hears of no offer: {:?}", fleet.audit(0, "r-1").await),
    }
}
