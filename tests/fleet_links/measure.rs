//! How long an offer takes over a link, beside one on the driver's own node. Only when asked for:
//! `cargo test --release --test fleet_links -- --ignored --nocapture`.

use crate::fleet::Fleet;
use crate::support::json;
use hdrhistogram::Histogram;
use std::time::Instant;

const OFFERS: usize = 500;

#[tokio::test]
#[ignore = "a measurement: ./test --long"]
async fn an_offer_over_a_link_and_a_local_one() {
    let fleet = Fleet::start(2).await;
    let mut driver = fleet.driver(1, "d-1").await;
    let mut shown = Vec::new();
    for at in [1, 0, 1, 0] {
        let mut offer_us = Histogram::<u64>::new(3).expect("a histogram");
        let mut confirm_us = Histogram::<u64>::new(3).expect("a histogram");
        for number in 0..OFFERS {
            let request_id = format!("r-{}-{at}-{number}", shown.len());
            let more = json!({});
            let begun = Instant::now();
            let (offer, ()) = tokio::join!(driver.expect("OFFER"), fleet.offer(at, &request_id, &["d-1"], &more));
            offer_us.record(begun.elapsed().as_micros() as u64).expect("in range");
            let begun = Instant::now();
            driver.answer("ACCEPT", &offer).await;
            let confirmed = driver.expect("CONFIRMED").await;
            confirm_us.record(begun.elapsed().as_micros() as u64).expect("in range");
            driver.expect_state("en_route_to_pickup").await;
            driver
                .trip(confirmed["trip_id"].as_str().expect("a trip"), "complete")
                .await;
            driver.expect_state("available").await;
        }
        let way = if at == 1 { "local" } else { "over a link" };
        let of = |times: &Histogram<u64>| (times.value_at_quantile(0.5), times.value_at_quantile(0.99));
        shown.push(format!(
            "{way}: POST → OFFER p50 {} p99 {} µs, ACCEPT → CONFIRMED p50 {} p99 {} µs",
            of(&offer_us).0,
            of(&offer_us).1,
            of(&confirm_us).0,
            of(&confirm_us).1
        ));
    }
    println!("{}", shown.join("\n"));
}
