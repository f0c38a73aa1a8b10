//! A node under test: the real program as a child process, with a data directory of its own.

use super::{Answer, PATIENCE, Value, ports, within};
use std::fs::{File, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// How much of a failed node's log is shown.
const LOG_SHOWN_BYTES: usize = 16 << 10;

/// The program under test; `TEST_NODE_BIN` names another build of it.
fn program() -> PathBuf {
    std::env::var_os("TEST_NODE_BIN").map_or_else(|| env!("CARGO_BIN_EXE_dispatchd").into(), PathBuf::from)
}

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct Setup {
    settings: Vec<(String, String)>,
    data: Option<PathBuf>,
    log: Option<PathBuf>,
}

impl Setup {
    /// So many shards and defaults otherwise.
    pub fn shards(count: u16) -> Self {
        let setup = Self {
            settings: Vec::new(),
            data: None,
            log: None,
        };
        setup.set("shards", count)
    }

    /// One more `--set key=value`.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl std::fmt::Display) -> Self {
        self.settings.push((key.to_owned(), value.to_string()));
        self
    }

    /// Uses a directory that the caller keeps instead of a temporary one.
    #[must_use]
    pub fn data(mut self, directory: &Path) -> Self {
        self.data = Some(directory.to_owned());
        self
    }

    /// Writes the log to a file or pipe that is there.
    #[must_use]
    pub fn logs_to(mut self, path: &Path) -> Self {
        self.log = Some(path.to_owned());
        self
    }

    /// Starts the node and waits until it takes work.
    pub async fn start(self) -> Node {
        let mut node = self.prepare();
        node.spawn();
        node.until_ready().await;
        node
    }

    /// Everything for a node that is not started yet.
    ///
    /// # Panics
    /// When the temporary directory cannot be made.
    pub fn prepare(self) -> Node {
        let scratch = TempDir::with_prefix("dispatchd-test-").expect("a temporary directory");
        let data = self.data.clone().unwrap_or_else(|| scratch.path().join("data"));
        let address = ports::free_address();
        Node {
            setup: self,
            scratch,
            data,
            address,
            child: None,
            http: client(),
        }
    }
}

fn client() -> reqwest::Client {
    reqwest::Client::builder()
        .timeout(PATIENCE)
        .build()
        .expect("an HTTP client")
}

/// A node under test. Killed by its own pid when dropped; a failing test prints what it logged.
#[derive(Debug)]
pub struct Node {
    setup: Setup,
    scratch: TempDir,
    data: PathBuf,
    /// Where it listens; the same after a restart.
    pub address: SocketAddr,
    child: Option<Child>,
    /// A client with keep-alive connections to this process of the node.
    pub http: reqwest::Client,
}

impl Node {
    fn log_path(&self) -> PathBuf {
        self.scratch.path().join("node.log")
    }

    /// What it has logged, this process and those before it.
    pub fn logged(&self) -> String {
        let log = std::fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Its data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Starts the process without waiting for it.
    ///
    /// # Panics
    /// When it runs already or cannot be started.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "the node runs already");
        let log = || -> File {
            let mut options = OpenOptions::new();
            let (options, path) = match &self.setup.log {
                // Read, too: a pipe is then open without somebody at its other end.
                Some(path) => (options.read(true).write(true), path.clone()),
                None => (options.create(true).append(true), self.log_path()),
            };
            options.open(path).expect("a log file")
        };
        let mut command = Command::new(program());
        command.arg("serve").arg("--data").arg(&self.data);
        command.arg("--listen").arg(self.address.to_string());
        for (key, value) in &self.setup.settings {
            command.arg("--set").arg(format!("{key}={value}"));
        }
        // Settings come from the test alone.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"DISPATCHD_")) {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(log()).stderr(log());
        self.child = Some(command.spawn().expect("the node's program"));
        self.http = client();
    }

    /// Waits until `/readyz` says 200.
    ///
    /// # Panics
    /// When the process ends before that, or takes longer than [`PATIENCE`].
    pub async fn until_ready(&mut self) {
        let ready = async {
            let mut pace = tokio::time::interval(Duration::from_millis(10));
            loop {
                pace.tick().await;
                if let Some(status) = self.ended() {
                    panic!("the node ended with {status} before it was ready");
                }
                let asked = self.http.get(self.url("/readyz")).send().await;
                if asked.is_ok_and(|answer| answer.status() == 200) {
                    return;
                }
            }
        };
        within("the node to be ready", ready).await;
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        let child = self.child.as_mut().expect("a running node");
        child.try_wait().expect("the state of the node's process")
    }

    /// Whether the process runs.
    pub fn is_running(&mut self) -> bool {
        self.child.is_some() && self.ended().is_none()
    }

    /// SIGKILL, and waits until the kernel has taken the process down.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill_9(&mut self) {
        let mut child = self.child.take().expect("a running node");
        child.kill().expect("SIGKILL");
        child.wait().expect("the end of the node's process");
    }

    /// Kills the process and starts it again on the same data and port.
    pub async fn crash_and_restart(&mut self) {
        self.kill_9();
        self.spawn();
        self.until_ready().await;
    }

    /// Sends SIGTERM.
    ///
    /// # Panics
    /// When it does not run.
    pub fn terminate(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    /// SIGSTOP: it hangs, with all its connections.
    ///
    /// # Panics
    /// When it does not run.
    pub fn pause(&self) {
        self.signal(rustix::process::Signal::STOP);
    }

    /// SIGCONT.
    ///
    /// # Panics
    /// When it does not run.
    pub fn go_on(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let child = self.child.as_ref().expect("a running node");
        let pid = i32::try_from(child.id()).expect("a pid");
        let pid = rustix::process::Pid::from_raw(pid).expect("a pid above 0");
        rustix::process::kill_process(pid, signal).expect("a signal");
    }

    /// Waits for the end of the process.
    pub async fn exit(&mut self) -> ExitStatus {
        let ending = async {
            let mut pace = tokio::time::interval(Duration::from_millis(10));
            loop {
                pace.tick().await;
                if let Some(status) = self.ended() {
                    return status;
                }
            }
        };
        let status = within("the node to exit", ending).await;
        self.child = None;
        status
    }

    /// An address on this node.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// `GET path`.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.http.get(self.url(path))).await
    }

    /// `POST path` with a JSON body.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(self.http.post(self.url(path)).json(body)).await
    }

    /// `POST path` with a body as it stands.
    pub async fn post_text(&self, path: &str, body: impl Into<String>) -> Answer {
        let request = self.http.post(self.url(path));
        let request = request.header("content-type", "application/json");
        self.send(request.body(body.into())).await
    }

    /// Any method without a body.
    pub async fn call(&self, method: reqwest::Method, path: &str) -> Answer {
        self.send(self.http.request(method, self.url(path))).await
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let what = format!("{request:?}");
        let response = request.send().await;
        let response = response.unwrap_or_else(|error| panic!("{what}: {error:?}"));
        let answer = Answer::read(response).await;
        answer.unwrap_or_else(|error| panic!("{what}: {error:?}"))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself; both calls then say so, and there is nothing to do about it.
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = std::fs::read(self.log_path()).unwrap_or_default();
            let shown = &log[log.len().saturating_sub(LOG_SHOWN_BYTES)..];
            eprintln!("--- the node's log, its end ---\n{}", String::from_utf8_lossy(shown));
        }
    }
}
