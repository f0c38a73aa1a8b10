//! What a level costs in memory, by kind: what the server says of its structures, what the kernel says of both processes
//! and of its own.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs;
use std::io;

use crate::http;
use crate::measure::{UserMemory, kernel_slab_bytes, metric};
use crate::server::Target;

/// Memory of the machine that one driver takes, both ends of its connection and both processes included, bytes: measured
/// 9.7 KB of slab and 0.5 KB of the two programs.
const BYTES_PER_DRIVER: u64 = 10_200;
/// What a shard and its load thread take before anybody connects, bytes: rings, tables, buffers, a segment in the making.
const BYTES_PER_SHARD: u64 = 12 << 20;
/// What is left to everybody else, bytes.
const BYTES_LEFT: u64 = 1 << 30;
/// Structures of the server, as its metric's label names them.
pub const STRUCTURES: [&str; 6] = [
    "drivers",
    "requests",
    "connections",
    "timers",
    "output_buffers",
    "receive_buffers",
];
/// Slab caches that a report names; the rest is summed up.
const CACHES_NAMED: usize = 10;

/// One reading of everything.
#[derive(Debug, Clone)]
pub struct Memory {
    /// The server's allocator's count, bytes; not a number when it has none.
    pub allocated: f64,
    /// The server's own count by structure, in the order of [`STRUCTURES`], bytes.
    pub structures: [f64; STRUCTURES.len()],
    /// User memory of the server.
    pub server: UserMemory,
    /// User memory of this process.
    pub client: UserMemory,
    /// The machine's slab, bytes.
    pub slab: u64,
    /// Memory that is neither free nor holds files, bytes.
    pub in_use: u64,
    /// Page tables of all processes, bytes.
    pub page_tables: u64,
    /// TCP sockets in use.
    pub sockets: u64,
    /// Memory of their queues, bytes.
    pub socket_buffers: u64,
    /// Bytes of each slab cache.
    caches: BTreeMap<String, u64>,
    /// The server's whole metrics.
    pub metrics: String,
}

impl Memory {
    /// Reads everything now.
    ///
    /// # Errors
    /// The server does not answer, or the kernel's files have changed shape.
    pub fn read(target: Target) -> io::Result<Self> {
        let metrics = match http::get(target.address, "/metrics")? {
            (200, text) => text,
            (status, _) => return Err(io::Error::other(format!("/metrics answers {status}"))),
        };
        let structure = |kind: &str| metric(&metrics, &format!("dispatchd_memory_bytes{{kind=\"{kind}\"}}"));
        let meminfo = fs::read_to_string("/proc/meminfo")?;
        let (sockets, socket_pages) = tcp_of(&fs::read_to_string("/proc/net/sockstat")?)
            .ok_or_else(|| io::Error::other("/proc/net/sockstat has no TCP"))?;
        Ok(Self {
            allocated: metric(&metrics, "dispatchd_allocated_bytes").unwrap_or(f64::NAN),
            structures: STRUCTURES.map(|kind| structure(kind).unwrap_or(f64::NAN)),
            server: UserMemory::of(target.pid)?,
            client: UserMemory::of(std::process::id())?,
            slab: kernel_slab_bytes()?,
            in_use: kilobytes(&meminfo, "MemTotal:")?
                - ["MemFree:", "Cached:", "Buffers:"]
                    .iter()
                    .map(|name| kilobytes(&meminfo, name))
                    .sum::<io::Result<u64>>()?,
            page_tables: kilobytes(&meminfo, "PageTables:")?,
            sockets,
            socket_buffers: socket_pages * rustix::param::page_size() as u64,
            // Only root may read it; without it the sum is still there.
            caches: caches_of(&fs::read_to_string("/proc/slabinfo").unwrap_or_default()),
            metrics,
        })
    }

    /// A counter or gauge of the server, labels summed; 0 when it has none.
    pub fn metric(&self, name: &str) -> f64 {
        metric(&self.metrics, name).unwrap_or(0.0)
    }

    /// The slab caches that grew most since `before`, and by how many bytes each.
    pub fn grown_caches(&self, before: &Self) -> Vec<(String, i64)> {
        let growth = |(name, bytes): (&String, &u64)| {
            let grown = *bytes as i64 - before.caches.get(name).copied().unwrap_or(0) as i64;
            (name.clone(), grown)
        };
        let mut all: Vec<(String, i64)> = self.caches.iter().map(growth).collect();
        all.sort_by_key(|(_, bytes)| -bytes);
        all.truncate(CACHES_NAMED);
        all
    }
}

/// Says why `drivers` on `shards` shards do not fit what the machine can give, if so.
///
/// # Errors
/// They do not, or the kernel does not say.
pub fn must_fit(drivers: u32, shards: u32) -> io::Result<()> {
    let available = kilobytes(&fs::read_to_string("/proc/meminfo")?, "MemAvailable:")?;
    let needed = needed_bytes(drivers, shards);
    if needed <= available {
        return Ok(());
    }
    let (needed, available) = (needed >> 20, available >> 20);
    Err(io::Error::other(format!(
        "{drivers} drivers do not fit: {needed} MiB are needed (10.2 KB for both ends of a connection, 12 MiB for a shard and its \
         load thread, 1 GiB for everybody else), {available} MiB are available; take fewer --drivers or free memory"
    )))
}

fn needed_bytes(drivers: u32, shards: u32) -> u64 {
    u64::from(drivers) * BYTES_PER_DRIVER + u64::from(shards) * BYTES_PER_SHARD + BYTES_LEFT
}

fn kilobytes(meminfo: &str, name: &str) -> io::Result<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse::<u64>().ok())
        .map(|kilobytes| kilobytes * 1024)
        .ok_or_else(|| io::Error::other(format!("/proc/meminfo has no {name}")))
}

/// Sockets in use, and pages of their queues.
fn tcp_of(sockstat: &str) -> Option<(u64, u64)> {
    let line = sockstat.lines().find_map(|line| line.strip_prefix("TCP:"))?;
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let after = |name: &str| {
        let at = words.iter().position(|word| *word == name)?;
        words.get(at + 1)?.parse().ok()
    };
    Some((after("inuse")?, after("mem")?))
}

/// Bytes of each cache: its pages, those of its empty places too.
fn caches_of(slabinfo: &str) -> BTreeMap<String, u64> {
    let page = rustix::param::page_size() as u64;
    let cache = |line: &str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let number = |at: usize| words.get(at)?.parse::<u64>().ok();
        // name active_objs num_objs objsize objperslab pagesperslab : tunables a b c : slabdata active_slabs num_slabs …
        Some(((*words.first()?).to_owned(), number(14)? * number(5)? * page))
    };
    slabinfo.lines().skip(2).filter_map(cache).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_texts_are_read() {
        let sockstat = "sockets: used 17\nTCP: inuse 12 orphan 0 tw 3 alloc 14 mem 136\nUDP: inuse 0 mem 0\n";
        assert_eq!(tcp_of(sockstat), Some((12, 136)));
        let slabinfo = "slabinfo - version: 2.1\n# name\n\
                        TCP 100 120 2368 13 8 : tunables 0 0 0 : slabdata 9 10 0\n";
        let page = rustix::param::page_size() as u64;
        assert_eq!(caches_of(slabinfo).get("TCP"), Some(&(10 * 8 * page)));
        assert_eq!(kilobytes("MemAvailable:    5 kB\n", "MemAvailable:").unwrap(), 5 * 1024);
        assert!(kilobytes("", "MemAvailable:").is_err());
    }

    #[test]
    fn a_million_needs_less_than_this_projects_machine_and_more_than_half_of_it() {
        let needed = needed_bytes(1_000_000, 63) >> 30;
        assert!((8..16).contains(&needed), "{needed} GiB");
        assert!(must_fit(u32::MAX, 1).is_err(), "38 TB");
    }
}
