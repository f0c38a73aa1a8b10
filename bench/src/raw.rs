//! The physical limit that every scenario is compared with: the same bytes in the same sizes over a bare ring.
//!
//! The raw server is this program in a child process, one pinned thread: multishot accept into direct descriptors, multishot
//! receive into provided buffers, one send per answer, one `io_uring_enter` per turn; it parses nothing. For each message of
//! a [`Pair`] that has arrived whole it sends the pair's answer; connections go through the list of pairs round and round.
#![forbid(unsafe_code)]

pub mod client;
pub mod disk;
pub mod server;

use std::str::FromStr;

/// Sizes of a message and its answer, in bytes on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Pair {
    /// Towards the server, at least 1.
    pub request: u32,
    /// Back, at least 1.
    pub response: u32,
}

/// Longest message of a pair, bytes.
pub const PAIR_BYTES_MAX: u32 = 65_536;

impl FromStr for Pair {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let sizes = text.split_once(':').and_then(|(request, response)| {
            let size = |text: &str| text.parse().ok().filter(|bytes| (1..=PAIR_BYTES_MAX).contains(bytes));
            Some(Self {
                request: size(request)?,
                response: size(response)?,
            })
        });
        sizes.ok_or_else(|| format!("allowed: REQUEST:RESPONSE with 1 to {PAIR_BYTES_MAX} bytes each, such as 86:331"))
    }
}

impl std::fmt::Display for Pair {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}:{}", self.request, self.response)
    }
}

/// Where a connection is in its list of pairs, seen from the side that receives `wanted` bytes next.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Progress {
    /// Index of the current pair.
    pub(crate) pair: u8,
    /// Bytes of its current message that are still to come.
    pub(crate) missing: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_read_and_written() {
        let pair = Pair {
            request: 50,
            response: 300,
        };
        assert_eq!("50:300".parse(), Ok(pair));
        assert_eq!(pair.to_string(), "50:300");
        for bad in ["", "50", "50:", "0:1", "1:0", "1:65537", "a:b", "1:2:3"] {
            assert!(bad.parse::<Pair>().is_err(), "{bad}");
        }
    }
}
