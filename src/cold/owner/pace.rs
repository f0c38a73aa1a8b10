//! How many conditional writes and serial reads are under way at once: as many as Cassandra answers in good time.
//!
//! A store that is slower than what is asked of it, and asked again for each answer that came too late, does little but work that
//! nobody waits for any more, and goes on so when the load is as it was before (measured: after six seconds without Cassandra, 15
//! requests a second kept it at two a second for fifty seconds). So each answer that takes more than half of its time makes the number
//! smaller by a quarter, once in such a time, and each faster one that had to wait for its turn makes it a little greater.

use super::port::Place;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};

/// So many are always allowed.
const LEAST: usize = 4;
/// At the start, before anything was measured.
const FIRST: usize = 16;

/// Seats whose number changes.
struct Seats {
    permits: Semaphore,
    state: Mutex<Owed>,
}

struct Owed {
    allowed: usize,
    /// Seats that are taken, and to be taken away when they are free.
    owed: usize,
}

/// A seat that is taken, until it is dropped.
pub(super) struct Seat<'a> {
    seats: &'a Seats,
    permit: Option<SemaphorePermit<'a>>,
}

impl Seats {
    fn new(allowed: usize) -> Self {
        Self {
            permits: Semaphore::new(allowed),
            state: Mutex::new(Owed { allowed, owed: 0 }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Owed> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn allowed(&self) -> usize {
        self.lock().allowed
    }

    fn set(&self, to: usize) {
        let mut state = self.lock();
        let fewer = state.allowed.saturating_sub(to);
        state.owed += fewer - self.permits.forget_permits(fewer);
        let more = to.saturating_sub(state.allowed);
        let forgiven = more.min(state.owed);
        state.owed -= forgiven;
        self.permits.add_permits(more - forgiven);
        state.allowed = to;
    }

    async fn take(&self) -> Seat<'_> {
        let permit = self.permits.acquire().await.expect("nobody closes it");
        Seat {
            seats: self,
            permit: Some(permit),
        }
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut state = self.seats.lock();
        if let (Some(owed), Some(permit)) = (state.owed.checked_sub(1), self.permit.take()) {
            state.owed = owed;
            permit.forget();
        }
    }
}

/// The present numbers, and who may go.
pub(super) struct Pace<P> {
    place: P,
    calls: Seats,
    /// New requests under way: half as many, so that what is open goes first.
    newcomers: Seats,
    state: Mutex<State>,
    max: usize,
    /// An answer that took longer is a slow one.
    slow: Duration,
}

#[derive(Default)]
struct State {
    /// Fast answers since the number changed.
    fast: usize,
    lowered_at: Option<Duration>,
}

/// Leave for one call. How long it took is noted when it is dropped.
pub(super) struct Turn<'a, P: Place> {
    pace: &'a Pace<P>,
    began: Duration,
    /// Others were before it.
    waited: bool,
    _seat: Seat<'a>,
}

impl<P: Place> Pace<P> {
    /// At most `max` at once (1 at least), of calls that may take `timeout`.
    pub(super) fn new(place: P, max: usize, timeout: Duration) -> Self {
        let max = max.max(1);
        let allowed = FIRST.min(max);
        Self {
            place,
            calls: Seats::new(allowed),
            newcomers: Seats::new(half(allowed)),
            state: Mutex::default(),
            max,
            slow: timeout / 2,
        }
    }

    /// So many calls may be under way at once now.
    pub(super) fn allowed(&self) -> usize {
        self.calls.allowed()
    }

    /// Leave for one call, in the order in which it was asked for.
    pub(super) async fn turn(&self) -> Turn<'_, P> {
        let waited = self.calls.permits.available_permits() == 0;
        let seat = self.calls.take().await;
        Turn {
            pace: self,
            began: self.place.now(),
            waited,
            _seat: seat,
        }
    }

    /// Leave for a new request, until it is decided. It needs turns besides.
    pub(super) async fn newcomer(&self) -> Seat<'_> {
        self.newcomers.take().await
    }

    /// Cassandra does not answer at all: when it does again it is asked gently.
    pub(super) fn fell(&self) {
        self.lower(LEAST.min(self.max));
    }

    fn lower(&self, to: usize) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = State {
            fast: 0,
            lowered_at: Some(self.place.now()),
        };
        self.set(to);
    }

    fn set(&self, to: usize) {
        self.calls.set(to);
        self.newcomers.set(half(to));
    }

    fn ended(&self, took: Duration, waited: bool) {
        let allowed = self.allowed();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if took >= self.slow {
            let is_news = state
                .lowered_at
                .is_none_or(|at| self.place.now().saturating_sub(at) >= self.slow);
            drop(state);
            if is_news {
                self.lower((allowed * 3 / 4).max(LEAST.min(self.max)));
            }
        } else if waited && allowed < self.max {
            state.fast += 2;
            if state.fast >= allowed {
                state.fast = 0;
                self.set(allowed + 1);
            }
        }
    }
}

impl<P: Place> Drop for Turn<'_, P> {
    fn drop(&mut self) {
        let took = self.pace.place.now().saturating_sub(self.began);
        self.pace.ended(took, self.waited);
    }
}

const fn half(allowed: usize) -> usize {
    if allowed < 2 { 1 } else { allowed / 2 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    const SLOW: Duration = Duration::from_millis(500);

    /// Where no time goes by.
    #[derive(Clone)]
    struct Still;

    impl Place for Still {
        fn now(&self) -> Duration {
            Duration::ZERO
        }

        fn wall_us(&self) -> u64 {
            0
        }

        async fn sleep(&self, _time: Duration) {
            std::future::pending::<()>().await;
        }

        fn spawn(&self, _task: impl Future<Output = ()> + 'static) {}
    }

    fn pace(max: usize) -> Pace<Still> {
        Pace::new(Still, max, 2 * SLOW)
    }

    /// Takes all turns that there are.
    fn take_all(pace: &Pace<Still>) -> Vec<Turn<'_, Still>> {
        std::iter::from_fn(|| pace.turn().now_or_never()).collect()
    }

    #[test]
    fn slow_answers_make_it_fewer_and_what_is_under_way_counts() {
        let pace = pace(64);
        let turns = take_all(&pace);
        assert_eq!((turns.len(), pace.allowed()), (FIRST, FIRST));
        pace.ended(SLOW, true);
        // Once in a while only: they all come from one cause.
        pace.ended(SLOW, true);
        assert_eq!(pace.allowed(), FIRST * 3 / 4);
        drop(turns);
        assert_eq!(take_all(&pace).len(), FIRST * 3 / 4);
        pace.fell();
        assert_eq!((pace.allowed(), take_all(&pace).len()), (LEAST, LEAST));
    }

    #[test]
    fn fast_answers_make_it_more_as_far_as_somebody_waits() {
        let pace = pace(FIRST + 2);
        for _ in 0..1_000 {
            pace.ended(Duration::ZERO, false);
        }
        assert_eq!(pace.allowed(), FIRST);
        for _ in 0..FIRST / 2 {
            pace.ended(Duration::ZERO, true);
        }
        assert_eq!((pace.allowed(), take_all(&pace).len()), (FIRST + 1, FIRST + 1));
        for _ in 0..1_000 {
            pace.ended(Duration::ZERO, true);
        }
        assert_eq!((pace.allowed(), take_all(&pace).len()), (FIRST + 2, FIRST + 2));
    }

    #[test]
    fn a_number_that_grows_while_permits_are_owed_takes_none_twice() {
        let pace = pace(64);
        let turns = take_all(&pace);
        pace.fell();
        for _ in 0..LEAST / 2 {
            pace.ended(Duration::ZERO, true);
        }
        assert_eq!(pace.allowed(), LEAST + 1);
        drop(turns);
        // What ended just now had not waited.
        assert_eq!(take_all(&pace).len(), LEAST + 1);
    }

    #[test]
    fn new_requests_have_half_of_it() {
        let pace = pace(64);
        let taken: Vec<Seat<'_>> = std::iter::from_fn(|| pace.newcomer().now_or_never()).collect();
        assert_eq!(taken.len(), FIRST / 2);
        pace.fell();
        drop(taken);
        let taken: Vec<Seat<'_>> = std::iter::from_fn(|| pace.newcomer().now_or_never()).collect();
        assert_eq!(taken.len(), LEAST / 2);
    }

    #[test]
    fn one_at_a_time_stays_so() {
        let pace = pace(1);
        pace.ended(SLOW, true);
        pace.fell();
        assert_eq!((pace.allowed(), take_all(&pace).len()), (1, 1));
    }
}
