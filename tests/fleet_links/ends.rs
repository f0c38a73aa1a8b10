//! Two ends of links without nodes around them: order, once and only once, bounds, greetings.

use crate::authority::Authority;
use crate::proxy::{Mode, Proxy};
use crate::support::{eventually, ports, within};
use dispatchd::cold::links::port::QUEUE_LETTERS_MAX;
use dispatchd::cold::links::{FromLinks, LinkConfig, LinkTls, Links, LinksHandle};
use dispatchd::cold::registry::{NodeList, NodeSeen};
use dispatchd::fsm::ids::DriverId;
use dispatchd::ops::metrics::Registry;
use dispatchd::wire::link::{LINK_VERSION, LinkFrame, LinkLetter, decode, encode};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const START_PAUSE: std::time::Duration = std::time::Duration::from_millis(10);
const START_TRIES_MAX: u32 = 1_000;

pub struct End {
    pub links: Links,
    pub handle: LinksHandle,
    pub metrics: Arc<Registry>,
}

pub fn end(name: &str, fleet: &str, incarnation: u64, listen: SocketAddr, tls: Option<LinkTls>) -> End {
    let (links, metrics) = links(name, fleet, incarnation, listen, tls);
    let handle = links.attach(0, Box::new(|| ()));
    End { links, handle, metrics }
}

/// An end to which no shard has come yet.
fn links(
    name: &str,
    fleet: &str,
    incarnation: u64,
    listen: SocketAddr,
    tls: Option<LinkTls>,
) -> (Links, Arc<Registry>) {
    let metrics = Arc::new(Registry::new(1, Arc::default()));
    let config = LinkConfig {
        listen,
        fleet: fleet.into(),
        node_id: name.into(),
        incarnation,
        shards: 1,
    };
    (started(&config, tls, &metrics), metrics)
}

/// Starts the links. An address where this process has just listened cannot be had at once: a child that another test
/// forks holds a copy of the closed listener until it runs its program.
fn started(config: &LinkConfig, tls: Option<LinkTls>, metrics: &Arc<Registry>) -> Links {
    let tls = tls.map(Arc::new);
    for _ in 0..START_TRIES_MAX {
        match Links::start(config.clone(), tls.clone(), Arc::clone(metrics)) {
            Ok(links) => return links,
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => std::thread::sleep(START_PAUSE),
            Err(error) => panic!("links: {error}"),
        }
    }
    panic!("{} stays in use", config.listen);
}

pub fn list(nodes: &[(&str, SocketAddr)]) -> Arc<NodeList> {
    let seen = |(name, address): &(&str, SocketAddr)| NodeSeen {
        node_id: (*name).into(),
        address: "127.0.0.1:1".into(),
        link_address: address.to_string().into(),
        drivers: 0,
        is_serving: true,
        is_ready: true,
    };
    Arc::new(NodeList::new(nodes.iter().map(seen).collect()))
}

pub fn letter(session: u64) -> LinkLetter {
    LinkLetter::Moved {
        driver_id: DriverId::parse("d").expect("an id"),
        session,
    }
}

/// Everything that has come, by the numbers of the letters.
pub fn take(end: &End, sessions: &mut Vec<u64>) {
    let mut heard = Vec::new();
    end.handle.poll(&mut heard);
    for message in heard {
        if let FromLinks::Letter { letter, .. } = message
            && let LinkLetter::Moved { session, .. } = *letter
        {
            sessions.push(session);
        }
    }
}

struct Pair {
    a: End,
    b: End,
    proxy: Proxy,
    to_b: u16,
}

fn pair() -> Pair {
    pair_with(None, None)
}

fn pair_with(of_a: Option<LinkTls>, of_b: Option<LinkTls>) -> Pair {
    let (at_a, at_b) = (ports::free_address(), ports::free_address());
    let (a, b) = (end("a", "f", 1, at_a, of_a), end("b", "f", 1, at_b, of_b));
    let proxy = Proxy::start(at_b);
    a.links.watcher()(&list(&[("a", at_a), ("b", proxy.address)]));
    let to_b = a.handle.peers().number_of("b").expect("a number");
    Pair { a, b, proxy, to_b }
}

async fn until_up(pair: &Pair, is_up: bool) {
    eventually("the link", || async {
        (pair.a.handle.peers().is_up(pair.to_b) == is_up).then_some(())
    })
    .await;
}

#[tokio::test]
async fn letters_arrive_once_and_in_order() {
    let pair = through_harm(pair()).await;
    assert!(pair.b.metrics.links().bad_frames.get() > 0);
    pair.a.links.shutdown();
    pair.b.links.shutdown();
}

/// The same with TLS, which notices damage before the frame does.
#[tokio::test]
async fn protected_letters_arrive_once_and_in_order() {
    let authority = Authority::new();
    through_harm(pair_with(Some(authority.of("a")), Some(authority.of("b")))).await;
}

/// Through cuts, stalls and damage every letter arrives once, in order.
async fn through_harm(pair: Pair) -> Pair {
    until_up(&pair, true).await;
    let mut got = Vec::new();
    for round in 0..8_u64 {
        match round % 4 {
            1 => pair.proxy.set(Mode::Cut),
            2 => pair.proxy.harm_once(),
            3 => pair.proxy.set(Mode::Stall),
            _ => {}
        }
        for number in 0..500 {
            let session = round * 500 + number;
            pair.a.handle.send(pair.to_b, Box::new(letter(session))).expect("room");
            if number % 100 == 50 {
                tokio::task::yield_now().await;
                take(&pair.b, &mut got);
            }
        }
        if round % 4 == 3 {
            until_up(&pair, false).await;
        }
        pair.proxy.set(Mode::Pass);
        let got = std::cell::RefCell::new(&mut got);
        eventually("all letters", || async {
            let mut got = got.borrow_mut();
            take(&pair.b, &mut got);
            (got.len() as u64 == (round + 1) * 500).then_some(())
        })
        .await;
    }
    assert_eq!(got, (0..4_000).collect::<Vec<u64>>());
    assert!(pair.a.metrics.links().connects.get() >= 3);
    pair
}

/// A node that starts is linked before its shards run: what comes for them then waits.
#[tokio::test]
async fn letters_wait_for_a_shard_that_is_not_there_yet() {
    let (at_a, at_b) = (ports::free_address(), ports::free_address());
    let a = end("a", "f", 1, at_a, None);
    let (b_links, metrics) = links("b", "f", 1, at_b, None);
    a.links.watcher()(&list(&[("a", at_a), ("b", at_b)]));
    let to_b = a.handle.peers().number_of("b").expect("a number");
    for session in 0..100 {
        a.handle.send(to_b, Box::new(letter(session))).expect("room");
    }
    eventually("all to be on their way", || async {
        (a.metrics.links().frames_sent.get() >= 100).then_some(())
    })
    .await;
    let b = End {
        handle: b_links.attach(0, Box::new(|| ())),
        links: b_links,
        metrics,
    };
    let got = std::cell::RefCell::new(Vec::new());
    eventually("all letters", || async {
        let mut got = got.borrow_mut();
        take(&b, &mut got);
        (got.len() == 100).then_some(())
    })
    .await;
    a.links.shutdown();
    b.links.shutdown();
}

/// What is beyond the bounds is refused, and the rest arrives.
#[tokio::test]
async fn a_full_queue_refuses() {
    let pair = pair();
    until_up(&pair, true).await;
    pair.proxy.set(Mode::Cut);
    until_up(&pair, false).await;
    let mut taken = 0_u64;
    while pair.a.handle.send(pair.to_b, Box::new(letter(taken))).is_ok() {
        taken += 1;
        assert!(taken <= 3 * QUEUE_LETTERS_MAX as u64);
        if taken.is_multiple_of(1_000) {
            tokio::time::timeout(std::time::Duration::from_millis(1), std::future::pending::<()>())
                .await
                .expect_err("a pause, in which the links' thread takes letters");
        }
    }
    assert!(taken >= QUEUE_LETTERS_MAX as u64);
    assert!(
        pair.a.handle.send(9, Box::new(letter(0))).is_err(),
        "there is no such node"
    );
    pair.proxy.set(Mode::Pass);
    let mut got = Vec::new();
    let cell = std::cell::RefCell::new(&mut got);
    eventually("all that was taken", || async {
        let mut got = cell.borrow_mut();
        take(&pair.b, &mut got);
        (got.len() as u64 == taken).then_some(())
    })
    .await;
    assert_eq!(got, (0..taken).collect::<Vec<u64>>());
}

/// A new life of the receiver hears what the old one had not acknowledged; shards of the sender hear that it is new.
#[tokio::test]
async fn a_new_life_is_told_apart() {
    let Pair { a, b, proxy, to_b } = pair();
    let heard_up = |is_new: bool| {
        let mut heard = Vec::new();
        a.handle.poll(&mut heard);
        heard.contains(&FromLinks::Up { peer: to_b, is_new })
    };
    eventually("the first life", || async { heard_up(true).then_some(()) }).await;
    proxy.set(Mode::Cut);
    eventually("a cut", || async { (!a.handle.peers().is_up(to_b)).then_some(()) }).await;
    proxy.set(Mode::Pass);
    eventually("the same life", || async { heard_up(false).then_some(()) }).await;
    proxy.set(Mode::Cut);
    eventually("a cut", || async { (!a.handle.peers().is_up(to_b)).then_some(()) }).await;
    for session in 0..3 {
        a.handle.send(to_b, Box::new(letter(session))).expect("room");
    }
    let at_b = b.links.address();
    b.links.shutdown();
    let b = end("b", "f", 2, at_b, None);
    proxy.set(Mode::Pass);
    eventually("another life", || async { heard_up(true).then_some(()) }).await;
    let mut got = Vec::new();
    let cell = std::cell::RefCell::new(&mut got);
    eventually("the letters", || async {
        let mut got = cell.borrow_mut();
        take(&b, &mut got);
        (got.len() == 3).then_some(())
    })
    .await;
    assert_eq!(got, [0, 1, 2]);
}

/// The answer to a greeting.
async fn greeted(to: SocketAddr, bytes: &[u8]) -> Option<LinkFrame> {
    let mut stream = TcpStream::connect(to).await.expect("a listener");
    stream.write_all(bytes).await.expect("written");
    let mut input = Vec::new();
    loop {
        if let Some((frame, _)) = decode(&input).expect("a frame") {
            return Some(frame);
        }
        if within("an answer", stream.read_buf(&mut input)).await.unwrap_or(0) == 0 {
            return None;
        }
    }
}

pub fn hello(fleet: &str, from: &str, to: &str, incarnation: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let hello = LinkFrame::Hello {
        fleet: fleet.into(),
        node_id: from.into(),
        incarnation,
        to: to.into(),
        first: 1,
    };
    encode(&hello, &mut bytes).expect("short");
    bytes
}

#[tokio::test]
async fn only_nodes_of_the_fleet_are_let_in() {
    let at = ports::free_address();
    let _b = end("b", "f", 3, at, None);
    let check = async |bytes: Vec<u8>, expect: &str| match greeted(at, &bytes).await {
        Some(LinkFrame::Refused { why }) => assert!(why.contains(expect), "{why}"),
        other => panic!("{expect}: {other:?}"),
    };
    check(hello("another", "a", "b", 1), "fleet").await;
    check(hello("f", "a", "c", 1), "this is b").await;
    check(hello("f", "b", "b", 1), "this is b").await;
    let welcome = LinkFrame::Welcome {
        incarnation: 3,
        received: 0,
    };
    assert_eq!(greeted(at, &hello("f", "a", "b", 5)).await, Some(welcome));
    check(hello("f", "a", "b", 4), "later process").await;
    let mut other_version = hello("f", "a", "b", 5);
    other_version[8] = LINK_VERSION + 1;
    check(other_version, "version").await;
    // What is no greeting is not answered.
    let mut ping = Vec::new();
    encode(&LinkFrame::Ping, &mut ping).expect("short");
    assert_eq!(greeted(at, &ping).await, None);
    assert_eq!(
        greeted(at, &[0; 64])
            .await
            .map(|frame| matches!(frame, LinkFrame::Refused { .. })),
        Some(true)
    );
}

/// A node that ends says so, whatever its link is; its next process is one that stays, and it is dialed at once.
#[tokio::test]
async fn a_node_that_ends_is_known_to_until_its_next_process() {
    let (at_a, at_b) = (ports::free_address(), ports::free_address());
    let (a, b) = (end("a", "f", 1, at_a, None), end("b", "f", 1, at_b, None));
    let nodes = list(&[("a", at_a), ("b", at_b)]);
    a.links.watcher()(&nodes);
    b.links.watcher()(&nodes);
    let (to_b, from_a) = (a.handle.peers().number_of("b"), b.handle.peers().number_of("a"));
    let (to_b, from_a) = (to_b.expect("a number"), from_a.expect("a number"));
    assert!(!b.handle.peers().is_leaving(from_a));
    a.handle.send(to_b, Box::new(LinkLetter::Leaving)).expect("room");
    eventually("b to hear of it", || async {
        b.handle.peers().is_leaving(from_a).then_some(())
    })
    .await;
    a.links.shutdown();
    eventually("the link to be down", || async {
        (!b.handle.peers().is_up(from_a)).then_some(())
    })
    .await;
    assert!(b.handle.peers().is_leaving(from_a));
    let a = end("a", "f", 2, at_a, None);
    a.links.watcher()(&nodes);
    eventually("b to count on it", || async {
        (!b.handle.peers().is_leaving(from_a)).then_some(())
    })
    .await;
    eventually("the link to be up", || async {
        b.handle.peers().is_up(from_a).then_some(())
    })
    .await;
    let mut heard = Vec::new();
    b.handle.poll(&mut heard);
    let is_letter = |message: &FromLinks| matches!(message, FromLinks::Letter { .. });
    assert!(!heard.iter().any(is_letter), "no shard has to know: {heard:?}");
}

/// A peer that says a letter twice, leaves one out, or goes on over an older connection.
#[tokio::test]
async fn a_letter_counts_once() {
    let at = ports::free_address();
    let b = end("b", "f", 1, at, None);
    let numbered = |seq: u64| {
        let mut bytes = Vec::new();
        let letter = letter(seq);
        encode(&LinkFrame::Letter { seq, letter }, &mut bytes).expect("short");
        bytes
    };
    let connect = async || {
        let mut stream = TcpStream::connect(at).await.expect("a listener");
        stream.write_all(&hello("f", "a", "b", 1)).await.expect("written");
        let mut input = vec![0; 1 << 10];
        let count = within("a welcome", stream.read(&mut input)).await.expect("bytes");
        assert!(matches!(
            decode(&input[..count]),
            Ok(Some((LinkFrame::Welcome { .. }, _)))
        ));
        stream
    };
    let mut got = Vec::new();
    let mut older = connect().await;
    for seq in [1, 1, 2, 1, 2, 3] {
        older.write_all(&numbered(seq)).await.expect("written");
    }
    let until = async |seq: u64, got: &mut Vec<u64>| {
        let cell = std::cell::RefCell::new(got);
        eventually("a letter", || async {
            let mut got = cell.borrow_mut();
            take(&b, &mut got);
            got.contains(&seq).then_some(())
        })
        .await;
    };
    until(3, &mut got).await;
    let mut newer = connect().await;
    newer.write_all(&numbered(4)).await.expect("written");
    until(4, &mut got).await;
    // Both are closed: the older is no longer that of the node, the newer leaves one out.
    let mut input = Vec::new();
    for (stream, seq) in [(&mut older, 5), (&mut newer, 7)] {
        stream.write_all(&numbered(seq)).await.expect("written");
        within("the end", stream.read_to_end(&mut input)).await.ok();
    }
    take(&b, &mut got);
    assert_eq!(got, [1, 2, 3, 4]);
}
