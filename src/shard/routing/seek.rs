//! Drivers who may be elsewhere: where they are, what waits until that is known, and the way there.

use super::tables::{Given, Place};
use super::{
    SEEK_EVERY_MS, SEEK_MAX_MS, SEEKING_MAX, Seeking, Sought, WATCH_EVERY_MS, WATCH_MAX_MS, here, unreachable,
};
use crate::cold::registry::{Found, Lookup};
use crate::fsm::fold::{Outcome, TripPhase};
use crate::fsm::ids::{DriverId, RequestId};
use crate::fsm::request::{Asker, ReplyTo, RequestEvent, Resumed, ToDriver};
use crate::fsm::types::RefuseReason;
use crate::shard::latency::Begun;
use crate::shard::registry::Fleet;
use crate::shard::{Platform, Shard};
use crate::wire::link::LinkLetter;

impl<P: Platform> Shard<P> {
    /// Whether this node has the driver, as far as the registry has not said otherwise.
    pub(super) fn is_driver_here(&mut self, driver_id: &DriverId) -> bool {
        self.session_here(driver_id) != 0
    }

    /// Under which session this node has the driver; 0: it does not.
    pub(super) fn session_here(&mut self, driver_id: &DriverId) -> u64 {
        let Some(key) = self.drivers.find(driver_id) else {
            return 0;
        };
        self.fleet.as_mut().map_or(0, |fleet| fleet.session_of(key))
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
        // A node that dies leaves many to be watched, who must not keep others from being found.
        let room = if matches!(sought, Sought::Watch { .. }) {
            SEEKING_MAX
        } else {
            2 * SEEKING_MAX
        };
        if routing.seeking.len() >= room && !routing.seeking.contains_key(&driver_id) {
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
            let answers = seeking
                .letters
                .extract_if(.., |sought| matches!(sought, Sought::Answer(_)));
            for sought in answers.collect::<Vec<_>>() {
                if let Sought::Answer(letter) = sought {
                    self.answer_elsewhere(*letter, found);
                }
            }
        }
        let is_known = self.drivers.find(&driver_id).is_some();
        match at {
            _ if self.is_driver_here(&driver_id) => self.settle_here(&driver_id),
            // A node that cannot write to the registry has said itself that it has the driver.
            Ok(None) if self.has_place(&driver_id) => self.seek_at_place(&driver_id),
            Ok(None) => self.settle_nowhere(&driver_id),
            Err(()) if is_known => self.settle_here(&driver_id),
            Ok(Some(found)) => self.found_at(&driver_id, &found),
            Err(()) => self.wait_for(&driver_id, SEEK_EVERY_MS),
        }
    }

    /// Whether it is remembered which node has the driver, and that can be reached.
    fn has_place(&mut self, driver_id: &DriverId) -> bool {
        let place = (self.routing.as_mut()).and_then(|routing| routing.places.get(driver_id));
        let peer = place.and_then(|place| place.peer);
        peer.is_some_and(|peer| self.is_linked(peer))
    }

    fn found_at(&mut self, driver_id: &DriverId, found: &Found) {
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
        if routing.places.lost_since(driver_id) == Some(session) {
            // That node has said that it does not have the driver any more.
            return self.settle_nowhere(driver_id);
        }
        routing.places.learn(driver_id, place);
        let is_up = routing.links.peers().is_up(peer);
        // What a restart has bound here goes there.
        self.driver_left(driver_id, session, Some(peer));
        if !is_up {
            return self.wait_for(driver_id, SEEK_EVERY_MS);
        }
        let seeking = self
            .routing
            .as_mut()
            .and_then(|routing| routing.seeking.remove(driver_id));
        for sought in seeking.map(|seeking| seeking.letters).unwrap_or_default() {
            self.send_to_place(driver_id.clone(), peer, session, sought);
        }
    }

    /// The driver is nowhere, as far as the registry knows.
    fn settle_nowhere(&mut self, driver_id: &DriverId) {
        let Some(routing) = &mut self.routing else { return };
        let is_lost = routing.places.lost_since(driver_id).is_some();
        let seeking = routing.seeking.get_mut(driver_id).filter(|_| is_lost);
        for sought in seeking.into_iter().flat_map(|seeking| &mut seeking.letters) {
            // Its last node has sent the offer back: nobody has seen it.
            if let Sought::Message {
                message: ToDriver::Offer { resumed, .. },
                ..
            } = sought
                && *resumed == Resumed::Sent
            {
                *resumed = Resumed::No;
            }
        }
        self.settle_here(driver_id);
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
            // What binds the driver from now on is told to what a restart has bound here; if it is elsewhere, it is to hear of it there.
            watched.extend(won(&sought).filter(|_| !is_here));
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
                message:
                    ToDriver::Accept {
                        asker: Asker::Api(reply),
                        ..
                    },
                ..
            }
            | Sought::View(reply) => self.answer(reply, unreachable().into_reply()),
            Sought::Answer(letter) => self.refuse_letter(&letter, &unreachable()),
            Sought::Message { .. } => {
                if let Some(request_id) = won(&sought).or_else(|| binds(&sought)) {
                    self.watch(driver_id.clone(), request_id, 0);
                }
            }
            Sought::Watch { .. } => {}
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
        let is_own = |given: &mut RequestId| given == request_id;
        let mut given = routing.given.get(driver_id).unwrap_or_default();
        match message {
            ToDriver::Offer { .. } => given.offer = Some(request_id.clone()),
            ToDriver::Bound { .. }
            | ToDriver::Outcome {
                outcome: Outcome::Accepted,
                ..
            } => {
                given.offer.take_if(is_own);
                given.trip = Some(request_id.clone());
            }
            ToDriver::Outcome { .. } => drop(given.offer.take_if(is_own)),
            ToDriver::Trip {
                phase: TripPhase::Ended(_),
                ..
            } => drop(given.trip.take_if(is_own)),
            _ => return,
        }
        match given {
            Given {
                offer: None,
                trip: None,
            } => routing.given.remove(driver_id),
            given => routing.given.insert(driver_id.clone(), given),
        }
    }

    /// The requests here that have something of a driver elsewhere, as far as is remembered.
    pub(super) fn given_to(&mut self, driver_id: &DriverId) -> impl Iterator<Item = RequestId> + use<P> {
        let given = (self.routing.as_mut()).and_then(|routing| routing.given.get(driver_id));
        given.unwrap_or_default().into_requests()
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
                let Err(refused) = self.send_far(peer, letter) else {
                    return;
                };
                if let LinkLetter::ToDriver {
                    driver_id,
                    request_id,
                    message,
                    ..
                } = *refused
                {
                    let sought = Sought::Message {
                        request_id,
                        message,
                        begun,
                        until_ms,
                    };
                    self.seek(driver_id, sought, SEEK_EVERY_MS);
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

    /// A driver's place has been said: what waited for that goes there.
    pub(super) fn seek_at_place(&mut self, driver_id: &DriverId) {
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

    /// `GET` of a driver, wherever it is.
    pub(in crate::shard) fn driver_view(&mut self, driver_id: DriverId, reply: ReplyTo) {
        if self.routing.is_none() || self.is_driver_here(&driver_id) {
            return self.driver_view_here(driver_id, reply);
        }
        if let Some(reply) = self.keep_view(&driver_id, reply) {
            self.reach(driver_id, Sought::View(reply));
        }
    }

    /// `GET` of a driver who is here, as another node believes. If not, the registry knows better than what is remembered.
    pub(super) fn far_driver_view(&mut self, driver_id: DriverId, reply: ReplyTo) {
        if self.is_driver_here(&driver_id) {
            return self.driver_view_here(driver_id, reply);
        }
        if let Some(reply) = self.keep_view(&driver_id, reply) {
            self.seek(driver_id, Sought::View(reply), 0);
        }
    }
}

/// The request that a driver has won just now.
fn won(sought: &Sought) -> Option<RequestId> {
    match sought {
        Sought::Message {
            request_id,
            message:
                ToDriver::Outcome {
                    outcome: Outcome::Accepted,
                    again: false,
                    ..
                },
            ..
        } => Some(request_id.clone()),
        _ => None,
    }
}

/// The request of what binds a driver as soon as it is somewhere. It is not kept as it stands: it may be old by then.
fn binds(sought: &Sought) -> Option<RequestId> {
    match sought {
        Sought::Watch { request_id, .. } => Some(request_id.clone()),
        Sought::Message {
            request_id, message, ..
        } => message.binds().then(|| request_id.clone()),
        Sought::View(_) | Sought::Answer(_) => None,
    }
}
