//! Every model, each in all its executions.

use dispatchd_rings::models::{inbox, mailbox, ring};

#[test]
fn a_ring_keeps_all_in_order() {
    ring::keeps_all_in_order();
}

#[test]
fn a_ring_drops_what_is_left() {
    ring::drops_what_is_left();
}

#[test]
fn a_mailbox_wakes_for_each_letter() {
    mailbox::wakes_for_each_letter();
}

#[test]
fn a_mailbox_wakes_for_what_overflowed() {
    mailbox::wakes_for_what_overflowed();
}

#[test]
fn a_mailbox_wakes_for_each_sender() {
    mailbox::wakes_for_each_sender();
}

#[test]
fn mailboxes_wake_on_both_sides() {
    mailbox::wakes_on_both_sides();
}

#[test]
fn an_inbox_wakes_for_each_answer() {
    inbox::wakes_for_each_answer();
}

#[test]
fn an_inbox_wakes_for_each_thread() {
    inbox::wakes_for_each_thread();
}

#[test]
fn a_handle_counts_what_waits() {
    inbox::counts_what_waits();
}
