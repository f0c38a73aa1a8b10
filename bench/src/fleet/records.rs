//! What Cassandra takes in the writer's batches, beside single inserts: the same rows, the same Cassandra, in turn. The writer is
//! the node's own.
#![forbid(unsafe_code)]

use std::io;
use std::time::{Duration, Instant};

use dispatchd::cold::CassandraConfig;
use dispatchd::cold::cassandra::Sink;
use dispatchd::cold::embedded::OutboxEntry;
use dispatchd::config::Config;
use dispatchd::fsm::ids::{DriverId, RequestId};
use dispatchd::fsm::types::{RecordRow, ResponseType};

use super::services::Services;
use crate::report::{Goal, Limit, Run};

/// Rows of one driver's day in a batch, and such batches on their way at once.
const BATCH_ROWS: usize = 100;
const BATCHES: usize = 8;
/// Single inserts on their way at once, where it is not one.
const SINGLES: usize = 64;

/// What the issue promises.
pub const GOALS: &[Goal] = &[Goal {
    what: "records batched, against as many single inserts at once as serve best",
    figure: "batched_by_single",
    limit: Limit::AtLeast(10.0),
}];

/// Measures once.
///
/// # Errors
/// Cassandra cannot be used.
pub async fn run(services: &Services, name: &str) -> io::Result<Run> {
    let points: Vec<String> = services.cassandra().iter().map(|(_, told)| told.to_string()).collect();
    let config = Config {
        fleet_cassandra_contact_points: points.join(",").into(),
        fleet_cassandra_keyspace: name.replace('-', "_").into(),
        fleet_cassandra_timeout_ms: 30_000,
        ..Config::default()
    };
    // Both warm first.
    rows_per_s(&config, SINGLES, &entries(name, "a", 8000, 1)?, false).await?;
    rows_per_s(&config, BATCHES, &entries(name, "b", 200, BATCH_ROWS)?, false).await?;
    let one = rows_per_s(&config, 1, &entries(name, "c", 1000, 1)?, true).await?;
    let single = rows_per_s(&config, SINGLES, &entries(name, "d", 10_000, 1)?, false).await?;
    let batched = rows_per_s(&config, BATCHES, &entries(name, "e", 600, BATCH_ROWS)?, false).await?;
    let mut run = Run::default();
    run.add("single_one_at_a_time", "rows/s", one);
    run.add("single_64_at_once", "rows/s", single);
    run.add("batches_of_100_8_at_once", "rows/s", batched);
    run.add("batched_by_single", "", batched / single.max(one));
    Ok(run)
}

/// Rows per second of `entries`, written as `writes` at once.
async fn rows_per_s(config: &Config, writes: usize, entries: &[OutboxEntry], one_by_one: bool) -> io::Result<f64> {
    let config = Config {
        fleet_cassandra_writes_max: writes as u32,
        ..config.clone()
    };
    let config = CassandraConfig::of(&config).map_err(io::Error::other)?;
    let config = config.ok_or_else(|| io::Error::other("no contact points"))?;
    let sink = Sink::open(&config).await.map_err(io::Error::other)?;
    let began = Instant::now();
    if one_by_one {
        for entry in entries {
            let stored = sink.store(std::slice::from_ref(entry), "bench").await;
            stored.map_err(io::Error::other)?;
        }
    } else {
        sink.store(entries, "bench").await.map_err(io::Error::other)?;
    }
    let rows: usize = entries.iter().map(|entry| entry.rows.len()).sum();
    Ok(rows as f64 / began.elapsed().max(Duration::from_nanos(1)).as_secs_f64())
}

/// `partitions` drivers with `rows` rows each.
fn entries(name: &str, part: &str, partitions: usize, rows: usize) -> io::Result<Vec<OutboxEntry>> {
    let now = jiff::Timestamp::now().as_millisecond() as u64;
    let one = |number: usize| {
        let driver = format!("{name}-{part}-{}", number % partitions);
        let request = format!("{name}-{part}-{number}");
        let at_ms = now - number as u64;
        Some(OutboxEntry {
            at_ms: now,
            rows: vec![RecordRow {
                driver_id: DriverId::parse(&driver).ok()?,
                offer_sent_at_ms: at_ms,
                request_id: RequestId::parse(&request).ok()?,
                attempt: 1,
                trip_id: None,
                response_type: ResponseType::Declined,
                response_at_ms: at_ms + 1,
            }],
            ended: None,
        })
    };
    let entries: Option<Vec<OutboxEntry>> = (0..partitions * rows).map(one).collect();
    entries.ok_or_else(|| io::Error::other("a name that is no id"))
}
