//! What a node that ends still has goes to the nodes that stay, while it is there to pass on what still comes for it.
//!
//! One request at a time is quiet (everything that was decided stands and is announced), rests (no timer, letters for it wait), and
//! is offered to its heir among the nodes that serve. That one takes it over as it would from a node that died, by a condition on its
//! row, and says so; from then on letters for it go there. Receipts that the fleet's store lacks go there first, so that
//! the new owner knows what has arrived. If it is not taken, or nobody answers, the request goes on here, and is
//! offered again. Whatever is lost on the way, the row alone says whose the request is: a decision here after all is fenced then,
//! and nobody hears of that, since the new owner goes on with all that this one held out.
//!
//! Only in a fleet whose nodes have links and share a store. What nobody takes is taken over when this node's lease is given back.
#![forbid(unsafe_code)]

use super::routing::Table;
use super::{Letter, Platform, Shard, home_of_driver};
use crate::cold::claims::{Adopted, Handed};
use crate::cold::registry::NodeSeen;
use crate::fsm::ids::RequestId;
use crate::fsm::request::RequestEffect;
use crate::limits;
use crate::wire::link::LinkLetter;
use std::collections::VecDeque;

/// Requests of one shard that rest at once: as many as the store takes in a moment, so that none rests for long.
const UNDER_WAY_MAX: usize = 32;
/// How long a node that was asked may be silent.
const ANSWER_MAX_MS: u64 = 2_000;
/// How long a node that did not take a request is not asked for another.
const REFUSAL_MS: u64 = 500;
/// Time between two looks for requests that are still here.
const LOOK_EVERY_MS: u64 = 100;
/// How long a node stays after its last request has gone: what was on its way to it is passed on. So long it also looks for nodes
/// that take something: the one that was restarted before it may serve since a moment.
const LINGER_MS: u64 = 250;
/// How long a node stays after its last driver was sent away to another one: that one asks here what bound the driver.
const STAY_MS: u64 = 500;

/// How far a request is on its way to another node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Hand {
    /// It is not.
    #[default]
    Stays,
    /// Receipts of it are being stored.
    Storing,
    /// The node with this number is to take it over.
    Asked(u16),
}

impl Hand {
    /// Whether nothing is being decided about the request.
    pub(super) fn rests(self) -> bool {
        self != Self::Stays
    }
}

/// What there is of it at a shard that drains.
#[derive(Default)]
pub(super) struct HandOver {
    /// What is still here, the most urgent first.
    queue: VecDeque<RequestId>,
    /// What rests, and until when an answer is waited for.
    under_way: Table<RequestId, u64>,
    /// Nodes that have not taken something, and until when they are not asked.
    refusers: Table<u16, u64>,
    look_at_ms: u64,
    /// Open requests that were here at the last look; `None`: it was not looked since something has gone.
    left: Option<usize>,
    /// When the last one went.
    gone_ms: u64,
    count: u64,
}

impl<P: Platform> Shard<P> {
    /// The drain begins: others are told.
    pub(super) fn announce_leaving(&mut self) {
        if self.index != 0 {
            return;
        }
        if let Some(fleet) = &self.fleet {
            fleet.sign_now();
        }
        for peer in self.peers() {
            // One that does not take it hears of it by the lease.
            drop(self.send_far(peer, LinkLetter::Leaving));
        }
    }

    /// Whether a node, by its name, ends, as far as is known here: its lease may say so a moment later.
    pub(super) fn is_leaving(&self, node_id: &str) -> bool {
        if node_id == self.config.node_id {
            return self.draining.is_some();
        }
        self.has_left(node_id)
    }

    /// Whether there is a node to which drivers can go.
    pub(super) fn has_others(&self) -> bool {
        let is_other = |node: &NodeSeen| node.is_serving && !self.is_leaving(&node.node_id);
        (self.fleet.as_ref()).is_some_and(|fleet| fleet.nodes().nodes().iter().any(is_other))
    }

    /// Offers what is here to others; called every few milliseconds of a drain.
    pub(super) fn hand_over_requests(&mut self) {
        if self.claims.is_none() || self.routing.is_none() {
            return;
        }
        let now_ms = self.now_ms;
        let Some(hand_over) = self.hand_over() else { return };
        hand_over.refusers.retain(|_, until_ms| *until_ms > now_ms);
        let overdue = hand_over.under_way.iter().filter(|(_, until_ms)| **until_ms <= now_ms);
        let overdue: Vec<RequestId> = overdue.map(|(request_id, _)| request_id.clone()).collect();
        let is_due = hand_over.queue.is_empty() && hand_over.look_at_ms <= now_ms;
        for request_id in overdue {
            self.not_taken(&request_id);
        }
        if is_due {
            self.look_for_own();
        }
        while let Some(hand_over) = self.hand_over()
            && hand_over.under_way.len() < UNDER_WAY_MAX
            && let Some(request_id) = hand_over.queue.pop_front()
        {
            self.begin_hand_over(request_id);
        }
    }

    fn hand_over(&mut self) -> Option<&mut HandOver> {
        self.draining.as_mut().map(|drain| &mut drain.hand_over)
    }

    /// Finds what is still here: offers first, whose drivers may answer any moment, then searches, then trips.
    fn look_for_own(&mut self) {
        let mut found: Vec<(u8, RequestId)> = Vec::new();
        let mut left = 0;
        for (_, entry) in self.requests.slab.iter() {
            let request = &entry.request;
            if request.is_closed() || entry.is_dormant {
                continue;
            }
            left += 1;
            if entry.hand.rests() || entry.stored == 0 || !request.is_quiet() {
                continue;
            }
            let fold = request.fold();
            let rank = match (fold.open_count() > 0, fold.end) {
                (true, _) => 0,
                (false, None) => 1,
                (false, Some(_)) => 2,
            };
            found.push((rank, request.id().clone()));
        }
        found.sort_by_key(|(rank, _)| *rank);
        let now_ms = self.now_ms;
        if let Some(hand_over) = self.hand_over() {
            hand_over
                .queue
                .extend(found.into_iter().map(|(_, request_id)| request_id));
            hand_over.left = Some(left);
            hand_over.look_at_ms = now_ms + LOOK_EVERY_MS;
        }
    }

    /// Who is to have a request: of the nodes that serve and can be reached, as survivors divide those of a dead node.
    fn heir_of(&self, request_id: &RequestId) -> Option<u16> {
        let refusers = self.draining.as_ref().map(|drain| &drain.hand_over.refusers)?;
        let may = |peer: u16| !refusers.contains_key(&peer);
        self.heir_among(request_id.hash64(), may)
    }

    /// The heir of what has this hash among the nodes that can be given something and that `may` says.
    fn heir_among(&self, hash: u64, may: impl Fn(u16) -> bool) -> Option<u16> {
        let can = |node: &NodeSeen| self.giveable(&node.node_id).is_some_and(&may);
        let name = self.fleet.as_ref()?.nodes().heir_among(hash, can)?;
        self.giveable(name)
    }

    fn begin_hand_over(&mut self, request_id: RequestId) {
        let Some(key) = self.requests.find(&request_id) else {
            return;
        };
        let entry = &self.requests.slab[key as usize];
        let request = &entry.request;
        let is_fit = !request.is_closed() && !entry.is_dormant && !entry.hand.rests() && request.is_quiet();
        if !is_fit || entry.stored == 0 || self.heir_of(&request_id).is_none() {
            return; // It is looked at again.
        }
        debug_assert_eq!(entry.journaled, request.log().len(), "what is quiet is in the journal");
        let (stored, len) = (entry.stored as usize, request.log().len());
        self.arm_request(key, None);
        if let Some(hand_over) = self.hand_over() {
            hand_over.under_way.insert(request_id, u64::MAX);
        }
        if stored < len {
            self.requests.slab[key as usize].hand = Hand::Storing;
            self.decide_in_fleet(key, len, len);
        } else {
            self.offer_to_heir(key);
        }
    }

    /// What was here of receipts is stored.
    pub(super) fn receipts_stand(&mut self, key: u32) {
        let entry = &mut self.requests.slab[key as usize];
        debug_assert_eq!(entry.hand, Hand::Storing);
        entry.stored = entry.request.log().len() as u32;
        self.offer_to_heir(key);
    }

    fn offer_to_heir(&mut self, key: u32) {
        let request = &self.requests.slab[key as usize].request;
        let (request_id, received_at_ms) = (request.id().clone(), request.fold().received_at_ms);
        let Some(peer) = self.heir_of(&request_id) else {
            return self.go_on_here(key);
        };
        let until_ms = self.now_ms + ANSWER_MAX_MS;
        let entry = &mut self.requests.slab[key as usize];
        entry.hand = Hand::Asked(peer);
        entry.offered_to = Some(peer);
        if let Some(hand_over) = self.hand_over() {
            hand_over.under_way.insert(request_id.clone(), until_ms);
        }
        let asked = LinkLetter::HandOver {
            request_id: request_id.clone(),
            received_at_ms,
        };
        if self.send_far(peer, asked).is_err() {
            self.not_taken(&request_id);
        }
    }

    /// Somebody has not taken a request, or does not answer.
    fn not_taken(&mut self, request_id: &RequestId) {
        let until_ms = self.now_ms + REFUSAL_MS;
        let key = self.requests.find(request_id);
        let Some(key) = key.filter(|key| self.requests.slab[*key as usize].hand.rests()) else {
            if let Some(hand_over) = self.hand_over() {
                hand_over.under_way.remove(request_id);
            }
            return;
        };
        if let (Hand::Asked(peer), Some(hand_over)) = (self.requests.slab[key as usize].hand, self.hand_over()) {
            hand_over.refusers.insert(peer, until_ms);
        }
        if let Some(claims) = &self.claims {
            // It may have taken it and have died since.
            claims.handle.check(request_id.clone());
        }
        self.go_on_here(key);
    }

    /// A request rests no longer: what has come for it meanwhile is looked at.
    fn go_on_here(&mut self, key: u32) {
        let entry = &mut self.requests.slab[key as usize];
        entry.hand = Hand::Stays;
        let request_id = entry.request.id().clone();
        if let Some(hand_over) = self.hand_over() {
            hand_over.under_way.remove(&request_id);
        }
        let letters = self.requests.unpark(&request_id);
        self.resume(key);
        for letter in letters {
            self.request_letter(request_id.clone(), letter);
        }
    }

    /// A node cannot be reached: what it was asked to take is offered to another.
    pub(super) fn giver_lost(&mut self, peer: u16) {
        let Some(hand_over) = self.hand_over() else { return };
        let under_way: Vec<RequestId> = hand_over.under_way.keys().cloned().collect();
        for request_id in under_way {
            let key = self.requests.find(&request_id);
            if key.is_some_and(|key| self.requests.slab[key as usize].hand == Hand::Asked(peer)) {
                self.not_taken(&request_id);
            }
        }
    }

    /// A node that was asked to take a request answers, perhaps late.
    pub(super) fn handed_over_said(&mut self, from: u16, request_id: &RequestId, is_taken: bool) {
        let Some(key) = self.requests.find(request_id) else {
            return;
        };
        let entry = &self.requests.slab[key as usize];
        if entry.offered_to.is_none() && is_taken {
            // It has taken this node for dead.
            return self.contest(request_id);
        }
        if entry.offered_to.is_none() || entry.request.is_closed() {
            return;
        }
        if !is_taken {
            if entry.hand == Hand::Asked(from) {
                self.not_taken(request_id);
            }
            return;
        }
        // What is on its way to the store is answered by that.
        if !entry.request.is_deciding() && entry.hand != Hand::Storing {
            self.keep_receipts(key);
            self.handed_over(key, Some(from));
        }
    }

    /// A request is another node's now, as it was to be; its receipts are kept. `peer`: whose, if that is known.
    pub(super) fn handed_over(&mut self, key: u32, peer: Option<u16>) {
        let mut effects = std::mem::take(&mut self.request_effects);
        let entry = &mut self.requests.slab[key as usize];
        (entry.hand, entry.is_contested) = (Hand::Stays, false);
        let events = entry.request.hand_over(&mut effects);
        let request_id = entry.request.id().clone();
        let trip_id = entry.request.fold().trip.as_ref().map(|trip| trip.trip_id.clone());
        self.apply_request(key, effects, self.now_us);
        if let Some(peer) = peer {
            self.note_handed(&request_id, trip_id, peer);
        }
        self.tell_new_owner(key, &request_id, peer);
        self.give_up_request(key);
        let now_ms = self.now_ms;
        if let Some(hand_over) = self.hand_over() {
            hand_over.under_way.remove(&request_id);
            (hand_over.left, hand_over.gone_ms) = (None, now_ms);
            hand_over.count += 1;
        }
        self.metrics().requests_handed_over.inc();
        let at_us = self.now_us;
        let mut letters = self.requests.unpark(&request_id);
        let waited = |event| Letter::of_event(&request_id, event, at_us);
        letters.extend(events.into_iter().map(waited));
        for letter in letters {
            self.request_letter(request_id.clone(), letter);
        }
    }

    /// Drivers here whom a request binds say again, to its new owner, what they have said, and the registry hears who that is.
    fn tell_new_owner(&mut self, key: u32, request_id: &RequestId, peer: Option<u16>) {
        let Some(peer) = peer else { return };
        let mut effects = Vec::new();
        self.requests.slab[key as usize].request.rebind(&mut effects);
        for effect in effects {
            if let RequestEffect::Driver { driver_id, .. } = effect {
                let letter = Letter::OwnerIs {
                    driver_id: driver_id.clone(),
                    request_id: request_id.clone(),
                    peer,
                };
                self.post(home_of_driver(&driver_id, self.shards), letter);
            }
        }
    }

    /// A node that ends wants this one to take over a request.
    pub(super) fn hand_over_asked(&mut self, from: u16, request_id: RequestId, received_at_ms: u64) {
        if self.has_open(&request_id) {
            // One of the two is mistaken, and the row says which: this node, which then gives up what it had and is asked again, or the
            // other one, which looks when nobody takes it.
            self.contest(&request_id);
            return self.say_handed_over(from, request_id, false);
        }
        let name = self.name_of_peer(from);
        match (&self.claims, name) {
            (Some(claims), Some(from)) if self.draining.is_none() => claims.handle.take_over(Handed {
                request_id,
                received_at_ms,
                from,
            }),
            _ => self.say_handed_over(from, request_id, false),
        }
    }

    /// A request has come from another node, which may be alive and not know: it would show for ever what it knew last.
    pub(super) fn tell_old_owner(&mut self, adopted: &Adopted) {
        if let Some(peer) = self.number_of_peer(&adopted.from) {
            self.say_handed_over(peer, adopted.log.request_id.clone(), true);
        }
    }

    /// The store's answer to that.
    pub(super) fn handed(&mut self, handed: Handed, is_taken: bool) {
        if let Some(peer) = self.number_of_peer(&handed.from) {
            self.say_handed_over(peer, handed.request_id, is_taken);
        }
    }

    fn say_handed_over(&mut self, peer: u16, request_id: RequestId, is_taken: bool) {
        // It asks again, or another.
        drop(self.send_far(peer, LinkLetter::HandedOver { request_id, is_taken }));
    }

    fn has_open(&self, request_id: &RequestId) -> bool {
        self.requests.find(request_id).is_some_and(|key| {
            let entry = &self.requests.slab[key as usize];
            entry.stored > 0 && !entry.is_dormant && !entry.request.is_closed()
        })
    }

    /// Whether nothing of this shard is left that another node could take, and what was on its way has arrived. `after_ms`: since
    /// the last driver was sent away.
    pub(super) fn has_handed_over(&self, after_ms: u64) -> bool {
        let Some(drain) = &self.draining else { return true };
        if self.routing.is_none() {
            return true;
        }
        if self.has_others() && drain.has_sent_away() && after_ms < STAY_MS {
            return false;
        }
        if self.claims.is_none() {
            return !self.has_passed();
        }
        let hand_over = &drain.hand_over;
        // Those that have just refused are asked again.
        let has_heirs = self.heir_among(0, |_| true).is_some();
        let is_all_gone = hand_over.left == Some(0) && hand_over.queue.is_empty();
        let since_ms = if is_all_gone {
            hand_over.gone_ms
        } else {
            drain.started_ms()
        };
        let is_calm = hand_over.under_way.is_empty() && self.now_ms >= since_ms + LINGER_MS;
        let is_written = (self.fleet.as_ref()).is_none_or(|fleet| !fleet.is_present() || !fleet.has_more());
        (is_all_gone || !has_heirs) && is_calm && is_written && !self.has_passed()
    }

    /// Says how many requests of this shard others have now.
    pub(super) fn log_handed_over(&self) {
        let Some(drain) = &self.draining else { return };
        let (handed, left) = (drain.hand_over.count, drain.hand_over.left.unwrap_or(0));
        if handed > 0 || (left > 0 && self.claims.is_some()) {
            tracing::info!(
                shard = self.index,
                handed,
                left,
                "open requests handed over to other nodes"
            );
        }
    }

    /// After how long a driver who is sent away is to come again, in ms. `hash`: of the driver's id.
    pub(super) fn retry_after_ms(&self, hash: u64, sent_away: usize) -> u64 {
        let (least_ms, most_ms) = if self.has_others() {
            // Others are there at once. Only so many come to them in a moment, whatever `drain_ms` is.
            let all = sent_away as u64 * u64::from(self.shards);
            let spread_ms = (all / limits::RECONNECTS_PER_MS).saturating_sub(self.config.drain_ms);
            let most_ms = limits::RETRY_ELSEWHERE_MS_MAX.max(spread_ms);
            (limits::RETRY_ELSEWHERE_MS_MIN, most_ms.min(limits::RETRY_AFTER_MS_MAX))
        } else {
            (limits::RETRY_AFTER_MS_MIN, limits::RETRY_AFTER_MS_MAX)
        };
        // Spread by the driver's own hash: no two waves, and no dice needed.
        least_ms + hash % (most_ms - least_ms + 1)
    }
}
