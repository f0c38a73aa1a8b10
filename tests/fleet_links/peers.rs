//! What another node may send or be: letters that no sound node sends, and a node that has lost what it knew of itself.

use crate::ends::{end, hello, letter, take};
use crate::fleet::{Fleet, name};
use crate::support::{eventually, ports, within};
use dispatchd::fsm::fold::Outcome;
use dispatchd::fsm::ids::{DriverId, RequestId};
use dispatchd::fsm::request::{Answer, Asker, ReplyTo, RequestEvent, ToDriver};
use dispatchd::wire::link::{LinkFrame, LinkLetter, decode, encode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A node's data directory is lost, and it begins anew under its name, as a disk that is replaced or a pod that is made again: it has links
/// to the others as before.
#[tokio::test]
async fn a_node_that_lost_its_directory_is_linked_again() {
    let mut fleet = Fleet::start(2).await;
    fleet.nodes[1].crash_and_restart().await;
    fleet.until_linked().await;
    fleet.nodes[1].kill_9();
    std::fs::remove_dir_all(fleet.nodes[1].data()).expect("its directory");
    fleet.nodes[1].spawn();
    fleet.nodes[1].until_ready().await;
    fleet.until_linked().await;
}

/// Greets a node as another one and gives it one letter.
async fn send_letter(fleet: &Fleet, letter: LinkLetter) {
    let mut stream = TcpStream::connect(fleet.proxies[0].address).await.expect("a link");
    let mut bytes = hello("|", "gw-9", &name(0), 1);
    encode(&LinkFrame::Letter { seq: 1, letter }, &mut bytes).expect("a frame");
    stream.write_all(&bytes).await.expect("sent");
    let mut heard = Vec::new();
    let welcomed = async {
        loop {
            match decode(&heard).expect("frames") {
                Some((LinkFrame::Welcome { .. }, _)) => return,
                Some((other, _)) => panic!("{other:?}"),
                None => assert_ne!(stream.read_buf(&mut heard).await.expect("bytes"), 0),
            }
        }
    };
    within("a welcome", welcomed).await;
    // It is acted upon when it is acknowledged, or the connection is closed.
    let mut rest = [0; 64];
    let _ = within("an answer", stream.read(&mut rest)).await;
}

/// The node lives on and answers.
async fn lives(fleet: &mut Fleet) {
    eventually("the node to answer", || async {
        let asked = fleet.nodes[0].http.get(fleet.nodes[0].url("/v1/drivers/d-1")).send();
        asked.await.ok().map(drop)
    })
    .await;
    assert!(fleet.nodes[0].is_running());
}

#[tokio::test]
async fn an_outcome_that_no_request_tells_ends_no_node() {
    let mut fleet = Fleet::start(1).await;
    // Of a driver who is not there it would come back.
    let _driver = fleet.nodes[0].driver("d-1").await;
    let message = ToDriver::Outcome {
        attempt: 1,
        outcome: Outcome::Open,
        trip_id: None,
        again: true,
    };
    let letter = LinkLetter::ToDriver {
        driver_id: DriverId::parse("d-1").expect("an id"),
        session: 1,
        request_id: RequestId::parse("r-1").expect("an id"),
        message,
    };
    send_letter(&fleet, letter).await;
    lives(&mut fleet).await;
}

#[tokio::test]
async fn an_event_that_is_never_sent_ends_no_node() {
    let mut fleet = Fleet::start(1).await;
    let letter = LinkLetter::ToRequest {
        request_id: RequestId::parse("r-1").expect("an id"),
        event: RequestEvent::Timer,
    };
    send_letter(&fleet, letter).await;
    lives(&mut fleet).await;
}

/// It answers somebody of this node, of another number of shards.
#[tokio::test]
async fn a_call_of_a_shard_that_is_not_there_ends_no_node() {
    let mut fleet = Fleet::start(1).await;
    let reply = ReplyTo {
        node: 7,
        shard: 999,
        call: 1 << 63 | 5,
    };
    let event = RequestEvent::Answered {
        driver_id: DriverId::parse("d-1").expect("an id"),
        attempt: None,
        answer: Answer::Accept,
        reason: None,
        asker: Asker::Api(reply),
    };
    let letter = LinkLetter::ToRequest {
        request_id: RequestId::parse("r-1").expect("an id"),
        event,
    };
    send_letter(&fleet, letter).await;
    lives(&mut fleet).await;
}

/// The connection is closed, and the next one goes on behind that letter: it would be the same again.
#[tokio::test]
async fn a_letter_that_is_none_closes_its_connection_and_comes_once() {
    let at = ports::free_address();
    let b = end("b", "f", 1, at, None);
    let connect = async |expect: u64| {
        let mut stream = TcpStream::connect(at).await.expect("a listener");
        stream.write_all(&hello("f", "a", "b", 1)).await.expect("written");
        let mut input = vec![0; 1 << 10];
        let count = within("a welcome", stream.read(&mut input)).await.expect("bytes");
        let welcome = LinkFrame::Welcome {
            incarnation: 1,
            received: expect,
        };
        assert_eq!(decode(&input[..count]), Ok(Some((welcome, count))));
        stream
    };
    let numbered = |seq: u64, session: u64| {
        let mut bytes = Vec::new();
        let letter = letter(session);
        encode(&LinkFrame::Letter { seq, letter }, &mut bytes).expect("short");
        bytes
    };
    let mut stream = connect(0).await;
    for (seq, session) in [(1, 1), (2, u64::MAX), (3, 3)] {
        stream.write_all(&numbered(seq, session)).await.expect("written");
    }
    within("the end", stream.read_to_end(&mut Vec::new())).await.ok();
    assert_eq!(b.metrics.links().bad_frames.get(), 1);
    let mut stream = connect(2).await;
    stream.write_all(&numbered(3, 3)).await.expect("written");
    let mut got = Vec::new();
    let cell = std::cell::RefCell::new(&mut got);
    eventually("the letter behind it", || async {
        let mut got = cell.borrow_mut();
        take(&b, &mut got);
        got.contains(&3).then_some(())
    })
    .await;
    assert_eq!(got, [1, 3]);
}
