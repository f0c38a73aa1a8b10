//! Log lines: set up once, and limited where a peer can cause them.
//!
//! Lines go to stderr, written by a thread of their own: no shard waits for whoever reads them, and a reader that is gone or a
//! disk that is full costs lines, never the node. What a peer can cause goes through a [`LogLimiter`], one per shard: a token bucket per kind,
//! with the number of lines left out in the next line that is let through.
#![forbid(unsafe_code)]

use crate::config::{LogFormat, LogLevel};
use std::io::IsTerminal as _;
use std::sync::{Mutex, PoisonError};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::fmt::format::Writer;

/// Lines that may wait to be written; further ones are lost.
const LINES_WAITING_MAX: usize = 16_384;

/// Whoever holds this keeps the writing thread.
static WRITER: Mutex<Option<WorkerGuard>> = Mutex::new(None);

/// Sends log lines of at least `level` to stderr from now on, until [`end`]. A second call changes nothing.
pub fn init(level: LogLevel, format: LogFormat) {
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(LINES_WAITING_MAX)
        .lossy(true)
        .thread_name("log")
        .finish(std::io::stderr());
    // What goes wrong in writing a line would be told on stderr, which is what went wrong.
    let lines = tracing_subscriber::fmt()
        .with_env_filter(own_lines(level))
        .log_internal_errors(false)
        .with_writer(writer);
    let lines = lines.with_ansi(std::io::stderr().is_terminal()).with_timer(UtcTime);
    let done = match format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    if done.is_ok() {
        *WRITER.lock().unwrap_or_else(PoisonError::into_inner) = Some(guard);
    }
}

/// Writes what still waits, for a second or so at most; lines after it are lost. For the end of the process.
pub fn end() {
    drop(WRITER.lock().unwrap_or_else(PoisonError::into_inner).take());
}

/// Our own lines from `level` on; those of libraries from `warn` on, but for glommio's reactor, whose probe for
/// polled I/O reports every file system that has none as an error, and for Cassandra's driver, which tells each of its attempts
/// to connect: what they come to is told in lines of our own. From `debug` on they are there.
fn own_lines(level: LogLevel) -> EnvFilter {
    let (own, others) = (level_filter(level), level_filter(level).min(LevelFilter::WARN));
    let driver = match level {
        LogLevel::Error | LogLevel::Warn | LogLevel::Info => LevelFilter::OFF,
        LogLevel::Debug | LogLevel::Trace => others,
    };
    EnvFilter::new(format!("{others},dispatchd={own},glommio::reactor=off,scylla={driver}"))
}

fn level_filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

/// RFC 3339 in UTC, to the millisecond.
struct UtcTime;

impl tracing_subscriber::fmt::time::FormatTime for UtcTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
        write!(writer, "{:.3}", jiff::Timestamp::now())
    }
}

/// Kinds of lines that a peer can cause, each with a bucket of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogKind {
    /// Bad HTTP heads, bodies and requests.
    BadHttp,
    /// Bad WebSocket handshakes.
    BadHandshake,
    /// Frames against RFC 6455.
    BadFrame,
    /// Bad messages of drivers.
    BadMessage,
    /// Peers that are slow to send.
    SlowSender,
    /// Peers that are slow to read.
    SlowConsumer,
    /// Drivers that stopped their heartbeats.
    HeartbeatLost,
    /// Drivers that displaced themselves.
    Displaced,
    /// Drivers that say more than they may.
    Flood,
    /// More than the node takes: 429, cut handshakes.
    Overload,
    /// Socket errors.
    Socket,
}

const KINDS: usize = LogKind::Socket as usize + 1;

/// Token buckets of one shard. A bucket holds a second's worth and fills evenly.
#[derive(Debug)]
pub struct LogLimiter {
    /// Lines per second and kind; 0 lets none through.
    per_s: u32,
    buckets: [Bucket; KINDS],
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Thousandths of a line.
    tokens_milli: u64,
    filled_at_ms: u64,
    suppressed: u64,
}

impl LogLimiter {
    /// Full buckets of `per_s` lines (the setting `log_repeat_per_s`).
    pub fn new(per_s: u32) -> Self {
        let full = Bucket {
            tokens_milli: u64::from(per_s) * 1000,
            filled_at_ms: 0,
            suppressed: 0,
        };
        Self {
            per_s,
            buckets: [full; KINDS],
        }
    }

    /// Whether a line of `kind` may be written at `now_ms`: `Some` with the number left out since the last one that
    /// was, or `None`, and the line counts as left out. Any clock that does not fall will do.
    #[inline]
    pub fn admit(&mut self, kind: LogKind, now_ms: u64) -> Option<u64> {
        let capacity_milli = u64::from(self.per_s) * 1000;
        let bucket = &mut self.buckets[kind as usize];
        // One line per second is one thousandth of a line per millisecond.
        let earned_milli = now_ms
            .saturating_sub(bucket.filled_at_ms)
            .saturating_mul(u64::from(self.per_s));
        bucket.tokens_milli = bucket.tokens_milli.saturating_add(earned_milli).min(capacity_milli);
        bucket.filled_at_ms = bucket.filled_at_ms.max(now_ms);
        if bucket.tokens_milli < 1000 {
            bucket.suppressed += 1;
            return None;
        }
        bucket.tokens_milli -= 1000;
        Some(std::mem::take(&mut bucket.suppressed))
    }

    /// Writes a line for each kind that still has lines left out, and forgets them. For the end of a shard, or now
    /// and then: a kind that falls silent would keep its number to itself.
    pub fn flush(&mut self) {
        for (kind, bucket) in ALL_KINDS.iter().zip(&mut self.buckets) {
            let suppressed = std::mem::take(&mut bucket.suppressed);
            if suppressed > 0 {
                tracing::warn!(?kind, suppressed, "more lines of this kind were left out");
            }
        }
    }
}

const ALL_KINDS: [LogKind; KINDS] = [
    LogKind::BadHttp,
    LogKind::BadHandshake,
    LogKind::BadFrame,
    LogKind::BadMessage,
    LogKind::SlowSender,
    LogKind::SlowConsumer,
    LogKind::HeartbeatLost,
    LogKind::Displaced,
    LogKind::Flood,
    LogKind::Overload,
    LogKind::Socket,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_to_the_rate_and_counted() {
        let mut limiter = LogLimiter::new(5);
        let let_through = |limiter: &mut LogLimiter, at_ms: u64, lines: u32| {
            (0..lines)
                .filter_map(|_| limiter.admit(LogKind::BadFrame, at_ms))
                .collect::<Vec<u64>>()
        };
        assert_eq!(let_through(&mut limiter, 1_000, 100), [0; 5]);
        assert_eq!(let_through(&mut limiter, 1_199, 1), [0; 0]);
        assert_eq!(let_through(&mut limiter, 1_200, 2), [96]);
        assert_eq!(let_through(&mut limiter, 60_000, 100), [1, 0, 0, 0, 0]);
        // A clock that falls earns nothing and breaks nothing.
        assert_eq!(let_through(&mut limiter, 0, 1), [0; 0]);
    }

    #[test]
    fn kinds_do_not_share_a_bucket_and_zero_is_silence() {
        let mut limiter = LogLimiter::new(1);
        assert_eq!(limiter.admit(LogKind::BadHttp, 0), Some(0));
        assert_eq!(limiter.admit(LogKind::BadHttp, 0), None);
        assert_eq!(limiter.admit(LogKind::Socket, 0), Some(0));
        assert_eq!(LogLimiter::new(0).admit(LogKind::Socket, 1 << 60), None);
    }

    #[test]
    fn every_kind_is_listed_in_its_place() {
        assert!(
            ALL_KINDS
                .iter()
                .enumerate()
                .all(|(place, kind)| *kind as usize == place)
        );
    }
}
