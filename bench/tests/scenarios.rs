//! The scenarios against a server that behaves, and against servers that do not.

mod fake;

use dispatchd_bench::report::{Progress, Run};
use dispatchd_bench::scenarios::{handshakes, heartbeats, idle, offers};
use fake::Manner;

const OFFERS: offers::Options = offers::Options {
    drivers: 40,
    rate: 200,
    secs: 1.0,
    warmup_secs: 0.1,
    decline_percent: 20,
    think_ms: 1,
    trip_leg_ms: 5,
    cycles: 200,
    in_flight: 16,
    http_connections: 2,
};

fn value(run: &Run, name: &str) -> f64 {
    run.value(name).unwrap_or_else(|| panic!("figure {name} is missing"))
}

#[test]
fn offers_counts_every_cycle_decline_and_trip() {
    let (run, sizes) = offers::load(fake::start(Manner::Good), &OFFERS, &Progress::hidden()).unwrap();
    assert!(run.faults.is_empty(), "{:?}", run.faults);
    for figure in [
        "post_to_202_p99",
        "post_to_offer_p99",
        "decline_to_offer_p99",
        "accept_to_confirmed_p99",
        "cycle_cpu_us",
        "trip_cpu_us",
        "cycles_per_s",
    ] {
        assert!(value(&run, figure) > 0.0, "{figure}");
    }
    assert!(value(&run, "open_declines") > 0.0);
    assert!(
        sizes.post > 300 && sizes.accepted > 100 && sizes.offer > 100 && sizes.confirmed > 80,
        "{sizes:?}"
    );
}

#[test]
fn offers_is_invalid_when_a_confirmation_is_doubled() {
    let (run, _) = offers::load(fake::start(Manner::ConfirmsTwice), &OFFERS, &Progress::hidden()).unwrap();
    assert!(run.faults.count("stray or second CONFIRMED") > 0, "{:?}", run.faults);
}

#[test]
fn offers_is_invalid_when_posts_are_refused() {
    let (run, _) = offers::load(fake::start(Manner::Overloaded), &OFFERS, &Progress::hidden()).unwrap();
    assert!(run.faults.count("POST not accepted") > 0, "{:?}", run.faults);
}

#[test]
fn heartbeats_hears_a_pong_for_every_ping() {
    let options = heartbeats::Options {
        drivers: 20,
        rate: 500,
        in_flight: 8,
        secs: 0.5,
        warmup_secs: 0.1,
    };
    let run = heartbeats::load(fake::start(Manner::Good), &options, &Progress::hidden()).unwrap();
    assert!(run.faults.is_empty(), "{:?}", run.faults);
    assert!(value(&run, "heartbeat_cpu_us") > 0.0 && value(&run, "open_p99") > 0.0);
    assert!(value(&run, "pong_bytes") > 20.0);
}

#[test]
fn handshakes_end_with_a_close_from_both_sides() {
    let options = handshakes::Options {
        in_flight: 8,
        drivers: 20,
        secs: 0.5,
        warmup_secs: 0.1,
    };
    let run = handshakes::load(fake::start(Manner::Good), &options, &Progress::hidden()).unwrap();
    assert!(run.faults.is_empty(), "{:?}", run.faults);
    assert!(value(&run, "handshakes_per_s") > 0.0 && value(&run, "handshake_cpu_us") > 0.0);
    assert!(value(&run, "answer_bytes") > 150.0);
}

#[test]
fn idle_reads_the_servers_own_count_of_its_memory() {
    let run = idle::load(
        fake::start(Manner::Good),
        &idle::Options { drivers: 50 },
        &Progress::hidden(),
    )
    .unwrap();
    assert!(run.faults.is_empty(), "{:?}", run.faults);
    assert!((value(&run, "allocated_per_driver") - 200.0).abs() < 0.1);
    assert!((value(&run, "allocated_before") - 1000.0).abs() < 0.1);
}
