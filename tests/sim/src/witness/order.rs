//! Premium before standard before economy, first come first served inside a class, with ageing.
//!
//! What is seen from outside is when a request came and when it was served, so only pairs are judged whose order does not
//! hang on how long anything was under way: the one that goes first must have been first by more than `order_margin_ms`.

use super::Witness;
use super::audits::Life;
use super::state::ways;
use crate::checks::{About, Check};
use crate::ids::{Driver, Request};

/// A request that wants one driver, or the node, and is served in its turn.
struct Waiter {
    request: Request,
    /// Earliest and latest time at which it stood in the queue, node time.
    came_ms: (u64, u64),
    /// Earlier is sooner: the time it came and the steps of its class.
    class_ms: u64,
    /// When it was served; `u64::MAX`: never.
    served_ms: u64,
    /// When it left the queue, served or not.
    left_ms: u64,
}

impl Witness {
    /// All pairs of requests in the same queue.
    pub(super) fn check_order(&mut self, lives: &[Option<Life>]) {
        if self.is_fleet() {
            return; // Nodes do not queue behind each other.
        }
        for driver in 0..self.drivers.len() as Driver {
            let waiters = self.waiters_for_driver(driver, lives);
            self.check_pairs(&waiters, Some(driver));
        }
        if self.expect.shards == 1 {
            let waiters = self.waiters_for_node(lives);
            self.check_pairs(&waiters, None);
        }
    }

    fn class_ms(&self, request: Request) -> u64 {
        self.requests[request as usize].wish.class as u64 * self.expect.age_step_ms
    }

    /// Requests that waited for this driver and for nobody else.
    fn waiters_for_driver(&self, driver: Driver, lives: &[Option<Life>]) -> Vec<Waiter> {
        let margin_ms = self.expect.order_margin_ms;
        let mut waiters = Vec::new();
        for (request, life) in (0..).zip(lives) {
            let Some(life) = life
                .as_ref()
                .filter(|life| life.redispatched == 0 && life.busy_wait_ms > 0)
            else {
                continue;
            };
            let only = self.requests[request as usize].posted == 1 << driver;
            if !only {
                continue;
            }
            let first = life.tried.first();
            let served = first.filter(|tried| tried.way != ways::REFUSED || tried.expires_at_ms > 0);
            let end_ms = life.end.map_or(u64::MAX, |end| end.1);
            let left_ms = first.map_or(end_ms, |tried| tried.sent_at_ms);
            waiters.push(Waiter {
                request,
                came_ms: (life.received_at_ms, life.received_at_ms + margin_ms),
                class_ms: self.class_ms(request),
                served_ms: served.map_or(u64::MAX, |tried| tried.sent_at_ms),
                left_ms,
            });
        }
        waiters
    }

    /// Requests that were posted once and taken in. One that was sent behind others on its connection has come for certain
    /// only when those were answered: until then it may wait there, where classes mean nothing.
    fn waiters_for_node(&self, lives: &[Option<Life>]) -> Vec<Waiter> {
        let margin_ms = self.expect.order_margin_ms;
        let mut waiters = Vec::new();
        for (request, life) in (0..).zip(lives) {
            let seen = &self.requests[request as usize];
            let Some(life) = life.as_ref().filter(|_| seen.posts == 1 && seen.taken == 1) else {
                continue;
            };
            let front_us = self.calls[seen.first_call as usize].front_us;
            if front_us == u64::MAX {
                continue;
            }
            waiters.push(Waiter {
                request,
                came_ms: (
                    self.node.ms_then(seen.first_post_us),
                    self.node.ms_then(front_us) + margin_ms,
                ),
                class_ms: self.class_ms(request),
                served_ms: life.received_at_ms,
                left_ms: life.received_at_ms,
            });
        }
        waiters
    }

    fn check_pairs(&mut self, waiters: &[Waiter], driver: Option<Driver>) {
        let margin_ms = self.expect.order_margin_ms;
        for second in waiters.iter().filter(|waiter| waiter.served_ms != u64::MAX) {
            for first in waiters {
                // Both waited when `second` was served, and `first` goes first however long things were under way.
                let waited = first.came_ms.1 < second.served_ms && first.left_ms > second.served_ms + margin_ms;
                let goes_first = first.came_ms.1 + first.class_ms < second.came_ms.0 + second.class_ms;
                // After a restart everybody asks again, in any order.
                let begun_ms = first.came_ms.0.min(second.came_ms.0);
                let same_boot = || self.is_in_one_boot(begun_ms, second.served_ms + margin_ms);
                if !waited || first.request == second.request || !goes_first || !same_boot() {
                    if goes_first && first.came_ms.1 < second.served_ms && same_boot() {
                        self.counts.add(Check::ClassOrder);
                    }
                    continue;
                }
                if !self.holds(Check::ClassOrder, !goes_first) {
                    let about = About {
                        request: Some(first.request),
                        other: Some(second.request),
                        driver,
                    };
                    let text = format!(
                        "r{} was served at {} while r{} waited since {}",
                        second.request, second.served_ms, first.request, first.came_ms.0
                    );
                    return self.violate(Check::ClassOrder, about, text);
                }
            }
        }
    }
}
