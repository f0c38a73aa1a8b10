//! Whose a timer of the shard's wheel is, and when it may as well fire.
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

/// A driver's timers fire together with others, on multiples of so many milliseconds.
const TOGETHER_MS: u64 = 32;

/// When a driver's timer that is due at `due_ms` fires: never before, and at most a hundredth of its time later. What waits for
/// silence needs no better, and a shard with many silent drivers would have a timer on every tick of its wheel. Each sleep would then
/// have to program the core's own timer, which on a virtual machine costs more than a message (`bench/EXPERIMENTS.md`, "One turn for a message").
pub(super) fn together(due_ms: u64, now_ms: u64) -> u64 {
    if due_ms.saturating_sub(now_ms) < 100 * TOGETHER_MS {
        due_ms
    } else {
        due_ms.next_multiple_of(TOGETHER_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_timers_fire_together_and_never_early() {
        assert_eq!(together(61_001, 1_000), 61_024);
        assert_eq!(together(61_024, 1_000), 61_024);
        assert_eq!(together(2_001, 1_000), 2_001, "a hundredth of a second is much for it");
        assert_eq!(together(1_000, 2_000), 1_000, "what is due is due");
    }
}
