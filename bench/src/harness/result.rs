//! From what a run gave to figures and charts.
#![forbid(unsafe_code)]

use super::sample::Sample;
use super::scenario::{FaultKind, Scenario};
use super::stage::{Moment, Story};
use super::tally::{Counts, LATENCIES, Latency};
use crate::chart::{Chart, Shape, percentiles};
use crate::measure::Latencies;
use crate::report::Run;

const MB: f64 = 1e6;

/// The run as it is reported.
pub fn run(scenario: &Scenario, story: Story) -> Run {
    let mut run = Run::default();
    let samples = continued(&story.samples);
    let mut start_s = 0.0;
    for phase in &scenario.phase {
        let end_s = start_s + phase.secs;
        phase_costs(
            &mut run,
            scenario,
            &phase.name,
            window(&samples, start_s, end_s).as_ref(),
            &story,
        );
        phase_latencies(&mut run, &phase.name, &story.moments, start_s, end_s);
        start_s = end_s;
    }
    let counts = story
        .moments
        .last()
        .map_or_else(Counts::default, |moment| moment.counts);
    for (name, count) in [
        ("posted", counts.posted),
        ("confirmed", counts.confirmed),
        ("declined", counts.declined),
        ("revoked", counts.revoked),
        ("refused", counts.refused),
        ("repeated", counts.repeated),
        ("given_up", counts.given_up),
        ("nobody_free", counts.nobody_free),
        ("connections_lost", counts.lost),
        ("heartbeat_lost", counts.heartbeat_lost),
        ("audited", story.audited),
    ] {
        run.add(name, "", count as f64);
    }
    run.add("connect_s", "s", story.connect_s);
    let reconnects = merged(&story.moments, Latency::Welcome);
    run.add("reconnect_p99", "ms", reconnects.quantile_ms(0.99));
    run.charts = charts(scenario, &samples, &story);
    run.faults = story.faults;
    run
}

/// Samples whose counters go on over a restart of the node, which begins at zero.
fn continued(samples: &[Sample]) -> Vec<Sample> {
    let mut result: Vec<Sample> = Vec::with_capacity(samples.len());
    let mut bases = [0.0; 5];
    let mut last = [0.0; 5];
    for sample in samples {
        let mut sample = *sample;
        let counters = [
            &mut sample.cpu_s,
            &mut sample.user_s,
            &mut sample.system_s,
            &mut sample.disk,
            &mut sample.commits,
        ];
        for ((counter, base), last) in counters.into_iter().zip(&mut bases).zip(&mut last) {
            // Not a number while the node is starting: as before.
            let value = if counter.is_nan() { *last } else { *counter };
            if value < *last {
                *base += *last;
            }
            *last = value;
            *counter = *base + value;
        }
        if sample.allocated.is_nan() {
            sample.allocated = result.last().map_or(0.0, |before| before.allocated);
        }
        result.push(sample);
    }
    result
}

/// The first and the last sample of a stretch of time; the first half second is left to what was before.
fn window(samples: &[Sample], start_s: f64, end_s: f64) -> Option<(Sample, Sample)> {
    let mut inside = samples
        .iter()
        .filter(|sample| (start_s + 0.5..=end_s).contains(&sample.at_s));
    let first = inside.next()?;
    Some((*first, *inside.next_back()?))
}

/// How many there were at a time between two moments, as if they had come evenly.
fn counted(moments: &[Moment], at_s: f64, count: fn(&Counts) -> u64) -> f64 {
    let next = moments.partition_point(|moment| moment.at_s < at_s);
    let (before_s, before) = match next.checked_sub(1).map(|index| &moments[index]) {
        Some(moment) => (moment.at_s, count(&moment.counts) as f64),
        None => (0.0, 0.0),
    };
    let Some(after) = moments.get(next) else { return before };
    let share = (at_s - before_s) / (after.at_s - before_s);
    before + share * (count(&after.counts) as f64 - before)
}

fn phase_costs(run: &mut Run, scenario: &Scenario, phase: &str, window: Option<&(Sample, Sample)>, story: &Story) {
    let Some((first, last)) = window else { return };
    let empty = &story.empty;
    let secs = last.at_s - first.at_s;
    let per_s = |field: fn(&Sample) -> f64| (field(last) - field(first)) / secs;
    let grown = |field: fn(&Sample) -> f64| field(last) - field(empty);
    let rate = |count: fn(&Counts) -> u64| {
        let at = |sample: &Sample| counted(&story.moments, sample.at_s, count);
        (at(last) - at(first)) / secs
    };
    let mut add = |name: &str, unit, value| run.add(format!("{phase}.{name}"), unit, value);
    add("drivers", "", last.connected);
    add("shards", "", f64::from(scenario.shards));
    add("heartbeats_per_s", "1/s", rate(|counts| counts.heartbeats));
    add("locations_per_s", "1/s", rate(|counts| counts.locations));
    add("offers_per_s", "1/s", rate(|counts| counts.posted));
    add("cpu_user", "cores", per_s(|sample| sample.user_s));
    add("cpu_system", "cores", per_s(|sample| sample.system_s));
    add("cpu", "cores", per_s(|sample| sample.cpu_s));
    add("load_cpu", "cores", per_s(|sample| sample.load_s));
    add("allocated", "B", last.allocated);
    add("anonymous", "B", last.anonymous);
    add("anonymous_empty", "B", empty.anonymous);
    add("slab_grown_both_ends", "B", grown(|sample| sample.slab));
    add("socket_objects_both_ends", "B", grown(|sample| sample.socket_objects));
    add("tcp_grown_both_ends", "B", grown(|sample| sample.tcp));
    add("network_per_s", "B/s", per_s(|sample| sample.network));
    add("disk_per_s", "B/s", per_s(|sample| sample.disk));
    add("commits_per_s", "1/s", per_s(|sample| sample.commits));
}

fn phase_latencies(run: &mut Run, phase: &str, moments: &[Moment], start_s: f64, end_s: f64) {
    let inside = |moment: &&Moment| moment.at_s > start_s + 0.01 && moment.at_s <= end_s + 0.01;
    for (index, name) in LATENCIES.iter().enumerate() {
        let mut all = Latencies::new();
        for moment in moments.iter().filter(inside) {
            all.add_sparse(&moment.latencies[index].sparse());
        }
        if all.count() == 0 {
            continue;
        }
        for (quantile, suffix) in [(0.5, "p50"), (0.99, "p99"), (0.999, "p999")] {
            run.add(format!("{phase}.{name}_{suffix}"), "ms", all.quantile_ms(quantile));
        }
        run.add(format!("{phase}.{name}_max"), "ms", all.max_ms());
    }
}

fn merged(moments: &[Moment], latency: Latency) -> Latencies {
    let mut all = Latencies::new();
    for moment in moments {
        all.add_sparse(&moment.latencies[latency as usize].sparse());
    }
    all
}

// ---- charts ------------------------------------------------------------------------------------------------------

fn charts(scenario: &Scenario, samples: &[Sample], story: &Story) -> Vec<Chart> {
    let quantile = |latency: Latency, quantile: f64| {
        let points = story
            .moments
            .iter()
            .map(move |moment| [moment.at_s, moment.latencies[latency as usize].quantile_ms(quantile)]);
        points.collect::<Vec<_>>()
    };
    let over_time = |title: &str, unit: &str, shape| marked(Chart::new(title, shape, "s", unit), scenario);
    let latency = over_time("POST to OFFER, over time", "ms", Shape::Lines)
        .log_y()
        .with("p50", quantile(Latency::Offer, 0.5))
        .with("p99", quantile(Latency::Offer, 0.99))
        .with("longest", quantile(Latency::Offer, 1.0));
    let confirm = over_time("ACCEPT to CONFIRMED, over time", "ms", Shape::Lines)
        .log_y()
        .with("p50", quantile(Latency::Confirmed, 0.5))
        .with("p99", quantile(Latency::Confirmed, 0.99))
        .with("longest", quantile(Latency::Confirmed, 1.0));
    let mut curve = Chart::new("Latencies of the whole run", Shape::Percentiles, "", "ms").log_y();
    for (name, latency) in [
        ("POST to 202", Latency::Accepted),
        ("POST to OFFER", Latency::Offer),
        ("DECLINE to next OFFER", Latency::NextOffer),
        ("ACCEPT to CONFIRMED", Latency::Confirmed),
        ("connect to WELCOME, reconnects", Latency::Welcome),
    ] {
        curve = curve.with(name, percentiles(&merged(&story.moments, latency)));
    }
    let rates = over_time("Per second", "1/s", Shape::Lines)
        .with("posted", rate(story, |counts| counts.posted))
        .with("confirmed", rate(story, |counts| counts.confirmed))
        .with("declined", rate(story, |counts| counts.declined))
        .with("revoked", rate(story, |counts| counts.revoked))
        .with(
            "refused or repeated",
            rate(story, |counts| counts.refused + counts.repeated),
        )
        .with("connections lost", rate(story, |counts| counts.lost));
    let drivers = over_time("Drivers connected", "drivers", Shape::Lines).with(
        "connected",
        samples.iter().map(|sample| [sample.at_s, sample.connected]),
    );
    vec![
        latency,
        curve,
        confirm,
        rates,
        memory(
            over_time(
                "Memory of the node, and of the kernel for both ends",
                "MB",
                Shape::Stack,
            ),
            samples,
            &story.empty,
        ),
        cpu(over_time("CPU", "cores", Shape::Stack), samples),
        drivers,
    ]
}

fn marked(mut chart: Chart, scenario: &Scenario) -> Chart {
    let mut start_s = 0.0;
    for phase in &scenario.phase {
        if start_s > 0.0 {
            chart = chart.mark(start_s, &phase.name);
        }
        start_s += phase.secs;
    }
    for fault in &scenario.fault {
        let what = match fault.kind {
            FaultKind::Kill => "kill -9",
            FaultKind::Drain => "drain",
            FaultKind::ReconnectStorm => "reconnect storm",
            FaultKind::Stall => "apps hang",
        };
        chart = chart.mark(fault.at_s, what);
    }
    chart
}

fn rate(story: &Story, count: fn(&Counts) -> u64) -> Vec<[f64; 2]> {
    let pairs = story.moments.windows(2).map(|two| {
        let grown = count(&two[1].counts).saturating_sub(count(&two[0].counts)) as f64;
        [two[1].at_s, grown / (two[1].at_s - two[0].at_s)]
    });
    pairs.collect()
}

fn memory(chart: Chart, samples: &[Sample], empty: &Sample) -> Chart {
    let points = |value: &dyn Fn(&Sample) -> f64| -> Vec<[f64; 2]> {
        samples
            .iter()
            .map(|sample| [sample.at_s, value(sample).max(0.0) / MB])
            .collect()
    };
    chart
        .with("allocated", points(&|sample| sample.allocated))
        .with("other anonymous", points(&|sample| sample.anonymous - sample.allocated))
        .with("files and program", points(&|sample| sample.file))
        .with("kernel slab, growth", points(&|sample| sample.slab - empty.slab))
        .with("socket buffers, growth", points(&|sample| sample.tcp - empty.tcp))
}

fn cpu(chart: Chart, samples: &[Sample]) -> Chart {
    let points = |counter: fn(&Sample) -> f64| -> Vec<[f64; 2]> {
        let pairs = samples.windows(2).map(|two| {
            let share = (counter(&two[1]) - counter(&two[0])) / (two[1].at_s - two[0].at_s);
            [two[1].at_s, share.max(0.0)]
        });
        pairs.collect()
    };
    chart
        .with("node, user", points(|sample| sample.user_s))
        .with("node, kernel", points(|sample| sample.system_s))
        .with("load processes", points(|sample| sample.load_s))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_go_on_over_a_restart() {
        let sample = |at_s: f64, user_s: f64, commits: f64| Sample {
            at_s,
            user_s,
            commits,
            ..Sample::default()
        };
        let samples = [
            sample(0.0, 1.0, 10.0),
            sample(1.0, 2.0, 20.0),
            sample(2.0, 0.5, f64::NAN),
            sample(3.0, 1.5, 5.0),
        ];
        let all = continued(&samples);
        let user: Vec<f64> = all.iter().map(|sample| sample.user_s).collect();
        assert_eq!(user, [1.0, 2.0, 2.5, 3.5]);
        let commits: Vec<f64> = all.iter().map(|sample| sample.commits).collect();
        assert_eq!(commits, [10.0, 20.0, 20.0, 25.0]);
    }

    #[test]
    fn counts_between_two_moments_grow_evenly() {
        let moment = |at_s: f64, posted: u64| Moment {
            at_s,
            counts: Counts {
                posted,
                ..Counts::default()
            },
            latencies: Vec::new(),
        };
        let moments = [moment(0.5, 50), moment(1.0, 100), moment(1.5, 400)];
        for (at_s, expected) in [(0.0, 0.0), (0.25, 25.0), (1.0, 100.0), (1.25, 250.0), (9.0, 400.0)] {
            assert!(
                (counted(&moments, at_s, |counts| counts.posted) - expected).abs() < 1e-9,
                "{at_s}"
            );
        }
    }

    #[test]
    fn a_window_is_inside_its_phase() {
        let samples: Vec<Sample> = (0..10)
            .map(|at| Sample {
                at_s: f64::from(at),
                ..Sample::default()
            })
            .collect();
        let (first, last) = window(&samples, 2.0, 5.0).unwrap();
        assert_eq!((first.at_s, last.at_s), (3.0, 5.0));
        assert!(window(&samples, 20.0, 30.0).is_none());
    }
}
