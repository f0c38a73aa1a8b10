//! Invariant 6: premium before standard before economy in a driver's queue, first come first served inside a class.

use super::Verdict;
use crate::demo::observe::ClassRound;

/// Each round: who was served first, second, … against who should have been. Nobody may be left out: the queue ends, so
/// every class gets its turn.
pub fn class_order(rounds: &[ClassRound], verdict: &mut Verdict) {
    for round in rounds {
        let mut expected: Vec<_> = round.waited.iter().collect();
        // Stable: inside a class the order of arrival stays.
        expected.sort_by_key(|(class, _)| *class);
        for (place, (class, request)) in expected.into_iter().enumerate() {
            let served = round.served.get(place);
            verdict.check(served == Some(request), || {
                format!(
                    "{}: place {} is {request}'s (class {class}), {served:?} was served",
                    round.driver,
                    place + 1
                )
            });
        }
    }
}
