//! The HTTP API: each call goes as a letter to the home of what it names, or is answered here.
#![forbid(unsafe_code)]

use super::Platform;
use super::{Ask, Letter, Shard, home_of_driver, home_of_request};
use crate::cold::port::{self, FarRequest, Query};
use crate::cold::registry::NodeSeen;
use crate::fsm::fold::Fold;
use crate::fsm::ids::home_shard;
use crate::fsm::request::{Answer, Asker, ReplyTo, RequestEvent, Unfit};
use crate::fsm::types::{LogEntry, Step};
use crate::limits;
use crate::ops::health;
use crate::ops::log::LogKind;
use crate::ops::metrics::BadInput;
use crate::ops::process::ProcessStats;
use crate::ops::spec;
use crate::wire::api;
use crate::wire::http::Head;
use crate::wire::respond::{PROMETHEUS_TEXT, Problem, Reply};
use crate::wire::route::{EventsQuery, RecordsQuery, Route, route};
use compact_str::CompactString;

impl<P: Platform> Shard<P> {
    /// One call.
    pub(super) fn call(&mut self, head: &Head, body: &[u8], reply: ReplyTo) {
        if let Err(problem) = self.dispatch(head, body, reply) {
            self.refuse_call(reply, problem);
        }
    }

    /// Answers a call that cannot be done, and notes it when that is the caller's fault.
    pub(super) fn refuse_call(&mut self, reply: ReplyTo, problem: Problem) {
        if problem.status < 500 {
            self.metrics().bad_input.of(BadInput::HttpRequest).inc();
            self.log(LogKind::BadHttp, |suppressed| {
                tracing::info!(status = problem.status, detail = %problem.detail, suppressed, "bad request");
            });
        }
        self.answer(reply, problem.into_reply());
    }

    fn dispatch(&mut self, head: &Head, body: &[u8], reply: ReplyTo) -> Result<(), Problem> {
        match route(head.method, &head.target)? {
            Route::Offer => self.offer(body, reply)?,
            Route::Response => self.response(body, reply)?,
            Route::Cancel => {
                let api::CancelRequest { request_id, reason } = api::parse_cancel(body)?;
                self.post_to_request(request_id, RequestEvent::Cancelled { reason, reply });
            }
            Route::TripCancel(trip_id) => {
                let reason = api::parse_trip_cancel(body)?;
                let hash = trip_id.request_hash().ok_or_else(Problem::no_such_trip)?;
                let letter = Letter::TripCancelled { trip_id, reason, reply };
                self.post(home_shard(hash, self.shards), letter);
            }
            Route::RequestView(request_id) => self.view(request_id, false, reply),
            Route::Audit(request_id) => self.view(request_id, true, reply),
            Route::DriverView(driver_id) => {
                let home = home_of_driver(&driver_id, self.shards);
                self.post(home, Letter::DriverView { driver_id, reply });
            }
            Route::Records(asked) => self.records(asked, reply),
            Route::Events(asked) => self.events(asked, reply),
            Route::EventsAck => {
                let api::EventsAckRequest { consumer, cursor } = api::parse_events_ack(body)?;
                let then = Ask::Acked(consumer.clone(), reply);
                self.ask(Query::AckEvents { consumer, cursor }, then);
            }
            Route::FleetAssign(driver_id) => {
                let answer = self.assign_driver(&driver_id)?;
                self.answer(reply, answer);
            }
            Route::Healthz => self.answer(reply, health::alive()),
            Route::Readyz => self.answer(reply, health::ready(self.shared.health.readiness())),
            Route::Metrics => self.show_metrics(reply),
            Route::OpenApi => self.answer(reply, Reply::json(200, spec::OPENAPI_JSON.into())),
            Route::AsyncApi => self.answer(reply, Reply::json(200, spec::ASYNCAPI_JSON.into())),
            Route::DriverSocket(_) => return Err(upgrade_required()),
        }
        Ok(())
    }

    fn offer(&mut self, body: &[u8], reply: ReplyTo) -> Result<(), Problem> {
        let offer = match api::parse_offer(body) {
            Ok(offer) => Box::new(offer),
            Err(problem) => return self.no_offer(body, problem, reply),
        };
        if self.draining.is_some() {
            return Err(Problem::draining(self.drain_left_s()));
        }
        let home = home_of_request(&offer.request_id, self.shards);
        let at_us = self.now_us;
        self.post(home, Letter::Offer { offer, reply, at_us });
        Ok(())
    }

    /// A body that is no offer, for `problem`. Whether that matters is known where the request is, if there is one.
    fn no_offer(&mut self, body: &[u8], problem: Problem, reply: ReplyTo) -> Result<(), Problem> {
        let request_id = api::offer_id(body).filter(|_| self.draining.is_none());
        let Some(request_id) = request_id else {
            return Err(problem);
        };
        let unfit = Unfit {
            too_large: problem.status == 413,
            why: problem.detail.into(),
        };
        self.post_to_request(request_id, RequestEvent::Misposted { unfit, reply });
        Ok(())
    }

    fn response(&mut self, body: &[u8], reply: ReplyTo) -> Result<(), Problem> {
        let api::ResponseRequest {
            driver_id,
            request_id,
            accept,
            attempt,
        } = api::parse_response(body)?;
        let event = RequestEvent::Answered {
            driver_id,
            attempt,
            answer: if accept { Answer::Accept } else { Answer::Decline },
            reason: None,
            asker: Asker::Api(reply),
        };
        self.post_to_request(request_id, event);
        Ok(())
    }

    fn records(&mut self, asked: RecordsQuery, reply: ReplyTo) {
        let RecordsQuery {
            driver_id,
            date,
            limit,
            before,
        } = asked;
        let then = Ask::Records(driver_id.clone(), date, reply);
        let query = Query::Records {
            driver_id,
            date,
            limit,
            before,
        };
        self.ask(query, then);
    }

    fn events(&mut self, asked: EventsQuery, reply: ReplyTo) {
        let EventsQuery {
            after,
            wait_ms,
            limit,
            consumer,
        } = asked;
        // A node that drains keeps nobody waiting.
        let may_wait = self.draining.is_none() && self.polls < limits::EVENT_POLLS_MAX;
        let wait_ms = if may_wait { wait_ms } else { 0 };
        self.polls += 1;
        let query = Query::Events {
            after,
            wait_ms,
            limit,
            consumer,
        };
        self.ask(query, Ask::Events(reply));
    }

    fn view(&mut self, request_id: crate::fsm::ids::RequestId, audit: bool, reply: ReplyTo) {
        self.post(
            home_of_request(&request_id, self.shards),
            Letter::View {
                request_id,
                audit,
                reply,
            },
        );
    }

    /// Which node a driver's app is to connect to, as the nodes' leases were seen last. Without a fleet, or when no lease was
    /// seen yet, that is this node.
    fn assign_driver(&self, driver_id: &crate::fsm::ids::DriverId) -> Result<Reply, Problem> {
        let known = self.fleet.as_ref().map(super::registry::Fleet::nodes);
        let Some(nodes) = known.filter(|nodes| !nodes.nodes().is_empty()) else {
            return Ok(api::assigned(driver_id, &self.config.node_id, &self.own_address()));
        };
        // Of itself a node knows better than its lease, which was written a moment ago.
        let is_own = |node: &NodeSeen| node.node_id == self.config.node_id;
        let serves = |node: &NodeSeen| (node.is_serving || is_own(node)) && !self.is_leaving(&node.node_id);
        let is_ready = |node: &NodeSeen| {
            if is_own(node) {
                self.shared.health.readiness() == health::Readiness::Ready
            } else {
                node.is_ready
            }
        };
        // Where nobody takes work, drivers are served all the same.
        let node = nodes
            .assign(driver_id, |node| serves(node) && is_ready(node))
            .or_else(|| nodes.assign(driver_id, serves))
            .ok_or_else(Problem::no_node)?;
        Ok(api::assigned(driver_id, &node.node_id, &node.address))
    }

    fn own_address(&self) -> String {
        match self.config.fleet_address.as_str() {
            "" => self.config.listen.to_string(),
            address => address.to_owned(),
        }
    }

    fn show_metrics(&mut self, reply: ReplyTo) {
        let process = ProcessStats::read().ok();
        let text = self.shared.registry.render(&self.shared.health, process.as_ref());
        self.answer(reply, Reply::new(200, PROMETHEUS_TEXT, text.into_bytes()));
    }

    /// Puts a question to the store; the answer comes to [`Self::store_answered`].
    pub(super) fn ask(&mut self, query: Query, then: Ask) {
        let token = self.asks.insert(then) as u64;
        if !self.unasked.is_empty() || self.store.query(token, query.clone()).is_err() {
            self.unasked.push_back((token, query));
        }
    }

    /// The connection of these calls is gone: none of them waits for events any longer. One that only half-closed goes on
    /// waiting for its answer.
    pub(super) fn end_waits(&mut self, calls: &[u64]) {
        if self.polls == 0 || calls.is_empty() {
            return;
        }
        self.end_waits_where(|reply| calls.contains(&reply.call));
    }

    /// Whoever waits for events is answered with what there is: the node drains.
    pub(super) fn end_all_waits(&mut self) {
        self.end_waits_where(|_| true);
    }

    fn end_waits_where(&mut self, ends: impl Fn(&ReplyTo) -> bool) {
        let waits = |ask: &Ask| matches!(ask, Ask::Events(reply) if ends(reply));
        for (token, _) in self.asks.iter().filter(|(_, ask)| waits(ask)) {
            let unasked = self.unasked.iter_mut().find(|(unasked, _)| *unasked == token as u64);
            match unasked {
                Some((_, Query::Events { wait_ms, .. })) => *wait_ms = 0,
                _ => self.store.end_wait(token as u64),
            }
        }
    }

    /// Asks again what the store's full queue did not take.
    pub(super) fn ask_again(&mut self) {
        while let Some((token, query)) = self.unasked.pop_front() {
            if self.store.query(token, query.clone()).is_err() {
                self.unasked.push_front((token, query));
                return;
            }
        }
    }

    /// Receipts that this node has noted as the owner go to all nodes' store with the next decision, and are shown before that.
    fn add_receipts(&self, far: &mut FarRequest) {
        let Some(key) = self.requests.find(&far.log.request_id) else {
            return;
        };
        let entry = &self.requests.slab[key as usize];
        if entry.is_dormant || far.owner != self.config.node_id {
            return;
        }
        let own = entry.request.persisted_log();
        let (stored, journaled) = (entry.stored as usize, entry.journaled.min(own.len()));
        let mut log = far.log.log.clone();
        let unsent = own.get(stored..journaled).unwrap_or_default();
        let is_receipt = |step: &Step| matches!(step, Step::Delivered { .. } | Step::Acked { .. });
        let lacks =
            |entry: &&LogEntry| is_receipt(&entry.step) && !far.log.log.iter().any(|shown| shown.step == entry.step);
        log.extend(unsent.iter().filter(lacks).cloned());
        if log.len() > far.log.log.len() && Fold::of(&log).is_ok() {
            if far.nodes.last().is_none_or(|(_, node)| *node != self.config.node_id) {
                far.nodes.push((far.log.log.len(), self.config.node_id.clone()));
            }
            far.log.log = log;
        }
    }

    /// The store answers.
    pub(super) fn store_answered(&mut self, token: u64, answer: port::Answer) {
        use port::Answer as From;
        let ask = self.asks.remove(token as usize);
        if matches!(ask, Ask::Events(_)) {
            self.polls -= 1;
        }
        match (ask, answer) {
            // It has come here since: what waits now waits for something else.
            (Ask::Request(request_id), _) if self.requests.find(&request_id).is_some() => {}
            (Ask::Request(request_id), From::Request(ended)) => self.request_looked_up(&request_id, ended),
            (Ask::Request(request_id), From::RequestElsewhere(far)) => {
                let letters = self.requests.unpark(&request_id);
                self.answer_far(*far, letters);
            }
            (Ask::Audit(reply), From::RequestElsewhere(mut far)) => {
                self.add_receipts(&mut far);
                let state = Fold::of(&far.log.log).map(|fold| fold.state());
                let answer = state.map_or_else(
                    |_| Problem::not_durable().into_reply(),
                    |state| api::audit(&far.log, state, &far.nodes),
                );
                self.answer(reply, answer);
            }
            (Ask::Audit(reply), From::Request(_)) => self.answer(reply, Problem::not_durable().into_reply()),
            (Ask::Look(request_id, letter), answer) => self.looked_up(&request_id, *letter, answer),
            (Ask::Trip(trip_id), From::RequestElsewhere(far)) => {
                let letters = self.requests.unpark_trip(&trip_id);
                self.answer_far(*far, letters);
            }
            (Ask::Request(request_id), From::Failed(error)) => {
                self.request_lookup_failed(&request_id, &problem_of(error));
            }
            (Ask::Trip(trip_id), From::Trip(ended)) => self.trip_looked_up(&trip_id, Ok(ended)),
            (Ask::Trip(trip_id), From::Failed(error)) => self.trip_looked_up(&trip_id, Err(problem_of(error))),
            (Ask::Known(driver_id), From::Driver(record)) => self.driver_known(&driver_id, record.as_ref()),
            (Ask::Known(driver_id), _) => self.driver_known(&driver_id, None),
            (Ask::Driver(driver_id, reply), From::Driver(record)) => {
                let answer = self.driver_view_from_store(&driver_id, record.as_ref());
                self.answer_durably(reply, answer);
            }
            (Ask::Records(driver_id, date, reply), From::Records(page)) => {
                let node = &self.config.node_id;
                let nodes = page
                    .nodes
                    .iter()
                    .chain(std::iter::repeat(node))
                    .map(CompactString::as_str);
                let rows = page.rows.iter().zip(nodes);
                let answer = api::records(&driver_id, date, rows, page.next_before.as_deref());
                self.answer(reply, answer);
            }
            (Ask::Events(reply), From::Events(page)) => {
                let answer = api::events(page.events.iter().map(|(cursor, published)| (*cursor, published)));
                self.answer(reply, answer);
            }
            (Ask::Acked(consumer, reply), From::EventsAcked { cursor }) => {
                self.answer(reply, api::events_acked(&consumer, cursor));
            }
            (
                Ask::Driver(_, reply)
                | Ask::Records(_, _, reply)
                | Ask::Events(reply)
                | Ask::Audit(reply)
                | Ask::Acked(_, reply),
                From::Failed(error),
            ) => {
                self.answer(reply, problem_of(error).into_reply());
            }
            (ask, answer) => unreachable!("the store answers what was asked: {ask:?} {answer:?}"),
        }
    }
}

/// What a caller hears of a store that could not answer: why, if it may help to ask again.
pub(super) fn problem_of(error: port::StoreError) -> Problem {
    match error.fault {
        port::Fault::Caller => Problem::invalid(error.message),
        port::Fault::Store if error.retry => Problem::new(503, "not_durable", error.message),
        port::Fault::Store => Problem::not_durable(),
    }
}

fn upgrade_required() -> Problem {
    Problem::new(426, "upgrade_required", "this endpoint is a WebSocket").with_header("upgrade", "websocket")
}
