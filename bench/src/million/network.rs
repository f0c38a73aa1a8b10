//! A network namespace for one run, with a table of connections that is large enough for it.
//!
//! The kernel makes the host's table at boot, of 524,288 buckets at most unless `thash_entries` says otherwise (`dispatchd tune check`).
//! Both ends of a million connections in a smaller one make every packet walk a chain of sockets that are in no cache. A namespace
//! has a table of its own when `net.ipv4.tcp_child_ehash_entries` is set in the one that it is made in (Linux 6.1 and newer; `ip-sysctl.rst`).
//! That is another new namespace, left at once: nothing of the host's is ever written.
#![allow(unsafe_code)]

use std::fs;
use std::io;
use std::os::fd::AsRawFd;

use rustix::net::{AddressFamily, SocketType, socket};
use serde::Serialize;

const IPV4: &str = "/proc/sys/net/ipv4";
const ENTRIES: &str = "tcp_ehash_entries";
const CHILD_ENTRIES: &str = "tcp_child_ehash_entries";
/// Most buckets that a namespace's table may have (`tcp_child_ehash_entries` in `ip-sysctl.rst`).
const ENTRIES_MAX: u64 = 1 << 24;
/// What a new namespace has by default, or by the size of its table, and shall have as the host does.
const AS_THE_HOST: [&str; 5] = [
    "../core/somaxconn",
    "tcp_max_syn_backlog",
    "tcp_max_tw_buckets",
    "tcp_slow_start_after_idle",
    "ip_local_port_range",
];

/// The network of a run.
#[derive(Debug, Serialize)]
pub struct Network {
    /// Whether it is the run's own.
    own: bool,
    /// Buckets of its table of connections; 0: the kernel does not say.
    buckets: u64,
    /// What there is to say beside that; empty: nothing.
    #[serde(skip_serializing_if = "String::is_empty")]
    note: String,
}

impl Network {
    /// The host's.
    pub fn host() -> Self {
        Self {
            own: false,
            buckets: entries().map_or(0, |entries| entries.0),
            note: String::new(),
        }
    }

    /// Moves this thread, and with it the threads and processes that it starts from now on, into a network of its own, whose only
    /// interface is the loopback and whose table has a bucket for each of `sockets`, and no fewer than the host's. Where this
    /// process may not make one, it stays in the host's.
    ///
    /// # Errors
    /// The thread is in a new network that cannot be used.
    pub fn enter(sockets: u64) -> io::Result<Self> {
        let mut host = Self::host();
        let wanted = sockets.max(host.buckets).next_power_of_two().min(ENTRIES_MAX);
        let as_the_host = AS_THE_HOST.map(|name| (name, get(name)));
        if let Err(error) = unshare() {
            host.note = format!("none of its own: {error}; root may make one");
            return Ok(host);
        }
        let asked = set(CHILD_ENTRIES, &wanted.to_string()).and_then(|()| unshare());
        loopback_up()?;
        // What the host's kernel does not know is not to be had here either.
        let same = as_the_host
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.ok()?)))
            .filter(|(name, value)| get(name).is_ok_and(|own| own != *value))
            .try_for_each(|(name, value)| set(name, &value));
        let (buckets, shared) = entries()?;
        let note = match asked.and(same) {
            Err(error) => format!("not as it should be: {error}"),
            Ok(()) if shared => "the host's: the kernel had no memory for another table".to_owned(),
            Ok(()) => String::new(),
        };
        Ok(Self {
            own: true,
            buckets,
            note,
        })
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let whose = if self.own {
            "a network of its own"
        } else {
            "the host's network"
        };
        write!(f, "{whose} with {} buckets for connections", self.buckets)?;
        if self.note.is_empty() {
            return Ok(());
        }
        write!(f, " ({})", self.note)
    }
}

/// Buckets of the table of connections, and whether it is another network's: then the kernel says their number with a minus.
fn entries() -> io::Result<(u64, bool)> {
    let text = get(ENTRIES)?;
    let entries: i64 = text.parse().map_err(io::Error::other)?;
    Ok((entries.unsigned_abs(), entries < 0))
}

fn get(name: &str) -> io::Result<String> {
    Ok(fs::read_to_string(format!("{IPV4}/{name}"))?.trim().to_owned())
}

fn set(name: &str, value: &str) -> io::Result<()> {
    let path = format!("{IPV4}/{name}");
    fs::write(&path, value).map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))
}

fn unshare() -> io::Result<()> {
    // SAFETY: a new network namespace changes nothing that Rust code relies on: descriptors and memory stay shared.
    match unsafe { libc::unshare(libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Brings up the loopback, which a new network has and leaves down, and with it 127.0.0.0/8 (`netdevice(7)`).
fn loopback_up() -> io::Result<()> {
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    // SAFETY: all fields are integers, arrays and pointers, for which zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: the request is a valid `ifreq` that lives until the call is over, as SIOCSIFFLAGS asks for.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn connects_in_a_network_of_its_own_and_leaves_the_host_as_it_was() {
        let host = || {
            AS_THE_HOST
                .iter()
                .chain(&[ENTRIES, CHILD_ENTRIES])
                .map(|name| get(name).ok())
                .collect::<Vec<_>>()
        };
        let before = host();
        let fewer = 3;
        let more = Network::host().buckets + 1;
        for sockets in [fewer, more] {
            // A thread of its own, which ends with the test: the others stay where they are.
            let entered = std::thread::spawn(move || {
                let network = Network::enter(sockets).unwrap();
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                listener.accept().unwrap();
                (network, AS_THE_HOST.map(|name| get(name).ok()).to_vec())
            });
            let (network, values) = entered.join().unwrap();
            assert_eq!(values, before[..AS_THE_HOST.len()]);
            if network.own && network.note.is_empty() {
                assert!(network.buckets >= sockets, "{network}");
                assert_eq!(
                    network.buckets == Network::host().buckets,
                    sockets == fewer,
                    "{network}"
                );
            } else {
                assert!(!network.note.is_empty(), "{network}");
            }
        }
        assert_eq!(host(), before);
    }
}
