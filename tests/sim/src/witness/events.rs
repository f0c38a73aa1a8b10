//! Events and acknowledgements.

use super::calls::{Ask, Call, Next};
use super::state::Winner;
use super::{SLACK_US, Witness};
use crate::checks::{About, Check};
use crate::codec::Bad;
use crate::codec::answers::{self, Event};
use crate::trips;
use crate::words::{EventType, State};

/// All events that anybody read, by cursor, and what consumers acknowledged.
#[derive(Clone, Debug, Default)]
pub(super) struct EventLog {
    by_cursor: Vec<Option<Event>>,
    /// For each consumer: the highest cursor answered, and the highest said.
    acks: Vec<(u64, u64)>,
}

impl EventLog {
    /// The highest cursor that anybody read.
    pub(super) fn last_cursor(&self) -> u64 {
        self.by_cursor.len() as u64
    }

    /// What is known to be acknowledged by this consumer.
    pub(super) fn acked(&self, consumer: u32) -> u64 {
        self.acks.get(consumer as usize).map_or(0, |ack| ack.0)
    }

    fn said(&self, consumer: u32) -> u64 {
        self.acks.get(consumer as usize).map_or(0, |ack| ack.1)
    }

    /// The highest cursor that every consumer may have acknowledged; events up to it may be gone.
    fn may_be_gone(&self) -> u64 {
        self.acks.iter().map(|ack| ack.1).min().unwrap_or(0)
    }

    /// A consumer acknowledges.
    pub(super) fn ack_said(&mut self, consumer: u32, cursor: u64) {
        if self.acks.len() <= consumer as usize {
            self.acks.resize(consumer as usize + 1, (0, 0));
        }
        let ack = &mut self.acks[consumer as usize];
        ack.1 = ack.1.max(cursor);
    }

    /// All that were read, in order of their cursors, and the cursors that nobody read.
    pub(super) fn all(&self) -> impl Iterator<Item = (u64, Option<&Event>)> {
        (1..).zip(self.by_cursor.iter().map(Option::as_ref))
    }

    fn at(&mut self, cursor: u64) -> &mut Option<Event> {
        let index = cursor as usize - 1;
        if self.by_cursor.len() <= index {
            self.by_cursor.resize(index + 1, None);
        }
        &mut self.by_cursor[index]
    }
}

impl Witness {
    /// A page of events.
    pub(super) fn events_answered(&mut self, call: &Call, body: &str) -> Result<Next, Bad> {
        let Ask::Events { node, limit, .. } = call.ask else {
            return Err(Bad::new("events that nobody asked for"));
        };
        let (mut count, mut last) = (0, None);
        for line in body.lines() {
            let event = answers::event(line, &mut self.ids, trips::is_of)?;
            let cursor = event.cursor;
            if cursor == 0 || cursor > 1 << 24 {
                return Err(Bad::new(format!("cursor {cursor}")));
            }
            let ok = match last {
                None => self.is_first(call, cursor),
                Some(last) => cursor == last + 1,
            };
            if !self.holds(Check::EventsInOrder, ok) {
                let text = format!("{:?} has cursor {cursor} after {last:?}", call.ask);
                self.violate(Check::EventsInOrder, About::request(event.request), text);
            }
            count += 1;
            last = Some(cursor);
            self.event_read(node, &event);
        }
        if u64::from(count) > limit {
            return Err(Bad::new(format!("{count} events, and {limit} were asked for")));
        }
        self.check_poll_in_time(call);
        // What somebody had read before is not missing now.
        let ok = count > 0 || !self.has_events(call);
        if !self.holds(Check::EventKept, ok) {
            let text = format!(
                "{:?} has nothing, and there were events up to {}",
                call.ask, call.cursor_max
            );
            self.violate(Check::EventKept, About::default(), text);
        }
        Ok(Next::Page(count, last))
    }

    /// Which events a poll asks for: whose, behind which cursor, and for whom.
    fn polled(&self, call: &Call) -> Option<(&EventLog, Option<u64>, Option<u32>)> {
        match call.ask {
            Ask::Events {
                node, after, consumer, ..
            } => Some((&self.events[usize::from(node)], after, consumer)),
            _ => None,
        }
    }

    /// Whether there is something for certain behind what a poll asks after, since it was sent.
    fn has_events(&self, call: &Call) -> bool {
        let Some((events, after, consumer)) = self.polled(call) else {
            return false;
        };
        let from = after.or(consumer.map(|consumer| events.said(consumer)));
        from.unwrap_or(0).max(events.may_be_gone()) < call.cursor_max
    }

    /// How long a call may wait for events; 0 of any other, and where there are some.
    pub(super) fn poll_ms(&self, call: &Call) -> u64 {
        match call.ask {
            Ask::Events { wait_ms, .. } if !self.has_events(call) => wait_ms,
            _ => 0,
        }
    }

    /// A poll that nothing ails is answered when its wait is over at the latest. Of a fleet, slow tables make it wait for others.
    fn check_poll_in_time(&mut self, call: &Call) {
        let asks_to_wait = matches!(call.ask, Ask::Events { wait_ms: 1.., .. });
        // Pages of a store that is slow are read one after the other; of those who do not wait, the end of the run sees to it.
        let others = self.calls.iter().filter(|call| call.open).count() as u64;
        let most_us = (self.poll_ms(call) + (3 + others) * self.expect.order_margin_ms) * 1_000 + SLACK_US;
        let asked_us = call.sent_us.max(call.front_us);
        let judged = asks_to_wait && !self.is_fleet() && self.is_calm_at(call.sent_us);
        let late = judged && asked_us.saturating_add(most_us) < self.now_us;
        if !self.holds(Check::Answered, !late) {
            let text = format!("{:?}, sent at {asked_us}, is answered only now", call.ask);
            self.violate(Check::Answered, About::default(), text);
        }
    }

    /// Whether a page may begin with this cursor.
    fn is_first(&self, call: &Call, cursor: u64) -> bool {
        let Some((events, after, consumer)) = self.polled(call) else {
            return false;
        };
        let gone = events.may_be_gone();
        let begins = |from: u64| cursor == from + 1 || (cursor > from && cursor <= gone + 1);
        match (after, consumer) {
            (Some(after), _) => begins(after),
            (None, None) => begins(0),
            (None, Some(consumer)) => cursor > call.acked && cursor <= events.said(consumer).max(gone) + 1,
        }
    }

    fn event_read(&mut self, node: u8, event: &Event) {
        let (cursor, request) = (event.cursor, event.request);
        if !self.is_request(request) {
            return;
        }
        let about = About::request(request);
        if !self.holds(Check::Protocol, event.trip_intact) {
            self.violate(
                Check::Protocol,
                about,
                format!("event {cursor} has another trip object"),
            );
        }
        let known = self.events[usize::from(node)].at(cursor).clone();
        if let Some(known) = known {
            if !self.holds(Check::EventKept, known == *event) {
                let text = format!("event {cursor} is {event:?} and was {known:?}");
                self.violate(Check::EventKept, about, text);
            }
        } else {
            self.note(about, || format!("event {cursor}: {} r{request}", event.kind.as_str()));
            *self.events[usize::from(node)].at(cursor) = Some(event.clone());
            self.event_means(event);
        }
    }

    fn event_means(&mut self, event: &Event) {
        let request = event.request;
        self.learn_exists(request);
        match event.kind {
            EventType::RedispatchRequested => {
                self.learn_attempt_min(request, event.attempts);
                self.board.redispatch.push_back(request);
            }
            EventType::RequestUnfulfilled => self.learn_state(request, State::Unfulfilled),
            EventType::RequestCancelled => self.learn_state(request, State::Cancelled),
            EventType::TripCreated | EventType::TripPickedUp | EventType::TripEnded => {
                let (Some(driver), Some(trip)) = (event.driver, event.trip) else {
                    return self.broken(
                        Check::Protocol,
                        About::request(request),
                        format!("an event lacks its trip: {event:?}"),
                    );
                };
                let won = Winner {
                    driver,
                    attempt: None,
                    trip: Some(trip),
                };
                self.learn_winner(request, won);
                if event.kind == EventType::TripEnded {
                    self.learn_trip_ended(trip, event.outcome);
                }
                let picked = event.kind != EventType::TripPickedUp || self.trip_seen(trip).pickup_said;
                if !self.holds(Check::Caused, picked) {
                    let text = format!("trip {trip} was picked up, and nobody said so");
                    self.violate(Check::Caused, About::both(request, driver), text);
                }
                if event.kind == EventType::TripCreated {
                    self.board.push_trip(trip);
                }
            }
        }
    }

    /// An acknowledgement is answered with where it stands.
    pub(super) fn ack_answered(&mut self, call: &Call, node: u8, consumer: u32, cursor: u64) {
        let events = &mut self.events[usize::from(node)];
        let said = events.said(consumer);
        if let Some(ack) = events.acks.get_mut(consumer as usize) {
            ack.0 = ack.0.max(cursor);
        }
        let ok = cursor >= call.acked
            && cursor <= said
            && matches!(call.ask, Ask::Acknowledge { cursor: asked, .. } if cursor >= asked);
        if !self.holds(Check::AnswerKept, ok) {
            let text = format!(
                "consumer {consumer} is at {cursor}, was at {} and said {said}",
                call.acked
            );
            self.violate(Check::AnswerKept, About::default(), text);
        }
    }
}
