//! What the registry has, and what its scripts do with it.

use compact_str::CompactString;
use dispatchd::cold::registry::{Claim, Line, NodeList, NodeSeen, Previous, What};
use dispatchd::fsm::ids::{DriverId, RequestId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How long a node that was taken a driver from is told of it.
const MOVED_TTL_US: u64 = 60_000_000;

type AtHand = Option<(RequestId, CompactString)>;

pub(super) struct Entry {
    pub(super) node: CompactString,
    pub(super) session: u64,
    pub(super) at_hand: AtHand,
    expires_us: u64,
}

pub(super) struct Lease {
    pub(super) boot: u64,
    seen: NodeSeen,
    expires_us: u64,
}

/// What the registry has.
#[derive(Default)]
pub(in crate::world::fleet) struct Data {
    drivers: BTreeMap<DriverId, Entry>,
    pub(super) leases: BTreeMap<CompactString, Lease>,
    /// Every node that ever signed, and when it last did.
    listed: BTreeMap<CompactString, u64>,
    pub(super) moved: BTreeMap<CompactString, VecDeque<(DriverId, u64)>>,
}

impl Data {
    pub(super) fn entry(&mut self, driver_id: &DriverId, now_us: u64) -> Option<&mut Entry> {
        self.drivers
            .get_mut(driver_id)
            .filter(|entry| entry.expires_us > now_us)
    }

    pub(super) fn claim(
        &mut self,
        node: &CompactString,
        claim: &Claim,
        ttl_us: u64,
        now_us: u64,
    ) -> (u64, Option<Previous>) {
        let had = self.entry(&claim.driver_id, now_us);
        let session = had
            .as_ref()
            .map_or(claim.proposed, |entry| claim.proposed.max(entry.session + 1));
        if let Some(entry) = had {
            let previous = Previous {
                node_id: entry.node.clone(),
                session: entry.session,
                at_hand: entry.at_hand.clone(),
            };
            (entry.node, entry.session) = (node.clone(), session);
            entry.expires_us = entry.expires_us.max(now_us + ttl_us);
            return (session, Some(previous));
        }
        let entry = Entry {
            node: node.clone(),
            session,
            at_hand: None,
            expires_us: now_us + ttl_us,
        };
        self.drivers.insert(claim.driver_id.clone(), entry);
        (session, None)
    }

    /// A line of a node.
    pub(super) fn write(&mut self, node: &CompactString, line: &Line, ttl_us: u64, now_us: u64) -> Written {
        let had = self.entry(&line.driver_id, now_us);
        let known = had.as_ref().map(|entry| (entry.node.clone(), entry.session));
        let What::Here(here) = &line.what else {
            if known.is_some_and(|(owner, session)| owner == *node && session <= line.session) {
                self.drivers.remove(&line.driver_id);
            }
            return Written::Yes;
        };
        let other = known.as_ref().filter(|(owner, _)| owner != node);
        if other.is_some_and(|(_, session)| *session >= line.session) {
            return Written::Refused;
        }
        let at_hand = here.at_hand.as_ref();
        let lasts_us = at_hand.map_or(0, |at_hand| at_hand.lasts_ms * 1_000);
        let written = other.map_or(Written::Yes, |(owner, _)| Written::From(owner.clone()));
        let session = known
            .as_ref()
            .map_or(line.session, |(_, session)| line.session.max(*session));
        let entry = Entry {
            node: node.clone(),
            session,
            at_hand: at_hand.map(|at_hand| (at_hand.request_id.clone(), at_hand.node_id.clone())),
            expires_us: now_us + ttl_us.max(here.kept_ms * 1_000) + lasts_us,
        };
        self.drivers.insert(line.driver_id.clone(), entry);
        written
    }

    /// A sign of life of a node; whether its lease had lapsed.
    pub(super) fn sign(&mut self, boot: u64, seen: NodeSeen, lease_us: u64, now_us: u64) -> bool {
        let name = seen.node_id.clone();
        if self.leases.get(&name).is_some_and(|lease| lease.boot > boot) {
            return false; // Said by a process that has a successor.
        }
        let stood = self.leases.get(&name).is_some_and(|lease| lease.expires_us > now_us);
        let lease = Lease {
            boot,
            seen,
            expires_us: now_us + lease_us,
        };
        self.leases.insert(name.clone(), lease);
        self.listed.insert(name, now_us);
        !stood
    }

    pub(super) fn alive(&self, now_us: u64) -> NodeList {
        let standing = self.leases.values().filter(|lease| lease.expires_us > now_us);
        NodeList::new(standing.map(|lease| lease.seen.clone()).collect())
    }

    /// Nodes that are gone for so long that nobody tells them anything.
    pub(super) fn lapsed(&self, now_us: u64) -> BTreeSet<CompactString> {
        let is_dead = |name: &CompactString| self.leases.get(name).is_none_or(|lease| lease.expires_us <= now_us);
        let listed = self.listed.iter();
        let old = listed.filter(|(name, seen_us)| is_dead(name) && **seen_us + MOVED_TTL_US < now_us);
        old.map(|(name, _)| name.clone()).collect()
    }
}

pub(super) enum Written {
    Yes,
    From(CompactString),
    Refused,
}
