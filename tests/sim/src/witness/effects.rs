//! What drivers say on a socket that lives to the end has its effect: nothing that was said on it is lost, and no crash
//! came after it.

use super::audits::Life;
use super::state::Moved;
use super::{SLACK_US, Witness};
use crate::checks::{About, Check};
use crate::ids::{Driver, Trip};
use crate::words::Move;

impl Witness {
    /// The driver says this of its own trip.
    pub(super) fn moved(&mut self, driver: Driver, conn: u32, trip: Trip, event: Move) {
        let (at_us, own) = (self.now_us, self.trip_seen(trip).driver == Some(driver));
        if let Some(socket) = self.socket(driver, conn).filter(|_| own) {
            socket.moved.push(Moved { trip, event, at_us });
        }
    }

    /// At the end: trips have moved as their drivers said.
    pub(super) fn check_effects(&mut self, lives: &[Option<Life>]) {
        for driver in 0..self.drivers.len() as Driver {
            let sockets = self.drivers[driver as usize].sockets.clone();
            for socket in sockets
                .iter()
                .filter(|socket| socket.session.is_some() && !socket.stalled)
            {
                for moved in &socket.moved {
                    self.check_moved(driver, *moved, lives);
                }
            }
        }
    }

    fn check_moved(&mut self, driver: Driver, moved: Moved, lives: &[Option<Life>]) {
        let Some(request) = self.trip_seen(moved.trip).request else {
            return;
        };
        let life = lives[request as usize].as_ref();
        let Some(trip) = life.and_then(|life| life.trip).filter(|trip| trip.trip == moved.trip) else {
            return;
        };
        let done = match moved.event {
            Move::Arrived => true,
            Move::Pickup => trip.picked_up_at_ms.is_some() || trip.ended.is_some(),
            Move::Complete | Move::Cancel => trip.ended.is_some(),
        };
        let in_time = moved.at_us + SLACK_US > self.now_us;
        if !self.holds(Check::Answered, done || in_time) {
            let text = format!(
                "d{driver} said {} of trip {}, and the trip is {trip:?}",
                moved.event.as_str(),
                moved.trip
            );
            self.violate(Check::Answered, About::both(request, driver), text);
        }
    }
}
