//! Ids of drivers, requests and trips, and the hash that places them on a shard.
//!
//! An id is 1–64 bytes of `[A-Za-z0-9._:-]` (contract, introduction). Short ids (≤ 24 bytes) live inline.

use compact_str::CompactString;
use xxhash_rust::xxh3::xxh3_64;

/// Longest id, in bytes.
pub const ID_LEN_MAX: usize = 64;

/// Why a text is no id. The caller's fault; repeating it will not help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdError {
    /// The text is empty.
    Empty,
    /// The text is longer than [`ID_LEN_MAX`] bytes.
    TooLong,
    /// The byte at this offset is not in `[A-Za-z0-9._:-]`.
    BadByte(usize),
}

impl std::fmt::Display for IdError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => write!(f, "an id must not be empty"),
            Self::TooLong => write!(f, "an id has at most {ID_LEN_MAX} bytes"),
            Self::BadByte(at) => write!(f, "an id has only A-Z a-z 0-9 . _ : - (byte {at} is none of them)"),
        }
    }
}

impl std::error::Error for IdError {}

/// Checks `text` against the contract's id rule, which names of nodes follow, too.
///
/// # Errors
/// [`IdError`] says which part of the rule is broken.
pub fn check_id(text: &str) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > ID_LEN_MAX {
        return Err(IdError::TooLong);
    }
    let bad = |byte: u8| !(byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'-'));
    text.bytes()
        .position(bad)
        .map_or(Ok(()), |at| Err(IdError::BadByte(at)))
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
        pub struct $name(CompactString);

        impl $name {
            /// Checks `text` against the contract's id rule.
            ///
            /// # Errors
            /// [`IdError`] says which part of the rule is broken.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                check_id(text).map(|()| Self(CompactString::new(text)))
            }

            /// The id as it was given.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// Stable 64-bit hash (XXH3, seed 0): the same on every machine and in every release.
            pub fn hash64(&self) -> u64 {
                xxh3_64(self.0.as_bytes())
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id!(
    /// A driver, as the platform names it.
    DriverId
);
id!(
    /// A dispatch request, as the matching engine names it; the idempotency key.
    RequestId
);
id!(
    /// A trip. Made by the gateway: `t-{hash of the request id}-{time it was received}`, both in hex, so
    /// that any node finds the request's home shard from the trip id alone and a replay makes the same id.
    TripId
);

impl TripId {
    /// The only trip that `request`, received at `received_at_ms`, can have.
    pub fn for_request(request: &RequestId, received_at_ms: u64) -> Self {
        Self(compact_str::format_compact!(
            "t-{:016x}-{received_at_ms:x}",
            request.hash64()
        ))
    }

    /// The hash of the request's id; `None` for a trip id that the gateway did not make.
    pub fn request_hash(&self) -> Option<u64> {
        let hex = self.0.strip_prefix("t-")?.get(..16)?;
        u64::from_str_radix(hex, 16).ok()
    }
}

/// The home shard of a hash among `shards`: the high bits decide, so equal ranges of the hash space.
///
/// # Panics
/// When `shards` is 0.
pub fn home_shard(hash: u64, shards: u16) -> u16 {
    assert!(shards > 0);
    let home = (u128::from(hash) * u128::from(shards)) >> 64;
    debug_assert!(home < u128::from(shards));
    home as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_the_contract() {
        let check =
            |text: &str, expect: Result<(), IdError>| assert_eq!(DriverId::parse(text).map(|_| ()), expect, "{text:?}");
        check("a", Ok(()));
        check("Az09._:-", Ok(()));
        check(&"x".repeat(64), Ok(()));
        check("", Err(IdError::Empty));
        check(&"x".repeat(65), Err(IdError::TooLong));
        check("a b", Err(IdError::BadByte(1)));
        check("é", Err(IdError::BadByte(0)));
        check("a/b", Err(IdError::BadByte(1)));
    }

    #[test]
    fn a_trip_id_leads_home() {
        let request = RequestId::parse("req-1").unwrap();
        let trip = TripId::for_request(&request, 1_700_000_000_000);
        assert_eq!(trip.request_hash(), Some(request.hash64()));
        assert_eq!(TripId::parse(trip.as_str()).unwrap(), trip);
        assert_eq!(TripId::parse("somebody-elses").unwrap().request_hash(), None);
    }

    #[test]
    fn homes_cover_all_shards() {
        assert_eq!(home_shard(0, 64), 0);
        assert_eq!(home_shard(u64::MAX, 64), 63);
        assert_eq!(home_shard(u64::MAX, 1), 0);
    }
}
