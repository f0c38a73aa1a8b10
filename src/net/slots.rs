//! The table of connections: what Net itself knows of each, 16 bytes, indexed by the kernel's slot number.
//!
//! Never touches the ring. A slot is occupied from the completion that installed the socket until the completion that
//! closed it; its generation counts the occupants.
#![forbid(unsafe_code)]

use super::ConnId;

/// The value of an index that points nowhere.
pub(super) const NONE: u32 = u32::MAX;

/// What is going on with a connection: a set of the constants below.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Flags(u32);

impl Flags {
    /// The slot holds a socket.
    pub(super) const OCCUPIED: Flags = Flags(1);
    /// The owner wants to receive.
    pub(super) const RECV_WANTED: Flags = Flags(1 << 1);
    /// A receive is in flight.
    pub(super) const RECV_ARMED: Flags = Flags(1 << 2);
    /// That receive is being cancelled.
    pub(super) const RECV_CANCELLED: Flags = Flags(1 << 3);
    /// Waits in the queue for receive buffers.
    pub(super) const STARVED: Flags = Flags(1 << 4);
    /// End of stream was seen.
    pub(super) const PEER_CLOSED: Flags = Flags(1 << 5);
    /// A send is in flight.
    pub(super) const SENDING: Flags = Flags(1 << 6);
    /// Has queued output and stands in the list of what the next turn sends.
    pub(super) const DIRTY: Flags = Flags(1 << 7);
    /// To be closed when its output is written.
    pub(super) const CLOSE_AFTER: Flags = Flags(1 << 8);
    /// The write side ends when its output is written, or has ended.
    pub(super) const SHUT_AFTER: Flags = Flags(1 << 9);
    /// A shutdown is in flight.
    pub(super) const SHUTTING: Flags = Flags(1 << 10);
    /// Is being closed: operations in flight are cancelled, then the slot is closed.
    pub(super) const CLOSING: Flags = Flags(1 << 11);
    /// The close of the slot is in flight.
    pub(super) const CLOSE_SENT: Flags = Flags(1 << 12);
    /// Is closed with a reset (RST).
    pub(super) const RESET: Flags = Flags(1 << 13);
    /// The close is told to nobody: the socket lives on in another ring.
    pub(super) const SILENT: Flags = Flags(1 << 14);
    /// Is being handed to another ring.
    pub(super) const LEAVING: Flags = Flags(1 << 15);
    /// Is quiet and stands in the list of those about to be sent.
    pub(super) const READY: Flags = Flags(1 << 16);
    /// The message that carries the socket is in flight.
    pub(super) const DEPARTED: Flags = Flags(1 << 17);
    /// The owner was told that it is ready.
    pub(super) const ANNOUNCED: Flags = Flags(1 << 18);
    /// One of many; see [`Net::join_crowd`](super::Net::join_crowd).
    pub(super) const CROWD: Flags = Flags(1 << 19);
    /// Its receives are multishot ones.
    pub(super) const MAY_MULTISHOT: Flags = Flags(1 << 20);

    /// Operations of the kernel that hold the socket.
    pub(super) const IN_FLIGHT: Flags =
        Flags(Self::RECV_ARMED.0 | Self::SENDING.0 | Self::SHUTTING.0 | Self::DEPARTED.0);
    /// States in which nothing may be appended.
    pub(super) const OUTPUT_ENDED: Flags =
        Flags(Self::CLOSING.0 | Self::CLOSE_AFTER.0 | Self::SHUT_AFTER.0 | Self::LEAVING.0);

    /// Both sets together.
    pub(super) const fn and(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// Whether one of `other` is set.
    pub(super) fn any(self, other: Flags) -> bool {
        self.0 & other.0 != 0
    }

    /// Sets all of `other`.
    pub(super) fn set(&mut self, other: Flags) {
        self.0 |= other.0;
    }

    /// Clears all of `other`.
    pub(super) fn clear(&mut self, other: Flags) {
        self.0 &= !other.0;
    }
}

/// One connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    generation: u32,
    /// What is going on.
    pub(super) flags: Flags,
    /// Its entry in the output pool, [`NONE`] while nothing is queued or in flight.
    pub(super) output: u32,
    /// While `LEAVING`: its entry in the table of hand-overs. While `CLOSING`: the errno that ended it, 0 for a local close.
    pub(super) extra: u32,
}

const _: () = assert!(size_of::<Slot>() == 16, "an idle connection costs 16 bytes here");

/// All slots of a ring. Grows with the highest slot in use, up to the kernel's table.
#[derive(Debug)]
pub(super) struct Slots {
    table: Vec<Slot>,
    slots_max: u32,
    occupied: u32,
}

impl Slots {
    /// A table for `slots_max` connections; memory is touched only as slots are used.
    pub(super) fn new(slots_max: u32) -> Self {
        Self {
            table: Vec::with_capacity(slots_max as usize),
            slots_max,
            occupied: 0,
        }
    }

    /// Most connections.
    pub(super) fn slots_max(&self) -> u32 {
        self.slots_max
    }

    /// Connections.
    pub(super) fn occupied(&self) -> u32 {
        self.occupied
    }

    /// Bytes of the table, up to the highest slot that was ever used.
    pub(super) fn bytes(&self) -> usize {
        self.table.len() * size_of::<Slot>()
    }

    /// Slots without a connection.
    pub(super) fn free(&self) -> u32 {
        self.slots_max - self.occupied
    }

    /// Puts a new connection in `slot`.
    ///
    /// # Panics
    /// When the slot is occupied or outside the kernel's table: that is a bug of this module.
    pub(super) fn occupy(&mut self, slot: u32) -> ConnId {
        assert!(
            slot < self.slots_max,
            "the kernel named slot {slot} of {}",
            self.slots_max
        );
        let vacant = Slot {
            generation: 0,
            flags: Flags::default(),
            output: NONE,
            extra: NONE,
        };
        if self.table.len() <= slot as usize {
            self.table.resize(slot as usize + 1, vacant);
        }
        let entry = &mut self.table[slot as usize];
        assert!(!entry.flags.any(Flags::OCCUPIED), "slot {slot} has two occupants");
        *entry = Slot {
            generation: entry.generation,
            flags: Flags::OCCUPIED,
            ..vacant
        };
        self.occupied += 1;
        ConnId::new(slot, entry.generation)
    }

    /// Frees the slot of `conn`; its id is stale from now on.
    ///
    /// # Panics
    /// When `conn` is stale, or still has output: a bug of this module.
    pub(super) fn vacate(&mut self, conn: ConnId) {
        let entry = self.get_mut(conn).expect("only an occupant leaves");
        assert!(
            entry.output == NONE && !entry.flags.any(Flags::IN_FLIGHT),
            "a slot is left clean"
        );
        entry.flags = Flags::default();
        entry.generation = entry.generation.wrapping_add(1);
        self.occupied -= 1;
    }

    /// The connection, unless the id is stale.
    pub(super) fn get(&self, conn: ConnId) -> Option<&Slot> {
        self.table
            .get(conn.slot() as usize)
            .filter(|slot| slot.generation == conn.generation && slot.flags.any(Flags::OCCUPIED))
    }

    /// The connection, unless the id is stale.
    pub(super) fn get_mut(&mut self, conn: ConnId) -> Option<&mut Slot> {
        self.table
            .get_mut(conn.slot() as usize)
            .filter(|slot| slot.generation == conn.generation && slot.flags.any(Flags::OCCUPIED))
    }

    /// Who sits in `slot` now.
    pub(super) fn occupant(&self, slot: u32) -> Option<ConnId> {
        let entry = self
            .table
            .get(slot as usize)
            .filter(|entry| entry.flags.any(Flags::OCCUPIED))?;
        Some(ConnId::new(slot, entry.generation))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_id_names_nobody() {
        let mut slots = Slots::new(8);
        let first = slots.occupy(3);
        assert_eq!((slots.occupied(), slots.free()), (1, 7));
        assert!(slots.get(first).is_some());
        assert!(
            slots.get(ConnId::new(2, 0)).is_none(),
            "a slot below that was never used"
        );
        assert!(
            slots.get(ConnId::new(7, 0)).is_none(),
            "a slot above all that were used"
        );
        slots.vacate(first);
        assert!(slots.get(first).is_none());
        let second = slots.occupy(3);
        assert_ne!(first, second);
        assert_eq!(second.slot(), 3);
        assert!(slots.get_mut(first).is_none());
        assert_eq!(slots.occupant(3), Some(second));
        assert_eq!(slots.occupant(2), None);
    }

    #[test]
    #[should_panic(expected = "two occupants")]
    fn a_slot_has_one_occupant() {
        let mut slots = Slots::new(8);
        slots.occupy(0);
        slots.occupy(0);
    }
}
