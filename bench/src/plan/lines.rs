//! The lines of a plan that are about its own nodes; those about Redis and Scylla are in `stores.rs`.
#![forbid(unsafe_code)]

use super::fit::{Load, Quantity};
use super::size::{BUSY_MAX, City, Confidence, Costs, Needs, Plan, STORED_BYTES_PER_OFFER, WIRE_OVERHEAD};

/// A line of the plan.
#[derive(Debug)]
pub struct Line {
    /// What.
    pub what: String,
    /// How much, with its unit.
    pub figure: String,
    /// How sure.
    pub confidence: Confidence,
    /// What it rests on, or what bounds it.
    pub because: String,
}

/// Cores, memory and network.
pub(super) fn node_lines(plan: &mut Plan, city: &City, drivers: f64, needs: &Needs) {
    let (nodes, bound_by, carrying) = (plan.nodes, plan.bound_by, plan.nodes - 1.0);
    let cpu = &needs.cpu;
    let mut line = |what: &str, figure: String, confidence: Confidence, because: String| {
        plan.lines.push(Line {
            what: what.to_owned(),
            figure,
            confidence,
            because,
        });
    };
    line(
        "nodes",
        format!(
            "{nodes:.0} of {:.0} cores, {:.0} GB",
            city.node_cores, city.node_memory_gb
        ),
        cpu.confidence.min(needs.memory.confidence),
        format!("{carrying:.0} for the load, bound by {bound_by}, and one that may be missing"),
    );
    line(
        "CPU in all",
        format!("{:.1} cores", cpu.value),
        cpu.confidence,
        cpu.because.clone(),
    );
    line(
        "CPU of a node",
        format!(
            "{:.0} % of its cores, {:.0} % with one missing",
            100.0 * cpu.value / nodes / city.node_cores,
            100.0 * cpu.value / carrying / city.node_cores
        ),
        cpu.confidence,
        format!("at most {:.0} % in the ordinary course", 100.0 * BUSY_MAX),
    );
    line(
        "memory of a node",
        format!("{:.2} GB with one missing", needs.memory_bytes / carrying / 1e9),
        needs.memory.confidence.min(needs.kernel.confidence),
        format!(
            "{:.0} B of the node and {:.0} B of its kernel for a driver, {:.0} rides at once, ids of ended ones; {}",
            needs.memory.value / drivers,
            needs.kernel.value / 2.0 / drivers,
            needs.rides,
            needs.memory.because
        ),
    );
    line(
        "network of a node",
        format!(
            "{:.3} Gbit/s each way, with one missing",
            needs.network_bits / carrying / 1e9
        ),
        needs.network.confidence,
        format!(
            "{:.0} Gbit/s NIC, half of it at most; headers taken as {:.0} % more",
            city.node_gbit,
            100.0 * (WIRE_OVERHEAD - 1.0)
        ),
    );
}

/// What a node writes.
pub(super) fn disk_lines(plan: &mut Plan, city: &City, load: &Load, carrying: f64, costs: &Costs) {
    let disk = costs.need(Quantity::Disk, load);
    let commits = costs.need(Quantity::Commits, load);
    plan.lines.push(Line {
        what: "disk of a node".into(),
        figure: format!(
            "{:.1} MB/s, {:.0} GB a day",
            disk.value / carrying / 1e6,
            disk.value / carrying * 86_400.0 / 1e9
        ),
        confidence: disk.confidence,
        because: disk.because,
    });
    plan.lines.push(Line {
        what: "syncs of a node".into(),
        figure: format!(
            "{:.0} /s over {:.0} shards, with one missing",
            commits.value / carrying,
            city.node_cores
        ),
        confidence: commits.confidence,
        because: format!("the busier a shard, the more a commit holds; {}", commits.because),
    });
    plan.lines.push(Line {
        what: "disk space of a node".into(),
        figure: format!(
            "{:.2} TB",
            load.offers * STORED_BYTES_PER_OFFER * 86_400.0 * city.retention_days / carrying / 1e12
        ),
        confidence: Confidence::Assumed,
        because: format!(
            "{:.0} days, {STORED_BYTES_PER_OFFER:.0} B for an offer",
            city.retention_days
        ),
    });
}
