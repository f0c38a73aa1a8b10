//! Reads the node's own account: audits before the kill, and audits, requests and the event stream at the end.

use super::api::Api;
use super::drivers::World;
use super::messages::{AuditView, EventLine, Id, is_end};
use super::observe::{ClassRound, Evidence, FinalView, Observation, OnApi, Seen};
use futures_util::{StreamExt, stream};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

/// The consumer that acknowledges nothing, so that the whole stream is kept for it.
pub const WITNESS: &str = "demo-witness";
/// Calls under way at once.
const CONCURRENT: usize = 16;
/// Tries of a call that should be answered.
const TRIES: u32 = 4;
/// For the last words on the sockets, and between two readings of what has not ended.
const SETTLE: Duration = Duration::from_secs(1);
/// Longest reading of everything.
const READ_MAX: Duration = Duration::from_secs(60);

/// Everything that the clients saw and that the node says now that all is over.
///
/// # Errors
/// The event stream cannot be read.
pub async fn evidence(
    world: &World,
    before_kill: Vec<(Id, AuditView)>,
    class_rounds: Vec<ClassRound>,
) -> Result<Evidence, String> {
    let (api, observer) = (&world.api, &world.observer);
    sleep(SETTLE).await;
    let mut finals = finals(api, posted(&observer.snapshot())).await;
    // Nothing is late before its deadline.
    let since = Instant::now();
    while since.elapsed() < Duration::from_millis(world.tempo.deadline_ms) + SETTLE {
        let is_open = |view: &FinalView| view.view.as_ref().is_some_and(|view| !is_end(&view.state));
        let open = finals.iter().filter(|(_, view)| is_open(view));
        let open: BTreeSet<Id> = open.map(|(request, _)| Id::clone(request)).collect();
        if open.is_empty() {
            break;
        }
        sleep(SETTLE).await;
        finals.extend(self::finals(api, open).await);
    }
    let events_again = streams_again(api)
        .await
        .map_err(|error| format!("the event stream cannot be read again: {error}"))?;
    Ok(Evidence {
        observations: observer.snapshot(),
        started_unix: observer.started_unix(),
        before_kill,
        finals,
        events_again,
        class_rounds,
        fleet: None,
    })
}

/// All requests that were posted so far.
pub fn posted(observations: &[Observation]) -> BTreeSet<Id> {
    let request = |observation: &Observation| match &observation.seen {
        Seen::Api(OnApi::Posted { request, .. }) => Some(Id::clone(request)),
        _ => None,
    };
    observations.iter().filter_map(request).collect()
}

/// Audits of `requests`, as many as can be read in `most`; the node is under load and about to die.
pub async fn audits(api: &Api, requests: BTreeSet<Id>, most: Duration) -> Vec<(Id, AuditView)> {
    let mut found = Vec::new();
    let reading = async {
        let read = |request: Id| async move { (api.audit(&request).await, request) };
        let mut answers = stream::iter(requests).map(read).buffer_unordered(CONCURRENT);
        while let Some((audit, request)) = answers.next().await {
            found.extend(audit.map(|audit| (request, audit)));
        }
    };
    // Running out of time is expected; what was read stands.
    let _ = timeout(most, reading).await;
    found
}

/// What the node says of each request at the end.
pub async fn finals(api: &Api, requests: BTreeSet<Id>) -> BTreeMap<Id, FinalView> {
    let read = |request: Id| async move {
        let first = FinalView {
            audit: again(|| api.audit(&request)).await,
            view: again(|| api.request(&request)).await,
            audit_again: None,
        };
        (request, first)
    };
    let mut views = BTreeMap::new();
    let reading = async {
        let mut answers = stream::iter(requests).map(read).buffer_unordered(CONCURRENT);
        while let Some((request, view)) = answers.next().await {
            views.insert(request, view);
        }
    };
    let whole = timeout(READ_MAX, reading).await.is_ok();
    let found = views.iter().filter(|(_, view)| view.audit.is_some());
    let names: Vec<Id> = found.map(|(request, _)| Id::clone(request)).collect();
    let reading = async {
        let read = |request: Id| async move { (again(|| api.audit(&request)).await, request) };
        let mut answers = stream::iter(names).map(read).buffer_unordered(CONCURRENT);
        while let Some((audit, request)) = answers.next().await {
            if let Some(view) = views.get_mut(&request) {
                view.audit_again = audit;
            }
        }
    };
    if !(timeout(READ_MAX, reading).await.is_ok() && whole) {
        tracing::warn!("the node was too slow to be read back whole");
    }
    views
}

/// A call that a single lost connection must not make a violation.
async fn again<T, F: Future<Output = Option<T>>>(mut call: impl FnMut() -> F) -> Option<T> {
    for _ in 1..TRIES {
        if let Some(found) = call().await {
            return Some(found);
        }
        sleep(Duration::from_millis(100)).await;
    }
    call().await
}

/// Makes the witness known to all nodes, so that nothing is dropped before it has been read by it.
///
/// # Errors
/// What a node said.
pub async fn enrol(api: &Api) -> Result<(), String> {
    for node in api.each() {
        node.events(WITNESS, None, Duration::ZERO).await?;
    }
    Ok(())
}

/// The whole streams of all nodes, each from its beginning.
///
/// # Errors
/// What a node said last.
pub async fn streams_again(api: &Api) -> Result<Vec<EventLine>, String> {
    let mut lines = Vec::new();
    for node in api.each() {
        lines.extend(stream_again(&node).await?);
    }
    Ok(lines)
}

/// The whole stream of the first node.
async fn stream_again(api: &Api) -> Result<Vec<EventLine>, String> {
    let mut lines: Vec<EventLine> = Vec::new();
    let mut failures = 0;
    loop {
        let after = lines.last().map(|line| line.cursor);
        match api.events(WITNESS, after, Duration::ZERO).await {
            Ok(page) if page.is_empty() => return Ok(lines),
            Ok(page) => lines.extend(page),
            Err(_) if failures < TRIES => {
                failures += 1;
                sleep(Duration::from_millis(100)).await;
            }
            Err(error) => return Err(error),
        }
    }
}
