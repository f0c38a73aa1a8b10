//! The list (`*.toml` beside this file) and how each of its cases is put to a node.
//!
//! Every case is sent in one piece and byte by byte. Behind it stands, in the same bytes, what a smuggler would want to
//! have answered: a look at a driver when the connection lives (it must be answered, and rightly), an offer when it ends
//! (it must not be taken). Afterwards the next request is asked: on the same connection, or on a fresh one.

mod case;

use crate::support::raw::RawAnswer;
use crate::support::{Node, Raw, Setup, Value, shards_1_and_4};
use case::{Case, Expect};
use futures_util::FutureExt;
use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;

/// The files of the list.
const LIST: [(&str, &str); 5] = [
    ("request_lines", include_str!("request_lines.toml")),
    ("targets", include_str!("targets.toml")),
    ("fields", include_str!("fields.toml")),
    ("framing", include_str!("framing.toml")),
    ("connections", include_str!("connections.toml")),
];

/// Requests longer than this go in pieces of [`PIECE_BYTES`] instead of byte by byte.
const SINGLE_BYTES_MAX: usize = 2_000;
const PIECE_BYTES: usize = 997;

/// How a request's bytes are cut.
#[derive(Clone, Copy, Debug)]
enum Cut {
    Whole,
    Pieces,
}

/// Each case of the list gets its answers, keeps or ends the connection, and harms nobody behind it.
async fn the_list(setup: Setup) {
    let node = setup.start().await;
    let (mut names, mut smuggled, mut failed) = (BTreeSet::new(), Vec::new(), Vec::new());
    for (file, text) in LIST {
        for (index, case) in case::read(file, text).iter().enumerate() {
            assert!(
                names.insert(format!("{file}: {}", case.name)),
                "{file}: {} twice",
                case.name
            );
            for cut in [Cut::Whole, Cut::Pieces] {
                let id = format!("{file}-{index}-{cut:?}");
                // One case that fails hides no other.
                let checked = AssertUnwindSafe(check(&node, case, cut, &id)).catch_unwind().await;
                if checked.is_err() {
                    failed.push(format!("{file}: {} ({cut:?})", case.name));
                }
                smuggled.push(id);
            }
        }
    }
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
    for id in smuggled {
        let path = format!("/v1/dispatch/request/{id}");
        node.get(&path).await.problem(404, "no_such_request");
    }
    assert_eq!(names.len(), 232, "the list has its length");
    println!("{} cases, each in one piece and byte by byte", names.len());
}

/// That what stands behind a case is taken when nothing is wrong before it, or the list would show nothing.
async fn what_is_smuggled_would_be_taken(setup: Setup) {
    let node = setup.start().await;
    let mut raw = Raw::connect(node.address).await;
    raw.send(format!("{}{}", look("behind"), offer("behind"))).await;
    assert_looked(&raw.expect_answer().await, "behind");
    assert_eq!(raw.expect_answer().await.status, 202);
}

async fn check(node: &Node, case: &Case, cut: Cut, id: &str) {
    let shown = format!("{id} {:?} (RFC {})", case.name, case.rfc);
    let mut raw = Raw::connect(node.address).await;
    let behind = if case.lives { look(id) } else { offer(id) };
    send(&mut raw, &case.request, behind.as_bytes(), cut).await;
    let mut last = None;
    for expect in &case.answers {
        let answer = answer(&mut raw, case, expect).await;
        let answer = answer.unwrap_or_else(|| panic!("{shown}: the connection ended before {expect:?}"));
        assert_fits(&shown, &answer, expect);
        last = Some(answer);
    }
    let last = last.unwrap_or_else(|| panic!("{shown}: expects no answer"));
    if let Some((name, value)) = &case.field {
        assert_eq!(last.header(name), Some(value.as_str()), "{shown}: {last:?}");
    }
    assert!(last.body.contains(&case.body), "{shown}: {last:?}");
    // RFC 9112 §9.6: who closes says so before.
    let closes = last.header("connection").is_some_and(|value| value.contains("close"));
    assert_eq!(closes, !case.lives, "{shown}: {last:?}");
    if case.lives {
        let looked = raw.answer().await;
        let looked = looked.unwrap_or_else(|| panic!("{shown}: the connection does not live"));
        assert_looked(&looked, id);
    } else {
        let rest = raw.rest().await;
        assert!(
            rest.is_empty(),
            "{shown}: more came: {:?}",
            String::from_utf8_lossy(&rest)
        );
        raw = Raw::connect(node.address).await;
    }
    raw.send(look("next")).await;
    assert_looked(&raw.expect_answer().await, "next");
}

/// The next answer; `100 Continue` does not count where it was asked for.
async fn answer(raw: &mut Raw, case: &Case, expect: &Expect) -> Option<RawAnswer> {
    loop {
        let answer = if expect.bodiless {
            raw.answer_without_body().await
        } else {
            raw.answer().await
        };
        match answer {
            Some(answer) if answer.status == 100 && case.asks_to_continue() => {}
            answer => return answer,
        }
    }
}

/// What holds for every answer, and what this one must say.
fn assert_fits(shown: &str, answer: &RawAnswer, expect: &Expect) {
    assert_eq!(answer.status, expect.status, "{shown}: {answer:?}");
    // RFC 9110 §6.6.1, §5.6.7.
    let date = answer
        .header("date")
        .unwrap_or_else(|| panic!("{shown}: no Date: {answer:?}"));
    assert!(is_imf_fixdate(date), "{shown}: {date}");
    // RFC 9110 §8.6: the length that the content has, or would have.
    assert!(answer.header("content-length").is_some(), "{shown}: {answer:?}");
    if answer.status >= 400 {
        assert_eq!(
            answer.header("content-type"),
            Some("application/problem+json"),
            "{shown}"
        );
    }
    if answer.status == 405 {
        assert!(answer.header("allow").is_some(), "{shown}: {answer:?}");
    }
    if let Some(code) = &expect.code {
        assert_eq!(answer.code(), *code, "{shown}: {answer:?}");
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`, as far as its shape goes.
fn is_imf_fixdate(text: &str) -> bool {
    let shape: String = text
        .chars()
        .map(|char| match char {
            '0'..='9' => '0',
            'A'..='Z' => 'A',
            'a'..='z' => 'a',
            other => other,
        })
        .collect();
    shape == "Aaa, 00 Aaa 0000 00:00:00 AAA" && text.ends_with(" GMT")
}

async fn send(raw: &mut Raw, request: &[u8], behind: &[u8], cut: Cut) {
    match cut {
        Cut::Whole => {
            raw.try_send([request, behind].concat()).await;
        }
        Cut::Pieces => {
            let size = if request.len() > SINGLE_BYTES_MAX {
                PIECE_BYTES
            } else {
                1
            };
            for piece in request.chunks(size).chain([behind]) {
                if !raw.try_send(piece).await {
                    return; // Refused before its end.
                }
            }
        }
    }
}

/// A look at the records of a driver that nobody knows: its answer names the driver.
fn look(id: &str) -> String {
    format!("GET /v1/drivers/{id}/records?date=2026-03-06 HTTP/1.1\r\nHost: node\r\n\r\n")
}

fn assert_looked(answer: &RawAnswer, id: &str) {
    assert_eq!(answer.status, 200, "{id}: {answer:?}");
    let body: Value = serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{id}: {error}: {answer:?}"));
    assert_eq!(body["driver_id"], id, "the answer of another request: {answer:?}");
}

/// An offer that would be taken.
fn offer(id: &str) -> String {
    let body = format!("{{\"request_id\":\"{id}\",\"driver_id\":\"nobody\",\"trip\":{{}}}}");
    let length = body.len();
    format!("POST /v1/dispatch/offer HTTP/1.1\r\nHost: node\r\nContent-Length: {length}\r\n\r\n{body}")
}

shards_1_and_4!(the_list, what_is_smuggled_would_be_taken);
