//! At a driver's home: what requests of other nodes say to drivers here, what comes back, and drivers who leave.

use super::tables::Place;
use super::{
    ASK_MAX_MS, Far, OVERDUE_ASK_MS, OVERDUE_END_MS, RESERVED_MAX_MS, SEEK_MAX_MS, SEEK_SOON_MS, SWEEP_EVERY_MS,
    Sought, TRIP_ASK_MS, here,
};
use crate::fsm::driver::DriverEvent;
use crate::fsm::ids::{DriverId, RequestId, TripId};
use crate::fsm::request::{Answer, Asker, RequestEvent, ToDriver};
use crate::fsm::types::RefuseReason;
use crate::shard::claims::is_over;
use crate::shard::latency::Begun;
use crate::shard::{Letter, Platform, Shard, home_of_request};
use crate::wire::link::LinkLetter;

impl<P: Platform> Shard<P> {
    /// A request, of the node with this number (0: this one), speaks to a driver here.
    pub(super) fn tell_driver_here(
        &mut self,
        peer: u16,
        driver_id: &DriverId,
        request_id: RequestId,
        message: ToDriver,
        begun: Option<Begun>,
    ) {
        if self.is_of_over(driver_id, &request_id, &message) {
            return;
        }
        let spoke = self.routing.is_some().then(|| request_id.clone());
        let decides = learns(&message).is_some_and(|learned| learned.decides);
        let event = DriverEvent::Request {
            node: peer,
            request_id,
            message,
        };
        self.driver_letter(driver_id, event, begun);
        if let Some(request_id) = spoke {
            self.note_far(peer, driver_id, &request_id, decides);
            self.say_late_words(driver_id);
        }
    }

    /// The answer to an ask goes to the node that asked: the same id may have been posted to several, of which each asks before it
    /// claims.
    pub(in crate::shard) fn answer_ask(&mut self, key: u32, node: u16, request_id: RequestId, event: RequestEvent) {
        if matches!(event, RequestEvent::Reserved { .. }) {
            self.note_reserved(key, &request_id);
        }
        if node == 0 {
            return self.post_to_request(request_id, event);
        }
        // One that is not taken is given up by who asked.
        drop(self.send_far(node, LinkLetter::ToRequest { request_id, event }));
    }

    /// A driver speaks of its trip: its request's home here may have forgotten which node has that.
    pub(in crate::shard) fn say_owner(&mut self, home: u16, key: u32, trip_id: &TripId) {
        let far = self.routing.as_ref().and_then(|routing| routing.far.get(&key).copied());
        let driver = &self.drivers.slab[key as usize].driver;
        if let (Some(Far { peer, .. }), Some(request_id)) = (far, driver.at_hand().cloned())
            && driver.trip_id() == Some(trip_id)
        {
            let trip_id = Some(trip_id.clone());
            self.post(
                home,
                Letter::Owned {
                    request_id,
                    trip_id,
                    peer,
                    decides: false,
                },
            );
        }
    }

    /// A request that may bind a driver here has gone to another node, which was asked how it stands: if it does not say so, it is asked
    /// again.
    pub(in crate::shard) fn bound_by(&mut self, driver_id: &DriverId, request_id: &RequestId, peer: u16) {
        let (Some(key), Some(routing)) = (self.drivers.find(driver_id), &mut self.routing) else {
            return;
        };
        if self.drivers.slab[key as usize].driver.at_hand() == Some(request_id) {
            let asked_ms = self.now_ms;
            routing.far.insert(key, Far { peer, asked_ms });
            routing.sweep_at_ms = 0;
            self.wake_at(asked_ms + SWEEP_EVERY_MS);
        }
    }

    /// Remembers which node has the request that binds a driver. The id may have been posted to several nodes: one that asks, or gives a
    /// reservation up, need not be the one that `decides`, from which the driver has an offer or a trip.
    fn note_far(&mut self, peer: u16, driver_id: &DriverId, request_id: &RequestId, decides: bool) {
        let (Some(key), Some(routing)) = (self.drivers.find(driver_id), &mut self.routing) else {
            return;
        };
        let driver = &self.drivers.slab[key as usize].driver;
        let is_shown = driver.offer().is_some() || driver.trip_id().is_some();
        let has_said = driver.has_said();
        match driver.at_hand() {
            None => drop(routing.far.remove(&key)),
            Some(at_hand) if at_hand != request_id => {}
            Some(_) if is_shown && !decides => {}
            Some(_) => {
                let known = match peer {
                    0 => routing.far.remove(&key),
                    _ => routing.far.insert(key, Far { peer, asked_ms: 0 }),
                };
                let known = known.map_or(0, |known| known.peer);
                if known != peer && (known != 0 || has_said) {
                    // Another node has taken the request over: it may not know what the driver has said.
                    self.touch_registry(key);
                    self.step_driver(key, DriverEvent::Doubt);
                }
            }
        }
    }

    /// The request here that binds a driver, perhaps, has gone to another node.
    pub(in crate::shard) fn note_owner(&mut self, driver_id: &DriverId, request_id: &RequestId, peer: u16) {
        let (Some(key), Some(routing)) = (self.drivers.find(driver_id), &mut self.routing) else {
            return;
        };
        if self.drivers.slab[key as usize].driver.at_hand() == Some(request_id) {
            routing.far.insert(key, Far { peer, asked_ms: 0 });
            self.touch_registry(key);
            self.step_driver(key, DriverEvent::Doubt);
        }
    }

    /// A request of another node speaks to a driver that is here, as that node believes.
    pub(super) fn far_to_driver(
        &mut self,
        from: u16,
        driver_id: DriverId,
        session: u64,
        request_id: RequestId,
        message: ToDriver,
    ) {
        if let Some(Learned { trip_id, decides }) = learns(&message) {
            let home = home_of_request(&request_id, self.shards);
            let request_id = request_id.clone();
            self.post(
                home,
                Letter::Owned {
                    request_id,
                    trip_id,
                    peer: from,
                    decides,
                },
            );
        }
        if self.is_arriving(&driver_id) {
            return self.tell_arriving(from, &driver_id, request_id, message);
        }
        if !self.is_driver_here(&driver_id) {
            let place = self.routing.as_mut().and_then(|routing| routing.places.get(&driver_id));
            let newer = place.filter(|place| place.session > session);
            // Its time here was over, or a restart has forgotten it. It may have connected elsewhere since, of which nobody tells a node
            // that remembers it here.
            let is_unknown = !message.binds() && self.drivers.find(&driver_id).is_none();
            let unknown = is_unknown.then_some(Place { peer: None, session });
            if let Some(place) = newer.or(unknown) {
                return self.bounce(from, driver_id, request_id, message, place);
            }
        }
        if !is_over(&message, self.now_ms) {
            self.tell_driver_here(from, &driver_id, request_id, message, None);
        }
    }

    fn bounce(&mut self, from: u16, driver_id: DriverId, request_id: RequestId, message: ToDriver, place: Place) {
        let Some(routing) = &self.routing else { return };
        let node = place.peer.and_then(|peer| routing.links.peers().name_of(peer));
        let letter = LinkLetter::Bounced {
            driver_id,
            request_id,
            message,
            session: place.session,
            node,
        };
        // What that node is told then is not worth more than its own clock.
        drop(self.send_far(from, letter));
    }

    /// A letter of a request here comes back: its driver has left that node. What it said may be old by now, so the request
    /// says anew how it stands; what only asks or answers is sent again.
    pub(super) fn bounced(
        &mut self,
        driver_id: DriverId,
        request_id: RequestId,
        message: ToDriver,
        session: u64,
        node: Option<&str>,
    ) {
        let Some(routing) = &mut self.routing else { return };
        let peer = node.and_then(|name| routing.links.peers().number_of(name));
        let place = Place {
            peer: peer.filter(|peer| *peer != 0),
            session,
        };
        // Not elsewhere, just not there any more: the registry has known for long.
        let is_unknown = place.peer.is_none() && routing.places.lose(&driver_id, session);
        routing.places.learn(&driver_id, place);
        self.metrics().link_bounces.inc();
        let event = match message {
            ToDriver::Offer { .. } | ToDriver::Bound { .. } | ToDriver::Trip { again: false, .. } => {
                here(&driver_id, None)
            }
            ToDriver::Outcome {
                attempt, again: false, ..
            } => here(&driver_id, Some(attempt)),
            ToDriver::Accept { attempt, asker } => RequestEvent::Answered {
                driver_id,
                attempt: Some(attempt),
                answer: Answer::Accept,
                reason: None,
                asker,
            },
            ToDriver::Decline { attempt, reason } => RequestEvent::Answered {
                driver_id,
                attempt: Some(attempt),
                answer: Answer::Decline,
                reason,
                asker: Asker::Driver,
            },
            ToDriver::Ask { .. }
            | ToDriver::Wait { .. }
            | ToDriver::Release
            | ToDriver::Outcome { .. }
            | ToDriver::NoSuchOffer
            | ToDriver::Trip { .. }
            | ToDriver::NoSuchTrip { .. } => {
                return self.route_again(driver_id, request_id, message, peer.is_some() || is_unknown);
            }
        };
        self.post_to_request(request_id, event);
    }

    /// `at_once`: who is asked now where the driver is can say so.
    fn route_again(&mut self, driver_id: DriverId, request_id: RequestId, message: ToDriver, at_once: bool) {
        let is_here = self.is_driver_here(&driver_id) || self.is_arriving(&driver_id);
        if at_once || is_here {
            return self.route_to_driver(driver_id, request_id, message, None);
        }
        let until_ms = self.now_ms + SEEK_MAX_MS;
        let sought = Sought::Message {
            request_id,
            message,
            begun: None,
            until_ms,
        };
        self.seek(driver_id, sought, SEEK_SOON_MS);
    }

    /// Another node has the driver since this session: what is here of it goes. `peer`: which one, if that is known.
    pub(in crate::shard) fn driver_left(&mut self, driver_id: &DriverId, session: u64, peer: Option<u16>) {
        if let Some(routing) = &mut self.routing {
            routing.places.learn(driver_id, Place { peer, session });
        }
        self.driver_moved(driver_id, session.saturating_sub(1));
        self.seek_at_place(driver_id);
    }

    /// A driver is about to leave.
    pub(in crate::shard) fn note_left(&mut self, key: u32) {
        let driver = &self.drivers.slab[key as usize].driver;
        if let (Some(routing), Some(request_id)) = (&mut self.routing, driver.at_hand()) {
            let peer = routing.far.get(&key).map_or(0, |far| far.peer);
            routing.left.insert(driver.id().clone(), (request_id.clone(), peer));
        }
    }

    /// Another node has taken a driver from this one, and hears what bound it here.
    pub(super) fn driver_taken(&mut self, from: u16, driver_id: DriverId, session: u64) {
        let known = self.drivers.find(&driver_id);
        let off_shift_since_ms = match known {
            Some(key) => self.drivers.slab[key as usize].driver.off_shift_since_ms(),
            None => self.drivers.off_shift_since_ms(&driver_id),
        };
        let had_session = self.session_here(&driver_id);
        self.driver_left(&driver_id, session, Some(from));
        // The registry may have said that it left before that node did.
        let left = self.routing.as_mut().and_then(|routing| {
            let (request_id, peer) = routing.left.get(&driver_id)?;
            Some((request_id, routing.links.peers().name_of(peer)?))
        });
        let left = LinkLetter::Left {
            driver_id,
            session,
            had_session,
            bound: left,
            off_shift_since_ms,
        };
        // If it is not taken, that node goes on without.
        drop(self.send_far(from, left));
    }

    /// Another node has a driver for whom a request here has an offer or a trip, perhaps.
    pub(super) fn driver_is_there(&mut self, from: u16, driver_id: &DriverId, session: u64, request_id: RequestId) {
        self.driver_left(driver_id, session, Some(from));
        let event = here(driver_id, None);
        self.post_to_request(request_id, event);
    }

    /// Offers of other nodes whose time is long over, and trips that they may have ended.
    pub(super) fn sweep_far(&mut self) {
        let now_ms = self.now_ms;
        let Some(routing) = &mut self.routing else { return };
        let drivers = &self.drivers;
        routing
            .far
            .retain(|key, _| (drivers.slab.get(*key as usize)).is_some_and(|entry| entry.driver.at_hand().is_some()));
        let mut due = Vec::new();
        for (key, far) in &mut routing.far {
            let driver = &self.drivers.slab[*key as usize].driver;
            if let (Some(request_id), Some(_)) = (driver.at_hand(), driver.trip_id()) {
                far.asked_ms = if far.asked_ms == 0 { now_ms } else { far.asked_ms };
                if now_ms >= far.asked_ms + TRIP_ASK_MS {
                    far.asked_ms = now_ms;
                    // Who took it over from a dead node may have found it ended.
                    let silent = (!routing.links.peers().is_up(far.peer)).then(|| (request_id.clone(), far.peer));
                    due.push((*key, DriverEvent::Doubt, silent));
                }
                continue;
            }
            let Some((request_id, _, expires_at_ms)) = driver.offer() else {
                continue;
            };
            let is_up = routing.links.peers().is_up(far.peer);
            // A node that hung has yet to read what was said meanwhile: it asks before it ends anything. And with a store of all nodes
            // it ends nothing by itself: that says how the attempt ended, or who has the request now.
            let ends_alone = self.claims.is_none() && far.asked_ms > expires_at_ms;
            let is_last = !is_up && !driver.has_said() && ends_alone;
            let pause_ms = if is_last {
                OVERDUE_END_MS - OVERDUE_ASK_MS
            } else {
                OVERDUE_ASK_MS
            };
            if now_ms < expires_at_ms.max(far.asked_ms) + pause_ms {
                continue;
            }
            if is_last {
                due.push((*key, DriverEvent::Overdue, None));
                continue;
            }
            // Who took the request over may have died, or have lost the word of its end on the way.
            let is_silent = !is_up || far.asked_ms > 0;
            far.asked_ms = now_ms;
            due.push((
                *key,
                DriverEvent::Doubt,
                is_silent.then(|| (request_id.clone(), far.peer)),
            ));
        }
        for (key, event, silent) in due {
            if let Some((request_id, peer)) = silent {
                let home = home_of_request(&request_id, self.shards);
                self.post(home, Letter::OwnerSilent { request_id, peer });
            }
            if self.drivers.slab.contains(key as usize) {
                self.step_driver(key, event);
            }
        }
    }

    /// The driver spoke of a trip that nobody knows.
    pub(in crate::shard) fn no_such_trip_anywhere(&mut self, driver_id: DriverId) {
        if self.is_driver_here(&driver_id) {
            return self.no_such_trip(&driver_id);
        }
        let place = self.routing.as_mut().and_then(|routing| routing.places.get(&driver_id));
        match place.and_then(|place| place.peer) {
            Some(peer) => drop(self.send_far(peer, LinkLetter::NoSuchTrip { driver_id })),
            None => self.no_such_trip(&driver_id),
        }
    }

    /// Asks that were not answered in time.
    pub(super) fn give_up_asks(&mut self) {
        let now_ms = self.now_ms;
        let Some(routing) = &mut self.routing else { return };
        let due: Vec<_> = routing
            .asks
            .extract_if(|_, (until_ms, _)| *until_ms <= now_ms)
            .collect();
        for ((request_id, driver_id), (_, ask)) in due {
            let reason = RefuseReason::Offline;
            self.post_to_request(request_id, RequestEvent::Unavailable { driver_id, ask, reason });
        }
    }

    /// A driver here is reserved.
    fn note_reserved(&mut self, key: u32, request_id: &RequestId) {
        let until_ms = self.now_ms + RESERVED_MAX_MS;
        if let Some(routing) = &mut self.routing {
            routing.reserved.insert(key, (request_id.clone(), until_ms));
            self.wake_at(until_ms);
        }
    }

    /// Drivers who were reserved long ago and have no offer: who would make it is gone, or did not hear that they are reserved.
    pub(super) fn give_up_reservations(&mut self) {
        let now_ms = self.now_ms;
        let Some(routing) = &mut self.routing else { return };
        let drivers = &self.drivers;
        routing.reserved.retain(|key, (request_id, _)| {
            let entry = drivers.slab.get(*key as usize);
            entry.is_some_and(|entry| entry.driver.is_reserved_for(request_id))
        });
        let due: Vec<u32> = (routing.reserved.extract_if(|_, (_, until_ms)| *until_ms <= now_ms))
            .map(|(key, _)| key)
            .collect();
        for key in due {
            self.step_driver(key, DriverEvent::Overdue);
        }
    }

    /// A request here asks a driver: an answer comes, or is given for it.
    pub(in crate::shard) fn note_ask(&mut self, driver_id: &DriverId, request_id: &RequestId, message: &ToDriver) {
        let until_ms = self.now_ms + ASK_MAX_MS;
        if let (Some(routing), ToDriver::Ask { ask, .. }) = (&mut self.routing, message) {
            let key = (request_id.clone(), driver_id.clone());
            routing.asks.insert(key, (until_ms, *ask));
        }
    }

    /// A driver answers.
    pub(in crate::shard) fn note_answer(&mut self, request_id: &RequestId, event: &RequestEvent) {
        let (RequestEvent::Reserved { driver_id, ask }
        | RequestEvent::Busy { driver_id, ask }
        | RequestEvent::Unavailable { driver_id, ask, .. }) = event
        else {
            return;
        };
        if let Some(routing) = self.routing.as_mut().filter(|routing| !routing.asks.is_empty()) {
            let key = (request_id.clone(), driver_id.clone());
            if routing.asks.get(&key).is_some_and(|(_, asked)| asked == ask) {
                routing.asks.remove(&key);
            }
        }
    }
}

/// What a message says of its request.
struct Learned {
    trip_id: Option<TripId>,
    /// It speaks of what it has decided.
    decides: bool,
}

/// Whether a message says that its sender has the request (and which trip that made): the driver, or who speaks for it,
/// will have something to say to it.
fn learns(message: &ToDriver) -> Option<Learned> {
    let (trip_id, decides) = match message {
        ToDriver::Bound { trip_id, .. } => (Some(trip_id.clone()), true),
        ToDriver::Outcome { trip_id, again, .. } => (trip_id.clone(), !again),
        ToDriver::Offer { .. } => (None, true),
        ToDriver::Ask { .. } | ToDriver::Wait { .. } => (None, false),
        ToDriver::Accept { .. }
        | ToDriver::Decline { .. }
        | ToDriver::Release
        | ToDriver::NoSuchOffer
        | ToDriver::Trip { .. }
        | ToDriver::NoSuchTrip { .. } => return None,
    };
    Some(Learned { trip_id, decides })
}
