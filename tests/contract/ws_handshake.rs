//! The opening handshake of `GET /ws/driver/{driver_id}`.

use crate::support::driver::{Driver, SUBPROTOCOL, handshake, handshake_without_subprotocol, shake};
use crate::support::{Node, Raw, Setup, raw, shards_1_and_4, within};
use tokio_tungstenite::tungstenite::error::Error;
use tokio_tungstenite::tungstenite::http::{HeaderValue, Request};

/// W1.1: the subprotocol `dispatch.v1` is selected, also from a list.
async fn subprotocol_is_selected(setup: Setup) {
    let node = setup.start().await;
    for offered in [SUBPROTOCOL, "chat, dispatch.v1", "dispatch.v1,dispatch.v2"] {
        let mut request = handshake_without_subprotocol(node.address, "d1");
        let value = HeaderValue::from_static(offered);
        request.headers_mut().insert("sec-websocket-protocol", value);
        let (socket, response) = within("the handshake", shake(node.address, request)).await.unwrap();
        assert_eq!(response.status(), 101);
        assert_eq!(response.headers()["sec-websocket-protocol"], SUBPROTOCOL);
        Driver::welcomed(socket, "d1").await.unwrap();
    }
}

/// W1.1: without the subprotocol, or with another, the answer is 400.
#[tokio::test]
async fn other_subprotocols_are_400() {
    let node = Setup::shards(1).start().await;
    let none = handshake_without_subprotocol(node.address, "d1");
    assert_eq!(refused(&node, none).await, 400);
    for offered in ["dispatch.v2", "chat", "dispatch.v1x", "xdispatch.v1"] {
        let mut request = handshake_without_subprotocol(node.address, "d1");
        let value = HeaderValue::from_static(offered);
        request.headers_mut().insert("sec-websocket-protocol", value);
        assert_eq!(refused(&node, request).await, 400, "{offered}");
    }
    node.get("/v1/drivers/d1").await.problem(404, "no_such_driver");
}

/// W1.2, I.2: an id outside the rule is `400 invalid`; the longest one and every allowed character are taken.
#[tokio::test]
async fn driver_ids_follow_the_rule() {
    let node = Setup::shards(2).start().await;
    let too_long = "x".repeat(65);
    for id in [too_long.as_str(), "a%20b", "a%2Fb", "a!b", "a,b", "%C3%A9", "a~b"] {
        assert_eq!(refused(&node, handshake(node.address, id)).await, 400, "{id}");
    }
    let mut raw = Raw::connect(node.address).await;
    raw.send(raw::upgrade("a!b")).await;
    let answer = raw.expect_answer().await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "invalid"));
    let longest = "y".repeat(64);
    for id in [longest.as_str(), "Az09._:-", "7"] {
        let driver = node.driver(id).await;
        assert_eq!(driver.welcome["driver_id"], id);
    }
}

/// W1.3: no extension is negotiated, whatever the client offers.
#[tokio::test]
async fn no_extension_is_negotiated() {
    let node = Setup::shards(1).start().await;
    let mut request = handshake(node.address, "d1");
    let offer = HeaderValue::from_static("permessage-deflate; client_max_window_bits");
    request.headers_mut().insert("sec-websocket-extensions", offer);
    let (_, response) = within("the handshake", shake(node.address, request)).await.unwrap();
    assert!(response.headers().get("sec-websocket-extensions").is_none());
}

/// W1.4: what is no RFC 6455 handshake is refused with a 4xx, and the node goes on.
#[tokio::test]
async fn broken_handshakes_are_refused() {
    let node = Setup::shards(1).start().await;
    let right = raw::upgrade("d1");
    let check = async |name: &str, request: String, statuses: &[u16]| {
        assert_ne!(request, right, "{name} changes nothing");
        let mut raw = Raw::connect(node.address).await;
        raw.send(request).await;
        let answer = raw.expect_answer().await;
        assert!(statuses.contains(&answer.status), "{name}: {answer:?}");
        if answer.status == 426 {
            let named = answer.header("sec-websocket-version").is_some() || answer.header("upgrade").is_some();
            assert!(named, "{name}: 426 says to what: {answer:?}");
        }
        answer
    };
    let without = |line: &str| right.replace(line, "");
    let version = right.replace("Version: 13", "Version: 12");
    let answer = check("another version", version, &[426, 400]).await;
    assert!(answer.header("sec-websocket-version").is_none_or(|v| v.contains("13")));
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    check("no key", without(key), &[400]).await;
    check(
        "a short key",
        right.replace("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="),
        &[400],
    )
    .await;
    check("no version", without("Sec-WebSocket-Version: 13\r\n"), &[400, 426]).await;
    check("no upgrade", without("Upgrade: websocket\r\n"), &[400, 426]).await;
    check("no connection option", without("Connection: Upgrade\r\n"), &[400, 426]).await;
    let answer = check("POST", right.replace("GET", "POST"), &[405]).await;
    assert_eq!(answer.header("allow"), Some("GET"));
    // The body does not come: the refusal waits for nothing.
    for framing in ["Content-Length: 5", "Transfer-Encoding: chunked"] {
        let request = right.replace("\r\n\r\n", &format!("\r\n{framing}\r\n\r\n"));
        check("a body announced", request, &[400]).await;
    }
    node.driver("d1").await.fence().await;
}

/// W1.5: a handshake that is not complete in `handshake_timeout_ms` is cut, with or without a first byte; others are
/// let in meanwhile.
#[tokio::test]
async fn slow_handshakes_are_cut() {
    let setup = Setup::shards(2).set("handshake_timeout_ms", 300);
    let node = setup.set("head_timeout_ms", 300).start().await;
    let mut silent = Raw::connect(node.address).await;
    let mut slow = Raw::connect(node.address).await;
    let head = raw::upgrade("d1");
    slow.send(&head[..head.len() - 2]).await;
    node.driver("d2").await.fence().await;
    for stuck in [&mut silent, &mut slow] {
        // A word of farewell (408) is allowed.
        let answer = stuck.answer().await;
        assert!(answer.as_ref().is_none_or(|answer| answer.status == 408), "{answer:?}");
        stuck.expect_end().await;
    }
    node.get("/v1/drivers/d1").await.problem(404, "no_such_driver");
}

/// W1.4: a handshake that comes byte by byte is a handshake.
async fn handshake_byte_by_byte(setup: Setup) {
    let node = setup.start().await;
    for id in ["d1", "d2", "d3"] {
        let mut raw = Raw::connect(node.address).await;
        for byte in raw::upgrade(id).as_bytes().chunks(1) {
            raw.send(byte).await;
        }
        let answer = raw.expect_answer().await;
        assert_eq!(answer.status, 101, "{answer:?}");
        // RFC 6455 §1.3 gives the answer to its sample key.
        assert_eq!(
            answer.header("sec-websocket-accept"),
            Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        );
        let (opcode, welcome) = raw.frame().await.unwrap();
        assert_eq!(opcode, 1);
        assert!(String::from_utf8(welcome).unwrap().contains("\"WELCOME\""));
    }
}

/// W1.4: many drivers at once are all let in, each on its own.
async fn a_crowd_is_let_in(setup: Setup) {
    const CROWD: usize = 100;
    let node = setup.start().await;
    let ids: Vec<String> = (0..CROWD).map(|number| format!("crowd-{number}")).collect();
    let connecting = ids.iter().map(|id| node.driver(id));
    let mut drivers = futures_util::future::join_all(connecting).await;
    for driver in &mut drivers {
        driver.fence().await;
    }
}

async fn refused(node: &Node, request: Request<()>) -> u16 {
    match within("an answer to the handshake", shake(node.address, request)).await {
        Err(Error::Http(response)) => response.status().as_u16(),
        Err(other) => panic!("no HTTP answer: {other}"),
        Ok(_) => 101,
    }
}

shards_1_and_4!(subprotocol_is_selected, handshake_byte_by_byte, a_crowd_is_let_in);
