//! At a driver's home: letters to drivers who may be elsewhere, and from other nodes to drivers here.

use super::tables::Place;
use super::{
    ASK_MAX_MS, Far, OVERDUE_ASK_MS, OVERDUE_END_MS, SEEK_EVERY_MS, SEEK_MAX_MS, SEEK_SOON_MS, SEEKING_MAX, Seeking, Sought, WATCH_EVERY_MS, WATCH_MAX_MS,
};
use crate::cold::registry::{Found, Lookup};
use crate::fsm::driver::DriverEvent;
use crate::fsm::fold::{Outcome, TripPhase};
use crate::fsm::ids::{DriverId, RequestId, TripId};
use crate::fsm::request::{Answer, Asker, ReplyTo, RequestEvent, Resumed, ToDriver};
use crate::fsm::types::RefuseReason;
use crate::limits;
use crate::shard::latency::Begun;
use crate::shard::registry::Fleet;
use crate::shard::{Letter, Platform, Shard, home_of_request};
use crate::wire::link::LinkLetter;
use crate::wire::respond::Problem;

impl<P: Platform> Shard<P> {
    /// Whether this node has the driver, as far as the registry has not said otherwise.
    pub(super) fn is_driver_here(&mut self, driver_id: &DriverId) -> bool {
        let Some(key) = self.drivers.find(driver_id) else {
            return false;
        };
        self.fleet.as_mut().is_some_and(|fleet| fleet.session_of(key) != 0)
    }

    /// A request of this node speaks to a driver, wherever that is.
    pub(in crate::shard) fn route_to_driver(
        &mut self,
        driver_id: DriverId,
        request_id: RequestId,
        message: ToDriver,
        begun: Option<Begun>,
    ) {
        if self.routing.is_none() {
            return self.tell_driver_here(0, &driver_id, request_id, message, begun);
        }
        if self.is_arriving(&driver_id) {
            return self.tell_arriving(0, &driver_id, request_id, message);
        }
        if self.is_driver_here(&driver_id) {
            return self.tell_driver_here(0, &driver_id, request_id, message, begun);
        }
        let until_ms = match &message {
            ToDriver::Offer { expires_at_ms, .. } => *expires_at_ms,
            _ => self.now_ms + SEEK_MAX_MS,
        };
        let sought = Sought::Message {
            request_id,
            message,
            begun,
            until_ms,
        };
        self.reach(driver_id, sought);
    }

    /// Gives something to a driver's node, or looks for it first.
    pub(super) fn reach(&mut self, driver_id: DriverId, sought: Sought) {
        let Some(routing) = &mut self.routing else { return };
        let is_watch = |sought: &Sought| matches!(sought, Sought::Watch { .. });
        if let Some(seeking) = routing.seeking.get_mut(&driver_id)
            && !seeking.letters.iter().all(is_watch)
        {
            seeking.letters.push(sought);
            return;
        }
        if let Some(Place {
            peer: Some(peer),
            session,
        }) = routing.places.get(&driver_id)
            && routing.links.peers().is_up(peer)
        {
            return self.send_to_place(driver_id, peer, session, sought);
        }
        self.seek(driver_id, sought, 0);
    }

    /// Looks for a driver, `after_ms` from now.
    pub(super) fn seek(&mut self, driver_id: DriverId, sought: Sought, after_ms: u64) {
        let now_ms = self.now_ms;
        let Some(routing) = &mut self.routing else { return };
        if routing.seeking.len() >= SEEKING_MAX && !routing.seeking.contains_key(&driver_id) {
            return self.unreachable(&driver_id, sought);
        }
        let seeking = routing.seeking.entry(driver_id.clone()).or_default();
        seeking.letters.push(sought);
        if after_ms == 0 {
            self.ask_where(driver_id);
        } else {
            seeking.again_at_ms = now_ms + after_ms;
            routing.sweep_at_ms = 0;
            self.wake_at(now_ms + after_ms);
        }
    }

    /// Asks the registry for a driver that is looked for.
    fn ask_where(&mut self, driver_id: DriverId) {
        let (Some(routing), Some(fleet)) = (&mut self.routing, &self.fleet) else {
            return;
        };
        let Some(seeking) = routing.seeking.get_mut(&driver_id).filter(|seeking| !seeking.is_asked) else {
            return;
        };
        seeking.is_asked = true;
        let token = routing.lookups.insert(driver_id.clone()) as u64;
        fleet.look_up(Lookup { token, driver_id });
    }

    /// The registry's answer.
    pub(in crate::shard) fn driver_found(&mut self, token: u64, at: Result<Option<Found>, ()>) {
        let Some(routing) = &mut self.routing else { return };
        let driver_id = routing.lookups.remove(token as usize);
        let Some(seeking) = routing.seeking.get_mut(&driver_id) else {
            return;
        };
        seeking.is_asked = false;
        if let Ok(Some(found)) = &at {
            let answers = seeking.letters.extract_if(.., |sought| matches!(sought, Sought::Answer(_)));
            for sought in answers.collect::<Vec<_>>() {
                if let Sought::Answer(letter) = sought {
                    self.answer_elsewhere(*letter, found);
                }
            }
        }
        let is_known = self.drivers.find(&driver_id).is_some();
        match at {
            _ if self.is_driver_here(&driver_id) => self.settle_here(&driver_id),
            Ok(None) => self.settle_here(&driver_id),
            Err(()) if is_known => self.settle_here(&driver_id),
            Ok(Some(found)) => self.found_at(&driver_id, found),
            Err(()) => self.wait_for(&driver_id, SEEK_EVERY_MS),
        }
    }

    fn found_at(&mut self, driver_id: &DriverId, found: Found) {
        let Some(routing) = &mut self.routing else { return };
        let peer = match routing.links.peers().number_of(&found.node_id) {
            Some(0) => return self.settle_here(driver_id),
            Some(peer) => peer,
            None => return self.wait_for(driver_id, SEEK_EVERY_MS),
        };
        let session = found.session;
        let place = Place {
            peer: Some(peer),
            session,
        };
        routing.places.learn(driver_id, place);
        let is_up = routing.links.peers().is_up(peer);
        // What a restart has bound here goes there.
        self.driver_left(driver_id, session, Some(peer));
        if !is_up {
            return self.wait_for(driver_id, SEEK_EVERY_MS);
        }
        let seeking = self.routing.as_mut().and_then(|routing| routing.seeking.remove(driver_id));
        for sought in seeking.map(|seeking| seeking.letters).unwrap_or_default() {
            self.send_to_place(driver_id.clone(), peer, session, sought);
        }
    }

    /// The driver is here, or nowhere: which the actor here says. What binds a driver that is nowhere waits until it comes.
    fn settle_here(&mut self, driver_id: &DriverId) {
        let is_here = self.is_driver_here(driver_id);
        let Some(routing) = &mut self.routing else { return };
        routing.places.forget(driver_id);
        let seeking = routing.seeking.remove(driver_id).unwrap_or_default();
        let mut watched = Vec::new();
        for sought in seeking.letters {
            let binds = if is_here { None } else { binds(&sought) };
            match sought {
                _ if binds.is_some() => watched.extend(binds),
                Sought::Watch { request_id, .. } => self.post_to_request(request_id, here(driver_id, None)),
                Sought::Message {
                    request_id,
                    message,
                    begun,
                    ..
                } => self.tell_driver_here(0, driver_id, request_id, message, begun),
                Sought::View(reply) => self.driver_view_here(driver_id.clone(), reply),
                Sought::Answer(letter) => self.unknown_to_all(*letter),
            }
        }
        for request_id in watched {
            self.watch(driver_id.clone(), request_id, 0);
        }
    }

    /// Looks for a driver, under a later session than this, for whom a request here has something.
    pub(super) fn watch(&mut self, driver_id: DriverId, request_id: RequestId, session: u64) {
        let until_ms = self.now_ms + WATCH_MAX_MS;
        let watch = Sought::Watch {
            request_id,
            session,
            until_ms,
        };
        self.seek(driver_id, watch, SEEK_EVERY_MS);
    }

    /// A driver has connected here: who looked for it has found it.
    pub(in crate::shard) fn driver_has_come(&mut self, driver_id: &DriverId) {
        let is_sought = (self.routing.as_ref()).is_some_and(|routing| routing.seeking.contains_key(driver_id));
        if is_sought && self.is_driver_here(driver_id) {
            self.settle_here(driver_id);
        }
    }

    /// The driver cannot be reached now: what can wait does, and who asked for an answer gets one.
    fn wait_for(&mut self, driver_id: &DriverId, after_ms: u64) {
        let now_ms = self.now_ms;
        let Some(routing) = &mut self.routing else { return };
        let Some(seeking) = routing.seeking.get_mut(driver_id) else {
            return;
        };
        let can_wait = |sought: &mut Sought| match sought {
            Sought::Message {
                message: ToDriver::Ask { .. } | ToDriver::Accept { .. },
                ..
            }
            | Sought::View(_)
            | Sought::Answer(_) => false,
            Sought::Message { until_ms, .. } | Sought::Watch { until_ms, .. } => *until_ms > now_ms,
        };
        let unanswered: Vec<Sought> = seeking.letters.extract_if(.., |sought| !can_wait(sought)).collect();
        let is_watch = |sought: &Sought| matches!(sought, Sought::Watch { .. });
        if seeking.letters.is_empty() {
            routing.seeking.remove(driver_id);
        } else if seeking.letters.iter().all(is_watch) {
            seeking.again_at_ms = now_ms + WATCH_EVERY_MS;
        } else {
            seeking.again_at_ms = now_ms + after_ms;
        }
        for sought in unanswered {
            self.unreachable(driver_id, sought);
        }
    }

    /// Nobody can say what this is answered by, or its time is over.
    fn unreachable(&mut self, driver_id: &DriverId, sought: Sought) {
        match sought {
            Sought::Message {
                request_id,
                message: ToDriver::Ask { ask, .. } | ToDriver::Wait { ask, .. },
                ..
            } => {
                let (driver_id, reason) = (driver_id.clone(), RefuseReason::Offline);
                self.post_to_request(request_id, RequestEvent::Unavailable { driver_id, ask, reason });
            }
            Sought::Message {
                message: ToDriver::Accept {
                    asker: Asker::Api(reply),
                    ..
                },
                ..
            }
            | Sought::View(reply) => self.answer(reply, unreachable().into_reply()),
            Sought::Answer(letter) => self.refuse_letter(&letter, &unreachable()),
            Sought::Message { .. } | Sought::Watch { .. } => {}
        }
    }

    /// Looks again for drivers whose time has come, and for those that a restart bound here.
    pub(super) fn seek_again(&mut self) {
        let now_ms = self.now_ms;
        let is_present = self.fleet.as_ref().is_some_and(Fleet::is_present);
        let Some(routing) = &mut self.routing else { return };
        if is_present {
            for (driver_id, request_id) in std::mem::take(&mut routing.unsure) {
                self.watch(driver_id, request_id, 0);
            }
        }
        let Some(routing) = &mut self.routing else { return };
        let is_due = |seeking: &Seeking| !seeking.is_asked && seeking.again_at_ms <= now_ms;
        let due: Vec<DriverId> = (routing.seeking.iter())
            .filter(|(_, seeking)| is_due(seeking))
            .map(|(driver_id, _)| driver_id.clone())
            .collect();
        for driver_id in due {
            self.ask_where(driver_id);
        }
    }

    /// Remembers what a driver elsewhere has of requests here.
    fn note_given(&mut self, driver_id: &DriverId, request_id: &RequestId, message: &ToDriver) {
        let Some(routing) = &mut self.routing else { return };
        match message {
            ToDriver::Offer { .. }
            | ToDriver::Bound { .. }
            | ToDriver::Outcome {
                outcome: Outcome::Accepted,
                ..
            } => routing.given.insert(driver_id.clone(), request_id.clone()),
            ToDriver::Outcome { .. }
            | ToDriver::Trip {
                phase: TripPhase::Ended(_),
                ..
            } => {
                if routing.given.get(driver_id).as_ref() == Some(request_id) {
                    routing.given.remove(driver_id);
                }
            }
            _ => {}
        }
    }

    /// The request here that has something of a driver elsewhere, as far as is remembered.
    pub(super) fn given_to(&mut self, driver_id: &DriverId) -> Option<RequestId> {
        self.routing.as_mut()?.given.get(driver_id)
    }

    fn send_to_place(&mut self, driver_id: DriverId, peer: u16, session: u64, sought: Sought) {
        match sought {
            Sought::Message {
                request_id,
                message,
                begun,
                until_ms,
            } => {
                self.note_given(&driver_id, &request_id, &message);
                let letter = LinkLetter::ToDriver {
                    driver_id,
                    session,
                    request_id,
                    message,
                };
                if let Err(LinkLetter::ToDriver {
                    driver_id,
                    request_id,
                    message,
                    ..
                }) = self.send_far(peer, letter)
                {
                    let sought = Sought::Message {
                        request_id,
                        message,
                        begun,
                        until_ms,
                    };
                    self.seek(driver_id.clone(), sought, SEEK_EVERY_MS);
                }
            }
            Sought::Watch {
                request_id,
                session: known,
                ..
            } => {
                if session > known {
                    self.post_to_request(request_id, here(&driver_id, None));
                }
            }
            Sought::View(reply) => {
                let Some(reply) = self.pass_on(reply) else { return };
                let letter = LinkLetter::DriverView { driver_id, reply };
                self.send_call(peer, letter, reply);
            }
            Sought::Answer(letter) => self.seek(driver_id, Sought::Answer(letter), 0),
        }
    }

    /// A request, of the node with this number (0: this one), speaks to a driver here.
    pub(super) fn tell_driver_here(
        &mut self,
        peer: u16,
        driver_id: &DriverId,
        request_id: RequestId,
        message: ToDriver,
        begun: Option<Begun>,
    ) {
        let spoke = self.routing.is_some().then(|| request_id.clone());
        self.driver_letter(driver_id, DriverEvent::Request { request_id, message }, begun);
        if let Some(request_id) = spoke {
            self.note_far(peer, driver_id, &request_id);
            self.say_late_words(driver_id);
        }
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
                },
            );
        }
    }

    /// Remembers which node has the request that binds a driver.
    fn note_far(&mut self, peer: u16, driver_id: &DriverId, request_id: &RequestId) {
        let (Some(key), Some(routing)) = (self.drivers.find(driver_id), &mut self.routing) else {
            return;
        };
        match self.drivers.slab[key as usize].driver.at_hand() {
            None => drop(routing.far.remove(&key)),
            Some(at_hand) if at_hand != request_id => {}
            Some(_) if peer == 0 => drop(routing.far.remove(&key)),
            Some(_) => {
                routing.far.insert(key, Far { peer, asked_ms: 0 });
            }
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
        if let Some(trip_id) = learns(&message) {
            let home = home_of_request(&request_id, self.shards);
            let request_id = request_id.clone();
            self.post(
                home,
                Letter::Owned {
                    request_id,
                    trip_id,
                    peer: from,
                },
            );
        }
        if self.is_arriving(&driver_id) {
            return self.tell_arriving(from, &driver_id, request_id, message);
        }
        if !self.is_driver_here(&driver_id) {
            let place = self.routing.as_mut().and_then(|routing| routing.places.get(&driver_id));
            if let Some(place) = place.filter(|place| place.session > session) {
                return self.bounce(from, driver_id, request_id, message, place);
            }
        }
        let is_over = matches!(&message, ToDriver::Offer { expires_at_ms, .. } if *expires_at_ms <= self.now_ms);
        if !is_over {
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
        routing.places.learn(&driver_id, place);
        self.metrics().link_bounces.inc();
        let event = match message {
            ToDriver::Offer { .. } | ToDriver::Bound { .. } => here(&driver_id, None),
            ToDriver::Outcome {
                attempt, again: false, ..
            } => here(&driver_id, Some(attempt)),
            ToDriver::Trip { again: false, .. } => here(&driver_id, None),
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
                return self.route_again(driver_id, request_id, message, peer.is_some());
            }
        };
        self.post_to_request(request_id, event);
    }

    fn route_again(&mut self, driver_id: DriverId, request_id: RequestId, message: ToDriver, is_known: bool) {
        let is_here = self.is_driver_here(&driver_id) || self.is_arriving(&driver_id);
        if is_known || is_here {
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

    /// A driver's place has been said: what waited for that goes there.
    fn seek_at_place(&mut self, driver_id: &DriverId) {
        let Some(routing) = &mut self.routing else { return };
        let Some(Place {
            peer: Some(peer),
            session,
        }) = routing.places.get(driver_id)
        else {
            return;
        };
        // Whoever asked the registry waits for its word.
        let is_idle = routing.seeking.get(driver_id).is_some_and(|seeking| !seeking.is_asked);
        if !is_idle || !routing.links.peers().is_up(peer) {
            return;
        }
        let seeking = routing.seeking.remove(driver_id).unwrap_or_default();
        for sought in seeking.letters {
            self.send_to_place(driver_id.clone(), peer, session, sought);
        }
    }

    /// Another node has taken a driver from this one, and hears what bound it here.
    pub(super) fn driver_taken(&mut self, from: u16, driver_id: DriverId, session: u64) {
        let (mut bound, mut off_shift_since_ms) = (None, self.drivers.off_shift_since_ms(&driver_id));
        if let (Some(key), Some(routing)) = (self.drivers.find(&driver_id), &self.routing) {
            let driver = &self.drivers.slab[key as usize].driver;
            off_shift_since_ms = driver.off_shift_since_ms();
            let peer = routing.far.get(&key).map_or(0, |far| far.peer);
            bound = driver.at_hand().cloned().zip(routing.links.peers().name_of(peer));
        }
        self.driver_left(&driver_id, session, Some(from));
        let left = LinkLetter::Left {
            driver_id,
            session,
            bound,
            off_shift_since_ms,
        };
        // If it is not taken, that node goes on without.
        drop(self.send_far(from, left));
    }

    /// Another node has a driver for whom a request here has an offer or a trip, perhaps.
    pub(super) fn driver_is_there(&mut self, from: u16, driver_id: DriverId, session: u64, request_id: RequestId) {
        self.driver_left(&driver_id, session, Some(from));
        let event = here(&driver_id, None);
        self.post_to_request(request_id, event);
    }

    /// Offers of other nodes whose time is long over.
    pub(super) fn sweep_far(&mut self) {
        let now_ms = self.now_ms;
        let Some(routing) = &mut self.routing else { return };
        let drivers = &self.drivers;
        routing
            .far
            .retain(|key, _| (drivers.slab.get(*key as usize)).is_some_and(|entry| entry.driver.at_hand().is_some()));
        let mut due = Vec::new();
        for (key, far) in &mut routing.far {
            let Some((.., expires_at_ms)) = self.drivers.slab[*key as usize].driver.offer() else {
                continue;
            };
            let is_up = routing.links.peers().is_up(far.peer);
            if is_up && now_ms >= expires_at_ms.max(far.asked_ms) + OVERDUE_ASK_MS {
                far.asked_ms = now_ms;
                due.push((*key, DriverEvent::Doubt));
            } else if !is_up && now_ms >= expires_at_ms + OVERDUE_END_MS {
                due.push((*key, DriverEvent::Overdue));
            }
        }
        for (key, event) in due {
            if self.drivers.slab.contains(key as usize) {
                self.step_driver(key, event);
            }
        }
    }

    /// `GET` of a driver, wherever it is.
    pub(in crate::shard) fn driver_view(&mut self, driver_id: DriverId, reply: ReplyTo) {
        if self.routing.is_none() || self.is_driver_here(&driver_id) {
            return self.driver_view_here(driver_id, reply);
        }
        self.reach(driver_id, Sought::View(reply));
    }

    /// `GET` of a driver who is here, as another node believes. If not, the registry knows better than what is remembered.
    pub(super) fn far_driver_view(&mut self, driver_id: DriverId, reply: ReplyTo) {
        if self.is_driver_here(&driver_id) {
            return self.driver_view_here(driver_id, reply);
        }
        self.seek(driver_id, Sought::View(reply), 0);
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
        let due: Vec<_> = routing.asks.extract_if(|_, (until_ms, _)| *until_ms <= now_ms).collect();
        for ((request_id, driver_id), (_, ask)) in due {
            let reason = RefuseReason::Offline;
            self.post_to_request(request_id, RequestEvent::Unavailable { driver_id, ask, reason });
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

/// The request of what binds a driver as soon as it is somewhere. It is not kept as it stands: it may be old by then.
fn binds(sought: &Sought) -> Option<RequestId> {
    match sought {
        Sought::Watch { request_id, .. }
        | Sought::Message {
            request_id,
            message: ToDriver::Bound { .. },
            ..
        } => Some(request_id.clone()),
        Sought::Message {
            request_id,
            message: ToDriver::Offer { resumed, .. },
            ..
        } => (*resumed != Resumed::No).then(|| request_id.clone()),
        Sought::Message { .. } | Sought::View(_) | Sought::Answer(_) => None,
    }
}

pub(super) fn here(driver_id: &DriverId, held: Option<u32>) -> RequestEvent {
    RequestEvent::DriverHere {
        driver_id: driver_id.clone(),
        held,
        answer: None,
    }
}

/// Whether a message says that its sender has the request (and which trip that made): the driver, or who speaks for it,
/// will have something to say to it.
fn learns(message: &ToDriver) -> Option<Option<TripId>> {
    match message {
        ToDriver::Bound { trip_id, .. } => Some(Some(trip_id.clone())),
        ToDriver::Outcome { trip_id, .. } => Some(trip_id.clone()),
        ToDriver::Ask { .. } | ToDriver::Wait { .. } | ToDriver::Offer { .. } => Some(None),
        ToDriver::Accept { .. }
        | ToDriver::Decline { .. }
        | ToDriver::Release
        | ToDriver::NoSuchOffer
        | ToDriver::Trip { .. }
        | ToDriver::NoSuchTrip { .. } => None,
    }
}

/// What a caller hears whose call is for a node that cannot be reached.
pub(super) fn unreachable() -> Problem {
    let detail = "the node that has this cannot be reached now";
    Problem::new(503, "not_durable", detail).with_header("retry-after", limits::RETRY_AFTER_S.to_string())
}
