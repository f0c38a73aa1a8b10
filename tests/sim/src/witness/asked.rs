//! What callers ask for is what the node says that it took.

use super::Witness;
use super::calls::Ask;
use super::state::{Posted, Wish};
use crate::checks::{About, Check};
use crate::codec::audit::{Asked, Entry};
use crate::ids::{Driver, Request};
use crate::words::Step;

impl Witness {
    /// A caller posts an offer to these candidates, the best one first. Returns the call's number.
    pub fn posted(&mut self, who: &str, request: Request, wish: Wish, candidates: &[Driver]) -> u32 {
        let set = candidates.iter().fold(0, |set, driver| set | (1 << driver));
        let seen = &mut self.requests[request as usize];
        let posted = Posted {
            wish,
            candidates: candidates.to_vec(),
            may_begin: !seen.exists,
        };
        if !seen.asked.contains(&posted) {
            seen.asked.push(posted);
        }
        self.called(who, Ask::Offer(request), set)
    }

    /// New entries of an audit: each that takes something takes what one of the `POST`s asked for.
    pub(super) fn check_asked(&mut self, request: Request, entries: &[Entry]) {
        for entry in entries {
            let Some(asked) = &entry.asked else { continue };
            let mut posts = self.requests[request as usize].asked.iter();
            let ok = posts.any(|posted| match entry.step {
                Step::Received => posted.may_begin && self.began(posted, asked, entry.at_ms),
                _ => went_on(posted, asked),
            });
            if !self.holds(Check::AsAsked, ok) {
                let text = format!(
                    "r{request} {} at {} as {asked:?}, and was asked for as {:?}",
                    entry.step.as_str(),
                    entry.at_ms,
                    self.requests[request as usize].asked
                );
                return self.violate(Check::AsAsked, About::request(request), text);
            }
        }
    }

    fn began(&self, posted: &Posted, asked: &Asked, at_ms: u64) -> bool {
        let wish = &posted.wish;
        let deadline_ms = wish.deadline_ms.unwrap_or(self.expect.deadline_ms);
        let expect = Asked {
            candidates: posted.candidates.clone(),
            class: Some(wish.class),
            deadline_at_ms: at_ms + deadline_ms,
            max_attempts: wish.max_attempts,
            offer_timeout_ms: Some(wish.offer_timeout_ms.unwrap_or(self.expect.offer_timeout_ms)),
            parallel: Some(wish.parallel.unwrap_or(1)),
            busy_wait_ms: Some(wish.busy_wait_ms.unwrap_or(0)),
        };
        *asked == expect
    }
}

/// New candidates are those of the `POST` that are new, in its order, and what it does not say stays.
fn went_on(posted: &Posted, asked: &Asked) -> bool {
    let wish = &posted.wish;
    let expect = Asked {
        candidates: asked.candidates.clone(),
        offer_timeout_ms: wish.offer_timeout_ms,
        parallel: wish.parallel,
        busy_wait_ms: wish.busy_wait_ms,
        ..Asked::default()
    };
    let mut rest = posted.candidates.iter();
    *asked == expect && asked.candidates.iter().all(|driver| rest.any(|other| other == driver))
}
