//! The documents that describe the API, as they are served.
#![forbid(unsafe_code)]

/// `OpenAPI` 3.1: served at `GET /openapi.json` as `application/json`.
pub const OPENAPI_JSON: &str = include_str!("openapi.json");
/// `AsyncAPI` 3.0 of the driver WebSocket: served at `GET /asyncapi.json` as `application/json`.
pub const ASYNCAPI_JSON: &str = include_str!("asyncapi.json");
