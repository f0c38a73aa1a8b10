//! Which node a driver's app is to connect to: rendezvous hashing with bounded loads.
//!
//! Every node has a weight for every driver, made of both names; a driver goes to the node of the greatest weight that
//! is not overloaded. So all nodes say the same of the same list, a node that comes takes about 1/n of the drivers from all
//! others alike, and one that goes gives its own to all others alike (Thaler and Ravishankar, "Using name-based mappings
//! to increase hit rates", 1998). The bound on loads is that of Mirrokni, Thorup and Zadimoghaddam, "Consistent hashing with
//! bounded loads", 2018; here a node that has far fewer than the others does not lower their bound ([`LOAD_PERCENT_FILLING`]).

use crate::fsm::ids::DriverId;
use compact_str::CompactString;
use xxhash_rust::xxh3::xxh3_64;

/// A node may have this many percent of the mean of drivers before new ones go elsewhere.
pub const LOAD_PERCENT_MAX: u64 = 125;
/// A node that has fewer than this many percent of the mean fills up: it does not count in the mean that bounds the others. So
/// it gets its own part of the drivers, not all of them. As far below the mean as the bound is above it: when it counts again, the
/// others are below their bound, however few there are.
const LOAD_PERCENT_FILLING: u64 = 200 - LOAD_PERCENT_MAX;

/// A node whose lease stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSeen {
    /// Its name.
    pub node_id: CompactString,
    /// `host:port`.
    pub address: CompactString,
    /// `host:port` for links of other nodes; empty: it has none.
    pub link_address: CompactString,
    /// Drivers connected to it, a second ago or so.
    pub drivers: u64,
    /// Whether it takes drivers: not while it drains.
    pub is_serving: bool,
    /// Whether it takes work besides: what its `/readyz` says.
    pub is_ready: bool,
}

/// The nodes whose leases stand, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeList {
    nodes: Vec<NodeSeen>,
}

impl NodeList {
    /// Of these nodes, in any order.
    pub fn new(mut nodes: Vec<NodeSeen>) -> Self {
        nodes.sort_by(|one, other| one.node_id.cmp(&other.node_id));
        Self { nodes }
    }

    /// These and those of `known` that are not among them.
    #[must_use]
    pub fn with_unlisted(mut self, known: &Self) -> Self {
        let is_listed = |node: &&NodeSeen| self.nodes.iter().any(|listed| listed.node_id == node.node_id);
        let unlisted: Vec<NodeSeen> = known.nodes.iter().filter(|node| !is_listed(node)).cloned().collect();
        self.nodes.extend(unlisted);
        Self::new(self.nodes)
    }

    /// By name.
    pub fn nodes(&self) -> &[NodeSeen] {
        &self.nodes
    }

    /// Where this driver is to connect, of the nodes that take drivers, as `serves` says; `None` when there is none.
    pub fn assign(&self, driver_id: &DriverId, serves: impl Fn(&NodeSeen) -> bool) -> Option<&NodeSeen> {
        let driver = driver_id.hash64();
        let serving = || self.nodes.iter().filter(|node| serves(node));
        let bound = load_bound(serving().map(|node| node.drivers));
        serving()
            .filter(|node| node.drivers < bound)
            .max_by_key(|node| (weight(&node.node_id, driver), &node.node_id))
    }
}

impl NodeList {
    /// Who of those that serve takes over what has this hash; `None` when nobody does.
    pub fn heir(&self, hash: u64) -> Option<&str> {
        self.heir_among(hash, |_| true)
    }

    /// The same of those nodes that `may` says.
    pub fn heir_among(&self, hash: u64, may: impl Fn(&NodeSeen) -> bool) -> Option<&str> {
        let serving = self.nodes.iter().filter(|node| node.is_serving && may(node));
        let heir = serving.max_by_key(|node| (weight(&node.node_id, hash), &node.node_id));
        heir.map(|node| node.node_id.as_str())
    }
}

/// Drivers that a node may have when one more comes to nodes with so many: of those that do not fill up, the mean and a part
/// more. Some node always has fewer.
fn load_bound(loads: impl Iterator<Item = u64> + Clone) -> u64 {
    let (total, nodes) = total(loads.clone());
    let is_filling = |load: u64| load * 100 * nodes < total * LOAD_PERCENT_FILLING;
    let (total, nodes) = self::total(loads.filter(|load| !is_filling(*load)));
    ((total + 1) * LOAD_PERCENT_MAX).div_ceil(100 * nodes.max(1))
}

/// Drivers, and the nodes that have them.
fn total(loads: impl Iterator<Item = u64>) -> (u64, u64) {
    loads.fold((0, 0), |(total, nodes), load| (total + load, nodes + 1))
}

/// The weight of a node for a driver.
fn weight(node_id: &str, driver: u64) -> u64 {
    // The finalizer of MurmurHash3: every bit of either name changes about half of the weight's.
    let mut mixed = xxh3_64(node_id.as_bytes()) ^ driver;
    mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    mixed ^ (mixed >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    const DRIVERS: usize = 20_000;

    fn node(name: &str, drivers: u64, is_serving: bool) -> NodeSeen {
        NodeSeen {
            node_id: name.into(),
            address: format!("{name}:8080").into(),
            link_address: CompactString::default(),
            drivers,
            is_serving,
            is_ready: is_serving,
        }
    }

    fn drivers() -> impl Iterator<Item = DriverId> {
        (0..DRIVERS).map(|number| DriverId::parse(&format!("driver-{number}")).unwrap())
    }

    fn homes(list: &NodeList) -> Vec<String> {
        drivers()
            .map(|id| list.assign(&id, |node| node.is_serving).unwrap().node_id.to_string())
            .collect()
    }

    fn even(count: usize) -> NodeList {
        NodeList::new(
            (0..count)
                .map(|number| node(&format!("gw-{number}"), 1_000, true))
                .collect(),
        )
    }

    /// Where a driver goes when nodes have so many.
    fn choose(loads: &HashMap<String, u64>, id: &DriverId) -> String {
        let list = NodeList::new(loads.iter().map(|(name, load)| node(name, *load, true)).collect());
        list.assign(id, |node| node.is_serving).unwrap().node_id.to_string()
    }

    /// What a node of `nodes` that are alike may have.
    fn bound_of(total: u64, nodes: u64) -> u64 {
        (total * LOAD_PERCENT_MAX).div_ceil(100 * nodes)
    }

    #[test]
    fn a_node_that_comes_takes_its_share_and_moves_nobody_else() {
        for count in 1..8 {
            let (before, after) = (homes(&even(count)), homes(&even(count + 1)));
            let newcomer = format!("gw-{count}");
            let moved = before.iter().zip(&after).filter(|(from, to)| from != to).count();
            assert!(
                before
                    .iter()
                    .zip(&after)
                    .all(|(from, to)| from == to || *to == newcomer)
            );
            let (share, fair) = (moved as f64 / DRIVERS as f64, 1.0 / (count as f64 + 1.0));
            println!(
                "{count} to {} nodes: {:.1} % of the drivers move, 1/n is {:.1} %",
                count + 1,
                share * 100.0,
                fair * 100.0
            );
            assert!((share - fair).abs() < 0.02, "{count}: {share} of {fair}");
        }
    }

    /// Drivers of nodes that are alike connect anew, one after the other, after an empty node has come.
    #[test]
    fn a_node_that_comes_empty_takes_its_share_and_moves_nobody_else() {
        const WINDOW: usize = DRIVERS / 10;
        for count in 1..=8 {
            let newcomer = format!("gw-{count}");
            let mut placed = homes(&even(count));
            let mut loads: HashMap<String, u64> = (0..=count).map(|number| (format!("gw-{number}"), 0)).collect();
            for home in &placed {
                *loads.get_mut(home).unwrap() += 1;
            }
            let fair = 1.0 / (count as f64 + 1.0);
            let mut moved = 0;
            for (number, id) in drivers().enumerate() {
                *loads.get_mut(&placed[number]).unwrap() -= 1;
                let chosen = choose(&loads, &id);
                *loads.get_mut(&chosen).unwrap() += 1;
                if chosen != placed[number] {
                    assert_eq!(chosen, newcomer, "{count}");
                    moved += 1;
                    placed[number] = chosen;
                }
                if (number + 1) % WINDOW == 0 {
                    let share = f64::from(moved) / (number as f64 + 1.0);
                    assert!((share - fair).abs() < 0.03, "{count}, {number}: {share} of {fair}");
                }
            }
            let (mean, most) = (DRIVERS as u64 / loads.len() as u64, *loads.values().max().unwrap());
            println!("{count} nodes and a new one: {moved} of {DRIVERS} move, the most are {most}, the mean is {mean}");
            assert!(most * 100 <= mean * LOAD_PERCENT_MAX, "{loads:?}");
        }
    }

    /// No node has more than it may, once there are more than a few drivers.
    #[test]
    fn drivers_that_come_one_by_one_overload_nobody() {
        let mut loads: HashMap<String, u64> = (0..5).map(|number| (format!("gw-{number}"), 0)).collect();
        for (count, id) in drivers().enumerate() {
            *loads.get_mut(&choose(&loads, &id)).unwrap() += 1;
            let bound = bound_of(count as u64 + 1, 5);
            assert!(
                count < 500 || loads.values().all(|load| *load <= bound),
                "{loads:?} {bound}"
            );
        }
    }

    /// One node has twice what the others have, as after a cut: nobody is sent to it before they have caught up.
    #[test]
    fn a_node_that_has_too_many_gets_nobody_until_the_others_have_as_many() {
        let mut loads: HashMap<String, u64> = (0..4).map(|number| (format!("gw-{number}"), 1_000)).collect();
        loads.insert("gw-0".to_owned(), 2_000);
        for id in drivers() {
            let chosen = choose(&loads, &id);
            let total: u64 = loads.values().sum();
            assert!(chosen != "gw-0" || loads["gw-0"] < bound_of(total + 1, 4), "{loads:?}");
            *loads.get_mut(&chosen).unwrap() += 1;
        }
        let total: u64 = loads.values().sum();
        assert!(loads.values().all(|load| *load <= bound_of(total, 4)), "{loads:?}");
    }

    #[test]
    fn who_is_full_or_drains_gets_nobody() {
        let list = NodeList::new(vec![
            node("a", 1_800, true),
            node("b", 1_000, true),
            node("c", 1_000, true),
            node("d", 0, false),
        ]);
        assert!(homes(&list).iter().all(|home| home == "b" || home == "c"));
        let driver = DriverId::parse("d").unwrap();
        assert!(NodeList::default().assign(&driver, |node| node.is_serving).is_none());
        let alone = NodeList::new(vec![node("a", 0, true)]);
        assert_eq!(alone.assign(&driver, |node| node.is_serving).unwrap().node_id, "a");
        assert!(alone.assign(&driver, |node| node.node_id != "a").is_none());
        assert_eq!(alone.heir(7), Some("a"));
        assert_eq!(alone.heir_among(7, |node| node.node_id != "a"), None);
    }
}
