//! `fleet`: three nodes with Redis and Cassandra, hurt in every way that the design names, and audited from the clients' side.
//!
//! Everything runs on loopback and is started here: the services by the scripts of `tests/services`, a proxy in front of
//! whatever nodes share, and the nodes. Faults are given to processes that were started here, by pid, and to connections.
//! First the fault table, a row after the other on nodes of its own; then the rows of speed. What the nodes cannot do yet
//! shows as a row that fails and says why. Must never leave a process behind when it is ended by a signal that can be caught.
#![forbid(unsafe_code)]

mod metrics;
mod offers;
mod play;
mod proxy;
mod reach;
mod records;
mod rows;
mod seen;
mod services;
mod table;
mod takeover;
mod town;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use dispatchd::demo::RATE;
use dispatchd::demo::node;
use dispatchd::ops::args::{real, whole, whole_of};
use dispatchd::say;
use serde::Serialize;
use serde_json::json;
use tokio::time::timeout;

use crate::crash::environment;
use crate::ends::Ends;
use crate::files::Files;
use crate::misuse::misuse;
use crate::report::{self, Run, ScenarioReport};
use crate::server::Install;
use play::Load;
use rows::{ROWS, Row};
use services::{Purpose, Services};
use town::{Abilities, Town};

/// What one row may take beyond its fault, and a row of speed: beyond it something hangs.
const ROW_MAX: Duration = Duration::from_secs(420);
const SPEED_MAX: Duration = Duration::from_secs(600);
/// Starting a service on a busy machine.
const SERVICES_MAX: Duration = Duration::from_secs(600);
/// Descriptors beside two for each driver and connection.
const DESCRIPTORS: u64 = 2048;
/// Names of the rows of speed, and what each is.
const SPEED: [(&str, &str); 4] = [
    (
        "offers",
        "POST → OFFER at 100/s, each accepted, and how often Cassandra decides for it",
    ),
    ("rides", "the same at 40/s, each driven to its end"),
    ("takeover", "from kill -9 of a node to its offers re-sent by others"),
    (
        "records",
        "rows per second into Cassandra: batches beside single inserts",
    ),
];

/// The stage.
#[derive(Debug, Clone, clap::Args, Serialize)]
pub struct Options {
    /// Which half
    #[command(flatten)]
    #[serde(flatten)]
    pub which: Which,
    /// Only these rows, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "NAME", value_parser = known_row)]
    pub only: Vec<String>,
    /// Print the names of all rows and what they are, and do nothing
    #[arg(long)]
    pub list: bool,
    /// Nodes of Cassandra: with 1 a quorum is one, and a faster start
    #[arg(long, default_value_t = 3, value_parser = parse_cassandra_nodes)]
    pub cassandra_nodes: u8,
    /// Nodes of dispatchd
    #[arg(long, default_value_t = 3, value_parser = whole::<u8>(1..=3, 3))]
    pub nodes: u8,
    /// Connected drivers in the rows of the fault table
    #[arg(long, default_value_t = 90, value_parser = whole::<u32>(10..=2000, 90))]
    pub drivers: u32,
    /// Requests per second in these rows
    #[arg(long, default_value_t = 15.0, value_parser = real(RATE, 15.0))]
    pub rate: f64,
    /// Kills of the row `takeover`
    #[arg(long, default_value_t = 6, value_parser = whole::<u32>(1..=1000, 6))]
    pub kills: u32,
    /// Decides every choice of the clients
    #[arg(long, default_value_t = 1, value_parser = whole_of(1))]
    pub seed: u64,
    /// Leave the directory with the logs and data of all nodes
    #[arg(long)]
    pub keep: bool,
}

/// Half of the stage.
#[derive(Debug, Clone, clap::Args, Serialize)]
pub struct Which {
    /// Only the fault table
    #[arg(long, conflicts_with = "speed")]
    pub faults: bool,
    /// Only the rows of speed
    #[arg(long)]
    pub speed: bool,
}

fn known_row(text: &str) -> Result<String, String> {
    let mut names = ROWS.iter().map(|row| row.name).chain(SPEED.map(|(name, _)| name));
    let known = names.any(|name| name == text);
    known
        .then(|| text.to_owned())
        .ok_or_else(|| "allowed: names of rows, such as steady,offers; --list prints them".to_owned())
}

fn parse_cassandra_nodes(text: &str) -> Result<u8, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        _ => Err("allowed: 1 or 3, such as 3".to_owned()),
    }
}

impl Options {
    fn is_asked(&self, name: &str, is_speed: bool) -> bool {
        match self.only.as_slice() {
            [] => !(self.which.faults && is_speed || self.which.speed && !is_speed),
            only => only.iter().any(|asked| asked == name),
        }
    }

    fn rows(&self) -> impl Iterator<Item = &'static Row> {
        let suits = |row: &&Row| row.suits(self.nodes, self.cassandra_nodes);
        ROWS.iter().filter(|row| self.is_asked(row.name, false)).filter(suits)
    }

    /// # Errors
    /// A row is asked for by name that takes more nodes.
    fn check(&self) -> io::Result<()> {
        let played: Vec<&str> = self.rows().map(|row| row.name).collect();
        let is_speed = |name: &str| SPEED.iter().any(|(speed, _)| *speed == name);
        let left_out = self
            .only
            .iter()
            .find(|name| !is_speed(name) && !played.contains(&name.as_str()));
        match left_out {
            None => Ok(()),
            Some(name) => Err(misuse(format!(
                "{name} takes more nodes: --nodes 3 --cassandra-nodes 3"
            ))),
        }
    }

    fn load(&self) -> Load {
        Load {
            drivers: self.drivers,
            rate: self.rate,
            seed: self.seed,
        }
    }
}

/// Plays what is asked for, prints it and writes it to the files that are named; status 1 when a promise was broken, something
/// is not there, or a goal was missed and `strict` is set.
///
/// # Errors
/// The services cannot be started, or a file cannot be written.
pub fn run(install: &Install, options: &Options, runs: u32, strict: bool, files: Files<'_>) -> io::Result<ExitCode> {
    if options.list {
        list();
        return Ok(ExitCode::SUCCESS);
    }
    options.check()?;
    node::kill_child_on_panic();
    let drivers_most = u64::from(options.drivers).max(offers::OFFERS.drivers as u64);
    node::allow_open_files(drivers_most * 2 + DESCRIPTORS).map_err(io::Error::other)?;
    let abilities = Abilities::of(install)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let home = tempfile::Builder::new()
        .prefix("dispatchd-fleet-")
        .tempdir_in(&install.data_root)?;
    // From here on a signal ends the stage and not the process, which has servers and a directory to take away.
    let reports = runtime.block_on(async {
        let mut ends = Ends::new()?;
        let mut stage = Stage {
            install,
            options,
            runs,
            abilities,
            home: home.path().to_owned(),
            is_warm: false,
            reports: Vec::new(),
        };
        let played = ends.or(Box::pin(stage.play())).await;
        let failed = match played {
            Ok(played) => played.err().map(|error| error.to_string()),
            Err(ended) => Some(ended.to_string()),
        };
        if let Some(error) = failed {
            eprintln!("dispatchd-bench: {error}; what was played before it follows");
            let mut run = Run::default();
            run.faults.add("not all was played", || error);
            stage.add("fleet-stage", run, &[]);
        }
        Ok::<_, io::Error>(stage.reports)
    })?;
    if options.keep {
        say!("logs and data are in {}", home.keep().display());
    }
    let verdicts = table::print(&reports);
    let document = report::document(&environment(), &reports, &verdicts);
    files.write(&document)?;
    let good = reports.iter().all(ScenarioReport::is_valid);
    let reached = verdicts.iter().all(|verdict| verdict.pass);
    Ok(if good && (reached || !strict) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn list() {
    say!("fault table:");
    for row in ROWS {
        say!("  {:<22} {}", row.name, row.what);
    }
    say!("speed:");
    for (name, what) in SPEED {
        say!("  {name:<22} {what}");
    }
}

struct Stage<'a> {
    install: &'a Install,
    options: &'a Options,
    runs: u32,
    abilities: Abilities,
    home: PathBuf,
    /// Whether Cassandra has worked for long enough to be timed.
    is_warm: bool,
    reports: Vec<ScenarioReport>,
}

impl Stage<'_> {
    async fn play(&mut self) -> io::Result<()> {
        if self.options.rows().next().is_some() {
            let services = self.services(Purpose::Faults).await?;
            for row in self.options.rows() {
                self.row(&services, row).await?;
            }
        }
        let speed = SPEED.map(|(name, _)| name);
        let asked: Vec<_> = speed
            .into_iter()
            .filter(|name| self.options.is_asked(name, true))
            .collect();
        if !asked.is_empty() {
            let services = self.services(Purpose::Speed).await?;
            for name in asked {
                self.speed(&services, name).await?;
            }
        }
        Ok(())
    }

    async fn services(&self, purpose: Purpose) -> io::Result<Services> {
        let begin = Instant::now();
        eprintln!("starting Redis and {} of Cassandra", self.options.cassandra_nodes);
        let starting = Services::start(&self.home, self.options.cassandra_nodes, purpose);
        let services = timeout(SERVICES_MAX, starting).await??;
        eprintln!("they answer after {:.0} s", begin.elapsed().as_secs_f64());
        Ok(services)
    }

    fn add(&mut self, name: &'static str, run: Run, goals: &'static [report::Goal]) {
        match self.reports.iter_mut().find(|report| report.name == name) {
            Some(report) => report.runs.push(run),
            None => self.reports.push(ScenarioReport {
                name,
                parameters: json!(self.options),
                runs: vec![run],
                goals,
            }),
        }
    }

    /// One row of the fault table, whatever becomes of it.
    async fn row(&mut self, services: &Services, row: &'static Row) -> io::Result<()> {
        let lacks = row.lacks(self.abilities);
        let run = if let Some(what) = lacks {
            table::missing(what)
        } else {
            let played = timeout(ROW_MAX + row.lasts, self.act(services, row)).await;
            let played = played.unwrap_or_else(|_| Err(io::Error::other("it hangs")));
            table::run_of(row, played)
        };
        eprintln!("{:<22} {}", row.name, table::word(&run));
        run.faults.lines().for_each(|line| eprintln!("  {line}"));
        self.add(row.kept_as, run, &[]);
        if lacks.is_none() {
            // Whatever the row left undone.
            mend_services(services).await?;
        }
        Ok(())
    }

    async fn act(&self, services: &Services, row: &Row) -> io::Result<play::Played> {
        let mut town = self.town(services, row.name).await?;
        play::play(&mut town, services, row, self.options.load()).await
    }

    async fn town(&self, services: &Services, name: &str) -> io::Result<Town> {
        let size = usize::from(self.options.nodes);
        Town::start(self.install, services, self.abilities, &self.home, name, size).await
    }

    async fn speed(&mut self, services: &Services, name: &'static str) -> io::Result<()> {
        let runs = if name == "takeover" { 1 } else { self.runs };
        if matches!(name, "offers" | "rides") && !std::mem::replace(&mut self.is_warm, true) {
            let mut town = self.town(services, "warm").await?;
            timeout(SPEED_MAX, offers::warm(&mut town, self.options.seed)).await??;
        }
        for number in 1..=runs {
            let town_name = format!("{name}-{number}");
            let (report_name, goals, measured) = match name {
                "offers" | "rides" => {
                    let (report_name, work, goals) = match name {
                        "offers" => ("fleet-offers", offers::OFFERS, offers::GOALS),
                        _ => ("fleet-rides", offers::RIDES, &[][..]),
                    };
                    let measured = timeout(SPEED_MAX, async {
                        offers::run(&mut self.town(services, &town_name).await?, work, self.options.seed).await
                    });
                    (report_name, goals, measured.await)
                }
                "takeover" => {
                    let most = SPEED_MAX + takeover::KILL_MAX * self.options.kills;
                    let measured = timeout(most, async {
                        takeover::run(&mut self.town(services, &town_name).await?, self.options.kills).await
                    });
                    ("fleet-takeover", takeover::GOALS, measured.await)
                }
                _ => {
                    let measured = timeout(SPEED_MAX, async {
                        // Its nodes have nothing to do; the tables and the ways to Cassandra are theirs.
                        let town = self.town(services, &town_name).await?;
                        let run = records::run(services, &town_name).await;
                        drop(town);
                        run
                    });
                    ("fleet-records", records::GOALS, measured.await)
                }
            };
            let measured = measured.unwrap_or_else(|_| Err(io::Error::other("it hangs")));
            let run = measured.unwrap_or_else(|error| table::failed(&error));
            eprintln!("{name:<22} {}", table::word(&run));
            run.faults.lines().for_each(|line| eprintln!("  {line}"));
            self.add(report_name, run, goals);
        }
        Ok(())
    }
}

/// Brings back whatever does not run or hangs.
async fn mend_services(services: &Services) -> io::Result<()> {
    use services::Service;
    for service in [Service::Redis, Service::Cassandra] {
        // Fails for one that does not run, which is started then.
        let _ = services.go_on(service);
        timeout(SERVICES_MAX, services.start_again(service)).await??;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn asked(line: &[&str]) -> Result<Vec<&'static str>, clap::Error> {
        let options = Line::try_parse_from([&["fleet"], line].concat())?.options;
        let rows = options.rows().map(|row| row.name);
        let speed = SPEED.map(|(name, _)| name).into_iter();
        Ok(rows.chain(speed.filter(|name| options.is_asked(name, true))).collect())
    }

    #[test]
    fn rows_are_chosen_by_group_and_by_name() {
        let all = asked(&[]).unwrap();
        assert_eq!(all.len(), ROWS.len() + SPEED.len());
        assert_eq!(asked(&["--speed"]).unwrap(), ["offers", "rides", "takeover", "records"]);
        assert_eq!(asked(&["--faults"]).unwrap().len(), ROWS.len());
        assert_eq!(asked(&["--only", "steady,takeover"]).unwrap(), ["steady", "takeover"]);
        assert_eq!(
            asked(&["--cassandra-nodes", "1", "--faults"]).unwrap().len(),
            ROWS.len() - 4
        );
        for bad in [
            &["--only", "nothing"][..],
            &["--cassandra-nodes", "2"],
            &["--faults", "--speed"],
        ] {
            assert!(asked(bad).is_err(), "{bad:?}");
        }
    }
}
