//! The HTTP API: each call goes as a letter to the home of what it names, or is answered here.

use super::{Ask, Letter, Shard, home_of_driver, home_of_request};
use crate::cold::port::{self, Query};
use crate::fsm::ids::home_shard;
use crate::fsm::request::{Answer, Asker, ReplyTo, RequestEvent};
use crate::ops::health::Readiness;
use crate::ops::metrics::BadInput;
use crate::ops::process::ProcessStats;
use crate::ops::spec;
use crate::wire::api;
use crate::wire::http::Head;
use crate::wire::respond::{PROMETHEUS_TEXT, Problem, Reply};
use crate::wire::route::{Route, route};

impl Shard {
    /// One call.
    pub(super) fn call(&mut self, head: &Head, body: &[u8], reply: ReplyTo) {
        if let Err(problem) = self.dispatch(head, body, reply) {
            if problem.status < 500 {
                self.metrics().bad_input.of(BadInput::HttpRequest).inc();
                self.log(crate::ops::log::LogKind::BadHttp, |suppressed| {
                    tracing::info!(status = problem.status, detail = %problem.detail, suppressed, "bad request");
                });
            }
            self.answer(reply, problem.into_reply());
        }
    }

    fn dispatch(&mut self, head: &Head, body: &[u8], reply: ReplyTo) -> Result<(), Problem> {
        match route(head.method, &head.target)? {
            Route::Offer => {
                let offer = Box::new(api::parse_offer(body)?);
                if self.draining.is_some() {
                    return Err(Problem::draining());
                }
                let home = home_of_request(&offer.request_id, self.shards);
                self.post(home, Letter::Offer { offer, reply });
            }
            Route::Response => {
                let api::ResponseRequest {
                    driver_id,
                    request_id,
                    accept,
                    attempt,
                } = api::parse_response(body)?;
                let answer = if accept { Answer::Accept } else { Answer::Decline };
                let asker = Asker::Api(reply);
                let event = RequestEvent::Answered {
                    driver_id,
                    attempt,
                    answer,
                    reason: None,
                    asker,
                };
                self.post(
                    home_of_request(&request_id, self.shards),
                    Letter::Request { request_id, event },
                );
            }
            Route::Cancel => {
                let api::CancelRequest { request_id, reason } = api::parse_cancel(body)?;
                let event = RequestEvent::Cancelled { reason, reply };
                self.post(
                    home_of_request(&request_id, self.shards),
                    Letter::Request { request_id, event },
                );
            }
            Route::TripCancel(trip_id) => {
                let reason = api::parse_trip_cancel(body)?;
                let hash = trip_id.request_hash().ok_or_else(Problem::no_such_trip)?;
                self.post(
                    home_shard(hash, self.shards),
                    Letter::TripCancelled { trip_id, reason, reply },
                );
            }
            Route::RequestView(request_id) => self.view(request_id, false, reply),
            Route::Audit(request_id) => self.view(request_id, true, reply),
            Route::DriverView(driver_id) => {
                self.post(
                    home_of_driver(&driver_id, self.shards),
                    Letter::DriverView { driver_id, reply },
                );
            }
            Route::Records(asked) => {
                let (driver_id, date, limit, before) = (asked.driver_id, asked.date, asked.limit, asked.before);
                let query = Query::Records {
                    driver_id: driver_id.clone(),
                    date,
                    limit,
                    before,
                };
                self.ask(query, Ask::Records(driver_id, date, reply));
            }
            Route::Events(asked) => {
                let (after, wait_ms, limit, consumer) = (asked.after, asked.wait_ms, asked.limit, asked.consumer);
                let wait_ms = if self.draining.is_some() { 0 } else { wait_ms };
                self.ask(
                    Query::Events {
                        after,
                        wait_ms,
                        limit,
                        consumer,
                    },
                    Ask::Events(reply),
                );
            }
            Route::EventsAck => {
                let api::EventsAckRequest { consumer, cursor } = api::parse_events_ack(body)?;
                self.ask(
                    Query::AckEvents {
                        consumer: consumer.clone(),
                        cursor,
                    },
                    Ask::Acked(consumer, reply),
                );
            }
            Route::Healthz => self.answer(reply, Reply::json(200, br#"{"status":"alive"}"#.to_vec())),
            Route::Readyz => self.readyz(reply),
            Route::Metrics => self.show_metrics(reply),
            Route::OpenApi => self.answer(reply, Reply::json(200, spec::OPENAPI_JSON.into())),
            Route::AsyncApi => self.answer(reply, Reply::json(200, spec::ASYNCAPI_JSON.into())),
            Route::DriverSocket(_) => return Err(upgrade_required()),
        }
        Ok(())
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

    fn readyz(&mut self, reply: ReplyTo) {
        let answer = match self.shared.health.readiness() {
            Readiness::Ready => Reply::json(200, br#"{"status":"ready"}"#.to_vec()),
            other => {
                let code = other.as_str();
                Reply::problem(503, code, format!("the node is {code}"))
            }
        };
        self.answer(reply, answer);
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

    /// Asks again what the store's full queue did not take.
    pub(super) fn ask_again(&mut self) {
        while let Some((token, query)) = self.unasked.pop_front() {
            if self.store.query(token, query.clone()).is_err() {
                self.unasked.push_front((token, query));
                return;
            }
        }
    }

    /// The store answers.
    pub(super) fn store_answered(&mut self, token: u64, answer: port::Answer) {
        use port::Answer as From;
        match (self.asks.remove(token as usize), answer) {
            (Ask::Request(request_id), From::Request(ended)) => self.request_looked_up(&request_id, ended),
            (Ask::Request(request_id), _) => self.request_lookup_failed(&request_id),
            (Ask::Trip(trip_id), From::Trip(ended)) => self.trip_looked_up(&trip_id, Ok(ended)),
            (Ask::Trip(trip_id), _) => self.trip_looked_up(&trip_id, Err(Problem::not_durable())),
            (Ask::Known(driver_id), From::Driver(record)) => self.driver_known(&driver_id, record.as_ref()),
            (Ask::Known(_), _) => {}
            (Ask::Driver(driver_id, reply), From::Driver(record)) => {
                let answer = self.driver_view_from_store(&driver_id, record.as_ref());
                self.answer(reply, answer);
            }
            (Ask::Records(driver_id, date, reply), From::Records(page)) => {
                let (rows, before) = (&page.rows, page.next_before.as_deref());
                let answer = api::records(&driver_id, date, rows, before, &self.config.node_id);
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
                Ask::Driver(_, reply) | Ask::Records(_, _, reply) | Ask::Events(reply) | Ask::Acked(_, reply),
                From::Failed(error),
            ) => {
                let problem = match error.fault {
                    port::Fault::Caller => Problem::invalid(error.message),
                    port::Fault::Store => Problem::not_durable(),
                };
                self.answer(reply, problem.into_reply());
            }
            (ask, answer) => unreachable!("the store answers what was asked: {ask:?} {answer:?}"),
        }
    }
}

fn upgrade_required() -> Problem {
    Problem::new(426, "upgrade_required", "this endpoint is a WebSocket").with_header("upgrade", "websocket")
}
