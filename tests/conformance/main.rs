//! HTTP/1.1 as RFC 9110 and RFC 9112 have it, against a real node: a list of raw requests with the answers that they must
//! get. What needs programs of others (Autobahn's fuzzing client, schemathesis) is started by `tests/conformance/run`.

#[path = "../support/mod.rs"]
mod support;

mod http;
