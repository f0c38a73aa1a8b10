//! The `dispatchd` program: its commands, in the order of its help.
#![forbid(unsafe_code)]

use clap::{Args, Parser, Subcommand};
use dispatchd::cold::CassandraConfig;
use dispatchd::cold::cassandra::{self, schema};
use dispatchd::config::{Config, ConfigErrors, Loaded, ShowFormat, Sources};
use dispatchd::demo::{self, DemoOptions};
use dispatchd::node::records;
use dispatchd::ops::args::{real, whole, whole_of};
use dispatchd::ops::tune;
use std::fmt::Display;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// It gives back what has been free for seconds, whenever the thread that freed it comes by again: a server that runs for months must not
/// keep what it once needed for a moment.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Something went wrong while running.
const EXIT_FAILURE: u8 = 1;
/// The command line or the settings are wrong; clap uses the same.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    dispatchd::demo::node::die_with_parent();
    dispatchd::ops::panics::abort();
    match Cli::parse().command {
        Command::Serve(settings) => serve(settings),
        Command::Config(ConfigCommand::Show { settings, format }) => config_show(settings, format),
        Command::Config(ConfigCommand::Check { settings }) => config_check(settings),
        Command::Journal(JournalCommand::Dump { dir }) => journal_dump(&dir),
        Command::Journal(JournalCommand::Check { dir }) => journal_check(&dir),
        Command::Records(RecordsCommand::Export { settings, file }) => records_export(settings, &file),
        Command::Records(RecordsCommand::Import { settings, file }) => records_import(settings, &file),
        Command::Records(RecordsCommand::Check { file }) => done(records::check(&file, &mut Stdout)),
        Command::Schema(SchemaCommand::Apply { settings, replication }) => schema_apply(settings, replication.as_ref()),
        Command::Schema(SchemaCommand::Check { settings }) => schema_check(settings),
        Command::Tune(TuneCommand::Check) => status(tune::check_command(&tune::host::Host::this(), &mut Stdout)),
        Command::Tune(TuneCommand::Apply { dry_run }) => status(tune::apply::apply_command(
            &tune::host::Host::this(),
            dry_run,
            &mut Stdout,
        )),
        Command::Tune(TuneCommand::KeepAwake { latency_us_max }) => status(tune::awake::keep_awake_command(
            &tune::host::Host::this(),
            latency_us_max,
            &mut Stdout,
        )),
        Command::Tune(TuneCommand::Show { format }) => print(&tune::show::show(format)),
        Command::Fleet(FleetCommand::Status { settings, json }) => fleet_status(settings, json),
        Command::Demo(options) => dispatchd::demo::run(options.into()),
        Command::Version => version(),
    }
}

/// Driver-dispatch gateway: a million driver connections per node and the whole offer workflow
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Exit status: 0 done; 1 failed; 2 wrong command line or settings."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node until SIGTERM
    Serve(SettingsArgs),
    /// Look at the settings
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Look at a journal; the node may be running
    #[command(subcommand)]
    Journal(JournalCommand),
    /// Move what a node without a fleet had into Cassandra
    #[command(subcommand)]
    Records(RecordsCommand),
    /// Make and look at the fleet's tables in Cassandra
    #[command(subcommand)]
    Schema(SchemaCommand),
    /// Look at what this host gives a node
    #[command(subcommand)]
    Tune(TuneCommand),
    /// Look at the fleet
    #[command(subcommand)]
    Fleet(FleetCommand),
    /// Replay real taxi trips against a node of its own, kill it in the middle, and check that nothing was lost
    Demo(DemoArgs),
    /// Print the version
    Version,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print all settings with units, defaults and where each value came from
    Show {
        #[command(flatten)]
        settings: SettingsArgs,
        /// Shape of the output
        #[arg(long, value_enum, default_value_t = ShowFormat::Text)]
        format: ShowFormat,
    },
    /// Check the settings and print nothing else
    Check {
        #[command(flatten)]
        settings: SettingsArgs,
    },
}

#[derive(Debug, Subcommand)]
enum JournalCommand {
    /// Print every record, a line each
    Dump {
        /// Data directory
        dir: PathBuf,
    },
    /// Read everything and say what is whole, torn or damaged; status 1 when damaged
    Check {
        /// Data directory
        dir: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum RecordsCommand {
    /// Write dispatch records and ended requests of a node that does not run into a file
    Export {
        #[command(flatten)]
        settings: SettingsArgs,
        /// The file
        file: PathBuf,
    },
    /// Write what a file holds to Cassandra; may be repeated
    Import {
        #[command(flatten)]
        settings: SettingsArgs,
        /// The file
        file: PathBuf,
    },
    /// Read a file whole and say what it holds
    Check {
        /// The file
        file: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum SchemaCommand {
    /// Make the keyspace and its tables, or bring them up to date; from one place at a time
    Apply {
        #[command(flatten)]
        settings: SettingsArgs,
        /// Copies of a keyspace that is new: datacenter=N for each, separated by commas, or simple=N
        #[arg(long, value_name = "COPIES", value_parser = schema::Replication::parse)]
        replication: Option<schema::Replication>,
    },
    /// Say what there is and what is missing; status 1 when something is
    Check {
        #[command(flatten)]
        settings: SettingsArgs,
    },
}

#[derive(Debug, Subcommand)]
enum TuneCommand {
    /// Print what this host has, what it should have, and why; status 1 when something is off
    Check,
    /// Put right what is off, and say what only a person can do; status 1 when something is left
    Apply {
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
    },
    /// Keep the cores out of deep sleep states until SIGTERM: a shard's messages do not wait for its core to wake up
    KeepAwake {
        /// Longest time that a core may take to wake up, µs; 0: idle cores spin. On bare metal 2 is the lightest sleep, and spares power
        #[arg(long, value_name = "US", default_value_t = 0, value_parser = whole::<u32>(0..=1_000_000, 2))]
        latency_us_max: u32,
    },
    /// Print what is asked of a host
    Show {
        /// Shape of the output
        #[arg(long, value_enum)]
        format: tune::show::Format,
    },
}

#[derive(Debug, Subcommand)]
enum FleetCommand {
    /// Print the nodes as the registry in Redis has them: leases, drivers, open requests, backlogs
    Status {
        #[command(flatten)]
        settings: SettingsArgs,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// Where settings come from: defaults, the file, `DISPATCHD_<KEY>`, flags; the later wins.
#[derive(Debug, Args)]
struct SettingsArgs {
    /// File of settings; ./dispatchd.toml is read when it exists
    #[arg(long, value_name = "FILE", env = "DISPATCHD_CONFIG")]
    config: Option<PathBuf>,
    /// One setting; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Directory of the journal and the store (setting `data_dir`)
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// Address of HTTP and WebSocket (setting `listen`)
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<String>,
}

#[derive(Debug, Args)]
struct DemoArgs {
    /// Drivers that connect
    #[arg(long, default_value_t = DemoOptions::default().drivers, value_parser = whole::<u32>(demo::DRIVERS, 2000))]
    drivers: u32,
    /// Trips replayed per second
    #[arg(long, default_value_t = DemoOptions::default().rate, value_parser = real(demo::RATE, 100.0))]
    rate: f64,
    /// Shards of the node; 0 is one per core
    #[arg(long, default_value_t = DemoOptions::default().shards, value_parser = whole::<u16>(0..=1024, 2))]
    shards: u16,
    /// Trips to replay, of the 6433 that are recorded; without it all that fit into the demo's time
    #[arg(long, value_parser = whole::<u32>(demo::TRIPS, 1200))]
    trips: Option<u32>,
    /// Decides every choice of drivers and matching engine
    #[arg(long, default_value_t = DemoOptions::default().seed, value_parser = whole_of(1))]
    seed: u64,
    /// Leave the node and its drivers running at the end, until Ctrl-C
    #[arg(long)]
    keep: bool,
}

// ---- commands ----------------------------------------------------------------------------------------------------

fn serve(settings: SettingsArgs) -> ExitCode {
    let config = match settings.load_checked() {
        Ok(config) => config,
        Err(error) => return fail(EXIT_USAGE, &error),
    };
    dispatchd::ops::log::init(config.log_level, config.log_format);
    let served = dispatchd::node::serve(config);
    dispatchd::ops::log::end();
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(EXIT_FAILURE, &error),
    }
}

fn config_show(settings: SettingsArgs, format: ShowFormat) -> ExitCode {
    match settings.load() {
        Ok(loaded) => print(&loaded.show(format)),
        Err(errors) => fail(EXIT_USAGE, &errors),
    }
}

fn config_check(settings: SettingsArgs) -> ExitCode {
    match settings.load_checked() {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => fail(EXIT_USAGE, &error),
    }
}

fn journal_dump(dir: &Path) -> ExitCode {
    let mut out = io::BufWriter::new(Stdout);
    let dumped = dispatchd::journal::inspect::dump(dir, &mut out);
    match (dumped, out.flush()) {
        (Err(error), _) => fail(EXIT_FAILURE, &error),
        (Ok(()), Err(error)) => fail(EXIT_FAILURE, &error),
        (Ok(()), Ok(())) => ExitCode::SUCCESS,
    }
}

fn journal_check(dir: &Path) -> ExitCode {
    status(dispatchd::journal::inspect::check_command(dir, &mut Stdout))
}

fn fleet_status(settings: SettingsArgs, as_json: bool) -> ExitCode {
    match settings.load() {
        Ok(loaded) => status(dispatchd::cold::registry::status::command(
            &loaded.config,
            as_json,
            &mut Stdout,
        )),
        Err(errors) => fail(EXIT_USAGE, &errors),
    }
}

fn records_export(settings: SettingsArgs, file: &Path) -> ExitCode {
    match settings.load() {
        Ok(loaded) => done(records::export(loaded.config, file, &mut Stdout)),
        Err(errors) => fail(EXIT_USAGE, &errors),
    }
}

fn records_import(settings: SettingsArgs, file: &Path) -> ExitCode {
    with_cassandra(settings, |config| done(records::import(&config, file, &mut Stdout)))
}

fn schema_apply(settings: SettingsArgs, replication: Option<&schema::Replication>) -> ExitCode {
    with_cassandra(settings, |config| {
        let applied = cassandra::block_on(schema::apply(&config, replication, &mut Stdout));
        done(applied.and_then(|applied| applied))
    })
}

fn schema_check(settings: SettingsArgs) -> ExitCode {
    with_cassandra(settings, |config| {
        let checked = cassandra::block_on(schema::check(&config, &mut Stdout)).and_then(|checked| checked);
        status(checked.map(|suits| u8::from(!suits)))
    })
}

fn version() -> ExitCode {
    print(concat!("dispatchd ", env!("CARGO_PKG_VERSION"), "\n"))
}

// ---- helpers -----------------------------------------------------------------------------------------------------

impl SettingsArgs {
    fn load(self) -> Result<Loaded, ConfigErrors> {
        let Self {
            config: file,
            sets,
            data,
            listen,
        } = self;
        let sources = Sources {
            file,
            sets,
            data,
            listen,
            ..Sources::default()
        };
        sources.with_process_environment().load()
    }

    /// What a node can be started with, as far as settings alone say.
    fn load_checked(self) -> Result<Config, String> {
        let config = self.load().map_err(|errors| errors.to_string())?.config;
        dispatchd::node::check_fleet(&config)?;
        Ok(config)
    }
}

impl From<DemoArgs> for DemoOptions {
    fn from(args: DemoArgs) -> Self {
        let DemoArgs {
            drivers,
            rate,
            shards,
            trips,
            seed,
            keep,
        } = args;
        Self {
            drivers,
            rate,
            shards,
            keep,
            seed,
            trips,
        }
    }
}

/// Runs a command that needs Cassandra and no node.
fn with_cassandra(settings: SettingsArgs, work: impl FnOnce(CassandraConfig) -> ExitCode) -> ExitCode {
    let config = match settings.load() {
        Ok(loaded) => loaded.config,
        Err(errors) => return fail(EXIT_USAGE, &errors),
    };
    dispatchd::ops::log::init(config.log_level, config.log_format);
    match CassandraConfig::of(&config) {
        Ok(Some(config)) => {
            let status = work(config);
            dispatchd::ops::log::end();
            status
        }
        Ok(None) => fail(
            EXIT_USAGE,
            &"fleet_cassandra_contact_points is empty; give Cassandra's addresses: --set fleet_cassandra_contact_points=HOST:PORT[,HOST:PORT…], \
              such as 127.0.0.1:9042",
        ),
        Err(error) => fail(EXIT_USAGE, &error),
    }
}

fn done<E: Display>(result: Result<(), E>) -> ExitCode {
    status(result.map(|()| 0))
}

fn status<E: Display>(result: Result<u8, E>) -> ExitCode {
    match result {
        Ok(status) => ExitCode::from(status),
        Err(error) => fail(EXIT_FAILURE, &error),
    }
}

/// Each line of `error` becomes one line of stderr.
fn fail(status: u8, error: &dyn Display) -> ExitCode {
    for line in error.to_string().lines() {
        // Nobody may be there to read it; the status still says so.
        let _ = writeln!(io::stderr(), "dispatchd: {line}");
    }
    ExitCode::from(status)
}

fn print(text: &str) -> ExitCode {
    match Stdout.write_all(text.as_bytes()).and_then(|()| Stdout.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(EXIT_FAILURE, &error),
    }
}

/// Standard output, where a reader that has seen enough (`| head`) ends the program in silence.
struct Stdout;

impl Stdout {
    fn checked<T>(result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result
            && error.kind() == io::ErrorKind::BrokenPipe
        {
            std::process::exit(0);
        }
        result
    }
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Self::checked(io::stdout().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Self::checked(io::stdout().flush())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    /// A parser that reads another type than its option has panics only when the option is looked at.
    #[test]
    fn every_option_has_the_type_that_its_parser_reads() {
        Cli::command().debug_assert();
        Cli::parse_from(["dispatchd", "demo", "--trips", "1200"]);
        Cli::parse_from(["dispatchd", "tune", "keep-awake"]);
    }
}
