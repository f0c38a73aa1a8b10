//! What callers send: the bodies of offers, and other calls whole.

use super::caller::Post;
use crate::codec::http;
use crate::ids::{Ids, write_number};
use crate::phrases::{self, Reason};
use crate::trips;
use crate::witness::Ask;
use std::fmt::Write as _;

/// The body of an offer; a single candidate may be named alone.
pub(super) fn offer(ids: &Ids, post: &Post, as_one: bool) -> Vec<u8> {
    let mut body = Vec::with_capacity(512);
    body.extend_from_slice(b"{\"request_id\":\"");
    ids.write_request(&mut body, post.request);
    if let ([only], true) = (post.candidates.as_slice(), as_one) {
        body.extend_from_slice(b"\",\"driver_id\":\"");
        ids.write_driver(&mut body, *only);
        body.push(b'"');
    } else {
        body.extend_from_slice(b"\",\"candidates\":[");
        for (index, driver) in post.candidates.iter().enumerate() {
            body.extend_from_slice(if index == 0 { b"\"" } else { b",\"" });
            ids.write_driver(&mut body, *driver);
            body.push(b'"');
        }
        body.push(b']');
    }
    body.extend_from_slice(b",\"priority\":\"");
    body.extend_from_slice(post.wish.class.as_str().as_bytes());
    body.push(b'"');
    for (name, value) in [
        ("offer_timeout_ms", post.wish.offer_timeout_ms),
        ("deadline_ms", post.wish.deadline_ms),
        ("max_attempts", post.wish.max_attempts),
        ("parallel", post.wish.parallel),
        ("busy_wait_ms", post.wish.busy_wait_ms),
    ] {
        if let Some(value) = value {
            body.extend_from_slice(b",\"");
            body.extend_from_slice(name.as_bytes());
            body.extend_from_slice(b"\":");
            write_number(&mut body, value);
        }
    }
    body.extend_from_slice(b",\"trip\":");
    trips::write(&mut body, post.request);
    body.push(b'}');
    body
}

/// Any other call that a caller makes, whole.
pub(super) fn other(ids: &Ids, ask: Ask, bytes: &mut Vec<u8>) {
    match ask {
        Ask::Response {
            request,
            driver,
            attempt,
            accept,
        } => {
            let kind = if accept { "ACCEPT" } else { "DECLINE" };
            let mut body = format!(
                "{{\"driver_id\":\"{}\",\"request_id\":\"{}\",\"response_type\":\"{kind}\"",
                ids.driver(driver),
                ids.request(request)
            );
            if let Some(attempt) = attempt {
                let _ = write!(body, ",\"attempt\":{attempt}");
            }
            body.push('}');
            http::request(bytes, "POST", "/v1/dispatch/response", Some(body.as_bytes()));
        }
        Ask::Cancel(request, why) => {
            let id = ids.request(request);
            let body = match reason(why) {
                Some(reason) => format!("{{\"request_id\":\"{id}\",{reason}}}"),
                None => format!("{{\"request_id\":\"{id}\"}}"),
            };
            http::request(bytes, "POST", "/v1/dispatch/cancel", Some(body.as_bytes()));
        }
        Ask::TripCancel(trip, why) => {
            let target = format!("/v1/trips/{}/cancel", ids.trip(trip));
            let body = format!("{{{}}}", reason(why).unwrap_or_default());
            http::request(bytes, "POST", &target, Some(body.as_bytes()));
        }
        Ask::View(request) => {
            let target = format!("/v1/dispatch/request/{}", ids.request(request));
            http::request(bytes, "GET", &target, None);
        }
        Ask::Audit(request) => {
            let target = format!("/v1/dispatch/audit/{}", ids.request(request));
            http::request(bytes, "GET", &target, None);
        }
        Ask::DriverView(driver) => {
            let target = format!("/v1/drivers/{}", ids.driver(driver));
            http::request(bytes, "GET", &target, None);
        }
        Ask::Ready => http::request(bytes, "GET", "/readyz", None),
        Ask::Alive => http::request(bytes, "GET", "/healthz", None),
        Ask::Offer(_) | Ask::Records(_) | Ask::Events { .. } | Ask::Acknowledge { .. } => {
            unreachable!("asked by others")
        }
    }
}

/// The member that says why.
fn reason(why: Reason) -> Option<String> {
    phrases::reason(why).map(|text| format!("\"reason\":\"{text}\""))
}
