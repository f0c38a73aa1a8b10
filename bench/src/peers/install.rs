//! Builds and installs the peers from the package registries into a directory of the build tree. Nothing of them is committed
//! but the small servers in `bench/peers/`, which are part of this program.
#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// nats-server's module and version.
const NATS_SERVER: &str = "github.com/nats-io/nats-server/v2@v2.15.2";
/// C files of uSockets that the peer needs.
const USOCKETS: [&str; 6] = [
    "bsd.c",
    "context.c",
    "loop.c",
    "socket.c",
    "udp.c",
    "eventing/epoll_kqueue.c",
];
/// How uWebSockets recommends to build it, without TLS and zlib, which nobody uses here.
const UWS_FLAGS: [&str; 5] = ["-O3", "-march=native", "-flto=auto", "-DLIBUS_NO_SSL", "-DUWS_NO_ZLIB"];

/// A file of a peer, as it is in the repository.
struct Source {
    path: &'static str,
    text: &'static str,
}

const fn source(path: &'static str, text: &'static str) -> Source {
    Source { path, text }
}

const GO: [Source; 4] = [
    source("go.mod", include_str!("../../peers/go/go.mod")),
    source("go.sum", include_str!("../../peers/go/go.sum")),
    source("gorilla/main.go", include_str!("../../peers/go/gorilla/main.go")),
    source("nbio/main.go", include_str!("../../peers/go/nbio/main.go")),
];
const NODE: [Source; 2] = [
    source("package.json", include_str!("../../peers/node/package.json")),
    source("server.mjs", include_str!("../../peers/node/server.mjs")),
];
const UWS: [Source; 3] = [
    source("Cargo.toml", include_str!("../../peers/uws/Cargo.toml")),
    source("server.cpp", include_str!("../../peers/uws/server.cpp")),
    source("empty.rs", "//! Nothing.\n"),
];

/// A peer that can be started.
#[derive(Debug, Clone)]
pub struct Installed {
    /// What to execute.
    pub program: PathBuf,
    /// Its first arguments.
    pub arguments: Vec<String>,
    /// Name and version of what it stands for.
    pub version: String,
}

/// gorilla/websocket and nbio.
///
/// # Errors
/// No Go, or its build.
pub fn go(root: &Path, name: &str) -> io::Result<Installed> {
    let directory = lay_out(root, "go", &GO)?;
    let program = root.join("bin").join(name);
    let mut build = Command::new("go");
    build
        .current_dir(&directory)
        .args(["build", "-trimpath", "-o"])
        .arg(&program)
        .arg(format!("./{name}"));
    run(&mut build)?;
    let module = match name {
        "gorilla" => "github.com/gorilla/websocket",
        _ => "github.com/lesismal/nbio",
    };
    let mut list = Command::new("go");
    list.current_dir(&directory)
        .args(["list", "-m", "-f", "{{.Path}} {{.Version}}", module]);
    let version = format!("{}, {}", run(&mut list)?, go_version()?);
    Ok(Installed {
        program,
        arguments: Vec::new(),
        version,
    })
}

/// nats-server.
///
/// # Errors
/// No Go, or its build.
pub fn nats(root: &Path) -> io::Result<Installed> {
    let bin = root.join("bin");
    fs::create_dir_all(&bin)?;
    let program = bin.join("nats-server");
    if !program.is_file() {
        let mut install = Command::new("go");
        install
            .current_dir(root)
            .env("GOBIN", &bin)
            .args(["install", NATS_SERVER]);
        run(&mut install)?;
    }
    let version = run(Command::new(&program).arg("--version"))?;
    Ok(Installed {
        program,
        arguments: Vec::new(),
        version: format!("{version}, {}", go_version()?),
    })
}

/// Node's ws with bufferutil.
///
/// # Errors
/// No Node, or its package manager.
pub fn node(root: &Path) -> io::Result<Installed> {
    let directory = lay_out(root, "node", &NODE)?;
    if !directory.join("node_modules/ws").is_dir() {
        let mut install = Command::new("npm");
        install
            .current_dir(&directory)
            .args(["install", "--no-package-lock", "--no-audit", "--no-fund"]);
        run(&mut install)?;
    }
    let package = |name: &str| -> io::Result<String> {
        let text = fs::read_to_string(directory.join("node_modules").join(name).join("package.json"))?;
        let package: serde_json::Value = serde_json::from_str(&text)?;
        Ok(format!("{name} {}", package["version"].as_str().unwrap_or("?")))
    };
    let node = run(Command::new("node").arg("--version"))?;
    Ok(Installed {
        program: "node".into(),
        arguments: vec![directory.join("server.mjs").display().to_string()],
        version: format!("{}, {}, Node {node}", package("ws")?, package("bufferutil")?),
    })
}

/// uWebSockets in C++; its sources come with a crate.
///
/// # Errors
/// No compiler, or its build.
pub fn uws(root: &Path) -> io::Result<Installed> {
    let directory = lay_out(root, "uws", &UWS)?;
    let mut metadata = Command::new("cargo");
    metadata
        .current_dir(&directory)
        .args(["metadata", "--format-version", "1"]);
    let metadata: serde_json::Value = serde_json::from_str(&run(&mut metadata)?)?;
    let package = metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|package| package["name"] == "libuwebsockets-sys")
        .ok_or_else(|| io::Error::other("cargo does not know libuwebsockets-sys"))?;
    let manifest = Path::new(package["manifest_path"].as_str().unwrap_or_default());
    let sources = manifest.with_file_name("uWebSockets");
    let usockets = sources.join("uSockets/src");
    let mut objects = Vec::new();
    for file in USOCKETS {
        let object = directory.join(file.replace('/', "_")).with_extension("o");
        let mut compile = Command::new("gcc");
        compile.args(UWS_FLAGS).arg("-I").arg(&usockets).arg("-c");
        run(compile.arg(usockets.join(file)).arg("-o").arg(&object))?;
        objects.push(object);
    }
    let program = directory.join("server");
    let mut compile = Command::new("g++");
    compile.arg("-std=c++20").args(UWS_FLAGS);
    compile.arg("-I").arg(sources.join("src")).arg("-I").arg(&usockets);
    run(compile
        .arg(directory.join("server.cpp"))
        .args(objects)
        .arg("-o")
        .arg(&program))?;
    let compiler = run(Command::new("g++").arg("-dumpfullversion"))?;
    let version = package["version"].as_str().unwrap_or("?");
    Ok(Installed {
        program,
        arguments: Vec::new(),
        version: format!("uWebSockets as in libuwebsockets-sys {version}, epoll, g++ {compiler}"),
    })
}

fn go_version() -> io::Result<String> {
    run(Command::new("go").args(["env", "GOVERSION"]))
}

/// Writes a peer's files where they are built.
fn lay_out(root: &Path, name: &str, sources: &[Source]) -> io::Result<PathBuf> {
    let directory = root.join(name);
    for Source { path, text } in sources {
        let path = directory.join(path);
        fs::create_dir_all(path.parent().unwrap_or(&directory))?;
        // Unchanged files keep their time, so that their builds are not repeated.
        if fs::read_to_string(&path).ok().as_deref() != Some(*text) {
            fs::write(&path, text)?;
        }
    }
    Ok(directory)
}

/// Runs a command and answers what it printed, without the line's end.
fn run(command: &mut Command) -> io::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .map_err(|error| io::Error::other(format!("{name}: {error}")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = said.lines().collect();
        let tail = lines[lines.len().saturating_sub(15)..].join("\n    ");
        return Err(io::Error::other(format!(
            "{name} ended with {}:\n    {tail}",
            output.status
        )));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
