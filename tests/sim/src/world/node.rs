//! The life of the process: its shards, their turns and sleeps, and its end.

use super::machine::Event;
use super::platform::{Failure, Sim};
use super::{World, outside};
use crate::client::NodeEvent;
use dispatchd::ops::health::Phase;
use dispatchd::ops::metrics::CloseCause;
use dispatchd::shard;
use std::any::Any;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Where a shard is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// What it inherits is being written.
    Inherits,
    /// Until the doors open.
    Waits,
    Serves,
    Finished,
}

/// A shard and when it turns.
pub(super) struct Run {
    pub(super) shard: shard::Shard<Sim>,
    pub(super) stage: Stage,
    rest: Option<Duration>,
}

impl Run {
    pub(super) fn new(shard: shard::Shard<Sim>) -> Self {
        Self {
            shard,
            stage: Stage::Inherits,
            rest: None,
        }
    }
}

/// The process.
pub(super) struct Node {
    pub(super) runs: Vec<Run>,
    pub(super) shared: Arc<shard::Shared>,
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End<'a> {
    Killed,
    PowerLost,
    Failed(&'a str),
    Drained,
}

impl World<'_> {
    /// The time of a shard's turn has come.
    pub(super) fn turn(&mut self, n: u8, shard: u16) {
        let now_us = self.now_us();
        let stalled_until_us = self.sites[n].faults.stalled_until_us[usize::from(shard)];
        let Some(run) = self.sites[n]
            .node
            .as_mut()
            .and_then(|node| node.runs.get_mut(usize::from(shard)))
        else {
            return;
        };
        if now_us < stalled_until_us {
            return self.sites[n]
                .machine
                .borrow_mut()
                .agenda
                .plan_turn(shard, stalled_until_us);
        }
        let turned = outside::node_does(|| run.turn());
        match turned {
            Ok(()) => self.schedule(n, shard),
            Err(payload) => return self.unwound(n, payload.as_ref()),
        }
        self.sites[n].store.listen();
        self.stepped(n);
        self.look_for_end(n);
    }

    /// Plans a shard's next turn, after it has decided how long it may sleep.
    pub(super) fn schedule(&mut self, n: u8, shard: u16) {
        let pace_us = self.plan.pace.turn_us;
        let machine = Rc::clone(&self.sites[n].machine);
        let Some(run) = self.sites[n]
            .node
            .as_mut()
            .and_then(|node| node.runs.get_mut(usize::from(shard)))
        else {
            return;
        };
        if !matches!(run.stage, Stage::Inherits | Stage::Serves) {
            return;
        }
        let mut machine = machine.borrow_mut();
        let at = match run.rest {
            Some(rest) if !run.shard.ring_mut().has_work() => machine.now_us() + (rest.as_micros() as u64).max(1),
            _ => machine.now_us() + machine.draw(pace_us).max(1),
        };
        machine.agenda.plan_turn(shard, at);
    }

    /// Shards for which something happened turn soon.
    pub(super) fn wake_shards(&mut self, n: u8) {
        let site = &mut self.sites[n];
        let mut machine = site.machine.borrow_mut();
        let mut woken = std::mem::take(&mut machine.woken);
        if site.store.woken.load(Ordering::Relaxed) != 0 {
            woken |= machine.rung_by_threads(site.store.woken.swap(0, Ordering::Relaxed));
        }
        if woken == 0 {
            return;
        }
        let Some(node) = site.node.as_mut() else { return };
        while woken != 0 {
            let shard = woken.trailing_zeros() as u16;
            woken &= woken - 1;
            let Some(run) = node.runs.get_mut(usize::from(shard)) else {
                continue;
            };
            if !matches!(run.stage, Stage::Inherits | Stage::Serves) {
                continue;
            }
            let at = machine.now_us() + machine.draw(self.plan.pace.wake_us).max(1);
            if machine.agenda.turn_at(shard).is_none_or(|planned| planned > at) {
                machine.agenda.plan_turn(shard, at);
            }
        }
    }

    /// A shard's write is over.
    pub(super) fn written(&mut self, n: u8, shard: u16) {
        let written = self.sites[n].machine.borrow_mut().write_ends(shard);
        if let Some(run) = self.sites[n]
            .node
            .as_mut()
            .and_then(|node| node.runs.get_mut(usize::from(shard)))
        {
            run.shard
                .ring_mut()
                .written(written.token, written.buffer, written.result);
            self.sites[n].machine.borrow_mut().wake(shard);
        }
        self.stepped(n);
    }

    /// A step of the node is done: the process may be killed after it.
    pub(super) fn stepped(&mut self, n: u8) {
        self.steps += 1;
        self.kill_if_due(n);
    }

    /// A panic in the node's code, or a shard that ends the process.
    pub(super) fn unwound(&mut self, n: u8, payload: &(dyn Any + Send)) {
        if let Some(Failure(what)) = payload.downcast_ref() {
            return self.failed(n, what);
        }
        let text = payload
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| payload.downcast_ref::<&str>().copied());
        let (at_us, text) = (self.now_us(), text.unwrap_or("without a word"));
        let place = outside::take_place().map_or_else(String::new, |place| format!(" at {place}"));
        self.bug = Some(format!(
            "node {n} panics{place}, {}.{:06} s: {text}",
            at_us / 1_000_000,
            at_us % 1_000_000
        ));
        self.sites[n].node = None;
    }

    /// The process ends itself.
    pub(super) fn failed(&mut self, n: u8, what: &str) {
        if let Some((took_place, down_us)) = self.provoked(n, what) {
            self.sites[n].faults.count(took_place);
            return self.end(n, End::Failed(what), down_us);
        }
        self.bug = Some(format!("the node ended itself without a cause: {what}"));
        self.sites[n].node = None;
    }

    /// A drain is over when every shard has finished.
    fn look_for_end(&mut self, n: u8) {
        let Some(node) = &self.sites[n].node else { return };
        if node.runs.iter().all(|run| run.stage == Stage::Finished) {
            self.sites[n].store.shut_down();
            let down_us = self.sites[n].faults.drained_down_us;
            self.end(n, End::Drained, down_us);
        }
    }

    /// What of its limits the process has met, by its own measure, before it is gone.
    pub(super) fn count_reached(&mut self, n: u8) {
        let Some(node) = &self.sites[n].node else { return };
        for shard in 0..node.runs.len() as u16 {
            let metrics = node.shared.registry.shard(shard);
            for (name, count) in [
                ("letters that found a full ring", &metrics.mailbox_overflows),
                ("sockets paused for what they said", &metrics.drivers_throttled),
                (
                    "sockets closed that did not read",
                    metrics.connections_closed.of(CloseCause::SlowConsumer),
                ),
            ] {
                *self.reached.entry(name).or_insert(0) += count.get();
            }
        }
    }

    /// The process is gone, and is started again after `down_us`.
    pub(super) fn end(&mut self, n: u8, end: End<'_>, down_us: u64) {
        self.count_reached(n);
        self.sites[n].node = None;
        if let Some(member) = self.sites[n].member.take()
            && end == End::Drained
        {
            member.gives_back_lease();
        }
        let power = end == End::PowerLost;
        {
            let mut machine = self.sites[n].machine.borrow_mut();
            machine.boot += 1;
            machine.agenda.no_turns();
            machine.node_gone(power);
            machine.disk_crash(power);
        }
        self.sites[n].store.crash();
        let site = &mut self.sites[n];
        site.faults.ended(&mut site.machine.borrow_mut());
        match end {
            End::Killed => self.observe(n, NodeEvent::Killed),
            End::PowerLost => self.observe(n, NodeEvent::PowerLost),
            End::Failed(what) => self.observe(n, NodeEvent::Failed(what)),
            End::Drained => self.observe(n, NodeEvent::Drained),
        }
        let at = self.now_us() + down_us.max(1);
        self.plan_event(n, at, Event::Start);
    }

    /// SIGTERM, after which the node is started again in `down_us`; whether there is anybody who begins to drain, or ends. As
    /// in `ops/signals.rs`, a process that does not serve yet ends at once.
    pub(super) fn drain(&mut self, n: u8, down_us: u64) -> bool {
        if self.is_starting(n) {
            self.end(n, End::Drained, down_us);
            return true;
        }
        self.sites[n].faults.drained_down_us = down_us;
        let Some(node) = &self.sites[n].node else { return false };
        let begins = node.shared.health.advance(Phase::Draining);
        if begins {
            let shards = node.runs.len();
            self.observe(n, NodeEvent::Draining);
            self.sites[n].machine.borrow_mut().woken |= (1 << shards) - 1;
        }
        begins
    }
}

impl Run {
    /// The second half of a turn, and the first half of the next one.
    fn turn(&mut self) {
        self.shard.go_on(self.rest.take());
        self.settle();
    }

    /// Between two turns: what the loop of a shard's thread does.
    pub(super) fn settle(&mut self) {
        let over = match self.stage {
            Stage::Inherits => self.shard.is_heir(),
            Stage::Serves => self.shard.is_finished(),
            Stage::Waits | Stage::Finished => return,
        };
        if over {
            self.stage = match self.stage {
                Stage::Inherits => Stage::Waits,
                _ => Stage::Finished,
            };
            return;
        }
        self.rest = self.shard.rest();
        self.shard.ring_mut().submit();
    }
}
