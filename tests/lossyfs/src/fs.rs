//! The kernel's requests, translated. Every one fails while the power is off.

use std::ffi::OsStr;
use std::sync::MutexGuard;
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use crate::platter::{Disk, State, Task};
use crate::tree::{Ino, Refusal};

/// How long the kernel may believe an answer: nobody else changes anything.
const TTL: Duration = Duration::from_secs(3600);
/// Size of the disk as it is shown, in blocks of 4 KiB: 1 TiB, all of it free.
const BLOCKS: u64 = 1 << 28;

/// Handle of a file that was opened `O_DSYNC`.
const DSYNC: FileHandle = FileHandle(1);

/// The handle says how a file was opened. `O_SYNC` has the bit of `O_DSYNC`.
fn handle(flags: i32) -> FileHandle {
    if flags & libc::O_DSYNC == 0 {
        FileHandle(0)
    } else {
        DSYNC
    }
}

/// A mounted disk.
pub(crate) struct LossyFs(pub(crate) Disk);

impl From<Refusal> for Errno {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Missing => Self::ENOENT,
            Refusal::Exists => Self::EEXIST,
            Refusal::NotEmpty => Self::ENOTEMPTY,
            Refusal::NotDirectory => Self::ENOTDIR,
            Refusal::IsDirectory => Self::EISDIR,
            Refusal::Unsupported => Self::EXDEV,
        }
    }
}

impl LossyFs {
    fn state(&self) -> Result<MutexGuard<'_, State>, Errno> {
        let state = self.0.lock();
        if state.is_powered() { Ok(state) } else { Err(Errno::EIO) }
    }

    fn attr(&self, ino: Ino) -> Result<FileAttr, Errno> {
        attr(&*self.state()?, ino)
    }

    fn made(&self, parent: INodeNo, name: &OsStr, is_dir: bool) -> Result<FileAttr, Errno> {
        let mut state = self.state()?;
        let ino = state.tree.create(parent.0, name, is_dir)?;
        attr(&state, ino)
    }

    fn resized(&self, ino: INodeNo, size: Option<u64>) -> Result<FileAttr, Errno> {
        let mut state = self.state()?;
        if let Some(size) = size {
            state.tree.resize(ino.0, size as usize)?;
        }
        attr(&state, ino.0)
    }

    fn allocated(&self, ino: INodeNo, end: u64, keep_size: bool) -> Result<(), Errno> {
        let mut state = self.state()?;
        let size = state.tree.size(ino.0)?.ok_or(Errno::EISDIR)?;
        if end > size && !keep_size {
            state.tree.resize(ino.0, end as usize)?;
        }
        Ok(())
    }
}

fn attr(state: &State, ino: Ino) -> Result<FileAttr, Errno> {
    let size = state.tree.size(ino)?;
    let (kind, perm) = match size {
        Some(_) => (FileType::RegularFile, 0o644),
        None => (FileType::Directory, 0o755),
    };
    let size = size.unwrap_or(0);
    Ok(FileAttr {
        ino: INodeNo(ino),
        size,
        blocks: size.div_ceil(512),
        atime: SystemTime::UNIX_EPOCH,
        mtime: SystemTime::UNIX_EPOCH,
        ctime: SystemTime::UNIX_EPOCH,
        crtime: SystemTime::UNIX_EPOCH,
        kind,
        perm,
        nlink: 1,
        uid: nix::unistd::getuid().as_raw(),
        gid: nix::unistd::getgid().as_raw(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    })
}

fn done(reply: ReplyEmpty, result: Result<(), Errno>) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for LossyFs {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.state().and_then(|mut state| {
            let ino = state.tree.lookup(parent.0, name)?;
            attr(&state, ino)
        });
        match found {
            Ok(attr) => reply.entry(&TTL, &attr, Generation(0)),
            Err(error) => reply.error(error),
        }
    }

    fn forget(&self, _: &Request, ino: INodeNo, count: u64) {
        if let Ok(mut state) = self.state() {
            state.tree.forget(ino.0, count);
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attr(ino.0) {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        match self.resized(ino, size) {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(error) => reply.error(error),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _mode: u32, _umask: u32, reply: ReplyEntry) {
        match self.made(parent, name, true) {
            Ok(attr) => reply.entry(&TTL, &attr, Generation(0)),
            Err(error) => reply.error(error),
        }
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        match self.made(parent, name, false) {
            Ok(attr) => reply.created(&TTL, &attr, Generation(0), handle(flags), FopenFlags::empty()),
            Err(error) => reply.error(error),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let removed = self
            .state()
            .and_then(|mut state| Ok(state.tree.remove(parent.0, name, false)?));
        done(reply, removed);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let removed = self
            .state()
            .and_then(|mut state| Ok(state.tree.remove(parent.0, name, true)?));
        done(reply, removed);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let replace = !flags.contains(RenameFlags::RENAME_NOREPLACE);
        let known = RenameFlags::RENAME_NOREPLACE.contains(flags);
        let renamed = self.state().and_then(|mut state| {
            if !known {
                return Err(Errno::EINVAL);
            }
            Ok(state.tree.rename((parent.0, name), (newparent.0, newname), replace)?)
        });
        done(reply, renamed);
    }

    fn open(&self, _: &Request, _: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        match self.state() {
            Ok(_) => reply.opened(handle(flags.0), FopenFlags::empty()),
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.state() {
            Ok(state) => match state.tree.read(ino.0) {
                Ok(bytes) => {
                    let begin = bytes.len().min(offset as usize);
                    let end = bytes.len().min(begin + size as usize);
                    reply.data(&bytes[begin..end]);
                }
                Err(refusal) => reply.error(refusal.into()),
            },
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut state = match self.state() {
            Ok(state) => state,
            Err(error) => return reply.error(error),
        };
        let change = match state.tree.write(ino.0, offset as usize, data) {
            Ok(change) => change,
            Err(refusal) => return reply.error(refusal.into()),
        };
        let bytes = data.len() as u32;
        if flags.0 & libc::O_DSYNC == 0 {
            state.counts.writes_volatile += 1;
            drop(state);
            return reply.written(bytes);
        }
        state.counts.writes_durable += 1;
        state.counts.writes_direct += u64::from(flags.0 & libc::O_DIRECT != 0);
        let ino = ino.0;
        let task = Task::Write {
            ino,
            change,
            bytes,
            reply,
        };
        self.0.begin(state, task, true);
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        done(reply, self.state().map(drop));
    }

    /// The kernel sends one behind every write to a file that was opened `O_DSYNC`, too.
    fn fsync(&self, _: &Request, ino: INodeNo, handle: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        match self.state() {
            Ok(mut state) => {
                state.counts.syncs += 1;
                let (ino, through) = (ino.0, state.tree.newest_change());
                self.0.begin(state, Task::Sync { ino, through, reply }, handle == DSYNC);
            }
            Err(error) => reply.error(error),
        }
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let entries = self.state().and_then(|state| Ok(state.tree.entries(ino.0)?));
        let entries = match entries {
            Ok(entries) => entries,
            Err(error) => return reply.error(error),
        };
        let dots = [(".".into(), ino.0, true), ("..".into(), ino.0, true)];
        let all = dots.into_iter().chain(entries);
        for (place, (name, ino, is_dir)) in all.enumerate().skip(offset as usize) {
            let kind = if is_dir {
                FileType::Directory
            } else {
                FileType::RegularFile
            };
            if reply.add(INodeNo(ino), place as u64 + 1, kind, &name) {
                break;
            }
        }
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        match self.state() {
            Ok(mut state) => {
                state.counts.dir_syncs += 1;
                let (ino, through) = (ino.0, state.tree.newest_change());
                self.0.begin(state, Task::Sync { ino, through, reply }, false);
            }
            Err(error) => reply.error(error),
        }
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(BLOCKS, BLOCKS, BLOCKS, 1 << 20, 1 << 20, 4096, 255, 4096);
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        if mode & !libc::FALLOC_FL_KEEP_SIZE != 0 {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let keep_size = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
        done(reply, self.allocated(ino, offset + length, keep_size));
    }
}
