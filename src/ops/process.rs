//! What the kernel says of this process, and the limits that it may raise for itself.
#![forbid(unsafe_code)]

use rustix::process::{Pid, Resource, Rlimit, getpriority_process, getrlimit, nice, setpriority_process, setrlimit};
use std::fs;
use std::io;

/// How much nicer than the rest of the process a thread is whose work can wait (nice(2)): at 5 its weight is a third of
/// an ordinary one's, so it still gets on when shards take all there is.
const NICE_OF_COLD: i32 = 5;

/// Lets the calling thread, and those that it starts from now on, go behind the shards where they share a core: a shard
/// that wakes runs at once and does not wait for a time slice to end. Linux keeps this per thread.
///
/// # Errors
/// A sandbox forbids it; the thread runs on as it was.
pub fn lower_priority() -> io::Result<()> {
    nice(NICE_OF_COLD)?;
    Ok(())
}

/// [`lower_priority`] for the threads of this process with one of these names. Called again it lowers them further.
///
/// # Errors
/// `/proc` is not mounted, or a sandbox forbids it; the threads run on as they were.
pub fn lower_priority_of(names: &[&str]) -> io::Result<()> {
    for task in fs::read_dir("/proc/self/task")? {
        let task = task?.path();
        // A thread may have ended meanwhile.
        let Ok(name) = fs::read_to_string(task.join("comm")) else {
            continue;
        };
        let id = task.file_name().and_then(|id| id.to_str()?.parse().ok());
        if let Some(thread) = id.and_then(Pid::from_raw).filter(|_| names.contains(&name.trim_end())) {
            setpriority_process(Some(thread), getpriority_process(Some(thread))? + NICE_OF_COLD)?;
        }
    }
    Ok(())
}

/// A reading of `/proc/self`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessStats {
    /// Processor time, user and system, in microseconds.
    pub cpu_us: u64,
    /// Resident memory.
    pub resident_bytes: u64,
    /// Virtual memory.
    pub virtual_bytes: u64,
    /// Threads.
    pub threads: u64,
    /// Entries in the descriptor table; direct descriptors of the rings are not in it.
    pub open_fds: u64,
    /// Soft `RLIMIT_NOFILE`.
    pub max_fds: u64,
    /// Unix time, in seconds.
    pub started_at_s: u64,
}

impl ProcessStats {
    /// Reads `/proc`, which never touches a disk.
    ///
    /// # Errors
    /// When `/proc` is not mounted or has another shape.
    pub fn read() -> io::Result<Self> {
        let stat = fs::read_to_string("/proc/self/stat")?;
        let booted_at_s = read_boot_time()?;
        let mut stats = parse_stat(&stat, booted_at_s).ok_or_else(|| io::Error::other("/proc/self/stat is strange"))?;
        stats.open_fds = fs::read_dir("/proc/self/fd")?.count().saturating_sub(1) as u64;
        stats.max_fds = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        Ok(stats)
    }
}

/// Fields of proc(5) `stat`, counted after the name in parentheses, which may itself hold blanks.
fn parse_stat(stat: &str, booted_at_s: u64) -> Option<ProcessStats> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = after_name.split_ascii_whitespace().collect();
    // Field 3 (state) is the first after the name.
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let ticks_per_s = rustix::param::clock_ticks_per_second();
    let cpu_ticks = field(14)? + field(15)?;
    Some(ProcessStats {
        cpu_us: cpu_ticks * (1_000_000 / ticks_per_s),
        threads: field(20)?,
        started_at_s: booted_at_s + field(22)? / ticks_per_s,
        virtual_bytes: field(23)?,
        resident_bytes: field(24)? * rustix::param::page_size() as u64,
        open_fds: 0,
        max_fds: 0,
    })
}

fn read_boot_time() -> io::Result<u64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "));
    line.and_then(|text| text.trim().parse().ok())
        .ok_or_else(|| io::Error::other("/proc/stat has no btime"))
}

/// Raises the soft limit of locked memory to the hard one and returns what it is then, in bytes. Rings count against
/// it on kernels before 5.12, glommio's buffers on all.
pub fn raise_locked_memory() -> u64 {
    let limit = getrlimit(Resource::Memlock);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Memlock, raised)
    {
        tracing::warn!(%error, "cannot raise the limit of locked memory");
    }
    getrlimit(Resource::Memlock).current.unwrap_or(u64::MAX)
}

/// Raises the soft limit of open files to the hard one and returns what it is then. A refusal changes nothing.
pub fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "cannot raise the limit of open files");
        }
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_and_parentheses_is_skipped() {
        let stat = "42 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 150 50 13 14 20 0 9 18 100 4096 3 rest";
        let stats = parse_stat(stat, 1000).unwrap();
        let ticks_per_s = rustix::param::clock_ticks_per_second();
        assert_eq!(stats.cpu_us, 200 * 1_000_000 / ticks_per_s);
        assert_eq!((stats.threads, stats.virtual_bytes), (9, 4096));
        assert_eq!(stats.started_at_s, 1000 + 100 / ticks_per_s);
        assert_eq!(stats.resident_bytes, 3 * rustix::param::page_size() as u64);
        assert_eq!(parse_stat("42 no parentheses", 0), None);
    }

    #[test]
    fn this_process_reads_itself() {
        let stats = ProcessStats::read().unwrap();
        assert!(stats.resident_bytes > 0 && stats.resident_bytes <= stats.virtual_bytes);
        assert!(stats.threads >= 1 && stats.open_fds >= 1 && stats.open_fds <= stats.max_fds);
    }
}
