//! The commands: running many seeds, and showing a failure so that a person can read it.

use crate::checks::{About, Check, Counts, Violation};
use crate::fleets;
use crate::run::{self, Outcome};
use crate::shrink::{self, Path, Shrunk};
use crate::swarm::Case;
use crate::witness::{Line, VIOLATION};
use crate::world::outside;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Seeds that once found something, and are run first.
const REGRESSIONS: &str = include_str!("../seeds.txt");
/// How often a run says how far it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(30);

/// What `run` is asked for.
#[derive(Clone, Debug)]
pub struct Run {
    /// First and last seed.
    pub seeds: (u64, u64),
    /// Threads.
    pub jobs: usize,
    /// Whether to go on after a failure.
    pub keep_going: bool,
    /// Whether to run each seed once only.
    pub once: bool,
    /// Whether to run the regression list first.
    pub regressions: bool,
    /// Seconds for shrinking.
    pub shrink_s: u64,
}

#[derive(Debug, Default)]
struct Totals {
    seeds: u64,
    runs: u64,
    requests: u64,
    calls: u64,
    messages: u64,
    steps: u64,
    faults: BTreeMap<&'static str, u64>,
    reached: BTreeMap<&'static str, u64>,
    counts: Counts,
    failures: Vec<(u64, Violation)>,
    /// When it was said last how far the run is.
    shown_at: Duration,
}

/// So many seeds make every check.
const SEEDS_ENOUGH: u64 = 30;

/// Seeds of one run at most: weeks.
const SEEDS_MAX: u64 = 10_000_000;

/// Reads `1..200` or `7`.
///
/// # Errors
/// When it is neither; says what is allowed.
pub fn parse_range(text: &str) -> Result<(u64, u64), String> {
    let (from, to) = text.split_once("..").unwrap_or((text, text));
    let (from, to) = (from.parse(), to.trim_start_matches('=').parse());
    match (from, to) {
        (Ok(from), Ok(to)) if from <= to && to - from < SEEDS_MAX => Ok((from, to)),
        _ => Err(format!(
            "allowed: FIRST..LAST, both included, such as 1..200, or one seed, such as 7; {SEEDS_MAX} at most"
        )),
    }
}

/// Seeds of the regression list.
fn regressions() -> impl Iterator<Item = u64> {
    REGRESSIONS
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter_map(|word| word.parse().ok())
}

/// Runs seeds and prints what they were; whether all held.
///
/// # Panics
/// When a thread of it did: our bug.
pub fn run(asked: &Run) -> bool {
    quiet_panics();
    let begun = Instant::now();
    let cpu = cpu_s();
    let seeds: Vec<u64> = regressions()
        .filter(|_| asked.regressions)
        .chain(asked.seeds.0..=asked.seeds.1)
        .collect();
    if asked.regressions {
        eprintln!("{} seeds of the list first", regressions().count());
    }
    let next = Mutex::new(seeds.iter());
    let totals = Mutex::new(Totals::default());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..asked.jobs.max(1) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let Some(&seed) = next.lock().expect("no thread panics with it").next() else {
                        return;
                    };
                    let outcome = run_seed(seed, asked.once);
                    let failed = outcome.violation.is_some();
                    if let Some(violation) = &outcome.violation {
                        println!("FAILED seed {seed}: {}: {}", violation.check.as_str(), violation.text);
                    }
                    let runs = if asked.once { 1 } else { 2 };
                    let mut totals = totals.lock().expect("no thread panics with it");
                    add(&mut totals, seed, runs, outcome);
                    show_progress(&mut totals, seeds.len(), begun.elapsed());
                    drop(totals);
                    if failed && !asked.keep_going {
                        stop.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let mut totals = totals.into_inner().expect("no thread panics with it");
    totals.failures.sort_by_key(|failure| failure.0);
    print_totals(&totals, begun.elapsed(), cpu_s() - cpu);
    let failures = &totals.failures;
    if failures.is_empty()
        && let Some(check) = never_made(&totals, asked.once, asked.seeds.0 >= fleets::FIRST_SEED)
    {
        println!("FAILED seed {}: never checked: {}", asked.seeds.0, check.as_str());
        return false;
    }
    if let Some((seed, violation)) = failures.first() {
        show_shrunk(*seed, violation, Duration::from_secs(asked.shrink_s));
    }
    failures.is_empty()
}

/// A check that so many seeds must have made, and did not: what holds then says nothing.
fn never_made(totals: &Totals, once: bool, are_fleets: bool) -> Option<Check> {
    let is_spared = |check: Check| match check {
        Check::Repeats => once,
        // One node's: between two there is no order.
        Check::ClassOrder => are_fleets,
        _ => false,
    };
    let is_made = |check: &&Check| totals.counts.of(**check) > 0 || is_spared(**check);
    let missing = Check::ALL.iter().find(|check| !is_made(check)).copied();
    missing.filter(|_| totals.seeds >= SEEDS_ENOUGH)
}

/// Says on standard error now and then how far a run is.
fn show_progress(totals: &mut Totals, seeds: usize, elapsed: Duration) {
    if elapsed >= totals.shown_at + PROGRESS_EVERY {
        totals.shown_at = elapsed;
        let failed = totals.failures.len();
        let a_minute = totals.seeds as f64 * 60.0 / elapsed.as_secs_f64();
        eprintln!(
            "{} of {seeds} seeds ({a_minute:.0} a minute), {failed} failed",
            totals.seeds
        );
    }
}

fn add(totals: &mut Totals, seed: u64, runs: u64, outcome: Outcome) {
    totals.seeds += 1;
    totals.runs += runs;
    totals.requests += runs * outcome.requests;
    totals.calls += runs * outcome.calls;
    totals.messages += runs * outcome.messages;
    totals.steps += runs * outcome.summary.steps;
    for (name, count) in outcome.summary.faults {
        *totals.faults.entry(name).or_default() += count;
    }
    let shifts_over = ("shifts off whose memory ended", outcome.shifts_over);
    for (name, count) in outcome.summary.reached.into_iter().chain([shifts_over]) {
        *totals.reached.entry(name).or_default() += count;
    }
    totals.counts.add_all(&outcome.counts);
    if let Some(violation) = outcome.violation {
        totals.failures.push((seed, violation));
    }
}

fn print_totals(totals: &Totals, elapsed: Duration, cpu_s: f64) {
    let elapsed_s = elapsed.as_secs_f64().max(1e-9);
    let per_cpu = |count: u64| count as f64 / cpu_s.max(1e-3);
    println!(
        "{} seeds ({} runs) in {elapsed_s:.1} s ({:.0} a minute), {cpu_s:.1} s of CPU, {} failed",
        totals.seeds,
        totals.runs,
        totals.seeds as f64 * 60.0 / elapsed_s,
        totals.failures.len()
    );
    println!(
        "{} dispatch requests, {} HTTP calls, {} driver messages, {} steps of the node",
        totals.requests, totals.calls, totals.messages, totals.steps
    );
    println!(
        "a second of CPU: {:.0} simulated requests (calls and messages), of them {:.0} dispatch requests",
        per_cpu(totals.calls + totals.messages),
        per_cpu(totals.requests)
    );
    println!("faults:");
    for (name, count) in &totals.faults {
        println!("  {count:>9}  {name}");
    }
    println!("limits met:");
    for (name, count) in &totals.reached {
        println!("  {count:>9}  {name}");
    }
    println!("checks:");
    for check in Check::ALL {
        println!("  {:>9}  {}", totals.counts.of(*check), check.as_str());
    }
}

/// Runs one seed, or what a path makes of it, and prints its case and the timeline; whether it held.
pub fn repeat(seed: u64, shrunk: &Path, all: bool) -> bool {
    quiet_panics();
    let Some(case) = shrunk.follow(&Case::draw(seed)) else {
        println!("seed {seed} cannot be shrunk by {shrunk}: that was found by another version of the simulator");
        return false;
    };
    let outcome = run::once(&case, true);
    let about = outcome
        .violation
        .as_ref()
        .map_or_else(About::default, |found| found.about);
    print_case(&case);
    print_lines(&outcome.lines, about, all);
    match &outcome.violation {
        None => {
            if !all {
                println!(
                    "nothing failed, so this is what the node did and what is about nobody; --all for what the clients did"
                );
            }
            let again = run::twice(&case);
            println!("seed {seed} holds; digest {:#x}", outcome.summary.digest);
            if let Some(found) = &again.violation {
                println!("seed {seed}: {}", found.text);
            }
            again.violation.is_none()
        }
        Some(found) => {
            print_violation(seed, shrunk, found);
            false
        }
    }
}

/// Shrinks a seed; whether it held after all.
pub fn shrink(seed: u64, seconds: u64) -> bool {
    quiet_panics();
    match run::twice(&Case::draw(seed)).violation {
        None => {
            println!("seed {seed} holds");
            true
        }
        Some(found) => {
            show_shrunk(seed, &found, Duration::from_secs(seconds));
            false
        }
    }
}

fn show_shrunk(seed: u64, violation: &Violation, most: Duration) {
    let case = Case::draw(seed);
    let Shrunk {
        case: small,
        path,
        tried,
    } = if violation.check == Check::Repeats || most.is_zero() {
        Shrunk {
            case,
            path: Path::default(),
            tried: 0,
        }
    } else {
        shrink::shrink(&case, violation.check, most)
    };
    eprintln!("once more, for its timeline");
    let outcome = run::once(&small, true);
    let found = outcome.violation.as_ref().unwrap_or(violation);
    println!("--- timeline of seed {seed}, shrunk in {tried} steps");
    print_case(&small);
    print_lines(&outcome.lines, found.about, false);
    print_violation(seed, &path, found);
}

/// What a case is, and how its timeline is read.
fn print_case(case: &Case) {
    let (plan, config) = (&case.plan, &case.plan.config);
    if plan.nodes() > 1 {
        println!("a fleet of {} nodes", plan.nodes());
    }
    println!(
        "{} shards; {} drivers; {} callers with {} requests each; {} consumers with a name, {} without; open for {} s",
        config.shards,
        case.drivers,
        case.callers,
        case.habits.requests,
        case.consumers_named,
        case.consumers,
        case.hours.close_us / 1_000_000,
    );
    println!(
        "settings: offer_timeout_ms {}, deadline_ms {}, heartbeat_ms {}, driver_ttl_ms {}, drain_ms {}, \
         ingress_age_step_ms {}, ingress_queue_max {}, http_pipeline_max {}, journal_segment_bytes {}; commits of {} bytes at most",
        config.offer_timeout_ms,
        config.deadline_ms,
        config.heartbeat_ms,
        config.driver_ttl_ms,
        config.drain_ms,
        config.ingress_age_step_ms,
        config.ingress_queue_max,
        config.http_pipeline_max,
        config.journal_segment_bytes,
        plan.commit_bytes_max,
    );
    println!("{:?}\n{:?}", plan.network, plan.pace);
    println!("{:?}\n{:?}", case.habits, case.temper);
    println!("faults, until {}:", time(plan.faults_over_us));
    for (at_us, fault) in &plan.faults {
        println!("{}  {fault:?}", time(*at_us));
    }
    println!(
        "timeline, in simulated seconds; d3 is a driver, {}3 in what is sent, r7 a request, {}7 there, r7#2 its second attempt:",
        case.style.driver, case.style.request
    );
}

fn print_violation(seed: u64, shrunk: &Path, found: &Violation) {
    println!("seed {seed} fails at {}: {}", time(found.at_us), found.check.as_str());
    println!("  {}", found.text);
    let by = if shrunk.is_empty() {
        String::new()
    } else {
        format!(" --shrunk {shrunk}")
    };
    println!("  again: cargo run --profile sim -p dispatchd-sim -- repeat {seed}{by}");
}

fn print_lines(lines: &[Line], about: About, all: bool) {
    let of_interest = |line: &&Line| {
        // What is about nobody, such as reading events, belongs here when the failure is about nobody either.
        let node = line.of_node || (line.about == About::default() && about == About::default());
        let request = line.about.request.is_some() && [about.request, about.other].contains(&line.about.request);
        let driver = line.about.driver.is_some() && line.about.driver == about.driver && line.about.request.is_none();
        all || node || request || driver
    };
    for line in lines.iter().filter(of_interest) {
        println!("{}  {}", time(line.at_us), line.text);
        if line.text.starts_with(VIOLATION) && !all {
            break;
        }
    }
}

fn time(at_us: u64) -> String {
    format!("{:>5}.{:06}", at_us / 1_000_000, at_us % 1_000_000)
}

/// The world catches the node's panics and reports them; what they print would only be noise. Those of the simulator
/// itself are printed.
fn quiet_panics() {
    let loud = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if outside::is_node() {
            outside::note_place(panic);
        } else {
            loud(panic);
        }
    }));
}

/// Runs a seed; whose panic it was that ended the simulator is said.
fn run_seed(seed: u64, once: bool) -> Outcome {
    let case = Case::draw(seed);
    let run = || {
        if once {
            run::once(&case, false)
        } else {
            run::twice(&case)
        }
    };
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|payload| {
        eprintln!("seed {seed}: the simulator itself panicked");
        resume_unwind(payload)
    })
}

/// CPU time of this process so far, seconds.
fn cpu_s() -> f64 {
    const TICKS_PER_S: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // After the command's name, which may hold blanks: utime and stime are the 12th and 13th fields (proc(5)).
    let fields = stat.rsplit_once(')').map_or("", |parts| parts.1);
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    ticks as f64 / TICKS_PER_S
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        assert_eq!(parse_range("1..200"), Ok((1, 200)));
        assert_eq!(parse_range("7"), Ok((7, 7)));
        for bad in ["9..1", "x", "1..", "..7", "", "-1"] {
            let error = parse_range(bad).unwrap_err();
            assert!(error.contains("such as 1..200"), "{bad}: {error}");
        }
    }

    #[test]
    fn the_list_of_regressions_is_one() {
        let lines = REGRESSIONS
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        assert_eq!(lines.count(), regressions().count());
    }
}
