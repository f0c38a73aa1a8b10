//! Questions where a driver is, many at once.

use super::lease::{self, NodeFields};
use super::scripts;
use super::serve::{Connection, Lost};
use crate::cold::registry::port::{Found, Lookup, LookupReply};
use crate::fsm::ids::DriverId;
use redis::RedisError;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Look-ups whose answers are awaited at once.
pub(super) const LOOKUPS_WINDOW: usize = 512;

/// A look-up that was answered, or not.
pub(super) struct LookupDone {
    reply: LookupReply,
    driver_id: DriverId,
    result: Result<Option<Found>, Option<RedisError>>,
}

impl Connection<'_> {
    pub(super) fn look_up(&mut self, reply: LookupReply, lookup: Lookup) {
        if !self.is_present() {
            return; // Dropped: that is the answer.
        }
        let cx = Arc::clone(&self.cx);
        self.lookups.push(Box::pin(async move {
            let driver_id = lookup.driver_id;
            let cmd = scripts::whereabouts(&cx.keys.driver(driver_id.as_str()));
            let result = match tokio::time::timeout(cx.timeout, cx.link.query(&cmd)).await {
                Ok(Ok(answer)) => Ok(scripts::found(answer)),
                Ok(Err(error)) => Err(Some(error)),
                Err(_) => Err(None),
            };
            LookupDone {
                reply,
                driver_id,
                result,
            }
        }));
    }

    pub(super) fn looked_up(&mut self, done: LookupDone) -> Result<(), Lost> {
        let refills = self.refills();
        let metrics = self.writer.shared.metrics();
        match done.result {
            // Its node may not have come to write it again. Dropped: that is the answer.
            Ok(None) if refills => Ok(()),
            Ok(at) => {
                metrics.lookups.inc();
                done.reply.give(at);
                Ok(())
            }
            Err(why) => {
                metrics.lookups_unanswered.inc();
                drop(done.reply);
                match why {
                    Some(error) => {
                        let key = self.cx.keys.driver(done.driver_id.as_str());
                        self.failed(&error, &key)
                    }
                    None if self.cx.is_cluster => Ok(()),
                    None => Err(Lost("no answer in time".to_owned())),
                }
            }
        }
    }

    /// Whether what is not found may be there in a moment.
    pub(super) fn refills(&self) -> bool {
        self.refills_until.is_some_and(|until| Instant::now() < until)
    }

    /// As long as nodes have many drivers to write again, one who is not found may be there in a moment.
    pub(super) fn refill(&mut self, nodes: &[NodeFields]) {
        if self.refills() && lease::are_behind(nodes) {
            let longer = Instant::now() + Duration::from_millis(self.cx.lease_ms);
            self.refills_until = Some(longer.min(self.refilled_by));
        }
    }
}
