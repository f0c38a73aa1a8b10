//! At a request's home: letters for requests of other nodes, and from other nodes for requests here. And the calls that are
//! passed on.

use super::tables::Passed;
use super::{Sought, unreachable};
use crate::cold::links::Refused;
use crate::cold::registry::Found;
use crate::fsm::ids::{DriverId, RequestId, TripId};
use crate::fsm::request::{ReplyTo, RequestEvent, ToDriver};
use crate::limits;
use crate::shard::{Letter, Platform, Shard, home_of_driver};
use crate::wire::link::{LinkLetter, LinkReply};
use crate::wire::respond::{Problem, Reply};
use compact_str::CompactString;

impl<P: Platform> Shard<P> {
    /// Which other node has this request, if it is known that one does; never for what came over a link.
    pub(in crate::shard) fn owner_of(&mut self, request_id: &RequestId) -> Option<u16> {
        let routing = self.routing.as_mut().filter(|routing| !routing.is_from_link)?;
        routing.owners.of_request(request_id)
    }

    /// The node to which a driver speaks with this letter, rather than to a request that is being claimed here: one that is not claimed
    /// has offered nothing to anybody. Its id was posted to both, and that node is about to have it, or has it.
    pub(in crate::shard) fn owner_instead(&mut self, key: u32, letter: &Letter) -> Option<u16> {
        let entry = &self.requests.slab[key as usize];
        let is_unclaimed = self.claims.is_some() && entry.stored == 0 && !entry.is_dormant;
        let Letter::Request { request_id, event, .. } = letter else {
            return None;
        };
        let is_of_offer = matches!(
            event,
            RequestEvent::Answered { .. }
                | RequestEvent::Delivered { .. }
                | RequestEvent::Acked { .. }
                | RequestEvent::Refused { .. }
                | RequestEvent::DriverHere { .. }
        );
        self.owner_of(request_id).filter(|_| is_unclaimed && is_of_offer)
    }

    /// The same of a trip.
    pub(in crate::shard) fn owner_of_trip(&mut self, trip_id: &TripId) -> Option<u16> {
        let routing = self.routing.as_mut().filter(|routing| !routing.is_from_link)?;
        routing.owners.of_trip(trip_id)
    }

    /// Who took over a request that this node had, and trip; see [`super::Routing`].
    pub(in crate::shard) fn note_handed(&mut self, request_id: &RequestId, trip_id: Option<TripId>, peer: u16) {
        if let Some(routing) = &mut self.routing {
            routing.handed.learn(request_id.clone(), trip_id, peer);
        }
    }

    /// See [`Self::note_handed`].
    pub(in crate::shard) fn handed_to(&mut self, request_id: &RequestId) -> Option<u16> {
        self.draining.as_ref()?;
        self.routing.as_mut()?.handed.of_request(request_id)
    }

    /// The same of a trip.
    pub(in crate::shard) fn trip_handed_to(&mut self, trip_id: &TripId) -> Option<u16> {
        self.draining.as_ref()?;
        self.routing.as_mut()?.handed.of_trip(trip_id)
    }

    /// Numbers of all nodes that this one knows.
    pub(in crate::shard) fn peers(&self) -> Vec<u16> {
        let peers = self.routing.as_ref().map(|routing| routing.links.peers().numbers());
        peers.into_iter().flatten().collect()
    }

    /// A node's name.
    pub(in crate::shard) fn name_of_peer(&self, peer: u16) -> Option<CompactString> {
        self.routing.as_ref()?.links.peers().name_of(peer)
    }

    /// Another node's number.
    pub(in crate::shard) fn number_of_peer(&self, node_id: &str) -> Option<u16> {
        let peer = self.routing.as_ref()?.links.peers().known(node_id)?;
        (peer != 0).then_some(peer)
    }

    /// Whether another node has said that it ends.
    pub(in crate::shard) fn has_left(&self, node_id: &str) -> bool {
        let peers = self.routing.as_ref().map(|routing| routing.links.peers());
        peers.is_some_and(|peers| peers.known(node_id).is_some_and(|peer| peers.is_leaving(peer)))
    }

    /// Another node's number, if it can be given something: it is linked and has not said that it ends.
    pub(in crate::shard) fn giveable(&self, node_id: &str) -> Option<u16> {
        let peers = self.routing.as_ref()?.links.peers();
        let peer = peers.known(node_id).filter(|peer| *peer != 0)?;
        (peers.is_up(peer) && !peers.is_leaving(peer)).then_some(peer)
    }

    /// Whether calls were passed on that nobody has answered.
    pub(in crate::shard) fn has_passed(&self) -> bool {
        (self.routing.as_ref()).is_some_and(|routing| !routing.passed.is_empty())
    }

    /// Whether letters to this node go out.
    pub(in crate::shard) fn is_linked(&self, peer: u16) -> bool {
        self.routing
            .as_ref()
            .is_some_and(|routing| routing.links.peers().is_up(peer))
    }

    /// Whether the letter that is being opened came over a link.
    pub(in crate::shard) fn is_from_link(&self) -> bool {
        self.routing.as_ref().is_some_and(|routing| routing.is_from_link)
    }

    /// Another node by its name, whether or not letters go out to it now; `None`: this node, or there are no links.
    pub(in crate::shard) fn peer_of(&self, node: &str) -> Option<u16> {
        let routing = self.routing.as_ref().filter(|_| !node.is_empty())?;
        routing.links.peers().number_of(node).filter(|peer| *peer != 0)
    }

    /// A node by its name, if letters go out to it.
    pub(in crate::shard) fn reachable(&self, node: &str) -> Option<u16> {
        let routing = self.routing.as_ref().filter(|routing| !routing.is_from_link)?;
        let peer = routing.links.peers().number_of(node).filter(|peer| *peer != 0)?;
        routing.links.peers().is_up(peer).then_some(peer)
    }

    /// A driver here was spoken to by a request of another node.
    pub(in crate::shard) fn owned(&mut self, request_id: RequestId, trip_id: Option<TripId>, peer: u16) {
        if let Some(routing) = &mut self.routing {
            routing.owners.learn(request_id, trip_id, peer);
        }
    }

    /// The node that was said to have a request does not answer: all nodes' store knows who took over from it.
    pub(in crate::shard) fn owner_is_silent(&mut self, request_id: &RequestId, peer: u16) {
        if let Some(routing) = self.routing.as_mut().filter(|_| self.claims.is_some())
            && routing.owners.of_request(request_id) == Some(peer)
        {
            routing.owners.forget(request_id);
        }
    }

    /// Passes a letter on to the node that has its request.
    pub(in crate::shard) fn pass_to_owner(&mut self, peer: u16, letter: Letter) {
        let mut letter = match letter {
            Letter::Offer { offer, reply, .. } => LinkLetter::Offer { offer, reply },
            // Its new owner has its own time.
            Letter::Request {
                event: RequestEvent::Timer,
                ..
            } => return,
            Letter::Request { request_id, event, .. } => LinkLetter::ToRequest { request_id, event },
            Letter::View {
                request_id,
                audit,
                reply,
            } => LinkLetter::View {
                request_id,
                audit,
                reply,
            },
            Letter::TripMoved {
                trip_id,
                driver_id,
                what,
            } => LinkLetter::TripMoved {
                trip_id,
                driver_id,
                what,
            },
            Letter::TripCancelled { trip_id, reason, reply } => LinkLetter::TripCancelled { trip_id, reason, reply },
            other => unreachable!("not a request's letter: {other:?}"),
        };
        // An answer that a driver's home gives for a call of that very node goes back as it came.
        let waits = letter.reply().filter(|reply| reply.node != peer);
        let Some(reply) = waits else {
            // A driver asks again when it hears nothing, and its node does when its offer's time is over.
            drop(self.send_far(peer, letter));
            return;
        };
        let Some(passed) = self.pass_on(reply) else { return };
        if let Some(reply) = letter.replies_mut() {
            *reply = passed;
        }
        self.send_call(peer, letter, passed);
    }

    /// Something that another node has for a request here.
    pub(super) fn far_to_request(&mut self, letter: LinkLetter) {
        let at_us = self.now_us;
        let letter = match letter {
            LinkLetter::ToRequest { request_id, event } => Letter::Request {
                request_id,
                event,
                at_us,
            },
            LinkLetter::Offer { offer, reply } => Letter::Offer { offer, reply, at_us },
            LinkLetter::View {
                request_id,
                audit,
                reply,
            } => Letter::View {
                request_id,
                audit,
                reply,
            },
            LinkLetter::TripMoved {
                trip_id,
                driver_id,
                what,
            } => Letter::TripMoved {
                trip_id,
                driver_id,
                what,
            },
            LinkLetter::TripCancelled { trip_id, reason, reply } => Letter::TripCancelled { trip_id, reason, reply },
            other => unreachable!("not a request's letter: {other:?}"),
        };
        if let Some(routing) = &mut self.routing {
            routing.is_from_link = true;
        }
        self.open_letter(letter);
        if let Some(routing) = &mut self.routing {
            routing.is_from_link = false;
        }
    }

    /// Sends a letter to another node; gives it back when that has too much already.
    pub(in crate::shard) fn send_far(&mut self, peer: u16, letter: LinkLetter) -> Result<(), Box<LinkLetter>> {
        let letter = Box::new(letter);
        let Some(routing) = &self.routing else {
            return Err(letter);
        };
        routing.links.send(peer, letter).map_err(|Refused(letter)| {
            self.metrics().link_refused.inc();
            letter
        })
    }

    /// Passes a call on; whoever waits for it hears at once when that cannot be.
    pub(super) fn send_call(&mut self, peer: u16, letter: LinkLetter, passed: ReplyTo) {
        let is_up = self
            .routing
            .as_ref()
            .is_some_and(|routing| routing.links.peers().is_up(peer));
        if !is_up || self.send_far(peer, letter).is_err() {
            self.reply_arrived(passed.call, Box::new(unreachable().into_reply()));
        }
    }

    /// An address of this shard for the answer to a call; `None`: it was answered, there are too many.
    pub(super) fn pass_on(&mut self, reply: ReplyTo) -> Option<ReplyTo> {
        let (now_ms, shard) = (self.now_ms, self.index);
        let routing = self.routing.as_mut()?;
        if routing.passed.is_full() {
            self.answer(reply, Problem::overloaded(limits::RETRY_AFTER_S).into_reply());
            return None;
        }
        let call = routing.passed.begin(reply, now_ms);
        Some(ReplyTo { node: 0, shard, call })
    }

    /// A driver is asked on behalf of a caller: the answer comes, or is given when it does not.
    pub(in crate::shard) fn pass_asker(&mut self, message: &mut ToDriver) -> bool {
        if self.routing.is_none() {
            return true;
        }
        let Some(reply) = message.reply_mut() else {
            return true;
        };
        match self.pass_on(*reply) {
            Some(passed) => {
                *reply = passed;
                true
            }
            None => false,
        }
    }

    /// An answer has come for a call that was passed on; gives it back if it is none.
    pub(in crate::shard) fn passed_reply(&mut self, call: u64, reply: Box<Reply>) -> Option<Box<Reply>> {
        if !Passed::is_passed(call) {
            return Some(reply);
        }
        let waits = self.routing.as_mut().and_then(|routing| routing.passed.end(call));
        if let Some(waits) = waits {
            self.answer(waits, *reply);
        }
        None
    }

    /// Answers a call of another node.
    pub(in crate::shard) fn reply_far(&mut self, to: ReplyTo, reply: Reply) {
        let answer = LinkReply::from(reply);
        // Who asked is answered by its own node when its time is over.
        drop(self.send_far(to.node, LinkLetter::Reply { to, answer }));
    }

    /// Calls whose answer did not come in time.
    pub(super) fn give_up_calls(&mut self) {
        let now_ms = self.now_ms;
        while let Some(reply) = (self.routing.as_mut()).and_then(|routing| routing.passed.overdue(now_ms)) {
            self.answer(reply, unreachable().into_reply());
        }
    }

    /// A driver's word on an offer of which nobody here knows: at the driver's home more may be known, and the registry may
    /// know which request binds the driver. Gives the letter back when it is none.
    pub(in crate::shard) fn seek_offer(&mut self, letter: Letter) -> Option<Letter> {
        let can_ask = self.routing.as_ref().is_some_and(|routing| !routing.is_from_link);
        let Letter::Request {
            event: RequestEvent::Answered { driver_id, .. } | RequestEvent::Acked { driver_id, .. },
            ..
        } = &letter
        else {
            return Some(letter);
        };
        if !can_ask {
            return Some(letter);
        }
        let home = home_of_driver(driver_id, self.shards);
        let driver_id = driver_id.clone();
        let letter = Box::new(letter);
        self.post(home, Letter::SeekOffer { driver_id, letter });
        None
    }

    /// At the driver's home: see [`Self::seek_offer`].
    pub(in crate::shard) fn seek_offer_of(&mut self, driver_id: DriverId, letter: Box<Letter>) {
        let is_here = self.is_driver_here(&driver_id);
        let Some(key) = self.drivers.find(&driver_id).filter(|_| is_here) else {
            return self.look_for_offer(driver_id, letter);
        };
        let at_hand = self.drivers.slab[key as usize].driver.at_hand();
        let is_its = matches!(&*letter, Letter::Request { request_id, .. } if Some(request_id) == at_hand);
        let peer = self
            .routing
            .as_ref()
            .and_then(|routing| routing.far.get(&key))
            .map(|far| far.peer);
        match peer.filter(|_| is_its) {
            Some(peer) => self.pass_to_owner(peer, *letter),
            None => {
                if let Some(letter) = self.keep_late_words(&driver_id, *letter) {
                    self.unknown_to_all(letter);
                }
            }
        }
    }

    fn look_for_offer(&mut self, driver_id: DriverId, letter: Box<Letter>) {
        // Not by what is remembered of the driver's place: the question is another.
        self.seek(driver_id, Sought::Answer(letter), 0);
    }

    /// The registry's word on the driver of such an answer.
    pub(super) fn answer_elsewhere(&mut self, letter: Letter, found: &Found) {
        let owner = match (&letter, &found.at_hand) {
            (Letter::Request { request_id, .. }, Some((bound, owner))) if bound == request_id => Some(owner),
            _ => None,
        };
        match owner.and_then(|owner| self.reachable(owner)) {
            Some(peer) => self.pass_to_owner(peer, letter),
            None if owner.is_some() => self.refuse_letter(&letter, &unreachable()),
            None => self.unknown_to_all(letter),
        }
    }
}
