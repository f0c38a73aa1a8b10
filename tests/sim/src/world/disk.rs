//! The disk: the journal's directories and segments, as a file system with a write cache that loses power.
//!
//! A write that was reported is durable (the journal writes `O_DSYNC`). One under way at a kill is there wholly or not
//! at all; at a power loss any of its sectors may be there, each wholly. Files are made and removed in order; one that
//! was being made is there in any part, and one that was being removed is there or not.

use super::machine::{Event, Machine, Weather};
use super::platform::SimFile;
use crate::plan::{Pace, Plan};
use dispatchd::aligned::AlignedBuffer;
use dispatchd::journal::{
    BLOCK_HEADER_BYTES, Incarnation, Owner, PAGE_BYTES, RecoverError, RecoveredShard, SECTOR_BYTES, Scan, Scanner,
    SegmentHeader,
};
use dispatchd::shard::{Done, Job};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;

/// How much of the zeros at a segment's end a start reads.
const ZEROS_READ_BYTES: usize = 4 * PAGE_BYTES;

/// A segment file: bytes up to the last that is not zero or was written, the rest is zeros.
#[derive(Clone, Debug, Default)]
struct Segment {
    bytes: Vec<u8>,
    len: u64,
    /// End of the last write that was reported.
    confirmed: u64,
}

/// A write under way.
struct Write {
    token: u64,
    file: SimFile,
    offset: u64,
    buffer: AlignedBuffer,
    len: usize,
}

/// A job of the housekeeper.
struct Order {
    shard: u16,
    incarnation: Incarnation,
    job: Job,
}

/// A write that ended, and how.
pub(super) struct Written {
    pub(super) token: u64,
    pub(super) buffer: AlignedBuffer,
    pub(super) result: io::Result<usize>,
}

/// A bit that flipped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flip {
    file: SimFile,
    at: usize,
    bit: u8,
}

/// See the module.
pub(super) struct Disk {
    /// Shard directories by incarnation, with their segments.
    journals: BTreeMap<u64, BTreeMap<u16, BTreeMap<u64, Segment>>>,
    writes: BTreeMap<u16, Write>,
    orders: VecDeque<Order>,
    done: Vec<VecDeque<Done<SimFile>>>,
    pace: Pace,
}

impl Disk {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            journals: BTreeMap::new(),
            writes: BTreeMap::new(),
            orders: VecDeque::new(),
            done: (0..plan.config.shards).map(|_| VecDeque::new()).collect(),
            pace: plan.pace.clone(),
        }
    }

    fn segment(&mut self, file: SimFile) -> Option<&mut Segment> {
        let shards = self.journals.get_mut(&file.owner.incarnation.get())?;
        shards.get_mut(&file.owner.shard)?.get_mut(&file.segment)
    }

    /// Begins an incarnation above all that there are and `above`.
    pub(super) fn begin(&mut self, above: u64) -> Option<Incarnation> {
        let highest = self.journals.keys().next_back().copied().unwrap_or(0).max(above);
        self.journals.insert(highest + 1, BTreeMap::new());
        Incarnation::new(highest + 1)
    }

    pub(super) fn make_shard_dir(&mut self, owner: Owner) {
        let shards = self.journals.entry(owner.incarnation.get()).or_default();
        shards.entry(owner.shard).or_default();
    }

    /// Incarnations before this one.
    pub(super) fn before(&self, incarnation: Incarnation) -> Vec<u64> {
        self.journals
            .range(..incarnation.get())
            .map(|(number, _)| *number)
            .collect()
    }

    pub(super) fn remove(&mut self, incarnation: u64) {
        self.journals.remove(&incarnation);
    }

    pub(super) fn take_done(&mut self, shard: u16) -> Option<Done<SimFile>> {
        self.done[usize::from(shard)].pop_front()
    }

    /// Reads all journals, as recovery does: the same scanner over every file.
    pub(super) fn read(&self) -> Result<Vec<RecoveredShard>, RecoverError> {
        let mut recovered = Vec::new();
        let mut bytes = Vec::new();
        for (number, shards) in &self.journals {
            let incarnation = Incarnation::new(*number).expect("begun as a number");
            for (shard, segments) in shards {
                let shard = *shard;
                let mut scanner = Scanner::new(Owner { incarnation, shard });
                let mut records = Vec::new();
                for (number, segment) in segments {
                    // Of the zeros at a file's end a few pages tell as much as all of them.
                    let len = segment.bytes.len().next_multiple_of(PAGE_BYTES) + ZEROS_READ_BYTES;
                    bytes.clear();
                    bytes.extend_from_slice(&segment.bytes);
                    bytes.resize(len.min(segment.len as usize), 0);
                    let mut keep = |found: dispatchd::journal::Found| records.push((found.lsn, found.record));
                    scanner
                        .feed(*number, &bytes, &mut keep)
                        .map_err(|damage| RecoverError::Damage {
                            path: PathBuf::from(format!("{incarnation:08}/{shard:04}/{number:08}.seg")),
                            damage,
                        })?;
                }
                let scan = Scan {
                    records,
                    ..scanner.finish()
                };
                recovered.push(RecoveredShard {
                    incarnation,
                    shard,
                    dir: PathBuf::new(),
                    scan,
                });
            }
        }
        Ok(recovered)
    }

    /// Applies the sectors of a write for which `keep` says so.
    fn apply(&mut self, write: &Write, mut keep: impl FnMut() -> bool) {
        let bytes = &write.buffer.as_slice()[..write.len];
        let Some(segment) = self.segment(write.file) else {
            return;
        };
        let start = write.offset as usize;
        assert!(start + write.len <= segment.len as usize, "a write inside its segment");
        if segment.bytes.len() < start + write.len {
            segment.bytes.resize(start + write.len, 0);
        }
        for (at, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
            if keep() {
                let at = start + at * SECTOR_BYTES;
                segment.bytes[at..at + sector.len()].copy_from_slice(sector);
            }
        }
    }

    fn create(&mut self, owner: Owner, header: &SegmentHeader) {
        let shards = self.journals.entry(owner.incarnation.get()).or_default();
        let segment = Segment {
            bytes: header.encode().to_vec(),
            len: header.geometry.segment_bytes(),
            confirmed: 0,
        };
        shards.entry(owner.shard).or_default().insert(header.segment, segment);
    }
}

impl Machine {
    /// A shard writes.
    pub(super) fn write(
        &mut self,
        shard: u16,
        token: u64,
        file: SimFile,
        offset: u64,
        buffer: AlignedBuffer,
        len: usize,
    ) {
        assert!(
            len > 0 && len <= buffer.len(),
            "a write of {len} of {} bytes",
            buffer.len()
        );
        let took_us = self.draw(self.disk.pace.write_us) + Weather::added(self.weather.slow_disk, self.now_us());
        let at = self.now_us() + took_us;
        let boot = self.boot;
        self.agenda.plan(at, Event::Written { boot, shard });
        let write = Write {
            token,
            file,
            offset,
            buffer,
            len,
        };
        let before = self.disk.writes.insert(shard, write);
        assert!(before.is_none(), "one write at a time");
    }

    /// The write of a shard ends.
    pub(super) fn write_ends(&mut self, shard: u16) -> Written {
        let write = self.disk.writes.remove(&shard).expect("a write was under way");
        if let Some(down_us) = self.weather.write_error.take() {
            self.weather.write_failed = Some(down_us);
            if self.weather.write_short {
                return self.write_short(write);
            }
            let permille = *self.rng.pick(&[0, 500, 1_000]);
            let rng = &mut self.rng;
            self.disk.apply(&write, || rng.chance(permille));
            let result = Err(io::Error::from_raw_os_error(5));
            return Written {
                token: write.token,
                buffer: write.buffer,
                result,
            };
        }
        self.disk.apply(&write, || true);
        if let Some(segment) = self.disk.segment(write.file) {
            segment.confirmed = write.offset + write.len as u64;
        }
        Written {
            token: write.token,
            result: Ok(write.len),
            buffer: write.buffer,
        }
    }

    /// A write of which the first sectors are stored, and no more.
    fn write_short(&mut self, write: Write) -> Written {
        let sectors = write.len / SECTOR_BYTES;
        let stored = self.rng.below(sectors as u64) as usize;
        let mut left = stored;
        self.disk.apply(&write, || {
            let keeps = left > 0;
            left = left.saturating_sub(1);
            keeps
        });
        Written {
            token: write.token,
            buffer: write.buffer,
            result: Ok(stored * SECTOR_BYTES),
        }
    }

    /// A shard orders work on its files.
    pub(super) fn order(&mut self, shard: u16, incarnation: Incarnation, job: Job) {
        let took_us = self.draw(self.disk.pace.segment_us) + Weather::added(self.weather.slow_disk, self.now_us());
        let at = self.now_us() + took_us;
        let boot = self.boot;
        self.agenda.plan(at, Event::Kept { boot });
        self.disk.orders.push_back(Order {
            shard,
            incarnation,
            job,
        });
    }

    /// The housekeeper's oldest job is done.
    pub(super) fn kept(&mut self) {
        let Some(Order {
            shard,
            incarnation,
            job,
        }) = self.disk.orders.pop_front()
        else {
            return;
        };
        let owner = Owner { incarnation, shard };
        let done = match job {
            Job::Create(header) if self.now_us() < self.weather.disk_full_until_us => {
                Done::Created(header.segment, Err(io::ErrorKind::StorageFull.into()))
            }
            Job::Create(header) => {
                self.disk.create(owner, &header);
                let segment = header.segment;
                Done::Created(segment, Ok(SimFile { owner, segment }))
            }
            Job::Remove(ids) => {
                for segment in ids {
                    self.disk.unlink(SimFile { owner, segment });
                }
                Done::Removed(Ok(()))
            }
        };
        self.disk.done[usize::from(shard)].push_back(done);
        self.kernel.rung |= 1 << shard;
        self.wake(shard);
    }

    /// The process is gone; what was under way is there, or not, or in part.
    pub(super) fn disk_crash(&mut self, power: bool) {
        for write in std::mem::take(&mut self.disk.writes).into_values() {
            let permille = if power {
                *self.rng.pick(&[0, 100, 500, 900, 1_000])
            } else {
                *self.rng.pick(&[0, 1_000])
            };
            let rng = &mut self.rng;
            self.disk.apply(&write, || rng.chance(permille));
        }
        // Only the oldest job had begun.
        let begun = self.disk.orders.pop_front();
        self.disk.orders.clear();
        if let Some(Order {
            shard,
            incarnation,
            job,
        }) = begun
        {
            let owner = Owner { incarnation, shard };
            match job {
                Job::Create(header) => self.half_made(owner, &header),
                Job::Remove(ids) => {
                    let gone = self.rng.below(ids.len() as u64 + 1) as usize;
                    for segment in &ids[..gone] {
                        let segment = *segment;
                        self.disk.unlink(SimFile { owner, segment });
                    }
                }
            }
        }
        for done in &mut self.disk.done {
            done.clear();
        }
    }

    /// A segment that was being made: not there, empty, short, or without some sectors of its header.
    fn half_made(&mut self, owner: Owner, header: &SegmentHeader) {
        let how = self.rng.below(4);
        if how == 0 {
            return;
        }
        self.disk.create(owner, header);
        let segment = header.segment;
        let rng = &mut self.rng;
        let Some(made) = self.disk.segment(SimFile { owner, segment }) else {
            return;
        };
        if how == 1 {
            made.bytes.clear();
        } else {
            for sector in made.bytes.chunks_mut(SECTOR_BYTES) {
                if how == 2 && rng.chance(500) {
                    sector.fill(0);
                }
            }
        }
        if rng.chance(500) {
            // Allocation comes first, so a short file is one whose allocation the file system does not have.
            made.len = rng.below(made.len / SECTOR_BYTES as u64 + 1) * SECTOR_BYTES as u64;
            made.bytes.truncate(made.len as usize);
        }
    }

    /// Flips a bit of confirmed data, if there is any.
    pub(super) fn flip_bit(&mut self) -> Option<Flip> {
        let mut places = Vec::new();
        for (number, shards) in &self.disk.journals {
            for (shard, segments) in shards {
                for (segment, data) in segments.iter().filter(|(_, data)| data.confirmed > PAGE_BYTES as u64) {
                    let incarnation = Incarnation::new(*number)?;
                    let owner = Owner {
                        incarnation,
                        shard: *shard,
                    };
                    let file = SimFile {
                        owner,
                        segment: *segment,
                    };
                    places.push((file, data.confirmed as usize));
                }
            }
        }
        if places.is_empty() {
            return None;
        }
        let (file, confirmed) = *self.rng.pick(&places);
        // A few tries: padding holds nothing, and a sector with a single bit would look as if it was never written.
        for _ in 0..100 {
            let at = self.rng.between(PAGE_BYTES as u64, confirmed as u64 - 1) as usize;
            let bit = self.rng.below(8) as u8;
            let segment = self.disk.segment(file)?;
            let sector = &segment.bytes[at - at % SECTOR_BYTES..][..SECTOR_BYTES];
            let is_data = sector[at % SECTOR_BYTES..].iter().any(|byte| *byte != 0);
            let bits: u32 = sector.iter().map(|byte| byte.count_ones()).sum();
            if is_data && bits > 8 && at % PAGE_BYTES >= BLOCK_HEADER_BYTES {
                segment.bytes[at] ^= 1 << bit;
                return Some(Flip { file, at, bit });
            }
        }
        None
    }

    /// Restores a bit.
    pub(super) fn restore(&mut self, flip: Flip) {
        if let Some(segment) = self.disk.segment(flip.file) {
            segment.bytes[flip.at] ^= 1 << flip.bit;
        }
    }
}

impl Disk {
    fn unlink(&mut self, file: SimFile) {
        let shards = self.journals.get_mut(&file.owner.incarnation.get());
        if let Some(segments) = shards.and_then(|shards| shards.get_mut(&file.owner.shard)) {
            segments.remove(&file.segment);
        }
    }
}
