//! `dispatchd fleet status`: the nodes as the registry has them.

use super::client::{Target, describe};
use super::lease::{self, Keys, NodeFields};
use crate::config::Config;
use comfy_table::{Table, presets};
use serde::Serialize;
use std::io::{self, Write};

/// One node.
#[derive(Debug, Serialize)]
struct Row {
    node_id: String,
    /// `starting`, `serving`, `not_ready` when it serves its drivers and takes no work, `draining`, or `lapsed` when its lease has ended.
    state: &'static str,
    address: String,
    /// Where links of other nodes reach it; empty: it has none.
    link_address: String,
    incarnation: u64,
    started_at_ms: u64,
    /// Its last sign of life, by its own clock.
    seen_at_ms: u64,
    drivers: u64,
    requests_open: u64,
    /// Drivers whose entry waits to be written.
    backlog: u64,
    /// How long the last written entry had waited.
    lag_ms: u64,
}

impl Row {
    fn of(node: &NodeFields) -> Self {
        let state = match node.text("is_draining") {
            _ if node.fields.is_empty() => "lapsed",
            _ if node.is_ready() => "serving",
            _ if node.is_serving() => "not_ready",
            "0" => "starting",
            _ => "draining",
        };
        Self {
            node_id: node.node_id.clone(),
            state,
            address: node.text("address").to_owned(),
            link_address: node.text("link_address").to_owned(),
            incarnation: node.number("incarnation"),
            started_at_ms: node.number("started_at_ms"),
            seen_at_ms: node.seen_ms,
            drivers: node.number("drivers"),
            requests_open: node.number("requests_open"),
            backlog: node.number("backlog"),
            lag_ms: node.number("lag_ms"),
        }
    }
}

/// Prints the nodes, as a table or as JSON; gives the exit status.
///
/// # Errors
/// There is no fleet, Redis does not answer, or the output cannot be written.
pub fn command(config: &Config, as_json: bool, out: &mut impl Write) -> io::Result<u8> {
    let target = Target::of(config).map_err(io::Error::other)?;
    let Some(target) = target else {
        return Err(io::Error::other("there is no fleet: fleet_redis_url is empty"));
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let keys = Keys::new(&config.fleet_redis_prefix);
    let listed = runtime.block_on(async {
        let link = target.connect().await?;
        lease::list(&link, &keys).await
    });
    let listed = listed.map_err(|error| {
        let addresses = target.addresses();
        io::Error::other(format!("Redis at {addresses}: {}", describe(&error)))
    })?;
    let mut rows: Vec<Row> = listed.iter().map(Row::of).collect();
    rows.sort_by(|one, other| one.node_id.cmp(&other.node_id));
    if as_json {
        serde_json::to_writer(&mut *out, &serde_json::json!({ "nodes": rows }))?;
        writeln!(out)?;
    } else {
        writeln!(out, "{}", table(&rows))?;
    }
    Ok(0)
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header([
        "NODE",
        "STATE",
        "ADDRESS",
        "LINKS",
        "INCARNATION",
        "STARTED",
        "SEEN",
        "DRIVERS",
        "OPEN",
        "BACKLOG",
        "LAG MS",
    ]);
    for row in rows {
        table.add_row([
            row.node_id.clone(),
            row.state.to_owned(),
            row.address.clone(),
            row.link_address.clone(),
            row.incarnation.to_string(),
            time(row.started_at_ms),
            time(row.seen_at_ms),
            row.drivers.to_string(),
            row.requests_open.to_string(),
            row.backlog.to_string(),
            row.lag_ms.to_string(),
        ]);
    }
    table
}

/// UTC, to the second; nothing for a node that no longer says.
fn time(at_ms: u64) -> String {
    match jiff::Timestamp::from_millisecond(at_ms as i64) {
        Ok(time) if at_ms > 0 => format!("{time:.0}"),
        Ok(_) | Err(_) => String::new(),
    }
}
