//! In a fleet a request may turn out to be another owner's, its winner to have another trip, and a decision to take long.

use super::fence::{answer_fenced, turn_away};
use super::{Asker, Fence, Pending, ReplyTo, Request, RequestEffect, RequestEvent};
use crate::fsm::fold::Fold;
use crate::fsm::types::{RevokeReason, Step, UnixMs};
use std::collections::VecDeque;

impl Request {
    /// The driver who was to win has another trip: the acceptance is taken back, which nobody has heard of, and the attempt is
    /// revoked instead. The search goes on.
    pub(super) fn unaccept(&mut self, pending: Pending, now_ms: UnixMs, effects: &mut Vec<RequestEffect>) {
        debug_assert!(self.pending.is_none() && pending.from > 0);
        let taken_back = self.log.split_off(pending.from);
        self.persisted = pending.from;
        self.fold = Fold::of(&self.log).expect("a prefix of a good log is good");
        self.questions = pending.replies;
        let accepted = taken_back.iter().find_map(|entry| match entry.step {
            Step::Accepted { attempt, .. } => Some(attempt),
            _ => None,
        });
        let attempt = accepted.expect("only an acceptance binds a driver");
        let reason = RevokeReason::Superseded;
        self.push(now_ms, Step::Revoked { attempt, reason });
        self.advance(now_ms, effects);
    }

    /// The decision under way takes long. Callers are not kept waiting: whoever asks again finds what came of it.
    pub fn delayed(&mut self, effects: &mut Vec<RequestEffect>) {
        let Some(pending) = &mut self.pending else { return };
        for (asker, _) in std::mem::take(&mut pending.replies) {
            answer_fenced(asker, effects);
        }
        pending.is_slow = true;
        for event in std::mem::take(&mut self.deferred) {
            if event.reply().is_some() {
                turn_away(event, Fence::default(), effects);
            } else {
                self.deferred.push_back(event);
            }
        }
    }

    /// A new request was there already, with another owner: nothing of this one ever was. Gives back who posted it and what has
    /// come for it, to be answered from the other.
    ///
    /// # Panics
    /// When no decision is under way.
    pub fn disown(&mut self, effects: &mut Vec<RequestEffect>) -> (Vec<ReplyTo>, VecDeque<RequestEvent>) {
        let pending = *self.pending.take().expect("a claim that waits");
        debug_assert!(pending.from == 0);
        let replies = pending.replies.iter().filter_map(|(asker, _)| match asker {
            Asker::Api(reply) => Some(*reply),
            Asker::Driver => None,
        });
        let replies = replies.collect();
        let mut events = std::mem::take(&mut self.deferred);
        events.retain(|event| *event != RequestEvent::Timer);
        self.give_up(Pending::default(), Fence::default(), effects);
        (replies, events)
    }

    /// Another owner has the request, which shows while nothing is being decided.
    ///
    /// # Panics
    /// When a decision is under way: its answer says so.
    pub fn fence(&mut self, fence: Fence, effects: &mut Vec<RequestEffect>) {
        assert!(self.pending.is_none(), "a decision under way is answered");
        if !self.closed {
            let undecided = self.undecided();
            self.give_up(undecided, fence, effects);
        }
    }

    /// What has been begun and is not on its way to be stored, since drivers are being asked for it; and who waits for it.
    fn undecided(&mut self) -> Pending {
        Pending {
            from: self.persisted,
            replies: std::mem::take(&mut self.questions),
            is_slow: false,
        }
    }

    /// Another owner has the request because this one gave it: that one goes on with all of it, so drivers hear nothing of the
    /// change. Who waits for a decision that is on its way hears that it is not known; it never was. Gives back what has come
    /// meanwhile, for the new owner.
    ///
    /// # Panics
    /// When the request is over here.
    pub fn hand_over(&mut self, effects: &mut Vec<RequestEffect>) -> VecDeque<RequestEvent> {
        assert!(!self.closed, "what is over stays where it is");
        let pending = self.pending.take().map(|pending| *pending);
        let undecided = pending.unwrap_or_else(|| self.undecided());
        self.take_back(undecided, effects);
        // Reservations that come of these asks, and turns in queues, are told to the new owner, who gives them back.
        self.waiting.clear();
        let events = std::mem::take(&mut self.deferred);
        let fence = Fence {
            stood: false,
            has_heir: true,
        };
        self.end_here(fence, effects);
        events
    }

    /// Whether all that was decided stands and is announced, and no driver is being asked: the request can change its owner without
    /// anybody's words being lost.
    pub fn is_quiet(&self) -> bool {
        self.pending.is_none() && !self.is_asking()
    }

    /// Whether a decision is on its way.
    pub fn is_deciding(&self) -> bool {
        self.pending.is_some()
    }
}
