//! HTTP connections of an actor: calls out, answers in, in order, on as many connections as it likes.

use crate::checks::{About, Check};
use crate::client::{Action, Conn};
use crate::codec::http::{self, Begins};
use crate::rng::Rng;
use crate::witness::{Loss, Next, Shared};
use std::collections::VecDeque;

#[derive(Debug)]
struct Line {
    conn: Conn,
    input: Vec<u8>,
    /// With fewer bytes than this there is no whole answer.
    least: usize,
    /// Bytes of the input in which no head ends.
    searched: usize,
    flying: VecDeque<u32>,
    /// Takes no more calls.
    last: bool,
    /// The one for which it was opened.
    first_call: u32,
    /// The client sends no more, after whole requests: these are to be answered.
    half_closed: bool,
}

/// The connections.
#[derive(Debug)]
pub(super) struct Lines {
    lines: Vec<Line>,
    next_conn: u32,
    most: usize,
    /// Where they go; `None`: to any node.
    node: Option<u8>,
}

/// What became of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Answered(u32, Next),
    Lost(u32, Loss),
}

impl Lines {
    pub(super) fn new(most: u64) -> Self {
        Self {
            lines: Vec::new(),
            next_conn: 0,
            most: most.max(1) as usize,
            node: None,
        }
    }

    /// Connections to one node of a fleet.
    pub(super) fn at(node: u8, most: u64) -> Self {
        Self {
            // Beside those of others of the same actor.
            next_conn: (u32::from(node) + 1) << 24,
            node: Some(node),
            ..Self::new(most)
        }
    }

    /// Whether this is one of them.
    pub(super) fn has(&self, conn: Conn) -> bool {
        self.lines.iter().any(|line| line.conn == conn)
    }

    /// Sends a call on one of the connections, or on a new one.
    pub(super) fn send(&mut self, call: u32, bytes: Vec<u8>, witness: &Shared, rng: &mut Rng, out: &mut Vec<Action>) {
        let choice = rng.below(self.most as u64) as usize;
        let usable = |line: &Line| !line.last;
        let index = (choice..self.lines.len()).find(|index| usable(&self.lines[*index]));
        let index = if let Some(index) = index {
            index
        } else {
            let conn = Conn(self.next_conn);
            self.next_conn += 1;
            out.push(match self.node {
                Some(node) => Action::OpenAt(conn, node),
                None => Action::Open(conn),
            });
            self.lines.push(Line {
                conn,
                input: Vec::new(),
                least: 0,
                searched: 0,
                flying: VecDeque::new(),
                last: false,
                first_call: call,
                half_closed: false,
            });
            self.lines.len() - 1
        };
        let line = &mut self.lines[index];
        if !line.flying.is_empty() {
            witness.borrow_mut().sent_behind(call);
        }
        line.flying.push_back(call);
        out.push(Action::Send(line.conn, bytes));
    }

    /// Drops or half-closes a connection: what is under way on it is lost, or answered all the same.
    pub(super) fn be_rude(&mut self, rng: &mut Rng, fates: &mut Vec<Fate>, out: &mut Vec<Action>) {
        if self.lines.is_empty() {
            return;
        }
        let index = rng.below(self.lines.len() as u64) as usize;
        let conn = self.lines[index].conn;
        match rng.below(3) {
            0 => {
                out.push(Action::Abort(conn));
                self.over(conn, fates);
            }
            1 if !self.lines[index].last => {
                (self.lines[index].last, self.lines[index].half_closed) = (true, true);
                out.push(Action::HalfClose(conn));
            }
            _ => {}
        }
    }

    /// Bytes of the node.
    pub(super) fn bytes(
        &mut self,
        conn: Conn,
        bytes: &[u8],
        witness: &Shared,
        now_us: u64,
        fates: &mut Vec<Fate>,
        out: &mut Vec<Action>,
    ) {
        let Some(line) = self.lines.iter_mut().find(|line| line.conn == conn) else {
            return;
        };
        line.input.extend_from_slice(bytes);
        if line.input.len() < line.least {
            return;
        }
        let mut used = 0;
        let (mut over, mut gave_up) = (false, false);
        loop {
            let mut witness = witness.borrow_mut();
            let witness = witness.at(now_us);
            match http::answer(&line.input[used..], line.searched) {
                Ok(Begins::Part(least)) => {
                    line.least = least;
                    line.searched = if least == 0 { line.input.len() - used } else { 0 };
                    break;
                }
                Ok(Begins::Answer(answer, length)) => {
                    used += length;
                    line.searched = 0;
                    match line.flying.pop_front() {
                        Some(call) => {
                            fates.push(Fate::Answered(call, witness.answered(call, &answer)));
                            if let Some(next) = line.flying.front() {
                                witness.came_to_front(*next);
                            }
                        }
                        // The node gave up waiting for a request.
                        None if answer.status == 408 => {}
                        None => {
                            let text = format!("an answer that nobody asked for: {answer:?}");
                            witness.broken(Check::Protocol, About::default(), text);
                        }
                    }
                    line.last |= answer.close;
                    over |= answer.close;
                    gave_up |= answer.status == 408;
                }
                Err(bad) => {
                    witness.broken(Check::Protocol, About::default(), format!("HTTP: {bad}"));
                    over = true;
                    break;
                }
            }
        }
        line.input.drain(..used);
        if over {
            out.push(Action::Abort(conn));
            if gave_up {
                self.over(conn, fates);
            } else {
                self.closed(conn, fates);
            }
        }
    }

    /// The node sends no more on this connection.
    pub(super) fn half_closed(&mut self, conn: Conn, fates: &mut Vec<Fate>, out: &mut Vec<Action>) {
        out.push(Action::Abort(conn));
        let line = self.lines.iter().find(|line| line.conn == conn);
        let front = line.and_then(|line| line.flying.front().copied());
        self.lose(conn, front.map_or(Loss::Excused, Loss::Closed), fates);
    }

    /// Both sides have closed the connection, in order, or the node says that it does: whoever only sends no more has got his
    /// answers.
    pub(super) fn closed(&mut self, conn: Conn, fates: &mut Vec<Fate>) {
        let half_closed = |line: &&Line| line.conn == conn && line.half_closed;
        let line = self.lines.iter().find(half_closed);
        let loss = line.map_or(Loss::Excused, |line| Loss::HalfClosed(line.first_call));
        self.lose(conn, loss, fates);
    }

    /// The connection is over; calls without an answer are lost.
    pub(super) fn over(&mut self, conn: Conn, fates: &mut Vec<Fate>) {
        self.lose(conn, Loss::Excused, fates);
    }

    fn lose(&mut self, conn: Conn, loss: Loss, fates: &mut Vec<Fate>) {
        let Some(index) = self.lines.iter().position(|line| line.conn == conn) else {
            return;
        };
        let line = self.lines.remove(index);
        fates.extend(line.flying.into_iter().map(|call| Fate::Lost(call, loss)));
    }
}
