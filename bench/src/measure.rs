//! What the kernel says about time, CPU and memory of the server and of the machine.

use std::fs;
use std::io;
use std::time::Instant;

use hdrhistogram::Histogram;

/// Highest latency that a histogram tells apart, ns (one minute); longer ones count as this.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// A monotonic clock that starts at zero.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    /// Starts at zero now.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Nanoseconds since the start.
    pub fn now_ns(&self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }
}

/// An HDR histogram of latencies with three significant digits.
pub struct Latencies(Histogram<u64>);

impl Latencies {
    /// An empty histogram.
    pub fn new() -> Self {
        Self(Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("constant bounds are valid"))
    }

    /// Adds a latency in ns.
    pub fn record(&mut self, ns: u64) {
        self.0.saturating_record(ns.max(1));
    }

    /// Every latency that occurs (ns, rounded as the histogram does) and how often.
    pub fn sparse(&self) -> Vec<(u64, u64)> {
        self.0
            .iter_recorded()
            .map(|value| (value.value_iterated_to(), value.count_since_last_iteration()))
            .collect()
    }

    /// Adds what [`Latencies::sparse`] gave.
    pub fn add_sparse(&mut self, sparse: &[(u64, u64)]) {
        for (ns, count) in sparse {
            self.0.saturating_record_n((*ns).max(1), *count);
        }
    }

    /// Latencies recorded.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The latency in ms that this share (0.0–1.0) of the recorded ones does not exceed; not a number when empty.
    pub fn quantile_ms(&self, quantile: f64) -> f64 {
        if self.0.is_empty() {
            f64::NAN
        } else {
            self.0.value_at_quantile(quantile) as f64 / 1e6
        }
    }

    /// The longest in ms; not a number when empty.
    pub fn max_ms(&self) -> f64 {
        if self.0.is_empty() {
            f64::NAN
        } else {
            self.0.max() as f64 / 1e6
        }
    }
}

impl Default for Latencies {
    fn default() -> Self {
        Self::new()
    }
}

/// CPU time that a process has used so far, ns: the scheduler's count over all of its threads, those that have ended and the
/// kernel's workers for its rings included.
///
/// # Errors
/// The process is gone (`ESRCH`).
pub fn process_cpu_ns(pid: u32) -> io::Result<u64> {
    let mut clock: libc::clockid_t = 0;
    // SAFETY: the call writes one clock id to where the pointer points.
    let error = unsafe { libc::clock_getcpuclockid(pid as libc::pid_t, &raw mut clock) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes one `timespec` to where the pointer points.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// CPU of the server and of this process over a stretch of time.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// Wall time, ns.
    pub wall_ns: u64,
    /// CPU time of the server, ns.
    pub server_ns: u64,
    /// CPU time of the load generator, ns.
    pub client_ns: u64,
}

impl Usage {
    /// Adds another stretch.
    pub fn add(&mut self, other: Self) {
        self.wall_ns += other.wall_ns;
        self.server_ns += other.server_ns;
        self.client_ns += other.client_ns;
    }

    /// Server CPU per operation, µs.
    pub fn server_us_per(&self, operations: u64) -> f64 {
        self.server_ns as f64 / 1e3 / operations as f64
    }

    /// Operations per second of wall time.
    pub fn per_second(&self, operations: u64) -> f64 {
        operations as f64 * 1e9 / self.wall_ns as f64
    }

    /// Server CPU as a percentage of one core.
    pub fn server_percent(&self) -> f64 {
        100.0 * self.server_ns as f64 / self.wall_ns as f64
    }

    /// Load generator's CPU as a percentage of one core.
    pub fn client_percent(&self) -> f64 {
        100.0 * self.client_ns as f64 / self.wall_ns as f64
    }
}

/// Measures stretches of [`Usage`].
pub struct UsageMeter {
    clock: Clock,
    server_pid: u32,
    last: Usage,
}

impl UsageMeter {
    /// Starts the first stretch.
    ///
    /// # Errors
    /// The process is gone.
    pub fn start(server_pid: u32) -> io::Result<Self> {
        let mut meter = Self {
            clock: Clock::start(),
            server_pid,
            last: Usage::default(),
        };
        meter.lap()?;
        Ok(meter)
    }

    /// Ends the current stretch and starts the next.
    ///
    /// # Errors
    /// The process is gone.
    pub fn lap(&mut self) -> io::Result<Usage> {
        let now = Usage {
            wall_ns: self.clock.now_ns(),
            server_ns: process_cpu_ns(self.server_pid)?,
            client_ns: process_cpu_ns(std::process::id())?,
        };
        let last = std::mem::replace(&mut self.last, now);
        Ok(Usage {
            wall_ns: now.wall_ns - last.wall_ns,
            server_ns: now.server_ns.saturating_sub(last.server_ns),
            client_ns: now.client_ns.saturating_sub(last.client_ns),
        })
    }
}

/// User memory of a process, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserMemory {
    /// Resident set.
    pub resident: u64,
    /// Its anonymous part, shared pages counted by share: heap, stacks, anonymous maps.
    pub anonymous: u64,
}

impl UserMemory {
    /// Reads `/proc/PID/smaps_rollup`.
    ///
    /// # Errors
    /// The process is gone, or belongs to somebody else.
    pub fn of(pid: u32) -> io::Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let field =
            |name| kilobytes(&text, name).ok_or_else(|| io::Error::other(format!("smaps_rollup has no field {name}")));
        Ok(Self {
            resident: field("Rss:")?,
            anonymous: field("Pss_Anon:")?,
        })
    }
}

/// The whole machine's slab, bytes (`Slab`): where sockets and ring requests live. The inodes and names of sockets are among what counts as
/// reclaimable there, and are not as long as the sockets are open.
///
/// # Errors
/// `/proc/meminfo` cannot be read or has changed shape.
pub fn kernel_slab_bytes() -> io::Result<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo")?;
    kilobytes(&meminfo, "Slab:").ok_or_else(|| io::Error::other("meminfo has no Slab"))
}

/// Caches of what a connection is made of: the socket, its inode, name and file, and the ring's request for it.
const SOCKET_CACHES: [&str; 5] = ["TCP", "sock_inode_cache", "dentry", "filp", "io_kiocb"];

/// Bytes of the objects in use in the caches of sockets with their files, of the ring's requests and of unnamed allocations
/// (`kmalloc`), the machine's sum; 0 when the file may not be read. Unlike pages, they go with their sockets.
pub fn socket_objects_bytes() -> u64 {
    let slabinfo = fs::read_to_string("/proc/slabinfo").unwrap_or_default();
    let bytes = |line: &str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let name = words.first()?;
        let counted = SOCKET_CACHES.contains(name) || is_plain_kmalloc(name);
        let number = |at: usize| words.get(at)?.parse::<u64>().ok();
        counted.then(|| Some(number(1)? * number(3)?))?
    };
    slabinfo.lines().skip(2).filter_map(bytes).sum()
}

/// `kmalloc-96` and `kmalloc-cg-512`, up to 512 bytes: larger ones are no socket's, and those of others are noise.
fn is_plain_kmalloc(name: &str) -> bool {
    let size = name.strip_prefix("kmalloc-cg-").or(name.strip_prefix("kmalloc-"));
    size.and_then(|size| size.parse::<u32>().ok())
        .is_some_and(|size| size <= 512)
}

fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace()
        .next()?
        .parse::<u64>()
        .ok()
        .map(|kilobytes| kilobytes * 1024)
}

/// The sum of a metric's samples in Prometheus text; `None` when it has none.
pub fn metric(text: &str, name: &str) -> Option<f64> {
    let samples = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let value = match rest.strip_prefix('{') {
            Some(labelled) => labelled.split_once('}')?.1,
            None => rest.strip_prefix([' ', '\t'])?,
        };
        value.split_ascii_whitespace().next()?.parse::<f64>().ok()
    });
    samples.reduce(|sum, sample| sum + sample)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_of_other_sizes_and_kinds_are_not_counted() {
        let counted = ["kmalloc-96", "kmalloc-cg-512"].map(is_plain_kmalloc);
        let not_counted = ["kmalloc-1k", "kmalloc-rcl-96", "dentry"].map(is_plain_kmalloc);
        assert_eq!((counted, not_counted), ([true; 2], [false; 3]));
    }

    #[test]
    fn the_kernels_texts_are_read() {
        let rollup = "55 [rollup]\nRss:                1752 kB\nPss_Anon:            112 kB\n";
        assert_eq!(kilobytes(rollup, "Pss_Anon:"), Some(112 * 1024));
        assert_eq!(kilobytes(rollup, "Swap:"), None);
    }

    #[test]
    fn this_process_and_machine_can_be_measured() {
        assert!(process_cpu_ns(std::process::id()).unwrap() > 0);
        assert!(UserMemory::of(std::process::id()).unwrap().anonymous > 0);
        assert!(kernel_slab_bytes().unwrap() > 0);
        // Pids end below this (`PID_MAX_LIMIT`).
        assert!(process_cpu_ns(1 << 22).is_err());
    }

    #[test]
    fn a_metric_is_summed_over_its_labels_and_not_mistaken_for_another() {
        let text = "# HELP a_bytes x\n# TYPE a_bytes gauge\na_bytes{shard=\"0\"} 100\na_bytes{shard=\"1\"} 2.5e1 123\n\
                    a_bytes_total 7\nb 4\n";
        assert_eq!(metric(text, "a_bytes"), Some(125.0));
        assert_eq!(metric(text, "b"), Some(4.0));
        assert_eq!(metric(text, "c"), None);
    }

    #[test]
    fn quantiles_are_milliseconds() {
        let mut latencies = Latencies::new();
        assert!(latencies.quantile_ms(0.5).is_nan() && latencies.max_ms().is_nan());
        for ms in 1..=100 {
            latencies.record(ms * 1_000_000);
        }
        assert!((latencies.quantile_ms(0.99) - 99.0).abs() < 0.1);
        assert!((latencies.max_ms() - 100.0).abs() < 0.1);
        assert_eq!(latencies.count(), 100);
    }
}
