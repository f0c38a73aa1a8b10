//! Shifts: a driver that was told that it is off shift stays so until it says otherwise.
//!
//! Judged on a driver's newest socket alone, and only where nothing that it said may still be on its way: what it says on
//! an older one is no longer heard once the newer one is welcomed. A shift lasts longer than any run.

use super::Witness;
use crate::checks::{About, Check};
use crate::ids::Driver;
use crate::words::DriverState;

impl Witness {
    /// The driver says that it goes off shift.
    pub(super) fn off_said(&mut self, driver: Driver) {
        let now_ms = self.node_ms_at(self.now_us);
        let seen = &mut self.drivers[driver as usize];
        seen.off_said = true;
        seen.first_off_ms.get_or_insert(now_ms);
    }

    /// The driver says that it is available: from here on nothing is known of its shift.
    pub(super) fn on_said(&mut self, driver: Driver, conn: u32) {
        self.drivers[driver as usize].off_told = false;
        if let Some(socket) = self.socket(driver, conn) {
            socket.on_said = true;
        }
    }

    /// Whether the driver was told that it is off shift, and has not said otherwise since; as far as its newest socket can
    /// say.
    pub(super) fn is_off_shift(&mut self, driver: Driver, conn: u32) -> bool {
        let seen = &self.drivers[driver as usize];
        let (opened, off) = (seen.opened, seen.off_told);
        let newest = self.socket(driver, conn).filter(|socket| socket.number == opened);
        off && newest.is_some_and(|socket| !socket.on_said)
    }

    /// The driver is told this state, by a `WELCOME` or a `STATE`.
    pub(super) fn shift_told(&mut self, driver: Driver, conn: u32, state: DriverState) {
        let opened = self.drivers[driver as usize].opened;
        let newest = self.socket(driver, conn).filter(|socket| socket.number == opened);
        let Some(on_said) = newest.map(|socket| socket.on_said) else {
            return;
        };
        let seen = &mut self.drivers[driver as usize];
        match state {
            DriverState::Offline if !on_said => seen.off_told = true,
            DriverState::Available => {
                let off = seen.off_told;
                if !self.holds(Check::ConfirmedKept, !off) {
                    let text = format!("d{driver} was told that it is offline, said nothing since, and is available");
                    self.violate(Check::ConfirmedKept, About::driver(driver), text);
                }
            }
            _ => {}
        }
    }
}
