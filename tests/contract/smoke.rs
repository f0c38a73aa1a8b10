//! The support code itself.

use crate::support::{self, Raw, api, json, ports, raw};

#[test]
fn ports_are_handed_out_once() {
    let addresses: Vec<_> = (0..20).map(|_| ports::free_address()).collect();
    let mut distinct = addresses.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), addresses.len());
}

#[test]
fn merging_replaces_and_removes() {
    let merged = support::merged(json!({"a": 1, "b": 2}), &json!({"b": null, "c": 3}));
    assert_eq!(merged, json!({"a": 1, "c": 3}));
}

#[test]
fn days_are_utc() {
    assert_eq!(api::utc_date(1_552_435_199_999), "2019-03-12");
    assert_eq!(api::utc_date(1_552_435_200_000), "2019-03-13");
}

#[test]
fn frames_carry_their_length() {
    assert_eq!(raw::unmasked_frame(0x81, b"hi"), b"\x81\x02hi");
    assert_eq!(raw::client_frame(0x81, b"")[..2], [0x81, 0x80]);
    assert_eq!(raw::client_frame(0x81, &[0; 126])[..4], [0x81, 0xfe, 0, 126]);
}

#[tokio::test]
async fn raw_answers_are_read_to_their_end() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        let (mut stream, _) = listener.accept().await.unwrap();
        let answers = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab\
                       HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ncde\r\n0\r\n\r\n";
        stream.write_all(answers.as_bytes()).await.unwrap();
    });
    let mut raw = Raw::connect(address).await;
    assert_eq!(raw.expect_answer().await.status, 100);
    assert_eq!(raw.expect_answer().await.body, "ab");
    assert_eq!(raw.expect_answer().await.body, "cde");
    raw.expect_end().await;
    serving.await.unwrap();
}
