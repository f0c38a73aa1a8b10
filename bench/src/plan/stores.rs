//! The stores beside a fleet of nodes. What a node asks of them is counted (`dispatchd-bench fleet`, `fleet_redis_driver_ttl_ms`); what they
//! bear is not measured by this program: an assumption with a name.
#![forbid(unsafe_code)]

use super::lines::Line;
use super::size::{City, Confidence, Plan, STORED_BYTES_PER_OFFER};

/// The assumptions.
mod assumed {
    /// Redis: bytes of a driver's entry (id, node, session, and the dictionary's own).
    pub(super) const REDIS_BYTES_PER_DRIVER: f64 = 250.0;
    /// Redis: scripts per second of one core.
    pub(super) const REDIS_OPERATIONS_PER_CORE: f64 = 80_000.0;
    /// Hours between two connects of a driver in the ordinary course.
    pub(super) const SESSION_HOURS: f64 = 0.5;
    /// Redis: a driver is refreshed with the first thing that is heard so long after the last time, s: a quarter of the preset life of an entry.
    pub(super) const REFRESH_S: f64 = 15.0;
    /// Redis: changes of a driver's state in a ride: to the pickup, on the trip, available again.
    pub(super) const CHANGES_PER_OFFER: f64 = 3.0;
    /// Scylla: conditional writes of a ride, as `dispatchd-bench fleet` counts them: three until the driver is bound, three to its end.
    pub(super) const LWT_PER_OFFER: f64 = 6.0;
    /// Scylla: conditional writes per second in which a core takes part, as the replica of a third of them.
    pub(super) const LWT_PER_CORE: f64 = 1_500.0;
    /// Scylla: copies of everything.
    pub(super) const REPLICAS: f64 = 3.0;
}

/// Adds Redis and Scylla to a plan.
pub(super) fn store_lines(plan: &mut Plan, city: &City, drivers: f64, offers: f64, nodes: f64) {
    let mut line = |what: &str, figure: String, because: String| {
        plan.lines.push(Line {
            what: what.to_owned(),
            figure,
            confidence: Confidence::Assumed,
            because,
        });
    };
    let connects = drivers / (assumed::SESSION_HOURS * 3600.0);
    let storm = drivers / nodes / city.storm_s;
    let heard_s = match city.location_s {
        location_s if location_s > 0.0 => location_s.min(city.heartbeat_s),
        _ => city.heartbeat_s,
    };
    let refresh_s = (assumed::REFRESH_S / heard_s).ceil() * heard_s;
    let ordinary = connects + drivers / refresh_s + offers * assumed::CHANGES_PER_OFFER;
    line(
        "Redis memory",
        format!(
            "{:.2} GB, and a replica",
            drivers * assumed::REDIS_BYTES_PER_DRIVER / 1e9
        ),
        format!("{:.0} B for a driver", assumed::REDIS_BYTES_PER_DRIVER),
    );
    line(
        "Redis operations",
        format!(
            "{ordinary:.0} /s, {:.0} /s in a storm: {:.0} cores",
            ordinary + storm,
            ((ordinary + storm) / assumed::REDIS_OPERATIONS_PER_CORE)
                .ceil()
                .max(1.0)
        ),
        format!(
            "a connect in {} h, a refresh in {refresh_s:.0} s, {:.0} changes of state for an offer",
            assumed::SESSION_HOURS,
            assumed::CHANGES_PER_OFFER
        ),
    );
    let lwt = offers * assumed::LWT_PER_OFFER;
    let cores = (lwt * assumed::REPLICAS / assumed::LWT_PER_CORE).ceil();
    line(
        "Scylla",
        format!("{lwt:.0} conditional writes/s: {cores:.0} cores over 3 nodes or more"),
        format!(
            "{:.0} for an offer, {:.0} /s a core, {:.0} replicas",
            assumed::LWT_PER_OFFER,
            assumed::LWT_PER_CORE,
            assumed::REPLICAS
        ),
    );
    let stored = offers * STORED_BYTES_PER_OFFER * 86_400.0 * city.retention_days * assumed::REPLICAS;
    line(
        "Scylla disk",
        format!("{:.1} TB in all", stored / 1e12),
        format!(
            "{:.0} days, {:.0} replicas, {:.0} B for an offer",
            city.retention_days,
            assumed::REPLICAS,
            STORED_BYTES_PER_OFFER
        ),
    );
}
