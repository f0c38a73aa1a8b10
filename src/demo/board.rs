//! What the matching engine believes about the drivers: where they are and whether they are free. Its own view, not the
//! node's: it learns from its offers and from the event stream, and is sometimes wrong, as matching engines are.

use super::city::Place;
use super::messages::Id;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// One driver, as believed.
#[derive(Clone, Debug, PartialEq)]
struct Known {
    id: Id,
    place: Place,
    on_trip: bool,
    /// Probably holds an offer until then (time of the demo).
    held_until: Duration,
}

/// All drivers.
#[derive(Debug)]
pub struct Board {
    drivers: Vec<Known>,
    by_id: BTreeMap<Id, usize>,
}

impl Board {
    /// A board on which everybody is free.
    pub fn new(drivers: &[(Id, Place)]) -> Self {
        let known = |(id, place): &(Id, Place)| Known {
            id: Id::clone(id),
            place: *place,
            on_trip: false,
            held_until: Duration::ZERO,
        };
        Self {
            drivers: drivers.iter().map(known).collect(),
            by_id: drivers.iter().map(|(id, _)| Id::clone(id)).zip(0..).collect(),
        }
    }

    /// Up to `most` drivers for a pickup, the nearest first: free ones, or, when there are none, those that hold an offer
    /// and may be free soon. Never one of `excluded`, never one on a trip.
    pub fn nearest(&self, pickup: Place, most: usize, excluded: &BTreeSet<Id>, now: Duration) -> Vec<Id> {
        let eligible = |known: &&Known| !known.on_trip && !excluded.contains(&known.id);
        let rank = |free: bool| {
            let mut ranked: Vec<(f64, &Known)> = self
                .drivers
                .iter()
                .filter(eligible)
                .filter(|known| (known.held_until <= now) == free)
                .map(|known| (known.place.distance_squared(pickup), known))
                .collect();
            ranked.sort_by(|(left, a), (right, b)| left.total_cmp(right).then_with(|| a.id.cmp(&b.id)));
            ranked
        };
        let mut ranked = rank(true);
        if ranked.is_empty() {
            ranked = rank(false);
        }
        ranked
            .into_iter()
            .take(most)
            .map(|(_, known)| Id::clone(&known.id))
            .collect()
    }

    /// The driver was probably offered something, until `until`.
    pub fn hold(&mut self, driver: &str, until: Duration) {
        if let Some(known) = self.known(driver) {
            known.held_until = known.held_until.max(until);
        }
    }

    /// The driver has a trip.
    pub fn began_trip(&mut self, driver: &str) {
        if let Some(known) = self.known(driver) {
            known.on_trip = true;
        }
    }

    /// The driver's trip is over, at this place if it is known.
    pub fn ended_trip(&mut self, driver: &str, place: Option<Place>) {
        if let Some(known) = self.known(driver) {
            known.on_trip = false;
            known.held_until = Duration::ZERO;
            known.place = place.unwrap_or(known.place);
        }
    }

    fn known(&mut self, driver: &str) -> Option<&mut Known> {
        let index = *self.by_id.get(driver)?;
        self.drivers.get_mut(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Place = Place { lat: 40.7, lon: -74.0 };

    fn board() -> Board {
        let at = |name: &str, north: f64| {
            (
                Id::from(name),
                Place {
                    lat: HERE.lat + north,
                    lon: HERE.lon,
                },
            )
        };
        Board::new(&[at("far", 0.3), at("near", 0.1), at("middle", 0.2)])
    }

    fn check(board: &Board, excluded: &[&str], now_s: u64, expect: &[&str]) {
        let excluded = excluded.iter().map(|id| Id::from(*id)).collect();
        let found = board.nearest(HERE, 2, &excluded, Duration::from_secs(now_s));
        let found: Vec<&str> = found.iter().map(|id| &**id).collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn the_nearest_free_ones_come_first() {
        let mut board = board();
        check(&board, &[], 0, &["near", "middle"]);
        check(&board, &["near"], 0, &["middle", "far"]);
        board.began_trip("near");
        check(&board, &[], 0, &["middle", "far"]);
        let dropoff = Place { lat: 41.5, ..HERE };
        board.ended_trip("near", Some(dropoff));
        check(&board, &[], 0, &["middle", "far"]);
        check(&board, &["far"], 0, &["middle", "near"]);
    }

    #[test]
    fn those_who_hold_an_offer_are_a_last_resort() {
        let mut board = board();
        board.hold("near", Duration::from_secs(5));
        check(&board, &[], 4, &["middle", "far"]);
        check(&board, &[], 5, &["near", "middle"]);
        check(&board, &["middle", "far"], 4, &["near"]);
        board.began_trip("near");
        check(&board, &["middle", "far"], 4, &[]);
    }
}
