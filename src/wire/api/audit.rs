//! `GET /v1/dispatch/audit/{request_id}`: a request's log of steps, as events.

use crate::fsm::types::{RequestLog, RequestState};
use crate::wire::respond::Reply;

/// 200 with every step of `log`, oldest first; `node` is the name of the node that wrote it.
pub fn audit(log: &RequestLog, state: RequestState, node: &str) -> Reply {
    todo!("{log:?} {state:?} {node}")
}
