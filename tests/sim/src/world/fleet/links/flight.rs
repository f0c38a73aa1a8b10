//! Letters of one connection on their way, and their acknowledgements.

use super::{Connection, Life, RESEND_US};
use std::rc::Rc;

/// Lets the first letter on its way arrive when its time has come, and those behind it. What was sent arrives also when its sender
/// is gone.
pub(super) fn pump(sender: &Rc<Life>, peer: u16, connection: &Rc<Connection>) {
    let first_us = connection.flying.borrow().front().map(|(at_us, ..)| *at_us);
    let Some(first_us) = first_us.filter(|_| !connection.is_pumped.get()) else {
        return;
    };
    connection.is_pumped.set(true);
    let after_us = first_us.saturating_sub(sender.common.now_us());
    let (life, connection) = (Rc::clone(sender), Rc::clone(connection));
    sender.common.later(after_us, move || arrive(&life, peer, &connection));
}

fn arrive(sender: &Rc<Life>, peer: u16, connection: &Rc<Connection>) {
    let (common, to) = (&sender.common, &connection.to);
    // One that is over stays as if something arrived: nothing does any more.
    if !connection.open.get() {
        return;
    }
    if !to.alive.get() {
        let way_us = common.way_us(&common.links, common.plan.links_us);
        let is_it = Rc::clone(connection);
        return sender.later(way_us, move |life| {
            if is_it.open.get() {
                life.lost(peer);
            }
        });
    }
    let wait_us = if common.hears(sender.node, to.node) && to.is_attached() {
        common.paused_us(to.node)
    } else {
        RESEND_US
    };
    if wait_us > 0 {
        let (life, connection) = (Rc::clone(sender), Rc::clone(connection));
        return common.later(wait_us, move || arrive(&life, peer, &connection));
    }
    connection.is_pumped.set(false);
    let Some((_, seq, letter)) = connection.flying.borrow_mut().pop_front() else {
        return;
    };
    match to.counts(&sender.name, connection.number, seq) {
        None => return sender.lost_if_alive(peer),
        Some(true) => to.deliver(&sender.name, letter),
        Some(false) => {}
    }
    acknowledge(sender, peer, connection, seq);
    pump(sender, peer, connection);
}

impl Life {
    fn lost_if_alive(self: &Rc<Self>, peer: u16) {
        if self.alive.get() {
            self.lost(peer);
        }
    }
}

fn acknowledge(sender: &Rc<Life>, peer: u16, connection: &Rc<Connection>, seq: u64) {
    let common = &sender.common;
    let way_us = common.way_us(&common.links, common.plan.links_us);
    let connection = Rc::clone(connection);
    sender.later(way_us, move |life| {
        if !connection.open.get() {
            return;
        }
        if life.common.hears(connection.to.node, life.node) {
            life.acknowledged(peer, seq);
        } else {
            let again = Rc::clone(&connection);
            life.later(RESEND_US, move |life| acknowledge(life, peer, &again, seq));
        }
    });
}
