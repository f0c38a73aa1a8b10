//! Who inherits what recovery found.

use crate::fsm::ids::{DriverId, home_shard};
use crate::fsm::request::{Request, RequestEffect, ToDriver};
use crate::fsm::types::UnixMs;
use crate::shard::{Inheritance, is_over};

/// What each of `shards` shards inherits: the requests at home there, and what its drivers have to know.
pub(super) fn distribute(
    live: Vec<Request>,
    off_shift: Vec<(DriverId, u64)>,
    shards: u16,
    now_ms: u64,
) -> Vec<Inheritance> {
    let mut heirs: Vec<Inheritance> = (0..shards).map(|_| Inheritance::default()).collect();
    let mut bindings = Vec::new();
    for request in live {
        let mut effects = Vec::new();
        request.rebind(&mut effects);
        for effect in effects {
            let RequestEffect::Driver { driver_id, message } = effect else {
                continue;
            };
            if !is_over(&message, now_ms) {
                bindings.push((sent_at_ms(&request, &message), driver_id, request.id().clone(), message));
            }
        }
        let home = usize::from(home_shard(request.id().hash64(), shards));
        heirs[home].requests.push(request);
    }
    // Of two offers to one driver that no journal knows as delivered, it holds the one that was sent first; the other was about to be
    // refused. The journals of two shards have no order but time.
    bindings.sort_by_key(|(sent_at_ms, ..)| *sent_at_ms);
    for (_, driver_id, request_id, message) in bindings {
        let home = usize::from(home_shard(driver_id.hash64(), shards));
        heirs[home].bindings.push((driver_id, request_id, message));
    }
    for (driver_id, since_ms) in off_shift {
        let home = usize::from(home_shard(driver_id.hash64(), shards));
        heirs[home].off_shift.push((driver_id, since_ms));
    }
    heirs
}

/// When the offer of this message was sent; a trip comes before all offers.
fn sent_at_ms(request: &Request, message: &ToDriver) -> UnixMs {
    match message {
        ToDriver::Offer { attempt, .. } => request.fold().attempt(*attempt).map_or(0, |made| made.sent_at_ms),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fsm::fold::TripPhase;
    use crate::fsm::ids::{RequestId, TripId};
    use crate::fsm::types::{Channel, LogEntry, Priority, RequestLog, Step};

    const NOW_MS: u64 = 1_700_000_000_000;

    fn driver() -> DriverId {
        DriverId::parse("d1").unwrap()
    }

    /// A request whose offer to `d1` was sent so long ago, as the journal has it; `won`: and was accepted.
    fn offered(id: &str, ago_ms: u64, won: bool) -> Request {
        let request_id = RequestId::parse(id).unwrap();
        let trip_id = TripId::for_request(&request_id, NOW_MS);
        let mut steps = vec![
            Step::Received {
                priority: Priority::Standard,
                deadline_at_ms: NOW_MS + 60_000,
                offer_timeout_ms: 8_000,
                max_attempts: None,
                parallel: 1,
                busy_wait_ms: 0,
                candidates: vec![driver()],
                trip: "{}".into(),
            },
            Step::OfferSent {
                attempt: 1,
                driver_id: driver(),
                expires_at_ms: NOW_MS + 8_000 - ago_ms,
            },
        ];
        if won {
            steps.push(Step::Accepted {
                attempt: 1,
                channel: Channel::WebSocket,
            });
            steps.push(Step::TripCreated {
                trip_id,
                driver_id: driver(),
            });
        }
        let at_ms = NOW_MS - ago_ms;
        let log = steps.into_iter().map(|step| LogEntry { at_ms, step }).collect();
        Request::restored(RequestLog { request_id, log }).expect("a log that a request writes")
    }

    /// Whose words the driver hears, in order.
    fn told(live: Vec<Request>) -> Vec<(String, bool)> {
        let heirs = distribute(live, Vec::new(), 4, NOW_MS);
        let home = usize::from(home_shard(driver().hash64(), 4));
        let told = heirs[home].bindings.iter();
        told.map(|(_, request_id, message)| {
            let is_trip = matches!(
                message,
                ToDriver::Bound {
                    phase: TripPhase::EnRoute,
                    ..
                }
            );
            (request_id.to_string(), is_trip)
        })
        .collect()
    }

    /// Of two offers to one driver the later one was about to be refused: the driver hears of the one that it holds first,
    /// whatever their ids, and of a trip before both.
    #[test]
    fn a_driver_hears_first_what_was_sent_first() {
        let offer = |id: &str| (id.to_owned(), false);
        let live = vec![offered("a", 10, false), offered("z", 20, false)];
        assert_eq!(told(live), [offer("z"), offer("a")]);
        let live = vec![offered("a", 10, false), offered("b", 10, false), offered("z", 5, true)];
        assert_eq!(told(live), [("z".to_owned(), true), offer("a"), offer("b")]);
    }
}
