//! When the server closes a driver's connection: displaced, heartbeat lost, slow consumer. (Draining: `drain`.)

use crate::support::driver::{Received, handshake};
use crate::support::{Driver, Node, Setup, Value, json, shards_1_and_4, within};
use futures_util::future::join_all;
use tokio_tungstenite::tungstenite::protocol::Message;

/// W1.16: a second connection displaces the first (4001 `displaced`), takes over the open offer, and the end of the
/// first changes nothing for it.
async fn second_connection_displaces_the_first(setup: Setup) {
    let node = setup.start().await;
    let mut first = node.driver("d1").await;
    node.offer("r1", &["d1"], &json!({})).await;
    let offer = first.expect("OFFER").await;
    let mut second = node.driver("d1").await;
    assert!(second.session() > first.session());
    assert_eq!(first.closed().await, (4001, "displaced".to_owned()));
    let again = second.expect("OFFER").await;
    assert_eq!(again["attempt"], offer["attempt"]);
    assert_eq!(again["expires_at_ms"], offer["expires_at_ms"]);
    second.fence().await;
    assert_eq!(node.driver_view("d1").await["state"], "offered");
    second.accept(&again).await;
}

/// W1.16: of many connections of one driver at once, one stays.
async fn one_of_many_connections_stays(setup: Setup) {
    let node = setup.start().await;
    let mut drivers = join_all((0..8).map(|_| node.driver("d1"))).await;
    drivers.sort_by_key(Driver::session);
    let mut last = drivers.pop().unwrap();
    for mut displaced in drivers {
        assert_eq!(displaced.closed().await, (4001, "displaced".to_owned()));
    }
    last.fence().await;
    node.offer("r1", &["d1"], &json!({})).await;
    let offer = last.expect("OFFER").await;
    last.accept(&offer).await;
}

/// W1.17, W3.10: no heartbeat for 2 × `heartbeat_ms` closes the socket with 4004; `PING` messages and RFC 6455 ping
/// frames are heartbeats. The silent drivers are the clock of this test: the others connected before them.
async fn heartbeats_keep_a_connection(setup: Setup) {
    let node = setup.set("heartbeat_ms", 300).start().await;
    let mut by_message = node.driver("by-message").await;
    let mut by_frame = node.driver("by-frame").await;
    for round in 0..2 {
        let mut silent = node.driver(&format!("silent-{round}")).await;
        let mut closed = std::pin::pin!(silent.closed());
        let mut pace = tokio::time::interval(std::time::Duration::from_millis(50));
        loop {
            tokio::select! {
                (code, reason) = &mut closed => {
                    assert_eq!((code, reason.as_str()), (4004, "heartbeat lost"));
                    break;
                }
                _ = pace.tick() => beat(&mut by_message, &mut by_frame).await,
            }
        }
    }
    beat(&mut by_message, &mut by_frame).await;
    // Now they fall silent too.
    assert_eq!(by_message.closed().await.0, 4004);
    assert_eq!(by_frame.closed().await.0, 4004);
}

async fn beat(by_message: &mut Driver, by_frame: &mut Driver) {
    by_message.fence().await;
    by_frame.send_frame(Message::Ping(vec![7].into())).await;
    let pong = within("a pong", by_frame.receive()).await;
    assert!(matches!(pong, Received::Pong(_)), "{pong:?}");
}

/// W1.17: a driver whose heartbeat was lost keeps its state for `driver_ttl_ms` and may be offered.
#[tokio::test]
async fn lost_heartbeat_keeps_the_driver() {
    let node = Setup::shards(1).set("heartbeat_ms", 200).start().await;
    let mut driver = node.driver("d1").await;
    assert_eq!(driver.closed().await.0, 4004);
    assert_eq!(node.driver_view("d1").await["state"], "available");
    node.offer("r1", &["d1"], &json!({"offer_timeout_ms": 60_000})).await;
    let mut driver = node.driver("d1").await;
    let offer = driver.expect("OFFER").await;
    driver.accept(&offer).await;
}

/// W1.18: a client that stops reading is closed with 4008 once its output queue is full; offers to others are
/// unharmed. The offers that fill the queue are answered over HTTP, so that nothing else is wrong with it.
#[tokio::test]
async fn slow_consumer_is_closed() {
    // Beyond what the kernel takes for a socket whose peer does not read (4 MiB where nothing was tuned).
    const ROUNDS_MAX: usize = 1_200;
    let setup = Setup::shards(1).set("output_queue_bytes_max", 64 << 10);
    // Only the full queue is to close it.
    let node = setup.set("output_stall_ms", 600_000).start().await;
    let slow = slow_reader(&node, "slow").await;
    let mut quick = node.driver("quick").await;
    let trip = json!({"trip": {"note": "x".repeat(15_000)}});
    let mut round = 0;
    // Only until then: a closed connection waits a bounded time for its peer to read.
    while node.metric("dispatchd_connections_closed_total", "slow_consumer").await == 0 {
        assert!(round < ROUNDS_MAX, "a full queue closes the connection");
        let request_id = format!("slow-{round}");
        node.offer(&request_id, &["slow"], &trip).await;
        let answer = node.respond("slow", &request_id, "DECLINE", None).await;
        assert_eq!(answer.ok(200)["outcome"], "DECLINED");
        if round % 50 == 0 {
            offer_and_decline(&node, &mut quick, &format!("quick-{round}")).await;
        }
        round += 1;
    }
    let mut slow = slow;
    let (code, reason) = slow.closed().await;
    assert_eq!((code, reason.as_str()), (4008, "slow consumer"));
    offer_and_decline(&node, &mut quick, "quick-last").await;
    // Its driver comes back like any other.
    let mut slow = node.driver("slow").await;
    assert_eq!(slow.welcome["state"], "available");
    offer_and_decline(&node, &mut slow, "slow-again").await;
}

async fn offer_and_decline(node: &Node, driver: &mut Driver, request_id: &str) {
    node.offer(request_id, &[&driver.id.clone()], &json!({})).await;
    let offer: Value = driver.expect("OFFER").await;
    driver.decline(&offer).await;
}

/// A driver whose socket takes as little as the kernel allows.
async fn slow_reader(node: &Node, id: &str) -> Driver {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let stream = socket.connect(node.address).await.unwrap();
    let shaken = tokio_tungstenite::client_async(handshake(node.address, id), stream);
    let (socket, _) = within("the handshake", shaken).await.unwrap();
    Driver::welcomed(socket, id).await.unwrap()
}

shards_1_and_4!(
    second_connection_displaces_the_first,
    one_of_many_connections_stays,
    heartbeats_keep_a_connection,
);
