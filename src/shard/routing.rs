//! Routing between the nodes of a fleet: which node has a driver, which one a request, and what goes over the links.
//!
//! A letter to a driver goes to the driver's home shard here, as ever. That shard knows whether the driver is here (the
//! mark of its registry entry); if not it asks the registry, once, and remembers the node and the session. Letters carry
//! that session: whoever had the driver under an older one sends them back with what it knows (`Bounced`), so what is remembered
//! may be wrong and nobody is misled. Letters for one driver keep their order while it is looked for.
//!
//! A letter to a request goes to the request's home shard here. That shard has the request, or has learned with an offer which
//! node does (`Owned`), and passes the letter on; else the store is asked, as ever. Callers' addresses are exchanged for
//! numbers of this shard on the way ([`tables::Passed`]), so that every call is answered once, if only by 503 after
//! [`tables::PASSED_MAX_MS`].
//!
//! `seek.rs` and `drivers.rs` are at the driver's home, `requests.rs` at the request's; `arrivals.rs` is the connect of a driver who
//! may come from another node.
//!
//! Must never: decide anything about an offer, keep a driver's word from its request, or pass on a letter that came over a
//! link (two nodes that are mistaken about each other would do it for ever).
#![forbid(unsafe_code)]

mod arrivals;
mod drivers;
mod over;
mod requests;
mod seek;
mod tables;

use super::latency::Begun;
use super::{Platform, Shard};
use crate::cold::links::{FromLinks, LinksHandle};
use crate::cold::registry::AtHand;
use crate::fsm::driver::{Driver, DriverEvent};
use crate::fsm::ids::{DriverId, RequestId};
use crate::fsm::request::{ReplyTo, RequestEvent, ToDriver};
use crate::limits;
use crate::wire::link::LinkLetter;
use crate::wire::respond::Problem;
use arrivals::{Arriving, Late, Left};
use over::Over;
use slab::Slab;
pub(super) use tables::Table;
use tables::{Given, Memory, Owners, Passed, Places};

/// Time between two looks for a driver whose node cannot be reached, or who is not known.
const SEEK_EVERY_MS: u64 = 1_000;
/// The same when a node sent a letter back and could not say where the driver went: the registry is about to know.
const SEEK_SOON_MS: u64 = 100;
/// How long a word that no offer's time bounds looks for its driver.
const SEEK_MAX_MS: u64 = 30_000;
/// Time between two looks for a driver for whom nothing waits but what bound it.
const WATCH_EVERY_MS: u64 = 5_000;
/// How long such a driver is looked for: longer than any offer lasts, and most trips.
const WATCH_MAX_MS: u64 = 12 * 3_600_000;
/// Most drivers that are watched for at once, of one shard; as many more are looked for because something is to reach them now.
const SEEKING_MAX: usize = 16_384;
/// How often the time of what waits is looked at.
const SWEEP_EVERY_MS: u64 = 250;
/// How long after its time an offer of another node is asked about.
const OVERDUE_ASK_MS: u64 = 2_000;
/// How long after its time an offer is over whose node cannot be asked, unless its driver has taken it; for nodes without a store of all.
const OVERDUE_END_MS: u64 = 5_000;
/// How long a driver who is asked may be silent: a node that is away says nothing.
const ASK_MAX_MS: u64 = 2_000;
/// Time between two questions how the trip of a driver here stands that another node has: its end may have been lost.
const TRIP_ASK_MS: u64 = 30_000;
/// How long a driver is reserved for a request that makes no offer: its node may have died. One that is alive stores the offer
/// meanwhile, and makes it all the same if the driver is still free.
const RESERVED_MAX_MS: u64 = 5_000;
/// How long the registry keeps a driver's entry beyond its ordinary life when the driver has a trip.
const TRIP_LASTS_MS: u64 = 12 * 3_600_000;

/// What is to reach a driver who is being looked for.
#[derive(Debug)]
enum Sought {
    /// A request speaks.
    Message {
        request_id: RequestId,
        message: ToDriver,
        begun: Option<Begun>,
        /// When it means nothing any more.
        until_ms: u64,
    },
    /// A request here has an offer or a trip of the driver, whose node went away, or that a restart has bound here: when the driver
    /// is found under a later session, the request says how it stands.
    Watch {
        request_id: RequestId,
        session: u64,
        /// When it is not looked for any more.
        until_ms: u64,
    },
    /// `GET` of the driver.
    View(ReplyTo),
    /// A driver's answer over HTTP, of whose offer nobody here knows.
    Answer(Box<super::Letter>),
}

/// A driver who is looked for.
#[derive(Default)]
struct Seeking {
    letters: Vec<Sought>,
    /// The registry is being asked.
    is_asked: bool,
    /// When it is asked again.
    again_at_ms: u64,
}

/// What binds a driver here to another node.
#[derive(Clone, Copy, Debug)]
struct Far {
    peer: u16,
    /// When its request was asked how it stands, because its offer's time was over.
    asked_ms: u64,
}

/// A shard's part in the fleet's links.
pub(super) struct Routing {
    links: LinksHandle,
    heard: Vec<FromLinks>,
    places: Places,
    given: Memory<DriverId, Given>,
    /// What bound drivers when they left, and the number of the node that has it.
    left: Memory<DriverId, (RequestId, u16)>,
    seeking: Table<DriverId, Seeking>,
    lookups: Slab<DriverId>,
    owners: Owners,
    /// Who took over what this node had, while it ends. What comes for that is passed on, also what came over a link: nobody
    /// is given a request who ends already, so it cannot come back.
    handed: Owners,
    passed: Passed,
    /// Offers of which drivers here have heard the end, by the hashes of driver and request.
    over: Memory<(u64, u64), Over>,
    arriving: Table<DriverId, Arriving>,
    late: Table<DriverId, Late>,
    /// Drivers here who are bound to a request of another node, by their keys.
    far: Table<u32, Far>,
    /// Drivers here who are reserved, by their keys: for which request, and until when without an offer.
    reserved: Table<u32, (RequestId, u64)>,
    /// Drivers whom a request asked and who have not answered: until when, and the number of the ask.
    asks: Table<(RequestId, DriverId), (u64, u32)>,
    /// Drivers bound by a restart, who may be elsewhere since.
    unsure: Vec<(DriverId, RequestId)>,
    sweep_at_ms: u64,
    /// The letter that is being opened came over a link.
    is_from_link: bool,
}

impl Routing {
    pub(super) fn new(links: LinksHandle, incarnation: u64) -> Self {
        Self {
            links,
            heard: Vec::new(),
            places: Places::new(),
            given: Memory::new(),
            left: Memory::new(),
            seeking: Table::default(),
            lookups: Slab::new(),
            owners: Owners::new(),
            handed: Owners::new(),
            passed: Passed::new(incarnation),
            over: Memory::new(),
            arriving: Table::default(),
            late: Table::default(),
            far: Table::default(),
            reserved: Table::default(),
            asks: Table::default(),
            unsure: Vec::new(),
            sweep_at_ms: 0,
            is_from_link: false,
        }
    }

    /// What the registry is to know of the request that binds a driver here.
    pub(super) fn at_hand(&self, key: u32, driver: &Driver, now_ms: u64) -> Option<AtHand> {
        let request_id = driver.at_hand()?.clone();
        let peer = self.far.get(&key).map_or(0, |far| far.peer);
        let lasts_ms = match driver.offer() {
            Some((.., expires_at_ms)) => expires_at_ms.saturating_sub(now_ms),
            None => TRIP_LASTS_MS,
        };
        Some(AtHand {
            request_id,
            node_id: self.links.peers().name_of(peer)?,
            lasts_ms,
        })
    }

    /// A driver connected here.
    pub(super) fn is_here(&mut self, driver_id: &DriverId) {
        self.places.forget(driver_id);
        self.left.remove(driver_id);
    }

    /// A restart has bound a driver here, who may have gone elsewhere since.
    pub(super) fn is_unsure(&mut self, driver_id: DriverId, request_id: RequestId) {
        self.unsure.push((driver_id, request_id));
    }

    /// A driver leaves memory.
    pub(super) fn forget(&mut self, key: u32) {
        self.far.remove(&key);
        self.reserved.remove(&key);
    }
}

impl<P: Platform> Shard<P> {
    /// Hears what other nodes say.
    pub(super) fn hear_links(&mut self) {
        if self.bindings.is_some() {
            return; // As with letters of other shards: see `read_letters`.
        }
        let Some(routing) = &mut self.routing else { return };
        let mut heard = std::mem::take(&mut routing.heard);
        routing.links.poll(&mut heard);
        for message in heard.drain(..) {
            match message {
                FromLinks::Letter { from, letter } => {
                    self.far_letter(from, *letter);
                    // What it caused here comes before what came after it.
                    self.read_own_letters();
                }
                FromLinks::Up { peer, is_new } => self.link_is_up(peer, is_new),
                FromLinks::Down { peer } => {
                    self.giver_lost(peer);
                    self.watch_drivers_at(peer);
                }
                // While it is away nobody there can be asked: they are when it is back, or when another says that it has taken over.
                FromLinks::Lost { peer } if !self.is_linked(peer) => {}
                FromLinks::Lost { peer } => self.doubt_drivers_of(peer),
            }
        }
        if let Some(routing) = &mut self.routing {
            routing.heard = heard;
        }
    }

    fn far_letter(&mut self, from: u16, letter: LinkLetter) {
        self.metrics().link_letters.inc();
        match letter {
            LinkLetter::ToDriver {
                driver_id,
                session,
                request_id,
                message,
            } => self.far_to_driver(from, driver_id, session, request_id, message),
            LinkLetter::Bounced {
                driver_id,
                request_id,
                message,
                session,
                node,
            } => self.bounced(driver_id, request_id, message, session, node.as_deref()),
            LinkLetter::DriverHere {
                driver_id,
                session,
                request_id,
            } => self.driver_is_there(from, &driver_id, session, request_id),
            LinkLetter::Moved { driver_id, session } => self.driver_taken(from, driver_id, session),
            LinkLetter::Left {
                driver_id,
                session,
                had_session,
                bound,
                off_shift_since_ms,
            } => {
                let left = Left {
                    had_session,
                    bound,
                    off_shift_since_ms,
                };
                self.arrival_left(&driver_id, session, left);
            }
            LinkLetter::NoSuchTrip { driver_id } => self.no_such_trip(&driver_id),
            LinkLetter::DriverView { driver_id, reply } => self.far_driver_view(driver_id, reply),
            LinkLetter::Reply { to, answer } => {
                if let Some(answer) = answer.into_reply() {
                    self.reply_arrived(to.call, Box::new(answer));
                }
            }
            LinkLetter::ToRequest { .. }
            | LinkLetter::TripMoved { .. }
            | LinkLetter::TripCancelled { .. }
            | LinkLetter::View { .. }
            | LinkLetter::Offer { .. } => self.far_to_request(letter),
            LinkLetter::HandOver {
                request_id,
                received_at_ms,
            } => self.hand_over_asked(from, request_id, received_at_ms),
            LinkLetter::HandedOver { request_id, is_taken } => self.handed_over_said(from, &request_id, is_taken),
            // The links take note of it.
            LinkLetter::Leaving => {}
        }
    }

    /// What is waiting for a time that has come.
    pub(super) fn keep_routing(&mut self) {
        let now_ms = self.now_ms;
        self.welcome_overdue();
        let Some(routing) = &mut self.routing else { return };
        if now_ms < routing.sweep_at_ms {
            return;
        }
        let is_idle = routing.seeking.is_empty()
            && routing.passed.is_empty()
            && routing.far.is_empty()
            && routing.reserved.is_empty()
            && routing.asks.is_empty()
            && routing.unsure.is_empty()
            && routing.late.is_empty();
        if is_idle {
            return;
        }
        routing.sweep_at_ms = now_ms + SWEEP_EVERY_MS;
        self.wake_at(now_ms + SWEEP_EVERY_MS);
        self.seek_again();
        self.give_up_calls();
        self.give_up_asks();
        self.give_up_reservations();
        self.give_up_late();
        self.sweep_far();
    }

    fn link_is_up(&mut self, peer: u16, is_new: bool) {
        if self.draining.is_some() && self.index == 0 {
            drop(self.send_far(peer, LinkLetter::Leaving));
        }
        if is_new {
            self.doubt_drivers_of(peer);
            self.tell_drivers_at(peer);
        }
        // Who waits for that node need not wait any longer.
        if let Some(routing) = &mut self.routing {
            routing.seeking.values_mut().for_each(|seeking| seeking.again_at_ms = 0);
            routing.sweep_at_ms = 0;
        }
    }

    /// Drivers at a node for whom a request here has something, as far as that is remembered, and their sessions.
    fn given_at(&mut self, peer: u16) -> Vec<(DriverId, RequestId, u64)> {
        let Some(routing) = &mut self.routing else {
            return Vec::new();
        };
        let places = &mut routing.places;
        let mut placed = |driver_id: &DriverId| places.get(driver_id).filter(|place| place.peer == Some(peer));
        let at_place =
            (routing.given.iter()).filter_map(|(driver_id, given)| Some((driver_id, given, placed(driver_id)?)));
        at_place
            .flat_map(|(driver_id, given, place)| {
                (given.clone().into_requests()).map(move |request_id| (driver_id.clone(), request_id, place.session))
            })
            .collect()
    }

    /// A node cannot be reached: perhaps its drivers are elsewhere soon.
    fn watch_drivers_at(&mut self, peer: u16) {
        for (driver_id, request_id, session) in self.given_at(peer) {
            self.watch(driver_id, request_id, session);
        }
    }

    /// A node has begun anew, or does not know what it was told last: requests here say again how they stand, to drivers wherever
    /// those are now.
    fn tell_drivers_at(&mut self, peer: u16) {
        let given = self.given_at(peer);
        if let Some(routing) = &mut self.routing {
            routing.places.forget_node(peer);
        }
        for (driver_id, request_id, _) in given {
            self.post_to_request(request_id, here(&driver_id, None));
        }
    }

    /// Words between drivers here and requests of that node may have been lost.
    fn doubt_drivers_of(&mut self, peer: u16) {
        let Some(routing) = &self.routing else { return };
        let bound: Vec<u32> = (routing.far.iter())
            .filter(|(_, far)| far.peer == peer)
            .map(|(key, _)| *key)
            .collect();
        for key in bound {
            self.step_driver(key, DriverEvent::Doubt);
        }
    }
}

fn here(driver_id: &DriverId, held: Option<u32>) -> RequestEvent {
    RequestEvent::DriverHere {
        driver_id: driver_id.clone(),
        held,
        answer: None,
    }
}

/// What a caller hears whose call is for a node that cannot be reached.
fn unreachable() -> Problem {
    let detail = "the node that has this cannot be reached now";
    Problem::new(503, "not_durable", detail).with_header("retry-after", limits::RETRY_AFTER_S.to_string())
}
