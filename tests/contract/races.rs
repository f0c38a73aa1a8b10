//! Two things at once: one outcome, and everyone involved hears the same one.

use crate::support::{Driver, Node, Setup, Value, json, number, shards_1_and_4};

const ROUNDS: usize = 30;

/// What the driver hears of its offer in the end: `CONFIRMED` and the trip, or `REVOKED` or `DECLINED` and why.
#[derive(Debug, PartialEq)]
enum Heard {
    Confirmed(String),
    Declined,
    Revoked(String),
}

/// The next outcome. Answers that come again are the same: what is left of an earlier round is skipped.
async fn hear(driver: &mut Driver, request_id: &str) -> Heard {
    loop {
        let message = driver.next().await;
        if message["request_id"] != request_id {
            continue;
        }
        match message["type"].as_str() {
            Some("CONFIRMED") => {
                let trip_id = crate::support::text(&message, "trip_id").to_owned();
                return Heard::Confirmed(trip_id);
            }
            Some("DECLINED") => return Heard::Declined,
            Some("REVOKED") => return Heard::Revoked(crate::support::text(&message, "reason").to_owned()),
            _ => panic!("driver {}: {message}", driver.id),
        }
    }
}

async fn next_offer(node: &Node, driver: &mut Driver, request_id: &str, more: &Value) -> Value {
    node.offer(request_id, &[&driver.id.clone()], more).await;
    loop {
        let message = driver.next().await;
        if message["type"] == "OFFER" {
            assert_eq!(message["request_id"], request_id);
            return message;
        }
    }
}

/// Gives the trip up, so that the driver is free for the next round.
async fn give_up(driver: &mut Driver, trip_id: &str) {
    driver.trip(trip_id, "cancel").await;
    loop {
        let message = driver.next().await;
        if message["type"] == "STATE" && message["state"] == "available" {
            return;
        }
    }
}

/// V.5: `ACCEPT` against cancel.
async fn accept_against_cancel(setup: Setup) {
    let node = setup.start().await;
    let mut driver = node.driver("d1").await;
    for round in 0..ROUNDS {
        let request_id = format!("r{round}");
        let offer = next_offer(&node, &mut driver, &request_id, &json!({})).await;
        let (cancelled, ()) = tokio::join!(node.cancel(&request_id), driver.answer("ACCEPT", &offer));
        let heard = hear(&mut driver, &request_id).await;
        let view = node.view(&request_id).await;
        if cancelled.status == 200 {
            assert_eq!(heard, Heard::Revoked("cancelled".into()));
            assert_eq!(view["state"], "CANCELLED");
        } else {
            let problem = cancelled.problem(409, "ended");
            let trip_id = crate::support::text(&problem, "trip_id").to_owned();
            assert_eq!(view["state"], "ACCEPTED");
            assert_eq!(view["trip_id"], trip_id.as_str());
            assert_eq!(heard, Heard::Confirmed(trip_id.clone()));
            give_up(&mut driver, &trip_id).await;
        }
        node.audit(&request_id).await;
    }
}

/// V.5: `ACCEPT` against the timeout: sent when the offer is about to end, sooner or later from round to round.
async fn accept_against_timeout(setup: Setup) {
    let node = setup.start().await;
    let mut driver = node.driver("d1").await;
    let mut outcomes = [0, 0];
    for round in 0..ROUNDS {
        let request_id = format!("r{round}");
        let offer = next_offer(&node, &mut driver, &request_id, &json!({"offer_timeout_ms": 60})).await;
        // Waits by asking the node for the time until it is nearly up.
        loop {
            driver.send(&json!({"type": "PING"})).await;
            let message = driver.next().await;
            let over = message["type"] != "PONG";
            if over || number(&message, "server_time_ms") + (round as u64 % 4) >= number(&offer, "expires_at_ms") {
                break;
            }
        }
        driver.answer("ACCEPT", &offer).await;
        let answer = node.respond("d1", &request_id, "ACCEPT", None).await.ok(200);
        let view = node.view(&request_id).await;
        if answer["outcome"] == "CONFIRMED" {
            outcomes[0] += 1;
            let trip_id = crate::support::text(&answer, "trip_id").to_owned();
            assert_eq!(
                (&view["state"], &view["trip_id"]),
                (&json!("ACCEPTED"), &json!(trip_id))
            );
            assert_eq!(
                confirmed_or_timeout(&mut driver).await,
                Heard::Confirmed(trip_id.clone())
            );
            give_up(&mut driver, &trip_id).await;
        } else {
            outcomes[1] += 1;
            assert_eq!(answer["outcome"], "TOO_LATE");
            assert_eq!(view["state"], "PENDING_MATCH");
            // It may have been heard while the time was waited for.
            for said in driver.drain().await {
                assert_ne!(said["type"], "CONFIRMED", "{said}");
            }
        }
        node.audit(&request_id).await;
    }
    eprintln!("accepted {}, timed out {}", outcomes[0], outcomes[1]);
}

async fn confirmed_or_timeout(driver: &mut Driver) -> Heard {
    loop {
        let message = driver.next().await;
        match message["type"].as_str() {
            Some("CONFIRMED") => return Heard::Confirmed(crate::support::text(&message, "trip_id").to_owned()),
            Some("PONG" | "REVOKED") => {}
            _ => panic!("{message}"),
        }
    }
}

/// V.5, W5.1: `ACCEPT` on the socket against `DECLINE` over HTTP.
async fn accept_against_decline(setup: Setup) {
    let node = setup.start().await;
    let mut driver = node.driver("d1").await;
    for round in 0..ROUNDS {
        let request_id = format!("r{round}");
        let offer = next_offer(&node, &mut driver, &request_id, &json!({})).await;
        let (answer, ()) = tokio::join!(
            node.respond("d1", &request_id, "DECLINE", None),
            driver.answer("ACCEPT", &offer)
        );
        let answer = answer.ok(200);
        let heard = hear(&mut driver, &request_id).await;
        let view = node.view(&request_id).await;
        if answer["outcome"] == "CONFIRMED" {
            let trip_id = crate::support::text(&answer, "trip_id").to_owned();
            assert_eq!(heard, Heard::Confirmed(trip_id.clone()));
            assert_eq!(view["state"], "ACCEPTED");
            give_up(&mut driver, &trip_id).await;
        } else {
            assert_eq!(answer["outcome"], "DECLINED");
            // First the decline's outcome, or first the answer to the `ACCEPT` that came after it.
            let late = Heard::Revoked("superseded".into());
            assert!(heard == Heard::Declined || heard == late, "{heard:?}");
            assert_eq!(view["state"], "PENDING_MATCH");
        }
    }
}

/// V.5, V.1: the same `ACCEPT` by both channels, many times at once: one trip.
async fn accept_by_both_channels(setup: Setup) {
    let node = setup.start().await;
    let mut driver = node.driver("d1").await;
    for round in 0..ROUNDS {
        let request_id = format!("r{round}");
        let offer = next_offer(&node, &mut driver, &request_id, &json!({})).await;
        let responding = (0..4).map(|_| node.respond("d1", &request_id, "ACCEPT", Some(1)));
        let (answers, ()) = tokio::join!(
            futures_util::future::join_all(responding),
            driver.answer("ACCEPT", &offer)
        );
        let Heard::Confirmed(trip_id) = hear(&mut driver, &request_id).await else {
            panic!("not confirmed");
        };
        for answer in answers {
            let answer = answer.ok(200);
            assert_eq!(
                (&answer["outcome"], &answer["trip_id"]),
                (&json!("CONFIRMED"), &json!(trip_id))
            );
        }
        give_up(&mut driver, &trip_id).await;
        let audit = node.audit(&request_id).await;
        assert_eq!(crate::support::audit::count(&audit, "TRIP_CREATED"), 1);
    }
}

/// V.2: many requests at once for one driver: one gets it, the others are refused; and again when it is free.
async fn many_requests_for_one_driver(setup: Setup) {
    const REQUESTS: usize = 10;
    let node = setup.start().await;
    let mut driver = node.driver("d1").await;
    for round in 0..5 {
        let ids: Vec<String> = (0..REQUESTS).map(|number| format!("r{round}-{number}")).collect();
        let plain = json!({});
        futures_util::future::join_all(ids.iter().map(|id| node.offer(id, &["d1"], &plain))).await;
        let offer = driver.expect("OFFER").await;
        for id in ids.iter().filter(|id| offer["request_id"] != id.as_str()) {
            node.until_audit(id, "OFFER_REFUSED 1 d1").await;
        }
        driver.fence().await;
        let trip_id = driver.accept(&offer).await;
        driver.trip(&trip_id, "cancel").await;
        driver.expect_state("available").await;
    }
}

/// V.5: a trip's end by driver and by caller at once is one end.
async fn trip_ends_once(setup: Setup) {
    let node = setup.start().await;
    let mut driver = node.driver("d1").await;
    for round in 0..ROUNDS {
        let request_id = format!("r{round}");
        let offer = next_offer(&node, &mut driver, &request_id, &json!({})).await;
        let trip_id = driver.accept(&offer).await;
        let (cancelled, ()) = tokio::join!(node.cancel_trip(&trip_id), driver.trip(&trip_id, "cancel"));
        let ended = node.until_event(&request_id, "TRIP_ENDED").await;
        if cancelled.status == 200 {
            assert_eq!(ended["outcome"], "cancelled");
        } else {
            cancelled.problem(409, "ended");
            assert_eq!(ended["outcome"], "cancelled_by_driver");
        }
        node.until_driver("d1", "available").await;
        node.audit(&request_id).await;
    }
}

shards_1_and_4!(
    accept_against_cancel,
    accept_against_timeout,
    accept_against_decline,
    accept_by_both_channels,
    many_requests_for_one_driver,
    trip_ends_once,
);
