//! Answers while the node recovers: `GET /healthz` (alive), `GET /readyz` (recovering), and 503 to everything else.
//! Without it, probes and clients would hang in the listener's backlog for as long as the journal is long.
//!
//! Only the first listener is bound until the shards serve (with `SO_REUSEPORT` the kernel would spread connections over
//! listeners that nobody accepts from), and it is never closed: [`Reception::close`] hands it on with what waits in it.
//! Who was let in before that is answered all the same.
//!
//! Bounded: [`GUESTS_MAX`] connections, [`GUEST_TIME`] for each, one answer.

use crate::limits::RETRY_AFTER_S;
use crate::ops::health::{self, Readiness};
use crate::wire::http::{Head, Method, parse_head};
use crate::wire::respond::{HttpDate, Problem, Reply};
use crate::wire::route::{Route, route};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Connections at once; more wait in the backlog.
const GUESTS_MAX: usize = 256;
/// Time for a connection, from its accept to its end.
const GUEST_TIME: Duration = Duration::from_secs(2);
/// Bytes read at once.
const READ_BYTES: usize = 4 << 10;

/// The thread that answers. It ends by itself, some time after it was closed.
pub(super) struct Reception {
    /// Closing it closes the reception.
    bell: UnixStream,
    listener: Receiver<TcpListener>,
}

impl Reception {
    /// Accepts from `listener` and answers until closed.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(super) fn open(listener: TcpListener) -> io::Result<Self> {
        let (bell, heard) = UnixStream::pair()?;
        let (give_back, given_back) = channel();
        listener.set_nonblocking(true)?;
        let desk = Desk {
            bell: heard,
            listener: Some(listener),
            give_back,
            guests: Vec::new(),
        };
        std::thread::Builder::new()
            .name("reception".to_owned())
            .spawn(move || desk.run())?;
        Ok(Self {
            bell,
            listener: given_back,
        })
    }

    /// Accepts nobody any more and returns the listener, with its backlog.
    ///
    /// # Errors
    /// When the listener cannot be made to block again, as the rings need it.
    pub(super) fn close(self) -> io::Result<TcpListener> {
        drop(self.bell);
        let listener = self.listener.recv().map_err(io::Error::other)?;
        listener.set_nonblocking(false)?;
        Ok(listener)
    }
}

struct Desk {
    bell: UnixStream,
    listener: Option<TcpListener>,
    give_back: Sender<TcpListener>,
    guests: Vec<Guest>,
}

impl Desk {
    fn run(mut self) {
        while self.listener.is_some() || !self.guests.is_empty() {
            let ready = match self.wait() {
                Ok(ready) => ready,
                Err(error) => {
                    tracing::warn!(%error, "nobody is answered until the node has recovered");
                    Vec::new()
                }
            };
            let failed = ready.is_empty();
            let now = Instant::now();
            let mut ready = ready.into_iter();
            let rung = ready.next().unwrap_or(false);
            let waiting = ready.next().unwrap_or(false);
            let mut guests = std::mem::take(&mut self.guests);
            guests.retain_mut(|guest| {
                let goes_on = !ready.next().unwrap_or(false) || guest.serve();
                goes_on && now < guest.until && !failed
            });
            self.guests = guests;
            if waiting {
                self.accept(now);
            }
            if (rung || failed)
                && let Some(listener) = self.listener.take()
                && self.give_back.send(listener).is_err()
            {
                return; // The node has given up.
            }
        }
    }

    /// Sleeps until something can be done. For the bell, the listener and each guest: whether it is ready.
    fn wait(&self) -> io::Result<Vec<bool>> {
        let room = self.guests.len() < GUESTS_MAX;
        let accepting = self.listener.as_ref().filter(|_| room);
        // Once rung, the bell would ring for ever.
        let ringing = self.listener.is_some().then_some(&self.bell);
        let mut polled = Vec::with_capacity(2 + self.guests.len());
        polled.extend(ringing.map(|bell| PollFd::new(bell, PollFlags::IN)));
        polled.extend(accepting.map(|listener| PollFd::new(listener, PollFlags::IN)));
        polled.extend(
            self.guests
                .iter()
                .map(|guest| PollFd::new(&guest.stream, PollFlags::IN)),
        );
        let until = self.guests.iter().map(|guest| guest.until).min();
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        rustix::io::retry_on_intr(|| poll(&mut polled, left.as_ref()))?;
        let mut ready = polled.iter().map(|polled| !polled.revents().is_empty());
        let rung = ringing.is_some() && ready.next().unwrap_or(false);
        let waiting = accepting.is_some() && ready.next().unwrap_or(false);
        Ok([rung, waiting].into_iter().chain(ready).collect())
    }

    fn accept(&mut self, now: Instant) {
        let Some(listener) = &self.listener else { return };
        while self.guests.len() < GUESTS_MAX {
            // An error: nobody waits, or the one who did is gone.
            let Ok((stream, _)) = listener.accept() else { return };
            if stream.set_nonblocking(true).is_ok() {
                self.guests.push(Guest {
                    stream,
                    input: Vec::new(),
                    answered: false,
                    until: now + GUEST_TIME,
                });
            }
        }
    }
}

struct Guest {
    stream: TcpStream,
    input: Vec<u8>,
    answered: bool,
    until: Instant,
}

impl Guest {
    /// Reads and, when the head is whole, answers. Then reads on, so that what the client still sends does not turn the
    /// end into a reset that destroys the answer (RFC 9112 §9.6). False when the connection is over.
    fn serve(&mut self) -> bool {
        let mut buffer = [0; READ_BYTES];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return false,
                Ok(_) if self.answered => {}
                Ok(count) => {
                    self.input.extend_from_slice(&buffer[..count]);
                    if let Some(bytes) = answer(&self.input) {
                        self.answered = true;
                        // A socket just accepted takes the few hundred bytes at once.
                        let sent = self.stream.write_all(&bytes);
                        if sent.and_then(|()| self.stream.shutdown(Shutdown::Write)).is_err() {
                            return false;
                        }
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
    }
}

/// The answer to what has come of a request; none while its head is not whole.
fn answer(input: &[u8]) -> Option<Vec<u8>> {
    let (reply, head_only) = match parse_head(input) {
        Ok(None) => return None,
        Ok(Some((head, _))) => (reply_to(&head), head.method == Method::Head),
        Err(error) => (error.into(), input.starts_with(b"HEAD ")),
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let date = HttpDate::at(u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
    let mut bytes = Vec::new();
    reply.write(&mut bytes, &date, false, head_only);
    Some(bytes)
}

fn reply_to(head: &Head) -> Reply {
    match route(head.method, &head.target) {
        Ok(Route::Healthz) => health::alive(),
        Ok(Route::Readyz) => health::ready(Readiness::Recovering),
        _ => Problem::recovering(RETRY_AFTER_S).into_reply(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> (Reception, std::net::SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (Reception::open(listener).unwrap(), address)
    }

    /// Sends a request in two pieces and expects the answer and an orderly end.
    fn check(address: std::net::SocketAddr, request: &str, status: u16, part: &str) {
        let mut stream = TcpStream::connect(address).unwrap();
        let (first, second) = request.as_bytes().split_at(request.len() / 2);
        stream.write_all(first).unwrap();
        stream.write_all(second).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(
            answer.contains(part) && answer.contains("\r\nconnection: close\r\n"),
            "{answer}"
        );
    }

    #[test]
    fn health_is_answered_and_the_rest_is_turned_away() {
        let (reception, address) = open();
        check(address, "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", 200, "alive");
        check(
            address,
            "GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n",
            503,
            "\"recovering\"",
        );
        let offer = "POST /v1/dispatch/offer HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}";
        check(address, offer, 503, "retry-after: ");
        check(address, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 503, "\"recovering\"");
        check(address, "GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400, "\"invalid\"");
        reception.close().unwrap();
    }

    #[test]
    fn who_was_let_in_is_answered_and_who_waits_is_handed_on() {
        let (reception, address) = open();
        let mut silent = TcpStream::connect(address).unwrap();
        // Whoever is answered came after it.
        check(address, "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", 200, "alive");
        let listener = reception.close().unwrap();
        let late = TcpStream::connect(address).unwrap();
        let (accepted, peer) = listener.accept().unwrap();
        assert_eq!(peer, late.local_addr().unwrap());
        drop(accepted);
        silent.write_all(b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let mut answer = String::new();
        silent.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    }
}
