//! A network namespace for one run, whose table of connections is as large as a tuned host's.
//!
//! The kernel makes the table at boot, of 524,288 buckets at most unless `thash_entries` says otherwise (`dispatchd tune check`). Both ends
//! of a million connections in a smaller one make every packet walk a chain of sockets that are in no cache. A namespace made
//! while `net.ipv4.tcp_child_ehash_entries` is set has a table of its own (Linux 6.1 and newer), so a run needs no boot and leaves the host as it was.
#![allow(unsafe_code)]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;

use rustix::net::{AddressFamily, SocketType, socket};

const ENTRIES: &str = "/proc/sys/net/ipv4/tcp_ehash_entries";
const CHILD_ENTRIES: &str = "/proc/sys/net/ipv4/tcp_child_ehash_entries";
/// Most buckets that a namespace's table may have (`tcp_child_ehash_entries` in the kernel's `ip-sysctl.rst`).
const ENTRIES_MAX: u64 = 1 << 24;

/// Moves this thread, and with it the threads and processes that it starts from now on, into a network of its own, whose only
/// interface is the loopback and whose table of connections has a bucket for each of `sockets`. Returns which network that is, in words:
/// where this process may not make one, it stays in the host's.
///
/// # Errors
/// The thread is in a new network that cannot be used.
pub fn enter(sockets: u64) -> io::Result<String> {
    let host = host();
    if let Err(error) = make(sockets.next_power_of_two().min(ENTRIES_MAX)) {
        return Ok(format!("{host} (none of its own: {error})"));
    }
    loopback_up()?;
    // In a network that has no table of its own the kernel gives the shared one's size, negative.
    let entries = fs::read_to_string(ENTRIES)?;
    let entries = entries.trim().trim_start_matches('-');
    Ok(format!(
        "a network of its own with {entries} buckets for connections, not {host}"
    ))
}

/// The host's network, in words.
pub fn host() -> String {
    let entries = fs::read_to_string(ENTRIES).unwrap_or_default();
    format!("the host's network with {} buckets for connections", entries.trim())
}

/// Moves this thread into a new network whose table has `entries` buckets.
fn make(entries: u64) -> io::Result<()> {
    let before = fs::read_to_string(CHILD_ENTRIES)?;
    // Open from here on: a path below /proc/sys/net means the network that a thread is in when it opens it.
    let mut children = OpenOptions::new().write(true).open(CHILD_ENTRIES)?;
    set(&mut children, &entries.to_string())?;
    let made = unshare();
    // What is left wrong is the table of the next namespace that somebody makes, so nobody's run ends for it.
    if let Err(error) = set(&mut children, before.trim()) {
        eprintln!(
            "million: net.ipv4.tcp_child_ehash_entries is {entries} now, it was {}: {error}",
            before.trim()
        );
    }
    made
}

fn set(sysctl: &mut File, value: &str) -> io::Result<()> {
    sysctl.write_all(value.as_bytes())
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
        let children = fs::read_to_string(CHILD_ENTRIES).unwrap_or_default();
        let host = fs::read_to_string(ENTRIES).unwrap_or_default();
        // A thread of its own, which ends with the test: the others stay where they are.
        let said = std::thread::spawn(|| {
            let said = enter(3_000).unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            TcpStream::connect(address).unwrap();
            listener.accept().unwrap();
            said
        });
        let said = said.join().unwrap();
        if rustix::process::geteuid().is_root() {
            assert!(said.contains("own with 4096 buckets"), "{said}");
        } else {
            assert!(said.starts_with("the host's network"), "{said}");
        }
        assert_eq!(fs::read_to_string(CHILD_ENTRIES).unwrap_or_default(), children);
        assert_eq!(fs::read_to_string(ENTRIES).unwrap_or_default(), host);
    }
}
