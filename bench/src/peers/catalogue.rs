//! The servers under comparison: how each is prepared, started and spoken to.
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use super::Options;
use super::dialect::{Dialect, Gateway, Named, Nats, PUSH_BYTES, Raw};
use super::install::{self, Installed};
use crate::raw;
use crate::report::ScenarioReport;
use crate::scenarios::Context;
use crate::server::{OwnedChild, RawServer, Server, Target, free_port};
use crate::{http, message};

/// How long the node may take to answer offers.
const HTTP_TIMEOUT: Duration = Duration::from_secs(10);
/// Of dispatchd, ms: it closes who says nothing for twice as long, and a connection may wait some minutes for its next push.
/// uWebSockets has the same 600 s.
const HEARTBEAT_MS: u32 = 300_000;

/// One of the servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The floor: bytes over `io_uring`.
    Raw,
    /// A heartbeat of dispatchd.
    Dispatchd,
    /// A repeated answer of dispatchd.
    DispatchdAnswer,
    /// The durable offer of dispatchd, by its three pairs.
    DispatchdCycle,
    /// uWebSockets.
    Uws,
    /// tokio-tungstenite with its default buffers.
    Tungstenite,
    /// tokio-tungstenite with small buffers.
    TungsteniteSmall,
    /// lesismal/nbio.
    Nbio,
    /// gorilla/websocket.
    Gorilla,
    /// Node's ws.
    Node,
    /// nats-server.
    Nats,
}

impl Kind {
    /// All, in the order of the table.
    pub fn all() -> impl Iterator<Item = Self> {
        [
            Self::Raw,
            Self::Dispatchd,
            Self::DispatchdAnswer,
            Self::DispatchdCycle,
            Self::Uws,
            Self::Tungstenite,
            Self::TungsteniteSmall,
            Self::Nbio,
            Self::Gorilla,
            Self::Node,
            Self::Nats,
        ]
        .into_iter()
    }

    /// Whether it is neither dispatchd nor the floor.
    pub fn is_a_peer(self) -> bool {
        !matches!(
            self,
            Self::Raw | Self::Dispatchd | Self::DispatchdAnswer | Self::DispatchdCycle
        )
    }

    /// The name in the table and, behind `peer/`, in the JSON file.
    pub fn name(self) -> &'static str {
        &self.report_name()["peer/".len()..]
    }

    fn report_name(self) -> &'static str {
        match self {
            Self::Raw => "peer/raw ring",
            Self::Dispatchd => "peer/dispatchd",
            Self::DispatchdAnswer => "peer/dispatchd, answer repeated",
            Self::DispatchdCycle => "peer/dispatchd, durable offer / 3",
            Self::Uws => "peer/uWebSockets",
            Self::Tungstenite => "peer/tokio-tungstenite, default",
            Self::TungsteniteSmall => "peer/tokio-tungstenite, small",
            Self::Nbio => "peer/nbio",
            Self::Gorilla => "peer/gorilla",
            Self::Node => "peer/Node ws",
            Self::Nats => "peer/nats-server",
        }
    }
}

/// What a server is started for; only the raw ring makes a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Pushes over connections that stay.
    Push,
    /// Connections that come and go.
    Handshakes,
}

/// A server that is ready to be started.
pub struct Peer {
    /// Which.
    pub kind: Kind,
    /// Name and version of what it stands for.
    pub version: String,
    installed: Option<Installed>,
    root: PathBuf,
}

/// A server that runs.
pub enum Started {
    /// A peer or the raw ring.
    Peer(RawServer),
    /// dispatchd.
    Node(Server),
}

impl Started {
    /// Where it listens and which process it is.
    pub fn target(&self) -> Target {
        match self {
            Self::Peer(server) => server.target(),
            Self::Node(server) => server.target(),
        }
    }

    /// Adds what its log says to an error, where there is one.
    pub fn explain(&self, error: &io::Error) -> io::Error {
        match self {
            Self::Peer(_) => io::Error::new(error.kind(), error.to_string()),
            Self::Node(server) => server.explain(error),
        }
    }

    /// Stops its process, until [`Self::go_on`].
    ///
    /// # Errors
    /// The kernel's.
    pub fn pause(&self) -> io::Result<()> {
        self.child().pause()
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// The kernel's.
    pub fn go_on(&self) -> io::Result<()> {
        self.child().go_on()
    }

    fn child(&self) -> &OwnedChild {
        match self {
            Self::Peer(server) => server.child(),
            Self::Node(server) => server.child(),
        }
    }

    /// Ends it; dispatchd must end well.
    ///
    /// # Errors
    /// dispatchd does not.
    pub fn stop(self) -> io::Result<()> {
        match self {
            // Killed when dropped: a peer has nothing to finish.
            Self::Peer(_) => Ok(()),
            Self::Node(server) => server.stop(),
        }
    }
}

impl Peer {
    /// Builds and installs what is missing.
    ///
    /// # Errors
    /// The tools'.
    pub fn prepare(kind: Kind, context: &Context) -> io::Result<Self> {
        let root = context.program.with_file_name("").join("../peers");
        std::fs::create_dir_all(&root)?;
        let root = root.canonicalize()?;
        let installed = match kind {
            Kind::Uws => Some(install::uws(&root)?),
            Kind::Nbio => Some(install::go(&root, "nbio")?),
            Kind::Gorilla => Some(install::go(&root, "gorilla")?),
            Kind::Node => Some(install::node(&root)?),
            Kind::Nats => Some(install::nats(&root)?),
            Kind::Raw
            | Kind::Dispatchd
            | Kind::DispatchdAnswer
            | Kind::DispatchdCycle
            | Kind::Tungstenite
            | Kind::TungsteniteSmall => None,
        };
        let version = match (&installed, kind) {
            (Some(installed), _) => installed.version.clone(),
            (None, Kind::Tungstenite | Kind::TungsteniteSmall) => locked_version("tokio-tungstenite"),
            (None, _) => format!("dispatchd {}", env!("CARGO_PKG_VERSION")),
        };
        Ok(Self {
            kind,
            version,
            installed,
            root,
        })
    }

    /// An empty report for it.
    pub fn report(&self, options: &Options) -> ScenarioReport {
        ScenarioReport {
            name: self.kind.report_name(),
            parameters: json!({
                "version": self.version,
                "options": options,
                "tries": super::others::TRIES,
                "others_percent_max": super::others::PERCENT_MAX,
            }),
            runs: Vec::new(),
            goals: &[],
        }
    }

    /// How to speak to it.
    pub fn dialect(&self, purpose: Purpose) -> Box<dyn Dialect> {
        match self.kind {
            Kind::Raw => {
                let like = Raw::like_named();
                // The raw ring repeats its pairs, so where connections stay, the opening is as long as a push.
                let opening = match purpose {
                    Purpose::Push => like.push,
                    Purpose::Handshakes => like.opening,
                };
                Box::new(Raw { opening, ..like })
            }
            Kind::Dispatchd | Kind::DispatchdCycle => Box::new(Gateway::Heartbeat),
            Kind::DispatchdAnswer => Box::new(Gateway::Answer),
            Kind::Nats => Box::new(Nats),
            _ => Box::new(Named),
        }
    }

    /// Starts it on the server's core.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(&self, context: &Context, options: &Options, purpose: Purpose) -> io::Result<Started> {
        match (self.kind, &self.installed) {
            (Kind::Raw, _) => raw_server(context, options, purpose).map(Started::Peer),
            (Kind::Dispatchd | Kind::DispatchdAnswer | Kind::DispatchdCycle, _) => {
                let mut setup = context.setup.clone();
                setup.settings.insert(0, format!("heartbeat_ms={HEARTBEAT_MS}"));
                Server::start(&setup).map(Started::Node)
            }
            (Kind::Nats, Some(installed)) => self.start_nats(context, installed).map(Started::Peer),
            (_, Some(installed)) => {
                let mut command = Command::new(&installed.program);
                command.args(&installed.arguments).arg(PUSH_BYTES.to_string());
                RawServer::start_command(&mut command, context.cores()).map(Started::Peer)
            }
            (kind, None) => {
                let mut command = Command::new(&context.program);
                command.arg("tungstenite-server");
                if kind == Kind::TungsteniteSmall {
                    command.arg("--small-buffers");
                }
                RawServer::start_command(&mut command, context.cores()).map(Started::Peer)
            }
        }
    }

    fn start_nats(&self, context: &Context, installed: &Installed) -> io::Result<RawServer> {
        let (clients, websocket) = (free_port()?, free_port()?);
        let settings = format!(
            "listen: \"{clients}\"\nmax_connections: 1000000\nping_interval: \"10m\"\n\
             websocket {{\n  listen: \"{websocket}\"\n  no_tls: true\n  compression: false\n}}\n"
        );
        let path = self.root.join("nats-server.conf");
        std::fs::write(&path, settings)?;
        let mut command = Command::new(&installed.program);
        command.env("GOMAXPROCS", "1").arg("--config").arg(path);
        command.stderr(std::process::Stdio::null());
        RawServer::start_at(&mut command, context.cores(), websocket)
    }
}

fn raw_server(context: &Context, options: &Options, purpose: Purpose) -> io::Result<RawServer> {
    let like = Raw::like_named();
    match purpose {
        Purpose::Push => context.raw_server(options.connections, &[like.push], false),
        Purpose::Handshakes => {
            let closing = raw::Pair {
                request: like.goodbye,
                response: 4,
            };
            context.raw_server(options.in_flight, &[like.opening, closing], true)
        }
    }
}

/// Posts an offer for each driver and reads the answers.
///
/// # Errors
/// A socket's, or an answer that is not 202.
pub fn post_offers(target: Target, drivers: Range<u32>) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&target.address.into(), HTTP_TIMEOUT)?;
    stream.set_read_timeout(Some(HTTP_TIMEOUT))?;
    let (mut requests, mut body) = (Vec::new(), Vec::new());
    let mut missing = drivers.len();
    for driver in drivers {
        body.clear();
        body.extend_from_slice(b"{\"request_id\":\"");
        message::write_request_id(&mut body, driver);
        body.extend_from_slice(b"\",\"driver_id\":\"");
        message::write_driver_id(&mut body, driver);
        body.extend_from_slice(b"\",\"offer_timeout_ms\":60000,\"trip\":{\"from\":\"Astor Place\"}}");
        http::write_post(&mut requests, "127.0.0.1", "/v1/dispatch/offer", &body);
    }
    stream.write_all(&requests)?;
    let (mut answers, mut chunk) = (Vec::new(), [0; 16_384]);
    while missing > 0 {
        let length = stream.read(&mut chunk)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        answers.extend_from_slice(&chunk[..length]);
        while let Some(response) = http::next_response(&answers).map_err(io::Error::other)? {
            if response.status != 202 {
                return Err(io::Error::other(format!(
                    "an offer was answered with {}",
                    response.status
                )));
            }
            answers.drain(..response.body.end);
            missing -= 1;
        }
    }
    Ok(())
}

/// The version of a dependency that this program was built with.
fn locked_version(name: &str) -> String {
    let lock = include_str!("../../../Cargo.lock");
    let mut version = String::from(name);
    let entry = lock.split("[[package]]").find_map(|package| {
        let named = package.contains(&format!("\nname = \"{name}\"\n"));
        let line = package.lines().find_map(|line| line.strip_prefix("version = "));
        line.filter(|_| named)
    });
    let _ = write!(version, " {}", entry.unwrap_or("?").trim_matches('"'));
    version
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> = Kind::all().map(Kind::name).collect();
        assert_eq!(names.len(), Kind::all().count());
    }

    #[test]
    fn the_version_of_a_dependency_is_the_locked_one() {
        let version = locked_version("tokio-tungstenite");
        assert!(version.starts_with("tokio-tungstenite 0."), "{version}");
    }
}
