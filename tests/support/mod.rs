//! What contract and crash tests share: a node as a child process, and clients that we did not write
//! (reqwest for HTTP, tokio-tungstenite for WebSocket; a bare socket where a broken client is the point).
//!
//! Must never: look behind the public contract, or sleep to make an order of things likely. Tests wait for
//! answers, messages and states; each wait is bounded by [`PATIENCE`], which is a failure and not a measurement.
//! That nothing was sent is shown by a fence: a later message that must come after it.
#![allow(dead_code, unused_imports, unused_macros, reason = "each test binary uses its part")]

pub mod api;
pub mod audit;
pub mod disk;
pub mod driver;
pub mod http;
pub mod node;
pub mod ports;
pub mod raw;

pub use audit::shape;
pub use driver::Driver;
pub use http::Answer;
pub use node::{Node, Setup};
pub use raw::Raw;
pub use serde_json::{Value, json};

use std::future::Future;
use std::time::Duration;

/// Longest wait for anything that must happen. Generous: it bounds a hang, it does not measure speed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for `future` at most [`PATIENCE`].
///
/// # Panics
/// When it takes longer; `what` says what was waited for.
pub async fn within<F: Future>(what: &str, future: F) -> F::Output {
    let output = tokio::time::timeout(PATIENCE, future).await;
    output.unwrap_or_else(|_| panic!("waited {PATIENCE:?} in vain for {what}"))
}

/// Asks `probe` until it gives a value: for what the contract shows only to those who ask.
///
/// # Panics
/// When it takes longer than [`PATIENCE`].
pub async fn eventually<T, F>(what: &str, mut probe: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let asking = async {
        let mut pace = tokio::time::interval(Duration::from_millis(10));
        loop {
            pace.tick().await;
            if let Some(found) = probe().await {
                return found;
            }
        }
    };
    within(what, asking).await
}

/// `base` with every field of `more`; later ones win, `null` takes a field away.
pub fn merged(mut base: Value, more: &Value) -> Value {
    let fields = base.as_object_mut().expect("an object to merge into");
    for (key, value) in more.as_object().expect("an object to merge") {
        if value.is_null() {
            fields.remove(key);
        } else {
            fields.insert(key.clone(), value.clone());
        }
    }
    base
}

/// A text field of a JSON object.
///
/// # Panics
/// When it is missing or no text.
#[track_caller]
pub fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object[field]
        .as_str()
        .unwrap_or_else(|| panic!("no text field {field:?} in {object}"))
}

/// A non-negative whole number of a JSON object.
///
/// # Panics
/// When it is missing or no such number.
#[track_caller]
pub fn number(object: &Value, field: &str) -> u64 {
    object[field]
        .as_u64()
        .unwrap_or_else(|| panic!("no number field {field:?} in {object}"))
}

/// The texts of an array, sorted: for lists whose order the contract leaves open.
///
/// # Panics
/// When the field is no array of texts.
#[track_caller]
pub fn sorted_texts(object: &Value, field: &str) -> Vec<String> {
    let list = object[field].as_array();
    let list = list.unwrap_or_else(|| panic!("no array field {field:?} in {object}"));
    let mut texts: Vec<String> = list
        .iter()
        .map(|item| item.as_str().expect("a text in the array").to_owned())
        .collect();
    texts.sort_unstable();
    texts
}

/// Whether a time in Unix milliseconds is plausible: later than 2020 and earlier than 2100, so neither seconds nor
/// microseconds.
pub fn is_unix_ms(at_ms: u64) -> bool {
    (1_577_836_800_000..4_102_444_800_000).contains(&at_ms)
}

/// Runs a scenario on one shard and on four: what is local on one is a message between shards on the other.
macro_rules! shards_1_and_4 {
    ($($scenario:ident),+ $(,)?) => {$(
        mod $scenario {
            #[tokio::test]
            async fn on_1_shard() {
                Box::pin(super::$scenario(crate::support::Setup::shards(1))).await;
            }
            #[tokio::test]
            async fn on_4_shards() {
                Box::pin(super::$scenario(crate::support::Setup::shards(4))).await;
            }
        }
    )+};
}
pub(crate) use shards_1_and_4;
