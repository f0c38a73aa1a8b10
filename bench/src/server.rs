//! The process under test: started pinned, waited for, measured by pid, ended by SIGTERM.
//!
//! A server never outlives this process: the kernel kills it when its parent dies.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::ends::Owned;
use crate::http;

/// Where servers listen; Linux gives connections the ports from 32768 on, unless told otherwise.
const PORTS: std::ops::Range<u16> = 21_000..29_000;

/// Connections that a shard may have beyond its share of the drivers, percent of it and a number: what hashing spreads
/// unevenly, what rings keep from accept, connections that are being closed, and the matching engine's.
const SPARE_PERCENT: u64 = 6;
const SPARE_CONNECTIONS: u64 = 2_048;
/// Most that the setting `connections_max` may be.
const CONNECTIONS_MAX: u64 = 1 << 20;

/// The setting `connections_max` of a server for so many drivers.
pub fn connections_for(drivers: u32, shards: u32) -> u64 {
    let share = u64::from(drivers.div_ceil(shards));
    (share + share * SPARE_PERCENT / 100 + SPARE_CONNECTIONS).min(CONNECTIONS_MAX)
}

/// How long a server may take until `/readyz` answers 200.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a server may take to end after SIGTERM: the `drain_ms` given below and the contract's 10 s, and a little.
const STOP_TIMEOUT: Duration = Duration::from_secs(13);
/// Pause between two looks at whether the server is ready or has ended.
const POLL: Duration = Duration::from_millis(20);
/// Settings of every server under test; later `--set`s win.
const SETTINGS: [&str; 2] = ["shards=1", "drain_ms=1000"];
/// Lines of the server's log that an error shows.
const LOG_LINES_SHOWN: usize = 20;

/// Who runs where.
#[derive(Debug, Clone, Copy)]
pub struct Cores {
    /// The server's core.
    pub server: usize,
    /// The load generator's core; the server's when there is only one.
    pub client: usize,
    /// Cores that this process may use.
    pub allowed: usize,
}

impl Cores {
    /// The first two cores that this process may use.
    ///
    /// # Errors
    /// The kernel's.
    pub fn choose() -> io::Result<Self> {
        let allowed = sched_getaffinity(None)?;
        let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect();
        let server = *cores.first().ok_or_else(|| io::Error::other("no core is allowed"))?;
        let client = cores.get(1).copied().unwrap_or(server);
        Ok(Self {
            server,
            client,
            allowed: cores.len(),
        })
    }

    /// Binds the calling thread, and all that it will start, to the load generator's core.
    ///
    /// # Errors
    /// The kernel's.
    pub fn pin_client(self) -> io::Result<()> {
        pin(self.client)
    }
}

fn pin(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}

/// Where the server listens and which process it is: all that a scenario needs to know.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its HTTP and WebSocket port.
    pub address: SocketAddrV4,
    /// Its process.
    pub pid: u32,
}

/// How to start servers.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The `dispatchd` program.
    pub program: PathBuf,
    /// `key=value` settings beyond ours.
    pub settings: Vec<String>,
    /// Where data directories are made; must be on the disk whose commits are to be measured.
    pub data_root: PathBuf,
    /// Who runs where.
    pub cores: Cores,
    /// Listen on all addresses, so that load processes can use one each of the loopback network: a pair of addresses has about
    /// 28,000 ports.
    pub any_address: bool,
}

/// What a scenario that starts servers by itself is given.
#[derive(Debug, Clone)]
pub struct Install {
    /// The `dispatchd` program.
    pub program: PathBuf,
    /// Where data directories are made.
    pub data_root: PathBuf,
    /// `key=value` settings beyond the scenario's.
    pub settings: Vec<String>,
}

/// A running `dispatchd serve` with a data directory of its own, which goes with it.
pub struct Server {
    child: OwnedChild,
    address: SocketAddrV4,
    data: tempfile::TempDir,
    _directory: Owned,
    setup: Setup,
}

impl Server {
    /// Starts a server on a free loopback port and waits until it is ready.
    ///
    /// # Errors
    /// It cannot be started, ends, or is not ready within 30 s; the message holds the end of its log.
    pub fn start(setup: &Setup) -> io::Result<Self> {
        let data = tempfile::Builder::new()
            .prefix("dispatchd-bench-")
            .tempdir_in(&setup.data_root)?;
        let directory = Owned::directory(data.path().to_owned());
        let address = free_port()?;
        let child = spawn(setup, address, data.path())?;
        let setup = setup.clone();
        let mut server = Self {
            child,
            address,
            data,
            _directory: directory,
            setup,
        };
        server.wait_ready().map_err(|error| server.explain(&error))?;
        Ok(server)
    }

    /// Ends the server as [`Self::stop`] does and starts it again on what it has stored, at the same address; `ended` is
    /// called in between.
    ///
    /// # Errors
    /// It does not end as it should, or does not start.
    pub fn restart(mut self, stop_timeout: Duration, ended: impl FnOnce()) -> io::Result<Self> {
        self.end(stop_timeout)?;
        ended();
        self.child = spawn(&self.setup, self.address, self.data.path())?;
        self.wait_ready().map_err(|error| self.explain(&error))?;
        Ok(self)
    }

    /// `kill -9`. [`Server::try_restart`] follows.
    ///
    /// # Errors
    /// The kernel's.
    pub fn kill(&self) -> io::Result<()> {
        self.child.signal(Signal::KILL)
    }

    /// SIGTERM: the server drains. [`Server::try_restart`] follows.
    ///
    /// # Errors
    /// The kernel's.
    pub fn drain(&self) -> io::Result<()> {
        self.child.signal(Signal::TERM)
    }

    /// Starts the server again on the same data and port if it has ended; says whether it had. Does not wait until it is ready.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn try_restart(&mut self) -> io::Result<bool> {
        if self.child.0.try_wait()?.is_none() {
            return Ok(false);
        }
        self.child = spawn(&self.setup, self.address, self.data.path())?;
        Ok(true)
    }

    /// What scenarios need.
    pub fn target(&self) -> Target {
        Target {
            address: self.address,
            pid: self.child.0.id(),
        }
    }

    /// Its process.
    pub fn child(&self) -> &OwnedChild {
        &self.child
    }

    /// SIGTERM, and the wait for its end.
    ///
    /// # Errors
    /// It does not end in time (it is killed then) or ends with another status than 0.
    pub fn stop(mut self) -> io::Result<()> {
        self.end(STOP_TIMEOUT)
    }

    fn end(&mut self, timeout: Duration) -> io::Result<()> {
        self.child.signal(Signal::TERM)?;
        let deadline = Instant::now() + timeout;
        while Instant::now() < deadline {
            if let Some(status) = self.child.0.try_wait()? {
                let result = if status.success() {
                    Ok(())
                } else {
                    Err(io::Error::other(format!("ended with {status}")))
                };
                return result.map_err(|error| self.explain(&error));
            }
            std::thread::sleep(POLL);
        }
        Err(self.explain(&io::Error::other(format!("still running {timeout:?} after SIGTERM"))))
    }

    /// Adds the end of the server's log to an error.
    pub fn explain(&self, error: &io::Error) -> io::Error {
        let log = fs::read_to_string(log_path(self.data.path())).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n    ");
        io::Error::other(format!("{error}\n  the server's log ends with:\n    {tail}"))
    }

    fn wait_ready(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + READY_TIMEOUT;
        while Instant::now() < deadline {
            if let Some(status) = self.child.0.try_wait()? {
                return Err(io::Error::other(format!(
                    "the server ended with {status} before it was ready"
                )));
            }
            if matches!(http::get(self.address, "/readyz"), Ok((200, _))) {
                return Ok(());
            }
            std::thread::sleep(POLL);
        }
        Err(io::Error::other(format!(
            "the server is not ready after {READY_TIMEOUT:?}"
        )))
    }
}

fn spawn(setup: &Setup, address: SocketAddrV4, data: &Path) -> io::Result<OwnedChild> {
    let log = File::options().append(true).create(true).open(log_path(data))?;
    let listen = if setup.any_address {
        SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, address.port())
    } else {
        address
    };
    let mut command = Command::new(&setup.program);
    command
        .arg("serve")
        .arg("--data")
        .arg(data.join("node"))
        .arg("--listen")
        .arg(listen.to_string());
    for setting in SETTINGS.into_iter().chain(setup.settings.iter().map(String::as_str)) {
        command.arg("--set").arg(setting);
    }
    // Neither a settings file of the working directory nor the caller's environment shall change what is measured.
    command.current_dir(data);
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"DISPATCHD_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    OwnedChild::spawn(&mut command, setup.cores.server)
        .map_err(|error| io::Error::other(format!("{}: {error}", setup.program.display())))
}

fn log_path(data: &Path) -> PathBuf {
    data.join("server.log")
}

/// A free port of the loopback interface, below those that the kernel gives to connections: while a server that listens there is down, no
/// connection of anybody takes it, and the server can have it again.
///
/// # Errors
/// None is free.
pub fn free_port() -> io::Result<SocketAddrV4> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Programs side by side begin at different places.
    let start = std::process::id().wrapping_mul(7_919);
    for _ in PORTS {
        let step = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = PORTS.start + (step % PORTS.len() as u32) as u16;
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            return ipv4(listener.local_addr()?);
        }
    }
    Err(io::Error::other(format!(
        "no port from {} to {} is free",
        PORTS.start,
        PORTS.end - 1
    )))
}

/// The IPv4 address that a loopback socket of ours has.
///
/// # Errors
/// It is IPv6.
pub fn ipv4(address: SocketAddr) -> io::Result<SocketAddrV4> {
    match address {
        SocketAddr::V4(address) => Ok(address),
        SocketAddr::V6(address) => Err(io::Error::other(format!("{address} is not IPv4"))),
    }
}

/// A server in a process of its own that prints its address as its first line: the raw ring's (see [`crate::raw`]) and most
/// of the peers'.
pub struct RawServer {
    child: OwnedChild,
    address: SocketAddrV4,
}

impl RawServer {
    /// Starts `program raw-server` on the server's core.
    ///
    /// # Errors
    /// It cannot be started or does not print an address.
    pub fn start(program: &Path, cores: Cores, arguments: &[String]) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.arg("raw-server").args(arguments);
        Self::start_command(&mut command, cores)
    }

    /// Starts a program on the server's core and reads its address from the first line that it prints.
    ///
    /// # Errors
    /// It cannot be started or does not print an address.
    pub fn start_command(command: &mut Command, cores: Cores) -> io::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = OwnedChild::spawn(command, cores.server)?;
        let stdout = child
            .0
            .stdout
            .take()
            .ok_or_else(|| io::Error::other("stdout was piped"))?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let address = line
            .trim()
            .parse()
            .map_err(|_| io::Error::other(format!("no address in {line:?}")))?;
        Ok(Self { child, address })
    }

    /// Starts a program on the server's core that was told to listen on `address`, and waits until it does.
    ///
    /// # Errors
    /// It cannot be started, ends, or does not listen within 30 s.
    pub fn start_at(command: &mut Command, cores: Cores, address: SocketAddrV4) -> io::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = OwnedChild::spawn(command, cores.server)?;
        let deadline = Instant::now() + READY_TIMEOUT;
        while Instant::now() < deadline {
            if let Some(status) = child.0.try_wait()? {
                return Err(io::Error::other(format!("ended with {status} before it listened")));
            }
            if std::net::TcpStream::connect(address).is_ok() {
                return Ok(Self { child, address });
            }
            std::thread::sleep(POLL);
        }
        Err(io::Error::other(format!("does not listen after {READY_TIMEOUT:?}")))
    }

    /// What scenarios need.
    pub fn target(&self) -> Target {
        Target {
            address: self.address,
            pid: self.child.0.id(),
        }
    }

    /// Its process.
    pub fn child(&self) -> &OwnedChild {
        &self.child
    }
}

/// A child that is killed and reaped when dropped.
pub struct OwnedChild(Child, Option<Owned>);

impl OwnedChild {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// The standard streams that were piped.
    pub fn streams(&mut self) -> Option<(std::process::ChildStdin, std::process::ChildStdout)> {
        self.0.stdin.take().zip(self.0.stdout.take())
    }

    /// Starts a program bound to a core; the kernel ends it with its parent.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(command: &mut Command, core: usize) -> io::Result<Self> {
        let before_exec = move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            pin(core)
        };
        // SAFETY: the closure runs between fork and exec and makes two system calls; it allocates nothing, takes no lock and
        // touches no memory but its own stack.
        unsafe { command.pre_exec(before_exec) };
        let child = command.spawn()?;
        let owned = Owned::child(child.id());
        Ok(Self(child, owned))
    }

    /// SIGSTOP.
    ///
    /// # Errors
    /// The kernel's.
    pub fn pause(&self) -> io::Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// The kernel's.
    pub fn go_on(&self) -> io::Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = Pid::from_raw(self.0.id() as i32).ok_or_else(|| io::Error::other("a child's pid is not 0"))?;
        Ok(kill_process(pid, signal)?)
    }
}

impl Drop for OwnedChild {
    fn drop(&mut self) {
        // Its number may soon be another's.
        self.1 = None;
        // Both fail only if the child has already been reaped, which is what they are for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The state of a process (proc(5)): `T` is stopped.
    fn state(pid: u32) -> String {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let (_, behind_name) = stat.rsplit_once(')').unwrap();
        behind_name.split_whitespace().next().unwrap().to_owned()
    }

    fn wait_until(what: &str, is: impl Fn() -> bool) {
        let deadline = Instant::now() + READY_TIMEOUT;
        while !is() {
            assert!(Instant::now() < deadline, "{what} does not happen");
            std::thread::sleep(POLL);
        }
    }

    #[test]
    fn a_child_stops_goes_on_and_is_killed_while_it_is_stopped() {
        let child = OwnedChild::spawn(Command::new("sleep").arg("60"), Cores::choose().unwrap().server).unwrap();
        let pid = child.pid();
        child.pause().unwrap();
        wait_until("stopped", || state(pid) == "T");
        child.go_on().unwrap();
        wait_until("going on", || state(pid) != "T");
        child.pause().unwrap();
        wait_until("stopped again", || state(pid) == "T");
        drop(child);
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "reaped");
    }
}
