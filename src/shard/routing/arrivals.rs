//! The connect of a driver who may come from another node. What it is bound to is asked for before its `WELCOME`, which shows
//! it; for a moment, since the driver waits. The node that had the driver is the one that the registry names, and any while that
//! cannot say.

use super::here;
use super::tables::Place;
use crate::cold::registry::Previous;
use crate::fsm::fold::TripPhase;
use crate::fsm::ids::{DriverId, RequestId};
use crate::fsm::request::{ReplyTo, ToDriver};
use crate::net::ConnId;
use crate::shard::claims::is_over;
use crate::shard::connections::Conn;
use crate::shard::{Letter, Platform, Shard, home_of_request};
use crate::wire::link::LinkLetter;
use compact_str::CompactString;

/// Longest wait of a `WELCOME` for what binds its driver.
const WELCOME_MAX_MS: u64 = 300;
/// How long after it a driver may speak of a request of which nobody here knows yet.
const LATE_MAX_MS: u64 = 10_000;

/// A driver who is about to be here.
#[derive(Default)]
pub(super) struct Arriving {
    /// Connects whose session the registry has not said yet.
    claims: u32,
    /// Connects that have theirs.
    waiting: Vec<Waiting>,
    /// What requests said meanwhile, in order.
    letters: Vec<Said>,
    /// Who wants to see the driver meanwhile.
    views: Vec<ReplyTo>,
}

/// A connect that waits for what bound its driver.
struct Waiting {
    conn: ConnId,
    session: u64,
    /// So many nodes are yet to say what bound the driver there.
    awaits_left: usize,
    /// Under which session the driver was last where something was said of it. What is said of an older one is old news.
    had_session: u64,
    /// These requests say how they stand.
    awaits_requests: Vec<RequestId>,
    until_ms: u64,
}

impl Waiting {
    fn is_over(&self) -> bool {
        self.awaits_left == 0 && self.awaits_requests.is_empty()
    }
}

/// What a node says that had a driver, perhaps.
pub(super) struct Left {
    /// Under which session; 0: not lately.
    pub(super) had_session: u64,
    /// The request that bound the driver, and the node that has that.
    pub(super) bound: Option<(RequestId, CompactString)>,
    /// Since when the driver is off shift; 0: it is not.
    pub(super) off_shift_since_ms: u64,
}

/// A driver who got its `WELCOME` before all was said that may bind it.
pub(super) struct Late {
    session: u64,
    until_ms: u64,
    /// What it said of requests that are not known here.
    words: Vec<Letter>,
}

/// What a request said, and the number of its node.
struct Said {
    peer: u16,
    request_id: RequestId,
    message: ToDriver,
}

/// Whether this answers `DriverHere`. What a request has just decided says less: a pickup, not whose trip that is.
fn says_how_it_stands(message: &ToDriver) -> bool {
    let is_end = match message {
        ToDriver::Trip { phase, .. } => matches!(phase, TripPhase::Ended(_)),
        other => matches!(other, ToDriver::Release),
    };
    is_end || message.binds()
}

impl<P: Platform> Shard<P> {
    /// Whether what is said to a driver waits for its seat here. Not if it has connected elsewhere since.
    pub(super) fn is_arriving(&mut self, driver_id: &DriverId) -> bool {
        let Some(routing) = &mut self.routing else { return false };
        let Some(arriving) = routing.arriving.get(driver_id) else {
            return false;
        };
        let newest = arriving.waiting.iter().map(|waiting| waiting.session).max();
        let is_older = |place: Place| place.peer.is_some() && newest < Some(place.session);
        arriving.claims > 0 || !routing.places.get(driver_id).is_some_and(is_older)
    }

    /// Keeps a view of a driver until it has its seat here, as nobody knows before how it stands. Gives it back if the driver does not
    /// arrive.
    pub(super) fn keep_view(&mut self, driver_id: &DriverId, reply: ReplyTo) -> Option<ReplyTo> {
        let is_arriving = self.is_arriving(driver_id);
        match self
            .routing
            .as_mut()
            .and_then(|routing| routing.arriving.get_mut(driver_id))
        {
            Some(arriving) if is_arriving => {
                arriving.views.push(reply);
                None
            }
            _ => Some(reply),
        }
    }

    /// The registry is asked for the session of a connect.
    pub(in crate::shard) fn arrival_begins(&mut self, driver_id: &DriverId) {
        if let Some(routing) = &mut self.routing {
            routing.arriving.entry(driver_id.clone()).or_default().claims += 1;
        }
    }

    /// The registry has answered. True: the connect waits for what a request has to say, and is seated later.
    pub(in crate::shard) fn arrival_waits(
        &mut self,
        conn: ConnId,
        driver_id: &DriverId,
        session: u64,
        previous: Option<Box<Previous>>,
    ) -> bool {
        let Some(routing) = &self.routing else {
            return false;
        };
        let (mut awaits_left, mut is_cut) = (0, false);
        let (mut awaits_requests, mut at_hand) = (Vec::new(), None);
        if let Some(previous) = previous {
            at_hand = previous.at_hand;
            let peer = routing.links.peers().number_of(&previous.node_id);
            if let Some(peer) = peer.filter(|peer| *peer != 0) {
                awaits_left = self.tell_moved(peer, driver_id, session);
                is_cut = awaits_left == 0;
            }
            if peer != Some(0) {
                awaits_requests.extend(self.was_elsewhere(driver_id, previous.session));
            }
        }
        let waiting = Waiting {
            conn,
            session,
            awaits_left,
            had_session: 0,
            awaits_requests,
            until_ms: self.now_ms + WELCOME_MAX_MS,
        };
        self.arrival_asks(driver_id, waiting, at_hand, is_cut)
    }

    /// The registry cannot say: all nodes are asked. True: the connect waits for that, and is seated later.
    pub(in crate::shard) fn arrival_asks_all(&mut self, conn: ConnId, driver_id: &DriverId) -> bool {
        let had_session = self.session_here(driver_id).max(1);
        let now_us = self.now_us;
        let (Some(routing), Some(fleet)) = (&self.routing, &mut self.fleet) else {
            return false;
        };
        let peers = routing.links.peers().numbers();
        let session = fleet.next_session(now_us);
        let others = peers.clone().count();
        let awaits_left = peers.map(|peer| self.tell_moved(peer, driver_id, session)).sum();
        let waiting = Waiting {
            conn,
            session,
            awaits_left,
            had_session,
            awaits_requests: Vec::new(),
            until_ms: self.now_ms + WELCOME_MAX_MS,
        };
        self.arrival_asks(driver_id, waiting, None, awaits_left < others)
    }

    /// Tells a node that one of its drivers is here, perhaps; how many answers come soon.
    fn tell_moved(&mut self, peer: u16, driver_id: &DriverId, session: u64) -> usize {
        let is_up = (self.routing.as_ref()).is_some_and(|routing| routing.links.peers().is_up(peer));
        let driver_id = driver_id.clone();
        // If it is not taken, that node is told by the registry.
        let is_told = self.send_far(peer, LinkLetter::Moved { driver_id, session }).is_ok();
        usize::from(is_told && is_up)
    }

    /// Asks the request that binds a driver, as far as that is known, how it stands. `is_cut`: who may know more cannot be asked.
    fn arrival_asks(
        &mut self,
        driver_id: &DriverId,
        mut waiting: Waiting,
        at_hand: Option<(RequestId, CompactString)>,
        is_cut: bool,
    ) -> bool {
        let session = waiting.session;
        let own = self.config.node_id.clone();
        let known = self.drivers.find(driver_id);
        let known = known.and_then(|key| self.drivers.slab[key as usize].driver.at_hand().cloned());
        // What is remembered here may be newer than what the registry has, and may be over.
        let given = self.given_to(driver_id).map(|request_id| (request_id, own.clone()));
        let mut asked = known.into_iter().collect::<Vec<_>>();
        let mut is_unsaid = false;
        for (request_id, owner) in given.chain(at_hand) {
            if asked.contains(&request_id) {
                continue;
            }
            asked.push(request_id.clone());
            if self.ask_owner(driver_id, session, &request_id, &owner) {
                waiting.awaits_requests.push(request_id);
            } else {
                is_unsaid = true;
            }
        }
        if is_cut || is_unsaid {
            self.note_late(driver_id, session);
        }
        let arriving = (self.routing.as_mut()).and_then(|routing| routing.arriving.get_mut(driver_id));
        let Some(arriving) = arriving.filter(|_| !waiting.is_over()) else {
            return false;
        };
        arriving.claims -= 1;
        let until_ms = waiting.until_ms;
        arriving.waiting.push(waiting);
        self.wake_at(until_ms);
        true
    }

    /// The node that had the driver says what bound it there.
    pub(super) fn arrival_left(&mut self, driver_id: &DriverId, session: u64, left: Left) {
        let is_said = |arriving: &Arriving, request_id: &RequestId| {
            let is_asked = |waiting: &Waiting| waiting.awaits_requests.contains(request_id);
            arriving.letters.iter().any(|said| said.request_id == *request_id) || arriving.waiting.iter().any(is_asked)
        };
        let Left {
            had_session,
            bound,
            off_shift_since_ms,
        } = left;
        let arriving = (self.routing.as_mut()).and_then(|routing| routing.arriving.get_mut(driver_id));
        let Some(arriving) = arriving.filter(|arriving| arriving.waiting.iter().any(|one| one.session == session))
        else {
            return self.left_late(driver_id, session, bound);
        };
        let unasked = bound.filter(|(request_id, _)| !is_said(arriving, request_id));
        let mut is_news = false;
        for waiting in arriving.waiting.iter_mut().filter(|one| one.session == session) {
            waiting.awaits_left = waiting.awaits_left.saturating_sub(1);
            is_news = had_session >= waiting.had_session;
            waiting.had_session = waiting.had_session.max(had_session);
        }
        let (mut stale, mut asked) = (None, None);
        if is_news {
            stale = self.was_elsewhere(driver_id, had_session);
            // After what is here of it has gone, which remembers its own shift.
            self.learn_off_shift(driver_id, off_shift_since_ms);
            asked = unasked.filter(|(request_id, owner)| self.ask_owner(driver_id, session, request_id, owner));
        }
        let arriving = (self.routing.as_mut()).and_then(|routing| routing.arriving.get_mut(driver_id));
        let Some(waiting) =
            arriving.and_then(|arriving| arriving.waiting.iter_mut().find(|one| one.session == session))
        else {
            return;
        };
        let asked = asked.map(|(request_id, _)| request_id);
        waiting.awaits_requests.extend(asked.into_iter().chain(stale));
        if waiting.is_over() {
            self.welcome(driver_id);
        }
    }

    /// Another node has had the driver since this one did: what binds it here may be over, and says so when it is asked. Gives the
    /// request that was.
    fn was_elsewhere(&mut self, driver_id: &DriverId, had_session: u64) -> Option<RequestId> {
        if had_session <= self.session_here(driver_id) {
            return None;
        }
        let key = self.drivers.find(driver_id)?;
        let bound = self.drivers.slab[key as usize].driver.at_hand().cloned();
        self.driver_moved(driver_id, had_session);
        bound
    }

    /// Asks a request how it stands with a driver who has come here; false: nobody answers soon.
    fn ask_owner(&mut self, driver_id: &DriverId, session: u64, request_id: &RequestId, owner: &str) -> bool {
        let (driver_id, request_id) = (driver_id.clone(), request_id.clone());
        let peers = self.routing.as_ref().map(|routing| routing.links.peers());
        let Some(peer) = peers.and_then(|peers| peers.number_of(owner)) else {
            return false;
        };
        if peer == 0 {
            self.post_to_request(request_id, here(&driver_id, None));
            return true;
        }
        let is_up = peers.is_some_and(|peers| peers.is_up(peer));
        let letter = LinkLetter::DriverHere {
            driver_id,
            session,
            request_id,
        };
        self.send_far(peer, letter).is_ok() && is_up
    }

    /// A request speaks to a driver who is about to be here.
    pub(super) fn tell_arriving(&mut self, peer: u16, driver_id: &DriverId, request_id: RequestId, message: ToDriver) {
        let Some(arriving) = (self.routing.as_mut()).and_then(|routing| routing.arriving.get_mut(driver_id)) else {
            return;
        };
        let mut is_over = false;
        for waiting in arriving.waiting.iter_mut().filter(|_| says_how_it_stands(&message)) {
            waiting.awaits_requests.retain(|awaited| *awaited != request_id);
            is_over |= waiting.is_over();
        }
        arriving.letters.push(Said {
            peer,
            request_id,
            message,
        });
        if is_over {
            self.welcome(driver_id);
        }
    }

    /// Seats whoever waits: what binds the driver first, so that its `WELCOME` shows it.
    fn welcome(&mut self, driver_id: &DriverId) {
        let Some(arriving) = (self.routing.as_mut()).and_then(|routing| routing.arriving.get_mut(driver_id)) else {
            return;
        };
        let mut waiting = std::mem::take(&mut arriving.waiting);
        let binding: Vec<Said> = arriving.letters.extract_if(.., |said| said.message.binds()).collect();
        for Said {
            peer,
            request_id,
            message,
        } in binding
        {
            self.tell_driver_here(peer, driver_id, request_id, message, None);
        }
        waiting.sort_by_key(|waiting| waiting.session);
        for waiting in waiting {
            if !waiting.is_over() {
                self.note_late(driver_id, waiting.session);
            }
            let Waiting { conn, session, .. } = waiting;
            match self.connections.take(conn) {
                Conn::Claiming(claiming) if claiming.id == conn => self.seat(conn, claiming.handshake, Some(session)),
                // The socket is gone.
                other => self.connections.set(conn, other),
            }
        }
        self.arrival_settles(driver_id);
    }

    /// A connect gets its seat before all is known that may bind its driver.
    fn note_late(&mut self, driver_id: &DriverId, session: u64) {
        let until_ms = self.now_ms + LATE_MAX_MS;
        if let Some(routing) = &mut self.routing {
            // What it said before is still to be answered.
            let words = (routing.late.remove(driver_id)).map_or_else(Vec::new, |late| late.words);
            let late = Late {
                session,
                until_ms,
                words,
            };
            routing.late.insert(driver_id.clone(), late);
            routing.sweep_at_ms = 0;
        }
    }

    /// What bound a driver at its last node is said when the driver has its seat.
    fn left_late(&mut self, driver_id: &DriverId, session: u64, bound: Option<(RequestId, CompactString)>) {
        let late = self.routing.as_ref().and_then(|routing| routing.late.get(driver_id));
        if let (Some(_), Some((request_id, owner))) = (late.filter(|late| late.session == session), bound) {
            self.ask_owner(driver_id, session, &request_id, &owner);
        }
    }

    /// A driver here speaks of a request of which nobody knows: when it came just now, that may be said soon. Gives the
    /// words back if not.
    pub(super) fn keep_late_words(&mut self, driver_id: &DriverId, words: Letter) -> Option<Letter> {
        match self
            .routing
            .as_mut()
            .and_then(|routing| routing.late.get_mut(driver_id))
        {
            Some(late) => {
                late.words.push(words);
                None
            }
            None => Some(words),
        }
    }

    /// Something was said to a driver: what it said itself may be understood now.
    pub(super) fn say_late_words(&mut self, driver_id: &DriverId) {
        let late = self
            .routing
            .as_mut()
            .and_then(|routing| routing.late.get_mut(driver_id));
        for words in late.map(|late| std::mem::take(&mut late.words)).unwrap_or_default() {
            if let Letter::Request { request_id, .. } = &words {
                self.post(home_of_request(request_id, self.shards), words);
            }
        }
    }

    /// What was not said by now is not.
    pub(super) fn give_up_late(&mut self) {
        let now_ms = self.now_ms;
        let Some(routing) = &mut self.routing else { return };
        let over: Vec<Late> = (routing.late.extract_if(|_, late| late.until_ms <= now_ms))
            .map(|(_, late)| late)
            .collect();
        for words in over.into_iter().flat_map(|late| late.words) {
            if let Letter::Request { request_id, .. } = &words {
                self.post(home_of_request(request_id, self.shards), words);
            }
        }
    }

    /// A connect has its seat, or is gone.
    pub(in crate::shard) fn arrival_ends(&mut self, driver_id: &DriverId) {
        let arriving = (self.routing.as_mut()).and_then(|routing| routing.arriving.get_mut(driver_id));
        if let Some(arriving) = arriving {
            arriving.claims -= 1;
            self.arrival_settles(driver_id);
        }
    }

    /// When nobody is on the way any more, the driver hears what was said meanwhile.
    fn arrival_settles(&mut self, driver_id: &DriverId) {
        let Some(routing) = &mut self.routing else { return };
        let is_settled = |arriving: &Arriving| arriving.claims == 0 && arriving.waiting.is_empty();
        if !routing.arriving.get(driver_id).is_some_and(is_settled) {
            return;
        }
        let Arriving { letters, views, .. } = routing.arriving.remove(driver_id).unwrap_or_default();
        let now_ms = self.now_ms;
        let in_time = letters.into_iter().filter(|said| !is_over(&said.message, now_ms));
        for Said {
            peer,
            request_id,
            message,
        } in in_time
        {
            self.tell_driver_here(peer, driver_id, request_id, message, None);
        }
        for reply in views {
            self.far_driver_view(driver_id.clone(), reply);
        }
    }

    /// Seats those who have waited long enough.
    pub(super) fn welcome_overdue(&mut self) {
        let now_ms = self.now_ms;
        let Some(routing) = &self.routing else { return };
        let is_due = |arriving: &Arriving| arriving.waiting.iter().any(|waiting| waiting.until_ms <= now_ms);
        let due: Vec<DriverId> = (routing.arriving.iter())
            .filter(|(_, arriving)| is_due(arriving))
            .map(|(driver_id, _)| driver_id.clone())
            .collect();
        for driver_id in due {
            self.welcome(&driver_id);
        }
    }
}
