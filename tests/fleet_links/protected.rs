//! Links with TLS: who is let in, and what becomes of new certificates.

use crate::authority::{Authority, settings};
use crate::ends::{End, end, hello, letter, list, take};
use crate::fleet::{Fleet, name};
use crate::proxy::{Mode, Proxy};
use crate::redis::Redis;
use crate::support::{Setup, eventually, json, ports};
use dispatchd::cold::links::{LinkTls, TlsFiles};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Nodes `a` and `b`; `a` knows where `b` is.
fn ends(a: Option<LinkTls>, b: Option<LinkTls>, to_b: Option<SocketAddr>) -> (End, End, SocketAddr) {
    let (at_a, at_b) = (ports::free_address(), ports::free_address());
    let (a, b) = (end("a", "f", 1, at_a, a), end("b", "f", 1, at_b, b));
    a.links.watcher()(&list(&[("a", at_a), ("b", to_b.unwrap_or(at_b))]));
    (a, b, at_b)
}

async fn until_arrived(from: &End, to: &End, session: u64) {
    let peer = from.handle.peers().number_of("b").expect("a number");
    from.handle.send(peer, Box::new(letter(session))).expect("room");
    let mut got = Vec::new();
    let cell = std::cell::RefCell::new(&mut got);
    eventually("the letter", || async {
        let mut got = cell.borrow_mut();
        take(to, &mut got);
        got.contains(&session).then_some(())
    })
    .await;
}

/// Until `to` has turned connections away, and that nobody was let in.
async fn until_turned_away(from: &End, to: &End) {
    eventually("a connection that is turned away", || async {
        (to.metrics.links().bad_connections.get() > 1).then_some(())
    })
    .await;
    let peer = from.handle.peers().number_of("b").expect("a number");
    assert!(!from.handle.peers().is_up(peer));
    assert_eq!(from.metrics.links().connects.get(), 0);
}

#[tokio::test]
async fn who_shows_no_certificate_of_the_fleet_is_turned_away() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (a, b, _) = ends(None, Some(ours.of("b")), None);
    until_turned_away(&a, &b).await;
    let (a, b, _) = ends(Some(theirs.of("a")), Some(ours.of("b")), None);
    until_turned_away(&a, &b).await;
    // The one that is dialed must be known, too.
    let (a, b, _) = ends(Some(ours.of("a")), None, None);
    until_turned_away(&a, &b).await;
}

/// A node of the fleet is not every node of the fleet.
#[tokio::test]
async fn a_node_is_the_one_that_its_certificate_names() {
    let fleet = Authority::new();
    let c = || LinkTls::load(fleet.files("c", "c"), "c").expect("good files");
    // It dials as `a`.
    let (a, b, _) = ends(Some(c()), Some(fleet.of("b")), None);
    until_turned_away(&a, &b).await;
    // It is dialed as `b`.
    let (a, b, _) = ends(Some(fleet.of("a")), Some(c()), None);
    until_turned_away(&a, &b).await;
    let (a, b, _) = ends(Some(fleet.of("a")), Some(fleet.of("b")), None);
    until_arrived(&a, &b, 1).await;
}

/// New files are used for the next connection: here those of another authority.
#[tokio::test]
async fn certificates_are_renewed_without_a_restart() {
    let (first, second) = (Authority::new(), Authority::new());
    let files = |name: &str| first.files(name, name);
    let (of_a, of_b) = (files("a"), files("b"));
    let load = |files: &TlsFiles, name| LinkTls::load(files.clone(), name).expect("good files");
    let at_b = ports::free_address();
    let proxy = Proxy::start(at_b);
    let b = end("b", "f", 1, at_b, Some(load(&of_b, "b")));
    let (a, ..) = ends(Some(load(&of_a, "a")), None, Some(proxy.address));
    until_arrived(&a, &b, 1).await;
    let replace = |old: &TlsFiles, name: &str| {
        let new = second.files(name, name);
        std::fs::copy(new.authorities, &old.authorities).expect("copied");
        std::fs::copy(new.certificate, &old.certificate).expect("copied");
        std::fs::copy(new.key, &old.key).expect("copied");
    };
    let cut = async || {
        let peer = a.handle.peers().number_of("b").expect("a number");
        proxy.set(Mode::Cut);
        eventually("a cut", || async { (!a.handle.peers().is_up(peer)).then_some(()) }).await;
        proxy.set(Mode::Pass);
    };
    replace(&of_b, "b");
    until_arrived(&a, &b, 2).await;
    cut().await;
    eventually("a connection that is turned away", || async {
        (b.metrics.links().bad_connections.get() > 1).then_some(())
    })
    .await;
    replace(&of_a, "a");
    until_arrived(&a, &b, 3).await;
    // What is of no use changes nothing.
    std::fs::write(&of_a.certificate, "no certificate").expect("written");
    cut().await;
    until_arrived(&a, &b, 4).await;
}

/// Bytes without TLS are not answered as if they were a greeting.
#[tokio::test]
async fn a_greeting_in_plain_is_no_greeting() {
    let at = ports::free_address();
    let _b = end("b", "f", 1, at, Some(Authority::new().of("b")));
    let mut stream = TcpStream::connect(at).await.expect("a listener");
    stream.write_all(&hello("f", "a", "b", 1)).await.expect("written");
    let mut answer = Vec::new();
    // An alert of TLS (RFC 8446 section 6) or nothing.
    stream.read_to_end(&mut answer).await.ok();
    assert!(answer.is_empty() || answer[0] == 21, "{answer:?}");
}

#[tokio::test]
async fn an_offer_reaches_the_driver_of_another_node() {
    let authority = Authority::new();
    let fleet = Fleet::start_numbered(2, |number, setup| {
        let files = authority.files(&name(number), &name(number));
        let with = |setup: Setup, (key, path): (&str, &std::path::Path)| setup.set(key, path.display());
        settings(&files).into_iter().fold(setup, with)
    })
    .await;
    let mut driver = fleet.driver(1, "d-1").await;
    fleet.offer(0, "r-1", &["d-1"], &json!({})).await;
    let offer = driver.expect("OFFER").await;
    driver.answer("ACCEPT", &offer).await;
    driver.expect_confirmed(&offer).await;
}

#[test]
fn files_that_are_of_no_use_are_named() {
    let authority = Authority::new();
    let files = authority.files("a", "a");
    let refused = |files: &TlsFiles, node_id: &str, file: &std::path::Path, why: &str| {
        let error = LinkTls::load(files.clone(), node_id).map(|_| ()).unwrap_err();
        assert!(error.contains(file.to_str().unwrap()) && error.contains(why), "{error}");
    };
    refused(&files, "b", &files.certificate, "DNS:b");
    refused(&files, "a:b", &files.certificate, "DNS:a:b");
    let swapped = TlsFiles {
        key: files.certificate.clone(),
        ..files.clone()
    };
    refused(&swapped, "a", &swapped.key, "");
    let other = TlsFiles {
        key: authority.files("a2", "a").key,
        ..files.clone()
    };
    refused(&other, "a", &other.certificate, "");
    std::fs::write(&files.authorities, "").unwrap();
    refused(&files, "a", &files.authorities, "no certificate");
    std::fs::remove_file(&files.authorities).unwrap();
    refused(&files, "a", &files.authorities, "");
}

/// Nodes with TLS and nodes without do not reach each other: both say what to look at.
#[tokio::test]
async fn tls_on_one_side_alone_is_named() {
    let (redis, authority) = (Redis::start(), Authority::new());
    let linked = |name: &str| redis.setup(name, 1).set("fleet_link_listen", ports::free_address());
    let files = authority.files("gw-0", "gw-0");
    let protected = settings(&files).into_iter();
    let protected = protected.fold(linked("gw-0"), |setup, (key, path)| setup.set(key, path.display()));
    let nodes = [protected.start().await, linked("gw-1").start().await];
    for (node, why) in nodes.iter().zip(["no TLS with it", "no greeting from it"]) {
        let said = async || {
            let log = node.logged();
            let is_said = |line: &&str| line.contains(why) && line.contains("must be given to all nodes or to none");
            log.lines().any(|line| is_said(&line)).then_some(())
        };
        eventually(why, said).await;
    }
}
