//! HTTP connections of this shard: requests in, answers out in the order of the requests.
//!
//! A connection stays on the shard that accepted it; the calls travel. Bounded: head, body, calls under way
//! (`http_pipeline_max`, and one `GET`, whose answer may be a page) and output (`output_queue_bytes_max`), beyond which reading pauses,
//! and time for each of them.
#![forbid(unsafe_code)]

use super::connections::{Conn, Linger};
use super::{Letter, Shard, Timer};
use super::{Platform, Ring};
use crate::fsm::request::ReplyTo;
use crate::fsm::wheel::TimerId;
use crate::net::ConnId;
use crate::ops::log::LogKind;
use crate::ops::metrics::{BadInput, StatusClass};
use crate::wire::http::{BodyDecoder, Head, HttpError, Method, parse_head};
use crate::wire::respond::{CONTINUE_100, Reply};
use std::collections::VecDeque;

/// Capacity of an idle connection's input buffer beyond which it is given back, bytes.
const INPUT_BYTES_KEPT: usize = 16 << 10;

/// A connection that speaks HTTP (or has not said yet what it speaks).
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
pub(super) struct Http {
    pub(super) id: ConnId,
    input: Vec<u8>,
    body: Option<Box<Body>>,
    calls: VecDeque<Call>,
    pub(super) timer: Option<TimerId>,
    waiting_for: Waiting,
    paused: bool,
    /// Takes no further request; what is under way is answered.
    last: bool,
    pub(super) peer_closed: bool,
    /// No whole request has come yet.
    fresh: bool,
    /// The client waits for `100 Continue`, and nothing of the body has come.
    owes_continue: bool,
}

/// What the connection's timer is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    /// The first head of a connection, or a later one of which something is there.
    Head,
    Body,
    /// The next request.
    Next,
    /// Answers, or that the client reads them: not for the client to send.
    Answers,
}

struct Body {
    head: Head,
    decoder: BodyDecoder,
    bytes: Vec<u8>,
}

/// A request under way.
struct Call {
    id: u64,
    keep_alive: bool,
    head_only: bool,
    /// Its answer may be a whole page.
    reads: bool,
    reply: Option<Box<Reply>>,
}

impl Http {
    pub(super) fn new(id: ConnId) -> Self {
        Self {
            id,
            input: Vec::new(),
            body: None,
            calls: VecDeque::new(),
            timer: None,
            waiting_for: Waiting::Head,
            paused: false,
            last: false,
            peer_closed: false,
            fresh: true,
            owes_continue: false,
        }
    }

    /// Whether no request has been seen and none is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.calls.is_empty()
    }

    /// Whether no whole request has come on this connection.
    pub(super) fn is_silent(&self) -> bool {
        self.calls.is_empty() && self.waiting_for == Waiting::Head && self.fresh
    }

    /// Whether the request that is coming is a `HEAD`, as far as can be told: even its refusal has no content then (RFC 9110
    /// §9.3.2).
    fn is_head(&self) -> bool {
        match &self.body {
            Some(body) => body.head.method == Method::Head,
            None => self.input.trim_ascii_start().starts_with(b"HEAD "),
        }
    }

    /// Calls that have no answer yet.
    pub(super) fn calls_under_way(&self) -> Vec<u64> {
        let waits = |call: &&Call| call.reply.is_none();
        self.calls.iter().filter(waits).map(|call| call.id).collect()
    }

    /// What was received and not yet understood.
    pub(super) fn take_input(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.input)
    }
}

impl<P: Platform> Shard<P> {
    /// Bytes on a connection that speaks HTTP.
    pub(super) fn http_received(&mut self, conn: ConnId, bytes: &[u8]) {
        let Some(http) = self.connections.http(conn) else {
            return;
        };
        if http.last {
            return; // After `Connection: close` nothing counts.
        }
        // A client that sends the body does not wait (any more).
        http.owes_continue = false;
        http.input.extend_from_slice(bytes);
        self.http_advance(conn);
    }

    /// Understands as many requests as are there and may be under way.
    fn http_advance(&mut self, conn: ConnId) {
        loop {
            let pipeline_max = self.config.http_pipeline_max as usize;
            let is_full = self.net.output_len(conn) >= self.config.output_queue_bytes_max as usize;
            let Some(http) = self.connections.http(conn) else {
                return;
            };
            if http.last {
                break;
            }
            // One page at a time: the client has to take it before the next is read.
            let reads = http.calls.iter().any(|call| call.reads);
            if reads && http.input.is_empty() {
                break; // It goes on being read, so that its end is noticed.
            }
            if is_full || reads || http.calls.len() >= pipeline_max {
                if !http.paused {
                    http.paused = true;
                    self.net.pause_recv(conn);
                }
                break;
            }
            if http.paused {
                http.paused = false;
                self.net.start_recv(conn);
            }
            let Some(http) = self.connections.http(conn) else {
                return;
            };
            match http_next(http) {
                Ok(Next::More) => break,
                Ok(Next::Continue) => http.owes_continue = true,
                Ok(Next::Request(head, body)) => self.http_request(conn, &head, &body),
                Err(error) => self.http_broken(conn, &error),
            }
        }
        self.http_continue(conn);
        self.http_settle(conn);
    }

    /// Asks for the body that a client holds back (RFC 9110 §10.1.1), once the requests before it are answered.
    fn http_continue(&mut self, conn: ConnId) {
        let Some(http) = self.connections.http(conn) else {
            return;
        };
        if http.owes_continue && http.calls.is_empty() {
            http.owes_continue = false;
            if let Some(out) = self.net.output(conn) {
                out.extend_from_slice(CONTINUE_100);
            }
        }
    }

    /// Sets the timer to what the connection is waiting for, and closes what is finished.
    fn http_settle(&mut self, conn: ConnId) {
        let Some(http) = self.connections.http(conn) else {
            return;
        };
        if http.calls.is_empty() && (http.last || (http.peer_closed && !http.paused)) {
            return self.linger(conn, Linger::Finished);
        }
        let waiting_for = if http.paused || http.owes_continue {
            Waiting::Answers // A client that was not told to go on with the body is not slow.
        } else if http.body.is_some() {
            Waiting::Body
        } else if !http.input.is_empty() {
            Waiting::Head
        } else if http.calls.is_empty() {
            if http.waiting_for == Waiting::Head && http.timer.is_some() {
                Waiting::Head
            } else {
                Waiting::Next
            }
        } else {
            Waiting::Answers
        };
        let after_ms = match waiting_for {
            Waiting::Head => self.config.head_timeout_ms,
            Waiting::Body => self.config.body_timeout_ms,
            Waiting::Next => self.config.http_idle_timeout_ms,
            Waiting::Answers => 0,
        };
        if http.waiting_for == waiting_for && http.timer.is_some() {
            return; // Its time runs already: a byte now and then does not extend it.
        }
        http.waiting_for = waiting_for;
        let old = http.timer.take();
        if let Some(timer) = old {
            self.wheel.cancel(timer);
        }
        if after_ms > 0 {
            let timer = self.wheel.arm(self.now_ms + after_ms, Timer::Conn(conn.slot()).owner());
            if let Some(http) = self.connections.http(conn) {
                http.timer = Some(timer);
            }
        }
    }

    /// The time for what the connection waits for is up.
    pub(super) fn http_timed_out(&mut self, conn: ConnId) {
        let Some(http) = self.connections.http(conn) else {
            return;
        };
        http.timer = None;
        let begun = !http.input.is_empty() || http.body.is_some();
        if !begun {
            return self.linger(conn, Linger::Timeout);
        }
        self.metrics().bad_input.of(BadInput::Slow).inc();
        self.log(LogKind::SlowSender, |suppressed| {
            tracing::info!(suppressed, "a request was too slow: 408");
        });
        let reply = Reply::problem(408, "timeout", "the request took too long to arrive");
        self.http_last_words(conn, reply);
        self.http_settle(conn);
    }

    /// The client sends no more; what it sent is still answered.
    pub(super) fn http_peer_closed(&mut self, conn: ConnId) {
        let Some(http) = self.connections.http(conn) else {
            return;
        };
        http.peer_closed = true;
        // What waits in the input while reading pauses is still to be understood.
        http.last |= http.calls.is_empty() && !http.paused;
        self.http_settle(conn);
    }

    fn http_broken(&mut self, conn: ConnId, error: &HttpError) {
        let kind = if error.status == 413 {
            BadInput::HttpBody
        } else {
            BadInput::HttpHead
        };
        self.metrics().bad_input.of(kind).inc();
        self.log(LogKind::BadHttp, |suppressed| {
            tracing::info!(status = error.status, error = error.message, suppressed, "bad HTTP");
        });
        self.http_last_words(conn, error.clone().into());
    }

    /// Queues an answer that no request asked for, after which the connection closes.
    fn http_last_words(&mut self, conn: ConnId, reply: Reply) {
        let id = self.calls.insert(conn) as u64;
        let Some(http) = self.connections.http(conn) else {
            return;
        };
        let head_only = http.is_head();
        http.body = None;
        http.input = Vec::new();
        http.owes_continue = false;
        http.last = true;
        http.calls.push_back(Call {
            id,
            keep_alive: false,
            head_only,
            reads: false,
            reply: None,
        });
        self.reply_arrived(id, Box::new(reply));
    }

    fn http_request(&mut self, conn: ConnId, head: &Head, body: &[u8]) {
        let idle = self.connections.http(conn).is_some_and(|http| http.calls.is_empty());
        match self.open_socket(conn, head, idle) {
            super::sockets::Opened::Socket => return,
            super::sockets::Opened::Refused(problem) => {
                // A good handshake at a node that drains is nobody's fault.
                if problem.status < 500 {
                    self.metrics().bad_input.of(BadInput::Handshake).inc();
                    self.log(LogKind::BadHandshake, |suppressed| {
                        tracing::info!(detail = %problem.detail, path = %head.target.path, suppressed, "bad handshake");
                    });
                }
                let call = self.begin_call(conn, head);
                return self.reply_arrived(call.call, Box::new(problem.into_reply()));
            }
            super::sockets::Opened::NotASocket => {}
        }
        let reply = self.begin_call(conn, head);
        self.call(head, body, reply);
    }

    fn begin_call(&mut self, conn: ConnId, head: &Head) -> ReplyTo {
        let id = self.calls.insert(conn) as u64;
        let draining = self.draining.is_some();
        if let Some(http) = self.connections.http(conn) {
            let keep_alive = head.keep_alive && !draining;
            http.last |= !keep_alive;
            http.fresh = false;
            let head_only = head.method == Method::Head;
            http.calls.push_back(Call {
                id,
                keep_alive,
                head_only,
                reads: matches!(head.method, Method::Get | Method::Head),
                reply: None,
            });
        }
        ReplyTo {
            node: 0,
            shard: self.index,
            call: id,
        }
    }

    /// Sends an answer to the call, wherever its connection is.
    pub(super) fn answer(&mut self, to: ReplyTo, reply: Reply) {
        if to.node != 0 {
            return self.reply_far(to, reply);
        }
        self.post(
            to.shard,
            Letter::Reply {
                call: to.call,
                reply: Box::new(reply),
            },
        );
    }

    /// [`Self::answer`], once everything is durable that it may show.
    pub(super) fn answer_durably(&mut self, to: ReplyTo, reply: Reply) {
        let (call, reply) = (to.call, Box::new(reply));
        if to.node != 0 {
            return self.post_durably(self.index, Letter::FarReply { to, reply });
        }
        self.post_durably(to.shard, Letter::Reply { call, reply });
    }

    /// An answer is here: it and those behind it go out as far as the order of the requests allows.
    pub(super) fn reply_arrived(&mut self, call: u64, reply: Box<Reply>) {
        let Some(reply) = self.passed_reply(call, reply) else {
            return;
        };
        self.metrics().http_requests.of(StatusClass::of(reply.status)).inc();
        let conn = self.calls.remove(call as usize);
        let Some(http) = self.connections.http(conn) else {
            return;
        };
        let Some(waiting) = http
            .calls
            .iter_mut()
            .find(|waiting| waiting.id == call && waiting.reply.is_none())
        else {
            return;
        };
        waiting.reply = Some(reply);
        self.http_date.advance(self.now_ms);
        let draining = self.draining.is_some();
        while http.calls.front().is_some_and(|call| call.reply.is_some()) {
            let Some(Call {
                keep_alive,
                head_only,
                reply: Some(reply),
                ..
            }) = http.calls.pop_front()
            else {
                break;
            };
            // A call that was under way when the drain began is the connection's last one.
            http.last |= draining && http.calls.is_empty();
            // Only the last one says that it is: what follows it nobody would wait for (RFC 9112 §9.6).
            let is_last = http.calls.is_empty() && (draining || (http.peer_closed && !http.paused));
            let keep_alive = keep_alive && !is_last;
            if let Some(out) = self.net.output(conn) {
                reply.write(out, &self.http_date, keep_alive, head_only);
            }
        }
        let room = self.config.http_pipeline_max as usize;
        let resume = http.paused && http.calls.len() < room;
        if resume || http.calls.is_empty() {
            self.http_again.push(conn);
        }
    }

    /// All answers so far are written.
    pub(super) fn http_drained(&mut self, conn: ConnId) {
        if self.connections.http(conn).is_some_and(|http| http.paused) {
            self.http_again.push(conn);
        }
    }

    /// After the letters of a turn: connections that may go on.
    pub(super) fn http_go_on(&mut self) {
        while let Some(conn) = self.http_again.pop() {
            self.http_advance(conn);
        }
    }
}

enum Next {
    /// Not whole yet.
    More,
    /// The client waits for `100 Continue`.
    Continue,
    Request(Box<Head>, Vec<u8>),
}

/// The next whole request of the input.
fn http_next(http: &mut Http) -> Result<Next, HttpError> {
    if http.body.is_none() {
        let Some((head, consumed)) = parse_head(&http.input)? else {
            return Ok(Next::More);
        };
        http.input.drain(..consumed);
        let decoder = BodyDecoder::new(head.body);
        let expect = head.expect_continue && http.input.is_empty();
        http.body = Some(Box::new(Body {
            head,
            decoder,
            bytes: Vec::new(),
        }));
        if expect {
            return Ok(Next::Continue);
        }
    }
    let Some(body) = http.body.as_mut() else {
        return Ok(Next::More);
    };
    let progress = body.decoder.feed(&http.input, &mut body.bytes)?;
    http.input.drain(..progress.consumed);
    if !progress.done {
        return Ok(Next::More);
    }
    if http.input.is_empty() && http.input.capacity() > INPUT_BYTES_KEPT {
        http.input = Vec::new();
    }
    match http.body.take() {
        Some(body) => Ok(Next::Request(Box::new(body.head), body.bytes)),
        None => Ok(Next::More),
    }
}

impl Conn {
    pub(super) fn as_http(&mut self) -> Option<&mut Http> {
        match self {
            Self::Http(http) => Some(http),
            Self::None | Self::Socket(_) | Self::Leaving(_) | Self::Claiming(_) | Self::Lingering(_) => None,
        }
    }
}
