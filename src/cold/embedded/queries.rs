//! What becomes of a query: answered, read, or parked, once everything that was committed before it is stored. Belongs to
//! the writer thread.

use super::polls::Poll;
use super::readers::{RecordsAsk, ToPages};
use super::round::Round;
use crate::cold::handle::{Ask, Inbox};
use crate::cold::port::{Answer, CONSUMER_LEN_MAX, EVENTS_WAIT_MS_MAX, EventsPage, Query, StoreError};
use crate::fsm::types::UnixMs;
use compact_str::CompactString;
use std::sync::Arc;

/// What becomes of a query once everything before it is stored.
pub enum Due {
    /// This answer.
    Reply(Arc<Inbox>, u64, Answer),
    /// A page, read by the pages thread.
    Page(ToPages),
    /// Waits for events until then.
    Park(UnixMs, Poll),
}

impl Due {
    /// What was to be done cannot be: the batch it rests on was not written.
    pub fn refuse(self, error: &StoreError) {
        let (inbox, token) = match self {
            Self::Reply(inbox, token, _) => (inbox, token),
            Self::Page(ToPages::Events { poll, .. }) | Self::Park(_, poll) => (poll.inbox, poll.token),
            Self::Page(ToPages::Records(ask)) => (ask.inbox, ask.token),
            Self::Page(ToPages::Discard(_)) => return,
        };
        inbox.answer(token, Answer::Failed(error.clone()));
    }
}

/// Decides what a query gets once this round is written, and adds to the round what the query itself changes.
pub fn settle(round: &mut Round<'_>, ask: Ask, now: UnixMs) -> Due {
    let Ask { inbox, token, query } = ask;
    match query {
        Query::Records {
            driver_id,
            date,
            limit,
            before,
        } => Due::Page(ToPages::Records(RecordsAsk {
            inbox,
            token,
            driver_id,
            date,
            limit,
            before,
        })),
        Query::AckEvents { consumer, cursor } => {
            let answer = acknowledge(round, &consumer, cursor, now);
            let answer = answer.map_or_else(Answer::Failed, |cursor| Answer::EventsAcked { cursor });
            Due::Reply(inbox, token, answer)
        }
        Query::Events {
            after,
            wait_ms,
            limit,
            consumer,
        } => {
            let acked = match consumer.map(|name| known_consumer(round, &name, now)).transpose() {
                Ok(acked) => acked,
                Err(error) => return Due::Reply(inbox, token, Answer::Failed(error)),
            };
            let (oldest, newest) = (round.events().oldest(), round.events().newest());
            let from = first_wanted(after, acked, oldest);
            let poll = Poll {
                inbox,
                token,
                from,
                limit,
            };
            read_or_wait(poll, oldest, newest, now, wait_ms)
        }
        Query::Request(_) | Query::Trip(_) | Query::Driver(_) => unreachable!("point queries go to the lookups"),
    }
}

/// The first cursor that a reader has not seen.
pub fn first_wanted(after: Option<u64>, acked: Option<u64>, oldest: u64) -> u64 {
    match after.or(acked) {
        Some(seen) => seen.saturating_add(1).max(oldest),
        None => oldest,
    }
}

/// A page when there is one, else the wait that the poll asked for.
pub fn read_or_wait(poll: Poll, oldest: u64, newest: u64, now: UnixMs, wait_ms: u32) -> Due {
    if poll.from <= newest {
        return Due::Page(ToPages::Events { poll, oldest, newest });
    }
    match wait_ms.min(EVENTS_WAIT_MS_MAX) {
        0 => Due::Reply(poll.inbox, poll.token, Answer::Events(EventsPage::default())),
        wait_ms => Due::Park(now.saturating_add(wait_ms.into()), poll),
    }
}

/// What this consumer has acknowledged; a new one is remembered from now on.
fn known_consumer(round: &mut Round<'_>, name: &CompactString, now: UnixMs) -> Result<u64, StoreError> {
    if let Some(acked) = round.events().acked(name) {
        return Ok(acked);
    }
    if name.is_empty() || name.len() > CONSUMER_LEN_MAX {
        return Err(StoreError::invalid(format!(
            "a consumer's name has 1 to {CONSUMER_LEN_MAX} bytes"
        )));
    }
    let consumer = round.events().register(name, now)?;
    round.put_consumer(name, consumer);
    Ok(consumer.acked)
}

fn acknowledge(round: &mut Round<'_>, name: &CompactString, cursor: u64, now: UnixMs) -> Result<u64, StoreError> {
    let before = known_consumer(round, name, now)?;
    let missing = || StoreError::broken("a known consumer is unknown");
    let consumer = round.events().ack(name, cursor, now).ok_or_else(missing)?;
    if consumer.acked > before {
        round.put_consumer(name, consumer);
    }
    Ok(consumer.acked)
}
