//! What a submission was, and how its completion says so.
#![forbid(unsafe_code)]

/// What a completion belongs to, kept in the top byte of its user data.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Operation {
    Accept = 1,
    Connect = 2,
    Receive = 3,
    Send = 4,
    SendStatic = 5,
    Cancel = 6,
    Close = 7,
}

impl Operation {
    pub(super) fn from_user_data(user_data: u64) -> Self {
        match (user_data >> 56) as u8 {
            1 => Self::Accept,
            2 => Self::Connect,
            3 => Self::Receive,
            4 => Self::Send,
            5 => Self::SendStatic,
            6 => Self::Cancel,
            7 => Self::Close,
            other => unreachable!("user data of operation {other} was never submitted"),
        }
    }
}

/// Packs an operation, a send block's key (24 bits) and a slot into one completion's user data.
pub(super) fn user_data(operation: Operation, key: u32, slot: u32) -> u64 {
    assert!(key < 1 << 24, "send block key {key} does not fit in 24 bits");
    u64::from(operation as u8) << 56 | u64::from(key) << 32 | u64::from(slot)
}
