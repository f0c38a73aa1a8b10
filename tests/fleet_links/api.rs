//! Calls to a node that has neither the request nor the driver, or only one of them.

use crate::fleet::{Fleet, name, response};
use crate::support::json;

/// An answer over HTTP is taken by every node.
#[tokio::test]
async fn every_node_takes_a_drivers_answer() {
    let fleet = Fleet::start(3).await;
    let mut driver = fleet.driver(1, "d-1").await;
    for at in 0..3 {
        let request_id = format!("r-{at}");
        fleet.offer(0, &request_id, &["d-1"], &json!({})).await;
        let offer = driver.expect("OFFER").await;
        fleet.until_bound("d-1", &request_id).await;
        let taken = fleet.nodes[at]
            .post("/v1/dispatch/response", &response("d-1", &request_id, "ACCEPT"))
            .await;
        let taken = taken.ok(200);
        assert_eq!(taken["outcome"], "CONFIRMED", "{at}: {taken}");
        let trip_id = driver.expect_confirmed(&offer).await;
        assert_eq!(taken["trip_id"], trip_id.as_str());
        driver.trip(&trip_id, "complete").await;
        driver.expect_state("available").await;
    }
    fleet.offer(0, "r-9", &["d-1"], &json!({})).await;
    let offer = driver.expect("OFFER").await;
    fleet.until_bound("d-1", "r-9").await;
    let declined = fleet.nodes[2]
        .post("/v1/dispatch/response", &response("d-1", "r-9", "DECLINE"))
        .await;
    assert_eq!(declined.ok(200)["outcome"], "DECLINED");
    driver.expect_declined(&offer).await;
    for at in 0..3 {
        let unknown = fleet.nodes[at]
            .post("/v1/dispatch/response", &response("d-1", "r-77", "ACCEPT"))
            .await;
        unknown.problem(404, "no_such_offer");
    }
}

/// The driver's node knows from the offer who has the request.
#[tokio::test]
async fn the_drivers_node_answers_for_its_request() {
    let fleet = Fleet::start(2).await;
    let mut driver = fleet.driver(1, "d-1").await;
    fleet.offer(0, "r-1", &["d-1"], &json!({})).await;
    let offer = driver.expect("OFFER").await;
    assert_eq!(fleet.state(1, "r-1").await, "OFFER_SENT");
    let audit = fleet.audit(1, "r-1").await;
    assert!(
        audit.starts_with(&["REQUEST_RECEIVED".to_owned(), "OFFER_SENT".to_owned()]),
        "{audit:?}"
    );
    let again = json!({"request_id": "r-1", "driver_id": "d-2", "trip": {}});
    let repeated = fleet.nodes[1].post("/v1/dispatch/offer", &again).await.ok(200);
    assert_eq!(repeated["duplicate"], true);
    let cancelled = fleet.nodes[1]
        .post("/v1/dispatch/cancel", &json!({"request_id": "r-1"}))
        .await;
    assert_eq!(cancelled.ok(200)["state"], "CANCELLED");
    driver.expect_revoked(&offer, "cancelled").await;
    fleet.offer(0, "r-2", &["d-1"], &json!({})).await;
    let offer = driver.expect("OFFER").await;
    let trip_id = driver.accept(&offer).await;
    let path = format!("/v1/trips/{trip_id}/cancel");
    fleet.nodes[1].post(&path, &json!({})).await.ok(200);
    driver.expect("TRIP_CANCELLED").await;
    driver.expect_state("available").await;
    fleet.nodes[1].post(&path, &json!({})).await.problem(409, "ended");
}

/// A driver is shown by every node, as its own shows it.
#[tokio::test]
async fn every_node_shows_a_driver() {
    let fleet = Fleet::start(3).await;
    let mut driver = fleet.driver(1, "d-1").await;
    let location = json!({"type": "LOCATION", "lat": 40.5, "lon": -73.5});
    driver.send(&location).await;
    driver.fence().await;
    for at in 0..3 {
        let view = fleet.view(at, "d-1").await;
        assert_eq!(
            (&view["node"], &view["state"]),
            (&json!(name(1)), &json!("available")),
            "{view}"
        );
        assert_eq!(view["location"]["lat"], 40.5, "{view}");
        fleet.nodes[at]
            .get("/v1/drivers/nobody")
            .await
            .problem(404, "no_such_driver");
    }
}
