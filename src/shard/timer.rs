//! Whose a timer of the shard's wheel is.
#![forbid(unsafe_code)]

/// Owners of the wheel's timers, packed: kind in the upper half, key in the lower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    Request(u32),
    Driver(u32),
    Conn(u32),
    /// Sockets that take nothing of their output are looked for.
    Sweep,
    /// Only wakes the shard.
    Turn,
}

impl Timer {
    /// As the wheel keeps it.
    pub(super) fn owner(self) -> u64 {
        match self {
            Self::Request(key) => u64::from(key),
            Self::Driver(key) => 1 << 32 | u64::from(key),
            Self::Conn(slot) => 2 << 32 | u64::from(slot),
            Self::Sweep => 3 << 32,
            Self::Turn => 4 << 32,
        }
    }

    /// What the wheel kept.
    pub(super) fn of(owner: u64) -> Self {
        let key = owner as u32;
        match owner >> 32 {
            0 => Self::Request(key),
            1 => Self::Driver(key),
            2 => Self::Conn(key),
            3 => Self::Sweep,
            _ => Self::Turn,
        }
    }
}
