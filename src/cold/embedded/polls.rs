//! Long polls that wait for events, in the order of their deadlines. Belongs to the writer thread; no I/O.

use crate::cold::handle::Inbox;
use crate::fsm::types::UnixMs;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most long polls that wait at once; one more is answered at once with an empty page.
pub const POLLS_PARKED_MAX: usize = 4_096;

/// A reader of events and what it wants.
pub struct Poll {
    /// Where the answer goes.
    pub inbox: Arc<Inbox>,
    /// Whose answer it is.
    pub token: u64,
    /// First cursor wanted.
    pub from: u64,
    /// Most events wanted.
    pub limit: u32,
}

/// The waiting ones.
#[derive(Default)]
pub struct Polls {
    /// By deadline, then by arrival.
    parked: BTreeMap<(UnixMs, u64), Poll>,
    arrivals: u64,
    /// Smallest `from` of all, or less: a quick "nobody wants these".
    from_min: Option<u64>,
}

impl Polls {
    /// Parks a poll until events come or `deadline`.
    ///
    /// # Errors
    /// Gives it back when [`POLLS_PARKED_MAX`] wait already.
    pub fn park(&mut self, deadline: UnixMs, poll: Poll) -> Result<(), Poll> {
        if self.parked.len() >= POLLS_PARKED_MAX {
            return Err(poll);
        }
        self.arrivals += 1;
        self.from_min = Some(self.from_min.map_or(poll.from, |min| min.min(poll.from)));
        self.parked.insert((deadline, self.arrivals), poll);
        Ok(())
    }

    /// Takes out those for whom the event `newest`, or an older one, is news.
    pub fn take_ready(&mut self, newest: u64) -> Vec<Poll> {
        if self.from_min.is_none_or(|min| min > newest) {
            return Vec::new();
        }
        let (mut ready, mut parked) = (Vec::new(), BTreeMap::new());
        for (place, poll) in std::mem::take(&mut self.parked) {
            if poll.from <= newest {
                ready.push(poll);
            } else {
                parked.insert(place, poll);
            }
        }
        self.parked = parked;
        self.from_min = self.parked.values().map(|poll| poll.from).min();
        ready
    }

    /// Takes out the poll of this token, if it waits.
    pub fn take(&mut self, inbox: &Arc<Inbox>, token: u64) -> Option<Poll> {
        let own = |poll: &Poll| poll.token == token && Arc::ptr_eq(&poll.inbox, inbox);
        let place = self
            .parked
            .iter()
            .find_map(|(place, poll)| own(poll).then_some(*place))?;
        self.parked.remove(&place)
    }

    /// Takes out those whose time is up, oldest deadline first.
    pub fn take_due(&mut self, now: UnixMs) -> Vec<Poll> {
        let mut due = Vec::new();
        while let Some(entry) = self.parked.first_entry() {
            if entry.key().0 > now {
                break;
            }
            due.push(entry.remove());
        }
        due
    }

    /// When the next one's time is up.
    pub fn next_deadline(&self) -> Option<UnixMs> {
        self.parked.keys().next().map(|(deadline, _)| *deadline)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.parked.len()
    }
}
