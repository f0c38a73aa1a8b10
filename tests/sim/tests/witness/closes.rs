//! Sockets that are closed, or should be, a node that drains, and shifts whose memory ends.

use super::story::{CANCELLED, EVENT, RECORD, SENT, Story, TIMED_OUT, audit, judge, taken};
use dispatchd_sim::checks::Check;
use dispatchd_sim::client::NodeEvent;
use dispatchd_sim::codec::messages::{Heard, Say};
use dispatchd_sim::phrases::NO_REASON;
use dispatchd_sim::witness::{Ask, Expect};
use dispatchd_sim::words::{Class, DriverState};

#[test]
fn closes_without_a_cause() {
    for code in [1000, 1001, 1002, 1003, 1007, 1009, 1011, 1012, 4008] {
        let mut story = Story::new();
        story.go().socket_closing(0, 0, code, "retry_after_ms=1500");
        story.finds(Check::Caused);
    }
}

#[test]
fn closes_with_a_cause() {
    for code in [1002, 1003, 1007, 1009] {
        let mut story = Story::new();
        story.go().socket_violates(0, 0, code);
        story.go().socket_closing(0, 0, code, "whatever");
        story.is_good();

        let mut story = Story::new();
        story.go().socket_violates(0, 0, code);
        story.go().socket_closing(0, 0, 4008, "");
        story.finds(Check::Caused);
    }
    let mut story = Story::new();
    story.go().socket_quits(0, 0);
    story.go().socket_closing(0, 0, 1000, "");
    story.go().socket_stalled(1, 0);
    story.go().socket_closing(1, 0, 4008, "");
    story.go().node_event(0, NodeEvent::Draining);
    story.now_us += 500_000;
    story.go().socket_closing(2, 0, 1012, "retry_after_ms=1500");
    story.is_good();
    story.now_us += 500_000;
    story.go().socket_closing(3, 0, 1012, "");
    story.finds(Check::Caused);
}

/// A drain sends away who came before it ended, and nobody after the next start.
#[test]
fn a_drain_that_is_over() {
    let sent_away = |came_after: bool| {
        let mut story = Story::new();
        story.go().node_event(0, NodeEvent::Draining);
        story.go().node_event(0, NodeEvent::Drained);
        story.restart();
        let conn = u32::from(came_after);
        if came_after {
            story.connect(0, conn, 9, DriverState::Available, None);
        }
        story.go().socket_closing(0, conn, 1012, "retry_after_ms=1500");
        story
    };
    sent_away(false).is_good();
    sent_away(true).finds(Check::Caused);
}

#[test]
fn a_socket_that_should_have_been_closed() {
    let mut story = Story::new();
    story.go().socket_violates(0, 0, 1002);
    story.go().node_event(0, NodeEvent::FaultsOver);
    story.now_us += 10_000_000;
    story.asked(
        Ask::Cancel(0, NO_REASON),
        200,
        "{\"request_id\":\"r0\",\"state\":\"CANCELLED\"}",
    );
    story.last(&audit("CANCELLED", &[SENT, TIMED_OUT, CANCELLED]), RECORD, EVENT);
    story.finds(Check::Caused);

    let clogged = |for_us: u64| {
        let mut story = Story::new();
        story.go().socket_stalled(0, 0);
        story.go().socket_clogged(0, 0);
        story.now_us += for_us;
        story.go().socket_reads_again(0, 0);
        story.now_us += 10_000_000;
        story.say(0, Say::Ping);
        story
    };
    clogged(15_000_000).is_good();
    clogged(25_000_000).finds(Check::Caused);
}

#[test]
fn a_node_that_drains_and_takes_work() {
    let ready = "{\"status\":\"ready\"}";
    let mut story = Story::of(Expect {
        may_drain: true,
        ..Story::expect()
    });
    story.asked(Ask::Ready, 200, ready);
    story.go().node_event(0, NodeEvent::Draining);
    // It may not know yet.
    story.asked(Ask::Ready, 200, ready);
    story.now_us += 100_000;
    story.asked(Ask::Ready, 503, "{\"code\":\"draining\"}");
    story.is_good();
    story.asked(Ask::Ready, 200, ready);
    story.finds(Check::Drains);

    let mut story = Story::new();
    story.go().node_event(0, NodeEvent::Draining);
    story.now_us += 100_000;
    let call = story.post(Class::Standard, 1);
    story.answer(call, 202, &taken(1));
    story.finds(Check::Drains);

    let mut story = Story::new();
    story.asked(Ask::Alive, 200, "{\"status\":\"alive\"}");
    story.is_good();
    story.asked(Ask::Alive, 503, "{\"code\":\"not_durable\"}");
    story.finds(Check::Protocol);
}

#[test]
fn a_shift_whose_memory_ends() {
    // Off shift at 5 s, remembered for 60 s; back after so many seconds, in this state.
    for (after_s, state, is_good) in [
        (50, DriverState::Offline, true),
        (50, DriverState::Available, false),
        (70, DriverState::Available, true),
        (70, DriverState::Offline, false),
    ] {
        let mut story = Story::of(Expect {
            off_shift_memory_ms: 60_000,
            ..Story::expect()
        });
        story.say(0, Say::Shift(false));
        let (state_told, trip) = (DriverState::Offline, None);
        story.hear(
            0,
            Heard::State {
                state: state_told,
                trip,
            },
        );
        story.go().socket_over(0, 0, "dropped");
        story.now_us += after_s * 1_000_000;
        story.connect(0, 1, 9, state, None);
        if is_good {
            story.is_good();
        } else {
            assert!(story.witness.violation().is_some(), "{after_s} {state:?}");
        }
    }
}

/// The answer to an older word comes after the driver went off shift: the memory of that begins when it said so.
#[test]
fn a_shift_that_ends_behind_an_older_answer() {
    for (after_s, is_good) in [(70, true), (50, false)] {
        let mut story = Story::of(Expect {
            off_shift_memory_ms: 60_000,
            ..Story::expect()
        });
        story.say(0, Say::Shift(true));
        story.say(0, Say::Shift(false));
        let (state, trip) = (DriverState::Available, None);
        story.hear(0, Heard::State { state, trip });
        story.go().socket_over(0, 0, "dropped");
        story.connect(0, 1, 9, DriverState::Offline, None);
        story.go().socket_over(0, 1, "dropped");
        story.now_us += after_s * 1_000_000;
        story.connect(0, 2, 10, DriverState::Available, None);
        if is_good {
            story.is_good();
        } else {
            assert!(story.witness.violation().is_some());
        }
    }
}

/// A node that closes a socket says why, unless it ends; a reset may be the network's.
#[test]
fn sockets_that_end_without_a_word() {
    let left = |prepare: fn(&mut Story)| {
        let mut story = Story::new();
        prepare(&mut story);
        story.go().socket_left(0, 0);
        story
    };
    left(|_| ()).finds(Check::Caused);
    left(Story::restart).is_good();
    left(|story| story.go().socket_quits(0, 0)).is_good();
    left(|story| story.go().socket_stalled(0, 0)).is_good();
    for may_reset in [true, false] {
        let mut story = Story::of(Expect {
            may_reset,
            ..Story::expect()
        });
        story.go().socket_reset(0, 0);
        judge(&story, may_reset, Check::Caused);
    }
}

/// Who goes off shift hears so.
#[test]
fn off_shift_and_not_told() {
    for told in [true, false] {
        let mut story = Story::new();
        story.go().node_event(0, NodeEvent::FaultsOver);
        story.now_us += 1_500_000;
        story.say(0, Say::Shift(false));
        if told {
            let (state, trip) = (DriverState::Offline, None);
            story.hear(0, Heard::State { state, trip });
        }
        for _ in 0..6 {
            story.now_us += 1_500_000;
            story.say(0, Say::Ping);
        }
        story.say(0, Say::Shift(true));
        judge(&story, told, Check::Answered);
    }
}
