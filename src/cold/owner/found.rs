//! A request of the rows that nodes wrote of it.

use crate::cold::port::{FarRequest, StoreError};
use crate::fsm::ids::{RequestId, TripId};
use crate::fsm::types::{LogEntry, RequestLog, Step, UnixMs};
use compact_str::CompactString;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A row of a request: steps that were decided at once, or receipts that were kept beside them.
#[derive(Clone, Debug)]
pub struct FoundRow {
    /// Owners before the one that wrote it.
    pub epoch: u32,
    /// Number of its first step, from 1.
    pub seq: u32,
    /// What was decided.
    pub steps: Option<Vec<LogEntry>>,
    /// What was noted and nobody stored with a decision.
    pub receipts: Option<Vec<LogEntry>>,
    /// Who wrote it; empty: nobody says.
    pub node: CompactString,
}

/// What stands once per request.
#[derive(Clone, Debug)]
pub struct FoundHead {
    /// Who decides; `None`: what is left of a request that nobody has.
    pub owner: Option<CompactString>,
    /// The owner's boot.
    pub incarnation: u64,
    /// How often the owner changed.
    pub epoch: u32,
    /// Steps that the owner counts; `None`: written whole, when it had ended, by a node that was alone.
    pub length: Option<u32>,
    /// Its trip.
    pub trip_id: Option<TripId>,
    /// Since when nothing can change any more.
    pub ended_at_ms: Option<UnixMs>,
}

/// A request of its rows.
#[derive(Clone, Debug)]
pub struct Found {
    /// As it is shown.
    pub far: FarRequest,
    /// What was decided, without the receipts that were kept besides: what its next owner goes on with.
    pub decided: Vec<LogEntry>,
    /// Where the last decision begins in it.
    pub last_from: usize,
    /// Owners of what was decided: the first step of each, counted from 0, and its epoch.
    pub epochs: Vec<(usize, u32)>,
    /// The owner's boot.
    pub incarnation: u64,
    /// How often the owner changed.
    pub epoch: u32,
    /// See [`FoundHead::length`].
    pub length: Option<u32>,
}

impl Found {
    /// Of these rows, by epoch and number; `None`: there is no such request.
    ///
    /// # Errors
    /// The rows are not what a node writes.
    pub fn of(request_id: &RequestId, rows: Vec<FoundRow>, head: FoundHead) -> Result<Option<Self>, StoreError> {
        let (mut decided, mut log) = (Vec::new(), Vec::new());
        let mut nodes: Vec<(usize, CompactString)> = Vec::new();
        let mut last_from = 0;
        let mut epochs: Vec<(usize, u32)> = Vec::new();
        for row in rows {
            let node = if row.node.is_empty() {
                head.owner.clone().unwrap_or_default()
            } else {
                row.node
            };
            if let Some(steps) = row.steps {
                let known = (decided.len() + 1).checked_sub(row.seq as usize);
                let known = known
                    .ok_or_else(|| StoreError::broken(format!("request {request_id} in Cassandra lacks steps")))?;
                let steps = steps.into_iter().skip(known).collect::<Vec<_>>();
                if !steps.is_empty() {
                    last_from = decided.len();
                    if epochs.last().is_none_or(|(_, last)| *last != row.epoch) {
                        epochs.push((last_from, row.epoch));
                    }
                    show(&mut log, &mut nodes, &node, &steps);
                    decided.extend(steps);
                }
            }
            if let Some(receipts) = row.receipts {
                show(&mut log, &mut nodes, &node, &receipts);
            }
        }
        let Some(owner) = head.owner.filter(|_| !decided.is_empty()) else {
            return Ok(None);
        };
        let far = FarRequest {
            log: RequestLog {
                request_id: request_id.clone(),
                log,
            },
            nodes,
            owner,
            trip_id: head.trip_id,
            ended_at_ms: head.ended_at_ms,
        };
        Ok(Some(Self {
            far,
            decided,
            last_from,
            epochs,
            incarnation: head.incarnation,
            epoch: head.epoch,
            length: head.length,
        }))
    }

    /// Whether another node than this one has had the request, as its rows say. It need not have decided anything: what nodes noted beside
    /// what was decided then stands in the tables alone.
    pub(super) fn is_foreign_to(&self, node_id: &str) -> bool {
        self.far.owner != node_id || self.far.nodes.iter().any(|(_, node)| node != node_id)
    }
}

/// Adds steps of a node to what is shown. The clocks of two owners need not agree, and times in an audit never fall. A receipt that two
/// owners noted, as its driver says it again to the new one, is shown once.
fn show(log: &mut Vec<LogEntry>, nodes: &mut Vec<(usize, CompactString)>, node: &str, steps: &[LogEntry]) {
    for entry in steps {
        let is_receipt = matches!(entry.step, Step::Delivered { .. } | Step::Acked { .. });
        if is_receipt && log.iter().any(|shown| shown.step == entry.step) {
            continue;
        }
        if nodes.last().is_none_or(|(_, last)| last != node) {
            nodes.push((log.len(), node.into()));
        }
        let mut entry = entry.clone();
        entry.at_ms = entry.at_ms.max(log.last().map_or(0, |last| last.at_ms));
        log.push(entry);
    }
}

/// Rows of receipts stand behind those of the steps of their epoch.
const RECEIPTS_FROM: u32 = 1 << 30;

/// The `seq` of a row of receipts that a node had noted from number `seq` on, the first of them then: one of its own. A node that
/// restarted does not know its epoch and counts them to an earlier one, where another node's may stand.
pub fn receipts_place(node_id: &str, seq: u32, at_ms: UnixMs) -> u32 {
    let hash = xxh3_64_with_seed(node_id.as_bytes(), at_ms ^ (u64::from(seq) << 44));
    RECEIPTS_FROM + (hash % u64::from(RECEIPTS_FROM)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(owner: &str, nodes: &[&str]) -> Found {
        let step = |attempt| Step::TimedOut { attempt };
        let row = |(index, node): (usize, &&str)| FoundRow {
            epoch: 0,
            seq: index as u32 + 1,
            steps: Some(vec![LogEntry {
                at_ms: 1,
                step: step(index as u32 + 1),
            }]),
            receipts: None,
            node: (*node).into(),
        };
        let head = FoundHead {
            owner: Some(owner.into()),
            incarnation: 1,
            epoch: 1,
            length: Some(nodes.len() as u32),
            trip_id: None,
            ended_at_ms: None,
        };
        let rows = nodes.iter().enumerate().map(row).collect();
        Found::of(&RequestId::parse("r-1").unwrap(), rows, head)
            .unwrap()
            .unwrap()
    }

    #[test]
    fn a_request_is_foreign_also_when_nothing_was_decided_elsewhere() {
        let check = |owner, nodes, expected| {
            let is = found(owner, nodes).is_foreign_to("gw-1");
            assert_eq!(is, expected, "of {owner}, decided by {nodes:?}");
        };
        check("gw-1", &["gw-1", "gw-1"], false);
        check("gw-2", &["gw-2"], true);
        check("gw-1", &["gw-1", "gw-2"], true);
        check("gw-2", &["gw-1"], true);
    }

    #[test]
    fn receipts_of_two_nodes_and_of_two_times_have_places_of_their_own() {
        let place = receipts_place("gw-1", 3, 1_700_000_000_000);
        assert_eq!(
            place,
            receipts_place("gw-1", 3, 1_700_000_000_000),
            "written twice, it is one row"
        );
        for other in [
            receipts_place("gw-2", 3, 1_700_000_000_000),
            receipts_place("gw-1", 4, 1_700_000_000_000),
            receipts_place("gw-1", 3, 1_700_000_000_001),
        ] {
            assert_ne!(place, other);
            assert!((RECEIPTS_FROM..2 * RECEIPTS_FROM).contains(&other));
        }
        assert!(i32::try_from(2 * RECEIPTS_FROM - 1).is_ok(), "as large as an int takes");
    }
}
