//! Drivers of one load process: where they are, and who is free.
#![forbid(unsafe_code)]

use crate::message::TripId;

/// No request.
pub const NO_REQUEST: u32 = u32::MAX;
/// Not in a list of free drivers.
const NOWHERE: u32 = u32::MAX;

/// What a driver is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Nothing.
    Free,
    /// Holds an offer and has not answered.
    Holding,
    /// Has accepted and has not heard the outcome.
    Accepting,
    /// On the way to the passenger.
    EnRoute,
    /// With the passenger.
    OnTrip,
}

/// One driver.
#[derive(Debug)]
pub struct Person {
    /// What it is about.
    pub work: Work,
    /// Its WebSocket is open and welcomed.
    pub connected: bool,
    /// A request has it among its candidates.
    pub reserved: bool,
    /// The request of its offer or trip.
    pub request: u32,
    /// The attempt of its offer.
    pub attempt: u32,
    /// Its trip.
    pub trip: TripId,
    /// Where it is.
    pub zone: u16,
    /// When its last answer was due, ns.
    pub answer_ns: u64,
    /// When it began to connect again, ns.
    pub connect_ns: u64,
    /// Timers with another number are void.
    pub generation: u32,
    spot: u32,
}

/// All drivers, and for each zone those who are free.
pub struct People {
    people: Vec<Person>,
    free: Vec<Vec<u32>>,
}

impl People {
    /// Nobody is connected; everybody stands where `zone_of` says.
    pub fn new(count: u32, zones: usize, mut zone_of: impl FnMut() -> u16) -> Self {
        let mut person = || Person {
            work: Work::Free,
            connected: false,
            reserved: false,
            request: NO_REQUEST,
            attempt: 0,
            trip: TripId::NONE,
            zone: zone_of(),
            answer_ns: 0,
            connect_ns: 0,
            generation: 0,
            spot: NOWHERE,
        };
        Self {
            people: std::iter::repeat_with(&mut person).take(count as usize).collect(),
            free: vec![Vec::new(); zones],
        }
    }

    /// A driver.
    pub fn get(&self, driver: u32) -> &Person {
        &self.people[driver as usize]
    }

    /// Changes a driver; whether it is free follows.
    pub fn change<T>(&mut self, driver: u32, change: impl FnOnce(&mut Person) -> T) -> T {
        self.unlist(driver);
        let person = &mut self.people[driver as usize];
        let result = change(person);
        if person.connected && !person.reserved && person.work == Work::Free {
            let list = &mut self.free[usize::from(person.zone)];
            person.spot = list.len() as u32;
            list.push(driver);
        }
        result
    }

    fn unlist(&mut self, driver: u32) {
        let person = &mut self.people[driver as usize];
        let spot = std::mem::replace(&mut person.spot, NOWHERE);
        if spot == NOWHERE {
            return;
        }
        let list = &mut self.free[usize::from(person.zone)];
        let removed = list.swap_remove(spot as usize);
        assert_eq!(removed, driver, "a driver stands where it says");
        if let Some(moved) = list.get(spot as usize) {
            self.people[*moved as usize].spot = spot;
        }
    }

    /// Up to `count` free drivers, those of the first zones first; they are reserved.
    pub fn reserve(&mut self, zones: &[u16], count: usize) -> Vec<u32> {
        let mut chosen = Vec::with_capacity(count);
        for zone in zones {
            while chosen.len() < count
                && let Some(driver) = self.free[usize::from(*zone)].last().copied()
            {
                self.change(driver, |person| person.reserved = true);
                chosen.push(driver);
            }
            if chosen.len() == count {
                break;
            }
        }
        chosen
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        self.people.len() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_free_drivers_are_reserved_once() {
        let mut zones = [0, 0, 1, 1, 1].into_iter();
        let mut people = People::new(5, 2, || zones.next().unwrap());
        assert!(people.reserve(&[0, 1], 2).is_empty());
        for driver in 0..5 {
            people.change(driver, |person| person.connected = true);
        }
        let first = people.reserve(&[1, 0], 4);
        assert_eq!(first, [4, 3, 2, 1]);
        assert_eq!(people.reserve(&[1, 0], 4), [0]);
        people.change(3, |person| (person.reserved, person.zone) = (false, 0));
        assert_eq!(people.reserve(&[0, 1], 4), [3]);
        people.change(3, |person| (person.reserved, person.work) = (false, Work::OnTrip));
        assert!(people.reserve(&[0, 1], 4).is_empty());
    }
}
