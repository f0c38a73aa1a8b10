//! What the kernel and the node say about the node during a run.
#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::net::SocketAddrV4;

use crate::http;
use crate::measure::{kernel_slab_bytes, metric, process_cpu_ns, socket_objects_bytes};

/// Clock ticks of `/proc/PID/stat` in a second (`USER_HZ`, the same on all architectures that the kernel runs on here).
const TICKS_PER_S: f64 = 100.0;
/// Page of `/proc/net/sockstat`, bytes.
const PAGE_BYTES: u64 = 4096;

/// One look. Counters grow; memory is what is there now.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sample {
    /// Since the beginning of the run, s.
    pub at_s: f64,
    /// CPU of the node, exact, s.
    pub cpu_s: f64,
    /// CPU of the node in user mode, to 10 ms, s.
    pub user_s: f64,
    /// CPU of the node in the kernel, to 10 ms, s.
    pub system_s: f64,
    /// CPU of all load processes, s.
    pub load_s: f64,
    /// What the node's allocator has given out, bytes.
    pub allocated: f64,
    /// Anonymous resident memory of the node, bytes.
    pub anonymous: f64,
    /// Resident memory of the node that files are behind, bytes.
    pub file: f64,
    /// Slab of the whole machine, bytes.
    pub slab: f64,
    /// What sockets are made of, on the whole machine, bytes; not a number where the kernel does not say it to this process.
    pub socket_objects: f64,
    /// Socket buffers of the whole machine, bytes.
    pub tcp: f64,
    /// Received by the loopback device, which is both directions of all connections, bytes.
    pub network: f64,
    /// Written by the node to its disk, bytes.
    pub disk: f64,
    /// Journal commits of the node.
    pub commits: f64,
    /// Drivers connected, as the load processes say.
    pub connected: f64,
    /// Offers posted.
    pub posted: f64,
}

impl Sample {
    /// Looks at the node and the machine; what load processes say is filled in by them.
    ///
    /// # Errors
    /// The node is gone, or `/proc` has another shape.
    pub fn take(at_s: f64, pid: u32, address: SocketAddrV4, load: &[u32]) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let (user_s, system_s) = cpu_of(&stat).ok_or_else(|| io::Error::other("stat has another shape"))?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        // A node that is just starting has no metrics yet: the last look's stand until it has.
        let metrics = match http::get(address, "/metrics") {
            Ok((200, text)) => text,
            _ => String::new(),
        };
        let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
        let value = |name: &str| metric(&metrics, name).unwrap_or(f64::NAN);
        Ok(Self {
            at_s,
            cpu_s: process_cpu_ns(pid)? as f64 / 1e9,
            user_s,
            system_s,
            load_s: load.iter().filter_map(|pid| process_cpu_ns(*pid).ok()).sum::<u64>() as f64 / 1e9,
            allocated: value("dispatchd_allocated_bytes"),
            anonymous: field(&status, "RssAnon:").unwrap_or(0.0) * 1024.0,
            file: field(&status, "RssFile:").unwrap_or(0.0) * 1024.0,
            slab: kernel_slab_bytes()? as f64,
            socket_objects: Some(socket_objects_bytes())
                .filter(|bytes| *bytes > 0)
                .map_or(f64::NAN, |bytes| bytes as f64),
            tcp: tcp_bytes(&fs::read_to_string("/proc/net/sockstat")?),
            network: loopback_bytes(&fs::read_to_string("/proc/net/dev")?),
            disk: field(&io, "write_bytes:").unwrap_or(f64::NAN),
            commits: value("dispatchd_journal_commits_total"),
            ..Self::default()
        })
    }
}

/// User and system time of `/proc/PID/stat`, s. The name in it may hold anything, so fields count from its closing bracket.
fn cpu_of(stat: &str) -> Option<(f64, f64)> {
    let mut fields = stat.rsplit_once(") ")?.1.split_ascii_whitespace();
    let user: f64 = fields.nth(11)?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user / TICKS_PER_S, system / TICKS_PER_S))
}

fn field(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

fn tcp_bytes(sockstat: &str) -> f64 {
    let line = sockstat
        .lines()
        .find(|line| line.starts_with("TCP:"))
        .unwrap_or_default();
    let mut words = line.split_ascii_whitespace().skip_while(|word| *word != "mem");
    let pages = words.nth(1).and_then(|pages| pages.parse::<u64>().ok());
    (pages.unwrap_or(0) * PAGE_BYTES) as f64
}

fn loopback_bytes(dev: &str) -> f64 {
    let line = dev.lines().find_map(|line| line.trim().strip_prefix("lo:"));
    let bytes = line.and_then(|line| line.split_ascii_whitespace().next());
    bytes.and_then(|bytes| bytes.parse().ok()).unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_texts_are_read() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 100 0 0 0 250 75 0 0 20 0 1 0";
        assert_eq!(cpu_of(stat), Some((2.5, 0.75)));
        let sockstat = "sockets: used 9\nTCP: inuse 4 orphan 0 tw 0 alloc 6 mem 3\nUDP: inuse 0 mem 9\n";
        assert!((tcp_bytes(sockstat) - 12_288.0).abs() < 0.1);
        let dev = "Inter-| Receive\n face |bytes\n    lo: 1234 10 0 0\n  eth0: 9 9\n";
        assert!((loopback_bytes(dev) - 1234.0).abs() < 0.1);
        assert_eq!(field("RssAnon:\t  12 kB\n", "RssAnon:"), Some(12.0));
    }
}
