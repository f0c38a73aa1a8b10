//! What nodes of a fleet say to each other, as bytes on their links.
//!
//! A frame is a header of [`HEADER_LEN`] bytes and a payload, the rkyv form of a [`LinkFrame`]:
//!
//! | bytes | what |
//! |---|---|
//! | 0–3 | length of the payload, little endian, 1 to [`PAYLOAD_LEN_MAX`] |
//! | 4–7 | CRC32C (RFC 3720 appendix B.4) of everything after it, little endian |
//! | 8 | [`LINK_VERSION`] |
//! | 9–15 | 0 |
//!
//! A connection begins with [`LinkFrame::Hello`] of who made it, answered by [`LinkFrame::Welcome`] or
//! [`LinkFrame::Refused`]. Letters go one way only, from who made the connection, under numbers that grow by 1 in one life of
//! the sender's process; the other way go acknowledgements.
//!
//! The payload is checked (`bytecheck`) before anything of it is used, and a letter once more ([`LinkLetter::check`]): whatever another node
//! sends, it ends no process. The layout is that of the types here and in `fsm`: whoever changes one of them in a way that older programs cannot read makes [`LINK_VERSION`] greater.
#![forbid(unsafe_code)]
#![allow(
    missing_docs,
    reason = "rkyv derives resolvers and leaves their fields without documents; our own types all have them"
)]

use super::respond::{JSON, NDJSON, PROBLEM_JSON, Reply, TEXT};
use crate::fsm::ids::{DriverId, RequestId, TripId, home_shard};
use crate::fsm::request::{ReplyTo, RequestEvent, ToDriver, TripMove};
use crate::fsm::types::{OfferRequest, UnixMs};
use compact_str::CompactString;
use rkyv::rancor::Error;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};

/// Version of the frames and of everything in them. Nodes of another version are refused.
pub const LINK_VERSION: u8 = 4;
/// Bytes before the payload.
pub const HEADER_LEN: usize = 16;
/// Longest payload, in bytes: the longest answer of the API that goes over a link is an audit.
pub const PAYLOAD_LEN_MAX: usize = 4 << 20;
/// Alignment of a payload while it is read.
const PAYLOAD_ALIGN: usize = 16;

/// One frame.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub enum LinkFrame {
    /// The first of whoever makes a connection.
    Hello {
        /// The fleet: the names under which it keeps its data.
        fleet: CompactString,
        /// Who makes it.
        node_id: CompactString,
        /// Which life of that node.
        incarnation: u64,
        /// Whom it believes to have reached.
        to: CompactString,
        /// The number of the oldest letter that it still has.
        first: u64,
    },
    /// The answer to a [`Self::Hello`]: go on.
    Welcome {
        /// Which life of the reached node.
        incarnation: u64,
        /// The last letter that has arrived of that life of the sender; 0 for none.
        received: u64,
    },
    /// The answer to a [`Self::Hello`]: not with you.
    Refused {
        /// In words.
        why: CompactString,
    },
    /// A letter under its number, from 1.
    Letter {
        /// One more than that of the letter before it.
        seq: u64,
        /// The letter.
        letter: LinkLetter,
    },
    /// Are you there? Answered with [`Self::Ack`].
    Ping,
    /// Every letter up to this number has arrived.
    Ack {
        /// See [`Self::Letter`].
        received: u64,
    },
}

/// What a node's shards say to those of another.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub enum LinkLetter {
    /// A request of the sender speaks to a driver there.
    ToDriver {
        /// Who.
        driver_id: DriverId,
        /// The session under which the registry said that the driver is there.
        session: u64,
        /// Whose.
        request_id: RequestId,
        /// What.
        message: ToDriver,
    },
    /// Such a letter comes back: the driver has gone elsewhere.
    Bounced {
        /// Who.
        driver_id: DriverId,
        /// Whose.
        request_id: RequestId,
        /// What.
        message: ToDriver,
        /// Sessions up to this one are over there.
        session: u64,
        /// Where the driver went, if that is known.
        node: Option<CompactString>,
    },
    /// Something happens to a request of the receiver.
    ToRequest {
        /// Which.
        request_id: RequestId,
        /// What.
        event: RequestEvent,
    },
    /// A driver connected to the sender and had something of this request of the receiver: how does it stand?
    DriverHere {
        /// Who.
        driver_id: DriverId,
        /// The session of the connect.
        session: u64,
        /// Which.
        request_id: RequestId,
    },
    /// A driver connected to the sender; its socket at the receiver is displaced.
    Moved {
        /// Who.
        driver_id: DriverId,
        /// The session of the connect.
        session: u64,
    },
    /// The answer to a [`Self::Moved`]: the driver is the receiver's.
    Left {
        /// Who.
        driver_id: DriverId,
        /// As it was told.
        session: u64,
        /// Under which session the sender had the driver until now; 0: it did not.
        had_session: u64,
        /// The request that bound the driver, and the node that has that.
        bound: Option<(RequestId, CompactString)>,
        /// Since when the driver is off shift on purpose; 0: it is on shift.
        off_shift_since_ms: UnixMs,
    },
    /// A driver speaks of a trip of a request of the receiver.
    TripMoved {
        /// Which.
        trip_id: TripId,
        /// Who.
        driver_id: DriverId,
        /// What.
        what: TripMove,
    },
    /// The receiver's driver spoke of a trip that nobody knows.
    NoSuchTrip {
        /// Who.
        driver_id: DriverId,
    },
    /// `POST /v1/trips/{trip_id}/cancel` of a trip of the receiver's.
    TripCancelled {
        /// Which.
        trip_id: TripId,
        /// The caller's words.
        reason: Option<Box<str>>,
        /// Who asked.
        reply: ReplyTo,
    },
    /// `GET` of the state or the audit of a request of the receiver.
    View {
        /// Which.
        request_id: RequestId,
        /// The audit.
        audit: bool,
        /// Who asked.
        reply: ReplyTo,
    },
    /// `POST /v1/dispatch/offer` for a request of the receiver.
    Offer {
        /// What was posted.
        offer: Box<OfferRequest>,
        /// Who asked.
        reply: ReplyTo,
    },
    /// `GET` of a driver of the receiver.
    DriverView {
        /// Who.
        driver_id: DriverId,
        /// Who asked.
        reply: ReplyTo,
    },
    /// The answer to a call that the receiver passed on.
    Reply {
        /// Where it goes there.
        to: ReplyTo,
        /// The answer.
        answer: LinkReply,
    },
    /// The sender ends: nothing new is for it. Links take note of it, shards are not told.
    Leaving,
    /// The sender ends and has stopped deciding about this request: the receiver is to take it over. Answered with
    /// [`Self::HandedOver`].
    HandOver {
        /// Which.
        request_id: RequestId,
        /// When it was received.
        received_at_ms: UnixMs,
    },
    /// The answer to a [`Self::HandOver`].
    HandedOver {
        /// Which.
        request_id: RequestId,
        /// It is the sender's now. If not, it is as it was.
        is_taken: bool,
    },
}

/// An answer of the API on its way between nodes.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct LinkReply {
    /// Status code.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: CompactString,
    /// `Retry-After`, if it has that.
    pub retry_after: Option<CompactString>,
    /// The body.
    pub body: Vec<u8>,
}

/// The field of an answer that a link carries.
const RETRY_AFTER: &str = "retry-after";

impl From<Reply> for LinkReply {
    fn from(reply: Reply) -> Self {
        let retry_after = reply.headers.iter().find(|(name, _)| *name == RETRY_AFTER);
        Self {
            status: reply.status,
            content_type: reply.content_type.into(),
            retry_after: retry_after.map(|(_, value)| value.as_str().into()),
            body: reply.body,
        }
    }
}

impl LinkReply {
    /// As it is given to the caller; `None` when no node gives such an answer.
    pub fn into_reply(self) -> Option<Reply> {
        let known = [JSON, PROBLEM_JSON, NDJSON, TEXT];
        let content_type = known.into_iter().find(|known| *known == self.content_type)?;
        if !(200..600).contains(&self.status) {
            return None;
        }
        let reply = Reply::new(self.status, content_type, self.body);
        Some(match self.retry_after {
            Some(seconds) if seconds.bytes().all(|byte| byte.is_ascii_digit()) => {
                reply.with_header(RETRY_AFTER, seconds)
            }
            Some(_) | None => reply,
        })
    }
}

/// Bytes are no frame, or a frame is too large to be sent. The peer's fault; repeating does not help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkError {
    /// Of a version that this program does not speak.
    Version(u8),
    /// A length that no frame has.
    Length(usize),
    /// The header is none, or the bytes are not those that were sent.
    Checksum,
    /// The payload is none of ours.
    Payload(String),
    /// A letter that no node sends.
    Letter(&'static str),
}

impl std::fmt::Display for LinkError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Version(version) => write!(f, "version {version} of the links, not {LINK_VERSION}"),
            Self::Length(len) => write!(f, "a frame of {len} bytes; 1 to {PAYLOAD_LEN_MAX} are allowed"),
            Self::Checksum => f.write_str("a frame with a wrong checksum"),
            Self::Payload(why) => write!(f, "not a frame: {why}"),
            Self::Letter(why) => write!(f, "not a letter: {why}"),
        }
    }
}

impl std::error::Error for LinkError {}

fn payload_error(error: &Error) -> LinkError {
    let whole = error.to_string();
    LinkError::Payload(whole.lines().next().unwrap_or_default().to_owned())
}

/// Adds `frame` at the end of `out`; returns how many bytes it took. On an error `out` is as it was.
///
/// # Errors
/// When the frame is longer than links carry.
pub fn encode(frame: &LinkFrame, out: &mut Vec<u8>) -> Result<usize, LinkError> {
    let payload = rkyv::to_bytes::<Error>(frame).map_err(|error| payload_error(&error))?;
    if payload.is_empty() || payload.len() > PAYLOAD_LEN_MAX {
        return Err(LinkError::Length(payload.len()));
    }
    let start = out.len();
    out.reserve(HEADER_LEN + payload.len());
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&[0; HEADER_LEN - 4]);
    out[start + 8] = LINK_VERSION;
    out.extend_from_slice(&payload);
    let checksum = crc32c::crc32c(&out[start + 8..]);
    out[start + 4..start + 8].copy_from_slice(&checksum.to_le_bytes());
    debug_assert_eq!(out.len() - start, HEADER_LEN + payload.len());
    Ok(HEADER_LEN + payload.len())
}

/// The frame that `bytes` begin with and how long it is; `None` when more bytes are needed to say so.
///
/// # Errors
/// When no frame begins so. Nothing that follows can be understood either.
pub fn decode(bytes: &[u8]) -> Result<Option<(LinkFrame, usize)>, LinkError> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_LEN>() else {
        return Ok(None);
    };
    let [l0, l1, l2, l3, c0, c1, c2, c3, version, zeros @ ..] = *header;
    if version != LINK_VERSION {
        return Err(LinkError::Version(version));
    }
    let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    if len == 0 || len > PAYLOAD_LEN_MAX {
        return Err(LinkError::Length(len));
    }
    if zeros != [0; HEADER_LEN - 9] {
        return Err(LinkError::Checksum);
    }
    let Some(payload) = rest.get(..len) else {
        return Ok(None);
    };
    if crc32c::crc32c(&bytes[8..HEADER_LEN + len]) != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Err(LinkError::Checksum);
    }
    let mut aligned = AlignedVec::<PAYLOAD_ALIGN>::with_capacity(len);
    aligned.extend_from_slice(payload);
    let frame = rkyv::from_bytes::<LinkFrame, Error>(&aligned).map_err(|error| payload_error(&error))?;
    Ok(Some((frame, HEADER_LEN + len)))
}

impl LinkLetter {
    /// Where the answer to this goes, if somebody waits for one.
    pub fn reply(&self) -> Option<ReplyTo> {
        match self {
            Self::ToRequest { event, .. } => event.reply(),
            Self::TripCancelled { reply, .. }
            | Self::View { reply, .. }
            | Self::Offer { reply, .. }
            | Self::DriverView { reply, .. } => Some(*reply),
            Self::ToDriver { .. }
            | Self::Bounced { .. }
            | Self::DriverHere { .. }
            | Self::Moved { .. }
            | Self::Left { .. }
            | Self::TripMoved { .. }
            | Self::NoSuchTrip { .. }
            | Self::Reply { .. }
            | Self::Leaving
            | Self::HandOver { .. }
            | Self::HandedOver { .. } => None,
        }
    }

    /// Of a node with so many shards, the one that a letter is for; `None`: it is for the links, or no node sends such a letter.
    pub fn home(&self, shards: u16) -> Option<u16> {
        match self {
            Self::ToDriver { driver_id, .. }
            | Self::Bounced { driver_id, .. }
            | Self::DriverHere { driver_id, .. }
            | Self::Moved { driver_id, .. }
            | Self::Left { driver_id, .. }
            | Self::NoSuchTrip { driver_id }
            | Self::DriverView { driver_id, .. } => Some(home_shard(driver_id.hash64(), shards)),
            Self::ToRequest { request_id, .. }
            | Self::View { request_id, .. }
            | Self::HandOver { request_id, .. }
            | Self::HandedOver { request_id, .. } => Some(home_shard(request_id.hash64(), shards)),
            Self::Offer { offer, .. } => Some(home_shard(offer.request_id.hash64(), shards)),
            Self::TripMoved { trip_id, .. } | Self::TripCancelled { trip_id, .. } => {
                trip_id.request_hash().map(|hash| home_shard(hash, shards))
            }
            Self::Reply { to, .. } => (to.shard < shards).then_some(to.shard),
            Self::Leaving => None,
        }
    }

    /// It has come from the node that has this number here: addresses of callers in it become this node's.
    pub fn arrives_from(&mut self, from: u16) {
        if let Some(reply) = self.replies_mut() {
            // As the sender numbers nodes: 0 is the sender, another number means this node.
            let node = if reply.node == 0 { from } else { 0 };
            *reply = ReplyTo { node, ..*reply };
        }
    }

    /// Every address of a caller in it. They are numbered as the sender numbers nodes, and so become the receiver's.
    pub fn replies_mut(&mut self) -> Option<&mut ReplyTo> {
        match self {
            Self::ToRequest { event, .. } => event.reply_mut(),
            Self::ToDriver { message, .. } | Self::Bounced { message, .. } => message.reply_mut(),
            Self::TripCancelled { reply, .. }
            | Self::View { reply, .. }
            | Self::Offer { reply, .. }
            | Self::DriverView { reply, .. }
            | Self::Reply { to: reply, .. } => Some(reply),
            Self::DriverHere { .. }
            | Self::Moved { .. }
            | Self::Left { .. }
            | Self::TripMoved { .. }
            | Self::NoSuchTrip { .. }
            | Self::Leaving
            | Self::HandOver { .. }
            | Self::HandedOver { .. } => None,
        }
    }
}

mod check;

#[cfg(test)]
mod tests;
