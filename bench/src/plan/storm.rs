//! The storm after a node's loss: all its drivers connect to the others.
#![forbid(unsafe_code)]

use super::lines::Line;
use super::size::{City, Confidence, Costs};
use crate::report::number;

/// Share of a node's cores that may be busy while another is missing.
const BUSY_MAX_DEGRADED: f64 = 0.8;
/// CPU of a handshake with `WELCOME`, µs, when no measurement is given.
const HANDSHAKE_US_ASSUMED: f64 = 60.0;

/// All drivers of a lost node connect to the others.
pub(super) struct Storm {
    lost: f64,
    handshake_us: f64,
    measured: bool,
    /// Cores that the others have for it.
    spare: f64,
    /// How long it takes, s.
    pub(super) secs: f64,
}

impl Storm {
    /// Of a city whose ordinary load takes `cpu` cores of `carrying` nodes.
    pub(super) fn new(city: &City, drivers: f64, cpu: f64, carrying: f64, costs: &Costs) -> Self {
        let lost = drivers / (carrying + 1.0);
        let handshake_us = costs.handshake_us.unwrap_or(HANDSHAKE_US_ASSUMED);
        let spare = (carrying * city.node_cores * BUSY_MAX_DEGRADED - cpu).max(0.01);
        Self {
            lost,
            handshake_us,
            measured: costs.handshake_us.is_some(),
            spare,
            secs: lost * handshake_us / 1e6 / spare,
        }
    }

    /// As a line of the plan.
    pub(super) fn line(&self, city: &City) -> Line {
        Line {
            what: "storm after a node's loss".into(),
            figure: format!("{:.0} drivers back in {:.1} s", self.lost, self.secs),
            confidence: if self.measured {
                Confidence::Medium
            } else {
                Confidence::Assumed
            },
            because: format!(
                "{:.0} µs a handshake on {:.1} spare cores up to {:.0} %; {} s at most",
                self.handshake_us,
                self.spare,
                100.0 * BUSY_MAX_DEGRADED,
                number(city.storm_s)
            ),
        }
    }
}
