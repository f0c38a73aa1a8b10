//! One file: what its readers see, and what the platter holds.

use rand::Rng;
use rand::rngs::StdRng;

/// What a disk writes whole or not at all.
pub const SECTOR_BYTES: usize = 512;

/// Number of a change, growing over the whole disk.
pub type ChangeId = u64;

/// A change that is not on the platter yet, or not for certain.
#[derive(Debug)]
struct Pending {
    id: ChangeId,
    change: Change,
    fate: Fate,
}

/// Whether a change survives a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Open,
    /// Whatever happens; it still waits for its turn behind older ones.
    Kept,
    /// Never, although it was answered as durable.
    Lost,
}

#[derive(Debug)]
enum Change {
    Write { offset: usize, data: Vec<u8> },
    Resize(usize),
}

/// What survived of what was not synced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Sectors of writes that were lost, and that survived.
    pub sectors_lost: u64,
    /// Unsynced sectors that made it all the same.
    pub sectors_kept: u64,
    /// Writes of which some sectors survived and others did not.
    pub writes_torn: u64,
    /// Changes of directories that were lost.
    pub entries_lost: u64,
}

impl Losses {
    /// Adds those of another cut.
    pub fn add(&mut self, other: Self) {
        self.sectors_lost += other.sectors_lost;
        self.sectors_kept += other.sectors_kept;
        self.writes_torn += other.writes_torn;
        self.entries_lost += other.entries_lost;
    }
}

/// How much of a file's unsynced writes survives a cut.
#[derive(Clone, Copy, Debug)]
enum Luck {
    Nothing,
    Everything,
    /// Each sector by the toss of a coin: so writes are torn and reordered.
    Sectors,
}

/// A file's two versions and the changes between them.
#[derive(Debug, Default)]
pub struct FileData {
    seen: Vec<u8>,
    platter: Vec<u8>,
    pending: Vec<Pending>,
}

impl FileData {
    /// Bytes as readers see them.
    pub fn seen(&self) -> &[u8] {
        &self.seen
    }

    /// Writes; the bytes are in memory only.
    pub fn write(&mut self, id: ChangeId, offset: usize, data: &[u8]) {
        write_into(&mut self.seen, offset, data);
        let data = data.to_vec();
        self.push(id, Change::Write { offset, data });
    }

    /// Cuts or extends with zeros; in memory only.
    pub fn resize(&mut self, id: ChangeId, len: usize) {
        self.seen.resize(len, 0);
        self.push(id, Change::Resize(len));
    }

    fn push(&mut self, id: ChangeId, change: Change) {
        debug_assert!(self.pending.last().is_none_or(|last| last.id < id));
        self.pending.push(Pending {
            id,
            change,
            fate: Fate::Open,
        });
    }

    /// The one change is durable, as an `O_DSYNC` write is when it completes; older ones are not for that.
    pub fn sync_one(&mut self, id: ChangeId) {
        // Gone when a sync of the whole file was faster.
        if let Some(pending) = self.pending.iter_mut().find(|pending| pending.id == id) {
            pending.fate = Fate::Kept;
        }
        let kept = |pending: &&Pending| pending.fate == Fate::Kept;
        let ready = self.pending.iter().take_while(kept).count();
        self.settle(ready);
    }

    /// The one change will be lost with the next cut, unless the whole file is synced before.
    pub fn doom_one(&mut self, id: ChangeId) {
        if let Some(pending) = self.pending.iter_mut().find(|pending| pending.id == id) {
            pending.fate = Fate::Lost;
        }
    }

    /// All changes up to this one are durable, as `fsync` and `fdatasync` make them.
    pub fn sync_through(&mut self, id: ChangeId) {
        let ready = self.pending.partition_point(|pending| pending.id <= id);
        self.settle(ready);
    }

    fn settle(&mut self, count: usize) {
        for pending in self.pending.drain(..count) {
            match pending.change {
                Change::Write { offset, data } => write_into(&mut self.platter, offset, &data),
                Change::Resize(len) => self.platter.resize(len, 0),
            }
        }
    }

    /// The power is gone: what survives is what there is.
    pub fn cut(&mut self, rng: &mut StdRng) -> Losses {
        let mut losses = Losses::default();
        let luck = match rng.random_range(0..4) {
            0 => Luck::Nothing,
            1 => Luck::Everything,
            _ => Luck::Sectors,
        };
        for pending in std::mem::take(&mut self.pending) {
            let mut survives = || match (pending.fate, luck) {
                (Fate::Kept, _) | (Fate::Open, Luck::Everything) => true,
                (Fate::Lost, _) | (Fate::Open, Luck::Nothing) => false,
                (Fate::Open, Luck::Sectors) => rng.random_bool(0.5),
            };
            match pending.change {
                Change::Resize(len) => {
                    if survives() {
                        self.platter.resize(len, 0);
                    }
                }
                Change::Write { offset, data } => {
                    let (mut lost, mut kept) = (0, 0);
                    for (at, sector) in sectors(offset, &data) {
                        if survives() {
                            write_into(&mut self.platter, at, sector);
                            kept += 1;
                        } else {
                            lost += 1;
                        }
                    }
                    if pending.fate != Fate::Kept {
                        losses.sectors_lost += lost;
                        losses.sectors_kept += kept;
                        losses.writes_torn += u64::from(lost > 0 && kept > 0);
                    }
                }
            }
        }
        self.seen.clone_from(&self.platter);
        losses
    }
}

fn write_into(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(data);
}

/// The pieces of a write, cut where sectors of the disk begin.
fn sectors(offset: usize, data: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut begin = 0;
    std::iter::from_fn(move || {
        let at = offset + begin;
        let end = data.len().min(begin + SECTOR_BYTES - at % SECTOR_BYTES);
        let piece = (begin < end).then(|| (at, &data[begin..end]));
        begin = end;
        piece
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn writes_are_cut_at_sectors() {
        let data = [7; 1300];
        let pieces: Vec<(usize, usize)> = sectors(500, &data).map(|(at, piece)| (at, piece.len())).collect();
        assert_eq!(pieces, [(500, 12), (512, 512), (1024, 512), (1536, 264)]);
        assert_eq!(sectors(0, &[]).count(), 0);
    }

    /// What is left of a file of four sectors of ones over which twos are written, for many seeds.
    fn survivors(sync: impl Fn(&mut FileData)) -> Vec<Vec<u8>> {
        let left = |seed| {
            let mut file = FileData::default();
            file.write(1, 0, &[1; 4 * SECTOR_BYTES]);
            file.sync_through(1);
            file.write(2, 0, &[2; 4 * SECTOR_BYTES]);
            sync(&mut file);
            file.cut(&mut StdRng::seed_from_u64(seed));
            file.seen().chunks(SECTOR_BYTES).map(|sector| sector[0]).collect()
        };
        (0..200).map(left).collect()
    }

    #[test]
    fn what_was_not_synced_is_lost_kept_or_torn() {
        let left = survivors(|_| {});
        assert!(left.contains(&vec![1; 4]) && left.contains(&vec![2; 4]) && left.contains(&vec![1, 2, 1, 2]));
    }

    #[test]
    fn what_was_synced_survives() {
        assert!(survivors(|file| file.sync_one(2)).iter().all(|left| left == &[2; 4]));
        assert!(
            survivors(|file| file.sync_through(2))
                .iter()
                .all(|left| left == &[2; 4])
        );
    }

    #[test]
    fn what_a_lie_covers_is_lost() {
        let left = survivors(|file| file.doom_one(2));
        assert!(left.iter().all(|left| left == &[1; 4]));
    }

    #[test]
    fn a_synced_write_is_not_overwritten_by_an_older_one_that_was_not() {
        for seed in 0..100 {
            let mut file = FileData::default();
            file.write(1, 0, &[1; SECTOR_BYTES]);
            file.write(2, 0, &[2; SECTOR_BYTES]);
            file.sync_one(2);
            file.write(3, 0, &[3; SECTOR_BYTES]);
            file.cut(&mut StdRng::seed_from_u64(seed));
            assert!(matches!(file.seen()[0], 2 | 3));
        }
    }

    #[test]
    fn a_size_that_was_not_synced_may_be_lost() {
        let left = |seed| {
            let mut file = FileData::default();
            file.resize(1, 100);
            file.cut(&mut StdRng::seed_from_u64(seed));
            file.seen().len()
        };
        let all: Vec<usize> = (0..50).map(left).collect();
        assert!(all.contains(&0) && all.contains(&100));
    }
}
