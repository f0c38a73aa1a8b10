//! The node as a child process: started, waited for, killed by the pid that was started here, on every way out.
//!
//! Three nets under the child: the guard's `Drop`; a panic hook, because a release build aborts instead of unwinding; and
//! [`die_with_parent`], which the child calls when it is asked to, for a demo that is itself killed.

use rustix::process::{Pid, Signal};
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

/// Set in the child's environment: it wants to be killed when the demo goes.
const DIE_WITH_PARENT: &str = "DEMO_NODE_DIES_WITH_PARENT";
/// Longest wait for `/readyz`, first start and recovery.
pub const READY_MAX: Duration = Duration::from_secs(60);
/// Pause between two looks at `/readyz`.
const READY_POLL: Duration = Duration::from_millis(10);
/// Bytes of the log that are shown when something failed.
const LOG_TAIL_BYTES: usize = 8 << 10;

/// Pid of the running child for the panic hook; 0: none.
static CHILD_PID: AtomicI32 = AtomicI32::new(0);

/// To be called first thing in `main`: when this process is the demo's node, the kernel kills it when the demo dies.
/// Does nothing otherwise.
pub fn die_with_parent() {
    if std::env::var_os(DIE_WITH_PARENT).is_some()
        && let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
    {
        eprintln!("cannot be bound to the demo's life: {error}");
    }
}

/// Makes a panic anywhere in this process take the child with it.
pub fn kill_child_on_panic() {
    let next = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if let Some(pid) = Pid::from_raw(CHILD_PID.load(Ordering::SeqCst)) {
            // The process is going down; there is nobody left to tell of a failure.
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        next(info);
    }));
}

/// A node that runs, or ran, on one data directory and one port.
#[derive(Debug)]
pub struct Node {
    child: Option<Child>,
    program: PathBuf,
    home: PathBuf,
    address: SocketAddr,
    settings: Vec<String>,
}

impl Node {
    /// Starts `program` as a server on a free port of 127.0.0.1, with its data and its log under `home`.
    ///
    /// # Errors
    /// No free port, no such program, no room for the log.
    pub fn start(program: &Path, home: &Path, settings: Vec<String>) -> io::Result<Self> {
        let mut node = Self {
            child: None,
            program: program.to_owned(),
            home: home.to_owned(),
            address: free_address()?,
            settings,
        };
        node.spawn()?;
        Ok(node)
    }

    /// Starts the node again on the same directory and port.
    ///
    /// # Errors
    /// The program cannot be started.
    ///
    /// # Panics
    /// When it still runs: one process per data directory.
    pub fn spawn(&mut self) -> io::Result<()> {
        assert!(self.child.is_none(), "one process per data directory");
        let log = File::options().create(true).append(true).open(self.log())?;
        let mut command = Command::new(&self.program);
        command.arg("serve").arg("--data").arg(self.home.join("data"));
        command.arg("--listen").arg(self.address.to_string());
        for setting in &self.settings {
            command.arg("--set").arg(setting);
        }
        // The settings given here and no others: neither the caller's environment nor a file where the caller stands.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("DISPATCHD_") {
                command.env_remove(name);
            }
        }
        command.current_dir(&self.home).env(DIE_WITH_PARENT, "1");
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn()?;
        CHILD_PID.store(child.id() as i32, Ordering::SeqCst);
        self.child = Some(child);
        Ok(())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its pid, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Waits until `/readyz` answers 200 and says how long that took.
    ///
    /// # Errors
    /// The process ended, or [`READY_MAX`] passed.
    pub async fn ready(&mut self, http: &reqwest::Client) -> Result<Duration, String> {
        let since = Instant::now();
        let url = format!("http://{}/readyz", self.address);
        while since.elapsed() < READY_MAX {
            if let Some(status) = self.ended() {
                return Err(format!("the node ended by itself: {status}"));
            }
            let answer = http.get(&url).timeout(Duration::from_secs(2)).send().await;
            if answer.is_ok_and(|answer| answer.status() == 200) {
                return Ok(since.elapsed());
            }
            tokio::time::sleep(READY_POLL).await;
        }
        Err(format!("the node was not ready after {} s", READY_MAX.as_secs()))
    }

    /// How the process ended, if it did by itself.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().ok().flatten();
        if status.is_some() {
            self.forget();
        }
        status
    }

    /// SIGKILL, and waits until the process is gone.
    pub fn kill(&mut self) {
        if let Some(child) = &mut self.child {
            // Fails only for a process that is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
        self.forget();
    }

    /// Sends the process a signal.
    ///
    /// # Errors
    /// It does not run.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = self.pid().and_then(|pid| Pid::from_raw(pid as i32));
        let pid = pid.ok_or_else(|| io::Error::other("the node does not run"))?;
        Ok(rustix::process::kill_process(pid, signal)?)
    }

    /// SIGTERM, and waits until the process is gone.
    ///
    /// # Errors
    /// It does not run, ends with an error, or not within `most`.
    pub async fn terminate(&mut self, most: Duration) -> Result<(), String> {
        self.signal(Signal::TERM).map_err(|error| error.to_string())?;
        let since = Instant::now();
        while since.elapsed() < most {
            match self.ended() {
                None => tokio::time::sleep(READY_POLL).await,
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(format!("a node that was told to end: {status}")),
            }
        }
        Err(format!("a node has not ended {} s after SIGTERM", most.as_secs()))
    }

    fn forget(&mut self) {
        CHILD_PID.store(0, Ordering::SeqCst);
        self.child = None;
    }

    fn log(&self) -> PathBuf {
        self.home.join("node.log")
    }

    /// The end of the node's log.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read(self.log()).unwrap_or_default();
        let from = text.len().saturating_sub(LOG_TAIL_BYTES);
        String::from_utf8_lossy(&text[from..]).into_owned()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that nobody listens on at the moment.
fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// Raises the limit of open files as far as it may go; both the demo and the node need a descriptor per driver.
///
/// # Errors
/// The limit does not reach `wanted`.
pub fn allow_open_files(wanted: u64) -> Result<(), String> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX);
    if most < wanted {
        return Err(format!(
            "needs {wanted} open files, and the hard limit (ulimit -Hn) is {most}"
        ));
    }
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).map_err(|error| format!("cannot raise the limit of open files: {error}"))
}
