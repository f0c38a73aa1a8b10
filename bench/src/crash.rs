//! `crash`: a node that gets SIGKILL again and again under load, and an audit of what its clients were told.
//!
//! Load, kills and auditor are the demo's (`dispatchd::demo::crash`). With `--power` the data directory stands on a file system
//! that loses what was not synced, and every kill is a power cut.
#![forbid(unsafe_code)]

use std::io;
use std::process::ExitCode;

use dispatchd::demo::crash::{self, CrashOptions, Power};
use dispatchd::demo::node;
use lossyfs::{Honesty, LossyDisk};

use crate::server::Install;

/// Size of the journal's segments: small, so that they are made and dropped while the play lasts, and soon read.
const SEGMENT_BYTES: u32 = 2 << 20;

/// The load and the kills.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Kills at least; those during a recovery count, and one more comes when all is over
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub kills: u32,
    /// Connected drivers
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(10..=5_000))]
    pub drivers: u32,
    /// Requests per second
    #[arg(long, default_value_t = 60.0)]
    pub rate: f64,
    /// Decides the instants of the kills and every choice of the clients
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Shards of the server
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub shards: u16,
    /// Every kill is a power cut: the data stand on a file system that loses what was not synced (needs root and /dev/fuse)
    #[arg(long)]
    pub power: bool,
    /// The disk lies about what is durable: losses must be found, which shows that they can be
    #[arg(long, requires = "power")]
    pub lying: bool,
}

/// Kills, prints what was found; status 1 when a promise was broken, or on a lying disk none was.
///
/// # Errors
/// There is no verdict; says why.
pub fn run(install: &Install, options: &Options) -> io::Result<ExitCode> {
    node::kill_child_on_panic();
    let home = tempfile::Builder::new()
        .prefix("dispatchd-crash-")
        .tempdir_in(&install.data_root)?;
    let mut settings = vec![
        format!("shards={}", options.shards),
        format!("journal_segment_bytes={SEGMENT_BYTES}"),
    ];
    let mut disk = None;
    if options.power {
        let honesty = if options.lying { Honesty::Lying } else { Honesty::Honest };
        let data = home.path().join("data");
        std::fs::create_dir(&data)?;
        let mounted = LossyDisk::mount(&data, options.seed, honesty);
        let mounted = mounted.map_err(|error| io::Error::other(format!("no lossy file system: {error}")))?;
        disk = Some(Cuts(mounted));
    }
    settings.extend_from_slice(&install.settings);
    let crash_options = CrashOptions {
        kills: options.kills,
        drivers: options.drivers,
        rate: options.rate,
        seed: options.seed,
        settings,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let power = disk.as_mut().map(|disk| disk as &mut dyn Power);
    let played = runtime.block_on(crash::run(&install.program, home.path(), &crash_options, power));
    if let Some(Cuts(disk)) = &disk {
        println!("disk: {:?}", disk.counts());
    }
    let report = played.map_err(|error| io::Error::other(error.to_string()))?;
    report.print();
    if options.lying {
        println!(
            "on a lying disk promises must break: {}",
            if report.is_bad() { "they did" } else { "none did" }
        );
    }
    Ok(if report.is_bad() == options.lying {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The power of a lossy disk.
struct Cuts(LossyDisk);

impl Power for Cuts {
    fn off(&mut self) {
        self.0.cut();
    }

    fn on(&mut self) -> io::Result<()> {
        self.0.power_on().map(drop)
    }
}
