//! What is on its way over the network. The pieces of one direction of a connection arrive in order, so that only the
//! first of them stands in the queue of events; the others wait behind it.

use super::machine::{Agenda, Event, Piece};

const NONE: u32 = u32::MAX;

/// A piece on its way.
struct Flight {
    /// When it arrives.
    at_us: u64,
    /// Its number among all that was planned.
    planned: u64,
    piece: Piece,
    /// The one behind it; of a place that is free, the next one.
    next: u32,
}

/// One direction of a connection.
pub(super) struct Way {
    first: u32,
    last: u32,
    /// When the last piece arrives.
    last_us: u64,
}

impl Way {
    pub(super) fn new(now_us: u64) -> Self {
        Self {
            first: NONE,
            last: NONE,
            last_us: now_us,
        }
    }
}

/// All that is on its way, in one piece of memory.
pub(super) struct Flights {
    places: Vec<Flight>,
    free: u32,
}

impl Default for Flights {
    fn default() -> Self {
        Self {
            places: Vec::new(),
            free: NONE,
        }
    }
}

impl Flights {
    /// A piece sets out, and arrives at `at_us` or together with the one before it; `event` says so.
    pub(super) fn send(&mut self, way: &mut Way, agenda: &mut Agenda, at_us: u64, piece: Piece, event: Event) {
        way.last_us = way.last_us.max(at_us);
        let planned = agenda.number();
        let place = self.take(Flight {
            at_us: way.last_us,
            planned,
            piece,
            next: NONE,
        });
        if way.first == NONE {
            way.first = place;
            agenda.plan_numbered(way.last_us, planned, event);
        } else {
            self.places[way.last as usize].next = place;
        }
        way.last = place;
    }

    /// Takes the piece that arrives now; the one behind it is the first then, and `event` says when that arrives.
    pub(super) fn land(&mut self, way: &mut Way, agenda: &mut Agenda, event: Event) -> Piece {
        let place = way.first;
        let landed = &mut self.places[place as usize];
        let piece = std::mem::replace(&mut landed.piece, Piece::Open);
        let planned = landed.planned;
        way.first = std::mem::replace(&mut landed.next, self.free);
        self.free = place;
        if way.first != NONE {
            let next = &self.places[way.first as usize];
            agenda.go_on(planned, next.at_us, next.planned, event);
        }
        piece
    }

    /// As [`Self::land`], for a piece behind one that has just landed, if nothing comes between the two.
    pub(super) fn land_next(&mut self, way: &mut Way, agenda: &mut Agenda, event: Event) -> Option<Piece> {
        agenda.take_at_once().then(|| self.land(way, agenda, event))
    }

    fn take(&mut self, flight: Flight) -> u32 {
        if self.free == NONE {
            self.places.push(flight);
            return self.places.len() as u32 - 1;
        }
        let place = self.free;
        self.free = std::mem::replace(&mut self.places[place as usize], flight).next;
        place
    }
}
