//! What can happen to a fleet: the rows of the fault table, in the order in which they are played.
#![forbid(unsafe_code)]

use std::io;
use std::time::Duration;

use rustix::process::Signal;

use super::proxy::Flow;
use super::services::{Service, Services};
use super::town::{Abilities, Town, Wire};

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its name, also on the command line.
    pub name: &'static str,
    /// The name under which its figures are kept.
    pub kept_as: &'static str,
    /// What happens, in words.
    pub what: &'static str,
    /// How long it lasts until it is mended. A process that is started again needs its time on top.
    pub lasts: Duration,
    fault: Fault,
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    Nothing,
    Kill(Service),
    Pause(Service),
    Wire(Wire, Flow),
    NodeKilled,
    NodePaused,
    NodeRestarted,
    AllRestarted,
}

macro_rules! row {
    ($name:literal, $what:literal, $lasts_s:expr, $fault:expr $(,)?) => {
        Row {
            name: $name,
            kept_as: concat!("fleet/", $name),
            what: $what,
            lasts: Duration::from_secs($lasts_s),
            fault: $fault,
        }
    };
}

/// Longer than a lease (3 s), so that what others do about a node that is gone is done.
const SHORT_S: u64 = 6;
/// Time for a takeover (5 s) and for a look at what comes after it.
const LONG_S: u64 = 10;

/// All rows.
pub const ROWS: &[Row] = &[
    row!("steady", "nothing", SHORT_S, Fault::Nothing),
    row!(
        "redis-killed",
        "Redis: kill -9, started again empty",
        SHORT_S,
        Fault::Kill(Service::Redis)
    ),
    row!(
        "redis-stopped",
        "Redis: SIGSTOP, SIGCONT",
        SHORT_S,
        Fault::Pause(Service::Redis)
    ),
    row!(
        "redis-stalled",
        "nodes and Redis: nothing passes",
        SHORT_S,
        Fault::Wire(Wire::Redis, Flow::Stall)
    ),
    row!(
        "redis-cut",
        "nodes and Redis: connections reset",
        SHORT_S,
        Fault::Wire(Wire::Redis, Flow::Cut)
    ),
    row!(
        "lease-lost",
        "one node and Redis: nothing passes, until its lease is over",
        LONG_S,
        Fault::Wire(Wire::NodeAndRedis, Flow::Stall),
    ),
    row!(
        "cassandra-one-killed",
        "one Cassandra node: kill -9, started again",
        SHORT_S,
        Fault::Kill(Service::CassandraNode),
    ),
    row!(
        "cassandra-one-stopped",
        "one Cassandra node: SIGSTOP, SIGCONT",
        SHORT_S,
        Fault::Pause(Service::CassandraNode),
    ),
    row!(
        "cassandra-one-stalled",
        "nodes and one Cassandra node: nothing passes",
        SHORT_S,
        Fault::Wire(Wire::CassandraNode, Flow::Stall),
    ),
    row!(
        "cassandra-one-cut",
        "nodes and one Cassandra node: connections reset",
        SHORT_S,
        Fault::Wire(Wire::CassandraNode, Flow::Cut),
    ),
    row!(
        "cassandra-killed",
        "all of Cassandra: kill -9, started again",
        SHORT_S,
        Fault::Kill(Service::Cassandra),
    ),
    row!(
        "cassandra-stopped",
        "all of Cassandra: SIGSTOP, SIGCONT",
        SHORT_S,
        Fault::Pause(Service::Cassandra),
    ),
    row!(
        "cassandra-stalled",
        "nodes and Cassandra: nothing passes",
        SHORT_S,
        Fault::Wire(Wire::Cassandra, Flow::Stall),
    ),
    row!(
        "cassandra-cut",
        "nodes and Cassandra: connections reset",
        SHORT_S,
        Fault::Wire(Wire::Cassandra, Flow::Cut),
    ),
    row!(
        "link-stalled",
        "two nodes: nothing passes between them",
        SHORT_S,
        Fault::Wire(Wire::Link, Flow::Stall)
    ),
    row!(
        "link-cut",
        "two nodes: connections between them reset",
        SHORT_S,
        Fault::Wire(Wire::Link, Flow::Cut)
    ),
    row!(
        "node-killed",
        "one node: kill -9, started again",
        LONG_S,
        Fault::NodeKilled
    ),
    row!("node-stopped", "one node: SIGSTOP, SIGCONT", LONG_S, Fault::NodePaused),
    row!(
        "node-alone",
        "one node and everybody but its clients: nothing passes",
        LONG_S,
        Fault::Wire(Wire::NodeAlone, Flow::Stall),
    ),
    row!(
        "node-restarted",
        "one node: SIGTERM, started again",
        0,
        Fault::NodeRestarted
    ),
    row!(
        "rolling-restart",
        "all nodes, one after the other: SIGTERM, started again",
        0,
        Fault::AllRestarted
    ),
];

impl Row {
    /// What the program does not have and this row is about; `None`: it can be played.
    pub fn lacks(&self, abilities: Abilities) -> Option<&'static str> {
        let is_of_link = matches!(self.fault, Fault::Wire(Wire::Link, _));
        (is_of_link && !abilities.links).then_some("nodes have no links: the program has no setting fleet_link_listen")
    }

    /// Whether so many nodes of dispatchd and of Cassandra are enough for it.
    pub fn suits(&self, nodes: u8, cassandra_nodes: u8) -> bool {
        let (takes, takes_cassandra) = match self.fault {
            Fault::Wire(Wire::Link, _) => (2, 1),
            Fault::Kill(Service::CassandraNode)
            | Fault::Pause(Service::CassandraNode)
            | Fault::Wire(Wire::CassandraNode, _) => (1, 3),
            _ => (1, 1),
        };
        nodes >= takes && cassandra_nodes >= takes_cassandra
    }

    /// Longest time for which a dispatchd node is stopped, ms.
    pub fn pause_ms(&self) -> u64 {
        match self.fault {
            Fault::NodePaused => self.lasts.as_millis() as u64 + 1000,
            _ => 0,
        }
    }

    /// Whether every request must be served at the first node that takes work.
    pub fn may_fail_nothing(&self) -> bool {
        matches!(self.fault, Fault::Nothing | Fault::NodeRestarted | Fault::AllRestarted)
    }

    /// Begins it.
    ///
    /// # Errors
    /// It cannot be done.
    pub async fn begin(&self, town: &mut Town, services: &Services) -> io::Result<()> {
        let victim = town.victim();
        match self.fault {
            Fault::Nothing => Ok(()),
            Fault::Kill(service) => services.kill(service).await,
            Fault::Pause(service) => services.pause(service),
            Fault::Wire(wire, flow) => {
                town.set(wire, flow);
                Ok(())
            }
            Fault::NodeKilled => {
                town.kill(victim);
                Ok(())
            }
            Fault::NodePaused => town.signal(victim, Signal::STOP),
            Fault::NodeRestarted => {
                town.terminate(victim).await?;
                town.start_again(victim).await
            }
            Fault::AllRestarted => {
                for index in 0..town.size() {
                    town.terminate(index).await?;
                    town.start_again(index).await?;
                }
                Ok(())
            }
        }
    }

    /// Mends it; returns when what was hurt answers again.
    ///
    /// # Errors
    /// It cannot be done.
    pub async fn mend(&self, town: &mut Town, services: &Services) -> io::Result<()> {
        match self.fault {
            Fault::Nothing | Fault::NodeRestarted | Fault::AllRestarted => Ok(()),
            Fault::Kill(service) => services.start_again(service).await,
            Fault::Pause(service) => services.go_on(service),
            Fault::Wire(wire, _) => {
                town.set(wire, Flow::Pass);
                Ok(())
            }
            Fault::NodeKilled => town.start_again(town.victim()).await,
            Fault::NodePaused => town.signal(town.victim(), Signal::CONT),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_rows_say_what_they_lack() {
        let names: BTreeSet<&str> = ROWS.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), ROWS.len());
        let lacking = |links| -> Vec<&str> {
            let rows = ROWS.iter().filter(|row| row.lacks(Abilities { links }).is_some());
            rows.map(|row| row.name).collect()
        };
        assert_eq!(lacking(true), [""; 0]);
        assert_eq!(lacking(false), ["link-stalled", "link-cut"]);
        let suiting = |nodes, cassandra| ROWS.iter().filter(|row| row.suits(nodes, cassandra)).count();
        assert_eq!(
            (suiting(3, 3), suiting(3, 1), suiting(1, 3)),
            (ROWS.len(), ROWS.len() - 4, ROWS.len() - 2)
        );
    }
}
