//! A driver who says more than a driver can mean is read more slowly. It is not cut, nothing that it said is lost, and
//! nobody else notices.

use crate::support::raw::client_frame;
use crate::support::{Node, Raw, Setup, eventually, json, shards_1_and_4, within};

/// What one says at once: more than is taken at once (`DRIVER_COMMANDS_BURST`).
const FLOOD: usize = 2_000;
/// Offers to another driver meanwhile.
const OFFERS: usize = 20;

const TEXT: u8 = 0x81;
const PONG: &str = "PONG";

/// The next text of this type.
async fn text(raw: &mut Raw, kind: &str) -> String {
    loop {
        let (_, payload) = raw.frame().await.expect("a frame");
        let text = String::from_utf8(payload).expect("UTF-8");
        if text.contains(&format!("\"{kind}\"")) {
            return text;
        }
    }
}

/// Waits until a flood is noticed; another driver is offered trips meanwhile.
async fn others_are_served(node: &Node) {
    let throttled = || async {
        let count = node.metric("dispatchd_drivers_throttled_total", "").await;
        (count > 0).then_some(())
    };
    eventually("a flood to be noticed", throttled).await;
    let mut other = node.driver("other").await;
    for number in 0..OFFERS {
        node.offer(&format!("r{}", number + 1), &["other"], &json!({})).await;
        let offer = other.expect("OFFER").await;
        other.decline(&offer).await;
    }
}

/// W1.20: a flood of messages about one request is slowed down, all of it is taken, and the connection lives.
async fn a_flood_is_slowed_down(setup: Setup) {
    let node = setup.start().await;
    let mut flooder = Raw::websocket(node.address, "flooder").await;
    let long = json!({"offer_timeout_ms": 600_000});
    node.offer("r0", &["flooder"], &long).await;
    text(&mut flooder, "OFFER").await;
    let ack = client_frame(TEXT, br#"{"type":"ACK","request_id":"r0","attempt":1}"#);
    let ping = client_frame(TEXT, br#"{"type":"PING"}"#);
    flooder.send([ack.repeat(FLOOD), ping].concat()).await;
    others_are_served(&node).await;
    within("the end of the flood", text(&mut flooder, PONG)).await;
    let taken = node.metric("dispatchd_messages_received_total", "type=\"ack\"").await;
    assert_eq!(taken, FLOOD as u64);
    let accept = client_frame(TEXT, br#"{"type":"ACCEPT","request_id":"r0","attempt":1}"#);
    flooder.send(accept).await;
    text(&mut flooder, "CONFIRMED").await;
    assert_eq!(node.view("r0").await["state"], "ACCEPTED");
}

/// W1.20: one that never ends holds nobody up, and does not outlive its driver's next connection.
async fn an_endless_flood_harms_nobody(setup: Setup) {
    let node = setup.start().await;
    let mut flooder = Raw::websocket(node.address, "flooder").await;
    let decline = client_frame(TEXT, br#"{"type":"DECLINE","request_id":"r0","attempt":1}"#);
    node.offer("r0", &["nobody"], &json!({})).await;
    let batch = decline.repeat(FLOOD);
    let flood = tokio::spawn(async move { while flooder.try_send(&batch).await {} });
    others_are_served(&node).await;
    assert!(!flood.is_finished(), "the flooder was cut");
    let mut again = node.driver("flooder").await;
    node.offer("r-again", &["flooder"], &json!({})).await;
    let offer = again.expect("OFFER").await;
    again.accept(&offer).await;
    flood.abort();
}

shards_1_and_4!(a_flood_is_slowed_down, an_endless_flood_harms_nobody);
