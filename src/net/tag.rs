//! The 64 bits that travel with a submission and come back with its completion.
//!
//! The upper 8 bits name the operation, the lower 56 its argument: a connection (slot and generation), a hand-over
//! token, or the index of a file write.
#![forbid(unsafe_code)]

use super::ConnId;
use super::limits::{GENERATION_BITS, HAND_OVER_TOKEN_BITS, HAND_OVER_TOKEN_MAX};

/// What a completion belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Op {
    /// Nothing waits for it: a cancel, a wake-up of another ring, a socket option.
    Ignored,
    /// An accept.
    Accept,
    /// The receive of a connection.
    Recv(ConnId),
    /// The one send of a connection.
    Send(ConnId),
    /// The shutdown of a connection's write side.
    Shutdown(ConnId),
    /// The removal of a connection from the table.
    Close(ConnId),
    /// Source side of a hand-over.
    HandOver(ConnId),
    /// Target side of a hand-over; posted by another ring.
    HandedOver(u64),
    /// Another ring's wake-up.
    WokenByRing,
    /// The poll of the waker's eventfd.
    WokenByThread,
    /// The poll of the eventfd that other rings of the same shard signal.
    Signalled,
    /// A file write, by its index.
    FileWrite(u32),
    /// A timeout that bounds sleeps, by its number.
    Alarm(u32),
}

impl Op {
    /// The `user_data` of this operation.
    pub(super) fn encode(self) -> u64 {
        let (code, argument) = match self {
            Op::Ignored => (0, 0),
            Op::Accept => (1, 0),
            Op::Recv(conn) => (2, pack(conn)),
            Op::Send(conn) => (3, pack(conn)),
            Op::Shutdown(conn) => (4, pack(conn)),
            Op::Close(conn) => (5, pack(conn)),
            Op::HandOver(conn) => (6, pack(conn)),
            Op::HandedOver(token) => (7, token),
            Op::WokenByRing => (8, 0),
            Op::WokenByThread => (9, 0),
            Op::FileWrite(index) => (10, u64::from(index)),
            Op::Signalled => (11, 0),
            Op::Alarm(number) => (12, u64::from(number)),
        };
        assert!(
            argument <= HAND_OVER_TOKEN_MAX,
            "the argument of an operation takes 56 bits"
        );
        code << HAND_OVER_TOKEN_BITS | argument
    }

    /// The operation that a completion names; `None` for what no ring of this program submits.
    pub(super) fn decode(user_data: u64) -> Option<Op> {
        let argument = user_data & HAND_OVER_TOKEN_MAX;
        Some(match user_data >> HAND_OVER_TOKEN_BITS {
            0 => Op::Ignored,
            1 => Op::Accept,
            2 => Op::Recv(unpack(argument)),
            3 => Op::Send(unpack(argument)),
            4 => Op::Shutdown(unpack(argument)),
            5 => Op::Close(unpack(argument)),
            6 => Op::HandOver(unpack(argument)),
            7 => Op::HandedOver(argument),
            8 => Op::WokenByRing,
            9 => Op::WokenByThread,
            10 => Op::FileWrite(argument as u32),
            11 => Op::Signalled,
            12 => Op::Alarm(argument as u32),
            _ => return None,
        })
    }
}

fn pack(conn: ConnId) -> u64 {
    u64::from(conn.slot()) << GENERATION_BITS | u64::from(conn.generation)
}

fn unpack(argument: u64) -> ConnId {
    ConnId::new((argument >> GENERATION_BITS) as u32, argument as u32)
}

#[cfg(test)]
mod tests {
    use super::super::limits::FIXED_FILES_MAX;
    use super::*;

    #[test]
    fn every_operation_comes_back() {
        let conn = ConnId::new(FIXED_FILES_MAX - 1, u32::MAX);
        let other = ConnId::new(0, 0);
        let all = [
            Op::Ignored,
            Op::Accept,
            Op::Recv(conn),
            Op::Send(other),
            Op::Shutdown(conn),
            Op::Close(other),
            Op::HandOver(conn),
            Op::HandedOver(HAND_OVER_TOKEN_MAX),
            Op::WokenByRing,
            Op::WokenByThread,
            Op::FileWrite(u32::MAX),
            Op::Signalled,
            Op::Alarm(u32::MAX),
        ];
        for op in all {
            assert_eq!(Op::decode(op.encode()), Some(op));
        }
        assert_eq!(Op::decode(u64::MAX), None);
    }
}
