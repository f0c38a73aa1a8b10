//! Who inherits what recovery found.

use crate::fsm::ids::{DriverId, home_shard};
use crate::fsm::request::{Request, RequestEffect};
use crate::shard::{Inheritance, is_over};

/// What each of `shards` shards inherits: the requests at home there, and what its drivers have to know.
pub(super) fn distribute(
    live: Vec<Request>,
    off_shift: Vec<(DriverId, u64)>,
    shards: u16,
    now_ms: u64,
) -> Vec<Inheritance> {
    let mut heirs: Vec<Inheritance> = (0..shards).map(|_| Inheritance::default()).collect();
    for request in live {
        let mut effects = Vec::new();
        request.rebind(&mut effects);
        for effect in effects {
            let RequestEffect::Driver { driver_id, message } = effect else {
                continue;
            };
            if !is_over(&message, now_ms) {
                let home = usize::from(home_shard(driver_id.hash64(), shards));
                heirs[home].bindings.push((driver_id, request.id().clone(), message));
            }
        }
        let home = usize::from(home_shard(request.id().hash64(), shards));
        heirs[home].requests.push(request);
    }
    for (driver_id, since_ms) in off_shift {
        let home = usize::from(home_shard(driver_id.hash64(), shards));
        heirs[home].off_shift.push((driver_id, since_ms));
    }
    heirs
}
