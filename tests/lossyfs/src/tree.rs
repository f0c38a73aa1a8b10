//! The directories and all that hangs in them, as seen and as on the platter. Pure: knows nothing of FUSE, threads or time.
//!
//! A directory's changes reach the platter in their order, so a cut leaves a prefix of those that were not synced. Files and
//! directories are told apart in this: an entry may survive without what it points to, and the other way round. A file has one
//! name; there are no links.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::file::{ChangeId, FileData, Losses};

/// Number of a file or directory.
pub type Ino = u64;

/// The root directory.
pub const ROOT: Ino = 1;

/// What an operation may fail with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such entry.
    Missing,
    /// The name is taken.
    Exists,
    /// The directory is not empty.
    NotEmpty,
    /// A directory was expected.
    NotDirectory,
    /// A file was expected.
    IsDirectory,
    /// Not possible here.
    Unsupported,
}

type Entries = BTreeMap<OsString, Ino>;

#[derive(Debug)]
enum EntryChange {
    Set(OsString, Ino),
    Clear(OsString),
    Rename(OsString, OsString),
}

#[derive(Debug, Default)]
struct DirData {
    seen: Entries,
    platter: Entries,
    pending: Vec<(ChangeId, EntryChange)>,
}

#[derive(Debug)]
enum Data {
    File(FileData),
    Dir(DirData),
}

#[derive(Debug)]
struct Inode {
    data: Data,
    /// Whether a directory has it, as seen.
    named: bool,
    /// Whether a directory on the platter has it.
    named_on_platter: bool,
    /// References of the kernel.
    lookups: u64,
}

/// The whole disk.
#[derive(Debug)]
pub struct Tree {
    inodes: HashMap<Ino, Inode>,
    ino_next: Ino,
    change_next: ChangeId,
    rng: StdRng,
}

impl Tree {
    /// An empty disk; `seed` decides what survives cuts.
    pub fn new(seed: u64) -> Self {
        let root = Inode {
            data: Data::Dir(DirData::default()),
            named: true,
            named_on_platter: true,
            lookups: 1,
        };
        Self {
            inodes: HashMap::from([(ROOT, root)]),
            ino_next: ROOT + 1,
            change_next: 1,
            rng: StdRng::seed_from_u64(seed),
        }
    }

    /// A random number below `most`, from the disk's own sequence.
    pub fn random(&mut self, most: u64) -> u64 {
        self.rng.random_range(0..most.max(1))
    }

    /// Size of a file in bytes; `None` for a directory.
    ///
    /// # Errors
    /// There is none such.
    pub fn size(&self, ino: Ino) -> Result<Option<u64>, Refusal> {
        match &self.inodes.get(&ino).ok_or(Refusal::Missing)?.data {
            Data::File(file) => Ok(Some(file.seen().len() as u64)),
            Data::Dir(_) => Ok(None),
        }
    }

    /// What a directory has under a name. The kernel holds the answer until [`Self::forget`].
    ///
    /// # Errors
    /// There is none such, or `parent` is no directory.
    pub fn lookup(&mut self, parent: Ino, name: &OsStr) -> Result<Ino, Refusal> {
        let ino = *self.dir(parent)?.seen.get(name).ok_or(Refusal::Missing)?;
        self.hold(ino);
        Ok(ino)
    }

    fn hold(&mut self, ino: Ino) {
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.lookups += 1;
        }
    }

    /// The kernel gives back so many references.
    pub fn forget(&mut self, ino: Ino, count: u64) {
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.lookups = inode.lookups.saturating_sub(count);
        }
        self.free_if_unused(ino);
    }

    /// Makes an empty file or directory; the kernel holds it.
    ///
    /// # Errors
    /// The name is taken, or `parent` is no directory.
    pub fn create(&mut self, parent: Ino, name: &OsStr, is_dir: bool) -> Result<Ino, Refusal> {
        if self.dir(parent)?.seen.contains_key(name) {
            return Err(Refusal::Exists);
        }
        let ino = self.ino_next;
        self.ino_next += 1;
        let data = if is_dir {
            Data::Dir(DirData::default())
        } else {
            Data::File(FileData::default())
        };
        let inode = Inode {
            data,
            named: true,
            named_on_platter: false,
            lookups: 1,
        };
        self.inodes.insert(ino, inode);
        self.change_entries(parent, EntryChange::Set(name.to_owned(), ino))?;
        Ok(ino)
    }

    /// Removes an entry.
    ///
    /// # Errors
    /// There is none such, or it is of the other kind, or not empty.
    pub fn remove(&mut self, parent: Ino, name: &OsStr, is_dir: bool) -> Result<(), Refusal> {
        let ino = *self.dir(parent)?.seen.get(name).ok_or(Refusal::Missing)?;
        self.may_go(ino, is_dir)?;
        self.change_entries(parent, EntryChange::Clear(name.to_owned()))
    }

    fn may_go(&self, ino: Ino, is_dir: bool) -> Result<(), Refusal> {
        match (&self.inodes.get(&ino).ok_or(Refusal::Missing)?.data, is_dir) {
            (Data::File(_), true) => Err(Refusal::NotDirectory),
            (Data::Dir(_), false) => Err(Refusal::IsDirectory),
            (Data::Dir(dir), true) if !dir.seen.is_empty() => Err(Refusal::NotEmpty),
            _ => Ok(()),
        }
    }

    /// Renames an entry inside its directory, over another of the same kind if there is one.
    ///
    /// # Errors
    /// Between two directories: [`Refusal::Unsupported`]. Otherwise as [`Self::remove`].
    pub fn rename(&mut self, from: (Ino, &OsStr), to: (Ino, &OsStr), replace: bool) -> Result<(), Refusal> {
        if from.0 != to.0 {
            return Err(Refusal::Unsupported);
        }
        let entries = &self.dir(from.0)?.seen;
        let ino = *entries.get(from.1).ok_or(Refusal::Missing)?;
        if let Some(over) = entries.get(to.1).copied().filter(|over| *over != ino) {
            if !replace {
                return Err(Refusal::Exists);
            }
            let is_dir = self.size(ino)?.is_none();
            self.may_go(over, is_dir)?;
        }
        self.change_entries(from.0, EntryChange::Rename(from.1.to_owned(), to.1.to_owned()))
    }

    /// Names, numbers and kinds (whether it is a directory) in a directory.
    ///
    /// # Errors
    /// It is none.
    pub fn entries(&self, ino: Ino) -> Result<Vec<(OsString, Ino, bool)>, Refusal> {
        let entries = self.dir(ino)?.seen.iter();
        Ok(entries
            .map(|(name, ino)| (name.clone(), *ino, matches!(self.size(*ino), Ok(None))))
            .collect())
    }

    /// A file's bytes as seen.
    ///
    /// # Errors
    /// It is none.
    pub fn read(&self, ino: Ino) -> Result<&[u8], Refusal> {
        match &self.inodes.get(&ino).ok_or(Refusal::Missing)?.data {
            Data::File(file) => Ok(file.seen()),
            Data::Dir(_) => Err(Refusal::IsDirectory),
        }
    }

    /// Writes, in memory.
    ///
    /// # Errors
    /// It is no file.
    pub fn write(&mut self, ino: Ino, offset: usize, data: &[u8]) -> Result<ChangeId, Refusal> {
        let id = self.next_change();
        self.file(ino)?.write(id, offset, data);
        Ok(id)
    }

    /// Cuts or extends a file, in memory.
    ///
    /// # Errors
    /// It is none.
    pub fn resize(&mut self, ino: Ino, len: usize) -> Result<(), Refusal> {
        let id = self.next_change();
        self.file(ino)?.resize(id, len);
        Ok(())
    }

    /// The newest change so far: what a sync that begins now has to cover.
    pub fn newest_change(&self) -> ChangeId {
        self.change_next - 1
    }

    /// The one write is durable. One to a file that is gone is of no interest.
    pub fn sync_write(&mut self, ino: Ino, id: ChangeId) {
        if let Ok(file) = self.file(ino) {
            file.sync_one(id);
        }
    }

    /// The one write will be lost, although it was answered as durable.
    pub fn doom_write(&mut self, ino: Ino, id: ChangeId) {
        if let Ok(file) = self.file(ino) {
            file.doom_one(id);
        }
    }

    /// All changes of a file, or of a directory's entries, up to `id` are durable.
    pub fn sync_through(&mut self, ino: Ino, id: ChangeId) {
        if let Ok(file) = self.file(ino) {
            file.sync_through(id);
            return;
        }
        let Ok(dir) = self.dir_mut(ino) else { return };
        let ready = dir.pending.partition_point(|(change, _)| *change <= id);
        let changes: Vec<EntryChange> = dir.pending.drain(..ready).map(|(_, change)| change).collect();
        for change in changes {
            self.settle_entry(ino, &change);
        }
    }

    /// The power is gone: what survives is what there is, for good. The kernel has forgotten everything.
    pub fn cut(&mut self) -> Losses {
        let mut losses = Losses::default();
        let mut inos: Vec<Ino> = self.inodes.keys().copied().collect();
        // So that the seed decides, and not the order of a hash table.
        inos.sort_unstable();
        for ino in &inos {
            let Ok(dir) = self.dir_mut(*ino) else { continue };
            let pending = std::mem::take(&mut dir.pending);
            let kept = self.rng.random_range(0..=pending.len());
            losses.entries_lost += (pending.len() - kept) as u64;
            for (_, change) in pending.into_iter().take(kept) {
                self.settle_entry(*ino, &change);
            }
        }
        for ino in &inos {
            match self.inodes.get_mut(ino).map(|inode| &mut inode.data) {
                Some(Data::File(file)) => losses.add(file.cut(&mut self.rng)),
                Some(Data::Dir(dir)) => dir.seen.clone_from(&dir.platter),
                None => {}
            }
        }
        for (ino, inode) in &mut self.inodes {
            inode.named = inode.named_on_platter;
            inode.lookups = u64::from(*ino == ROOT);
        }
        for ino in inos {
            self.free_if_unused(ino);
        }
        losses
    }

    fn next_change(&mut self) -> ChangeId {
        self.change_next += 1;
        self.change_next - 1
    }

    fn dir(&self, ino: Ino) -> Result<&DirData, Refusal> {
        match &self.inodes.get(&ino).ok_or(Refusal::Missing)?.data {
            Data::Dir(dir) => Ok(dir),
            Data::File(_) => Err(Refusal::NotDirectory),
        }
    }

    fn dir_mut(&mut self, ino: Ino) -> Result<&mut DirData, Refusal> {
        match &mut self.inodes.get_mut(&ino).ok_or(Refusal::Missing)?.data {
            Data::Dir(dir) => Ok(dir),
            Data::File(_) => Err(Refusal::NotDirectory),
        }
    }

    fn file(&mut self, ino: Ino) -> Result<&mut FileData, Refusal> {
        match &mut self.inodes.get_mut(&ino).ok_or(Refusal::Missing)?.data {
            Data::File(file) => Ok(file),
            Data::Dir(_) => Err(Refusal::IsDirectory),
        }
    }

    fn change_entries(&mut self, parent: Ino, change: EntryChange) -> Result<(), Refusal> {
        let id = self.next_change();
        let dir = self.dir_mut(parent)?;
        let unnamed = apply(&mut dir.seen, &change);
        dir.pending.push((id, change));
        if let Some(ino) = unnamed {
            if let Some(inode) = self.inodes.get_mut(&ino) {
                inode.named = false;
            }
            self.free_if_unused(ino);
        }
        Ok(())
    }

    fn settle_entry(&mut self, parent: Ino, change: &EntryChange) {
        let Ok(dir) = self.dir_mut(parent) else { return };
        let unnamed = apply(&mut dir.platter, change);
        if let EntryChange::Set(_, ino) = change
            && let Some(inode) = self.inodes.get_mut(ino)
        {
            inode.named_on_platter = true;
        }
        if let Some(ino) = unnamed {
            self.unname_on_platter(ino);
        }
    }

    fn unname_on_platter(&mut self, ino: Ino) {
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.named_on_platter = false;
        }
        self.free_if_unused(ino);
    }

    fn free_if_unused(&mut self, ino: Ino) {
        let unused = |inode: &Inode| !inode.named && !inode.named_on_platter && inode.lookups == 0;
        if !self.inodes.get(&ino).is_some_and(unused) {
            return;
        }
        // With a directory goes what it still has on the platter.
        if let Some(Inode {
            data: Data::Dir(dir), ..
        }) = self.inodes.remove(&ino)
        {
            for child in dir.platter.into_values() {
                self.unname_on_platter(child);
            }
        }
    }
}

/// Applies a change; returns what has no name any more.
fn apply(entries: &mut Entries, change: &EntryChange) -> Option<Ino> {
    match change {
        EntryChange::Set(name, ino) => entries.insert(name.clone(), *ino),
        EntryChange::Clear(name) => entries.remove(name),
        EntryChange::Rename(from, to) => {
            let ino = entries.remove(from)?;
            entries.insert(to.clone(), ino)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> &OsStr {
        OsStr::new(text)
    }

    fn names(tree: &Tree, ino: Ino) -> Vec<String> {
        let entries = tree.entries(ino).unwrap().into_iter();
        entries.map(|(name, ..)| name.into_string().unwrap()).collect()
    }

    /// Which names survive a cut, for many seeds.
    fn survivors(changes: impl Fn(&mut Tree)) -> Vec<Vec<String>> {
        let left = |seed| {
            let mut tree = Tree::new(seed);
            changes(&mut tree);
            tree.cut();
            names(&tree, ROOT)
        };
        (0..100).map(left).collect()
    }

    #[test]
    fn an_entry_that_was_not_synced_may_be_lost() {
        let left = survivors(|tree| {
            tree.create(ROOT, name("a"), false).unwrap();
        });
        assert!(left.contains(&vec![]) && left.contains(&vec!["a".to_owned()]));
        let left = survivors(|tree| {
            tree.create(ROOT, name("a"), false).unwrap();
            tree.sync_through(ROOT, tree.newest_change());
        });
        assert!(left.iter().all(|left| left == &["a"]));
    }

    #[test]
    fn what_was_removed_may_be_back_and_a_rename_is_whole() {
        let left = survivors(|tree| {
            tree.create(ROOT, name("a"), false).unwrap();
            tree.create(ROOT, name("b"), false).unwrap();
            tree.sync_through(ROOT, tree.newest_change());
            tree.rename((ROOT, name("a")), (ROOT, name("b")), true).unwrap();
        });
        assert!(left.contains(&vec!["a".to_owned(), "b".to_owned()]) && left.contains(&vec!["b".to_owned()]));
        assert!(left.iter().all(|left| left.len() == 2 || left == &["b"]));
    }

    #[test]
    fn the_entry_and_what_it_points_to_survive_apart() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let mut tree = Tree::new(seed);
            let file = tree.create(ROOT, name("a"), false).unwrap();
            tree.write(file, 0, b"x").unwrap();
            tree.cut();
            seen.insert(tree.lookup(ROOT, name("a")).map(|ino| tree.size(ino).unwrap()).ok());
        }
        assert_eq!(seen.len(), 3, "lost, empty and whole: {seen:?}");
    }

    #[test]
    fn what_nobody_can_reach_is_freed() {
        let mut tree = Tree::new(1);
        let dir = tree.create(ROOT, name("d"), true).unwrap();
        let file = tree.create(dir, name("f"), false).unwrap();
        for ino in [dir, ROOT] {
            tree.sync_through(ino, tree.newest_change());
        }
        tree.remove(dir, name("f"), false).unwrap();
        assert_eq!(tree.remove(ROOT, name("nothing"), true), Err(Refusal::Missing));
        tree.remove(ROOT, name("d"), true).unwrap();
        tree.forget(file, 1);
        tree.forget(dir, 1);
        assert_eq!(tree.inodes.len(), 3, "the platter still has both");
        tree.sync_through(ROOT, tree.newest_change());
        assert_eq!(tree.inodes.len(), 1);
    }

    #[test]
    fn the_same_seed_loses_the_same() {
        let run = |seed| {
            let mut tree = Tree::new(seed);
            for number in 0..50 {
                let file = tree.create(ROOT, name(&format!("f{number}")), false).unwrap();
                tree.write(file, 0, &[1; 5000]).unwrap();
            }
            (tree.cut(), names(&tree, ROOT))
        };
        assert_eq!(run(3), run(3));
        assert_ne!(run(3), run(4));
    }
}
