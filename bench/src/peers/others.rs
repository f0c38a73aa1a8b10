//! How long other processes ran while something was measured, those of the machine's own and the kernel's threads included.
//!
//! On the cores of what is measured each of them is a stall of some milliseconds that says nothing of a server: what runs in the kernel
//! is not preempted by whoever wakes up. So what they disturbed is measured again.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;

use crate::measure::Clock;

/// Time that they may run, % of a core: what a 99th percentile leaves out.
const PERCENT_MAX: f64 = 1.0;
/// Times that something is measured at most until they run no longer than that.
const TRIES: usize = 5;

/// What was measured, and what others ran meanwhile.
pub(super) struct Quiet<T> {
    pub(super) value: T,
    /// % of a core.
    pub(super) others_percent: f64,
}

/// Prepares and measures until the machine leaves it alone; the quietest of all tries if it never does. `own`: the processes that are no others.
///
/// # Errors
/// The first of `prepare` and `measure`.
pub(super) fn quietest<C, T>(
    own: &[u32],
    context: &mut C,
    mut prepare: impl FnMut(&mut C) -> io::Result<()>,
    mut measure: impl FnMut(&mut C) -> io::Result<T>,
) -> io::Result<Quiet<T>> {
    let mut best: Option<Quiet<T>> = None;
    for _ in 0..TRIES {
        prepare(context)?;
        let (before, clock) = (Others::than(own), Clock::start());
        let value = measure(context)?;
        let (elapsed_ns, after) = (clock.now_ns(), Others::than(own));
        let others_percent = 100.0 * after.ran_ns_since(&before) as f64 / elapsed_ns as f64;
        if best.as_ref().is_none_or(|best| others_percent < best.others_percent) {
            best = Some(Quiet { value, others_percent });
        }
        if others_percent <= PERCENT_MAX {
            break;
        }
    }
    best.ok_or_else(|| io::Error::other("it is tried at least once"))
}

/// The running time so far of each thread that is not of the processes left out, ns.
struct Others(HashMap<u32, u64>);

impl Others {
    /// Now. Threads that end meanwhile are left out, and all are where the kernel does not count (`CONFIG_SCHED_INFO`).
    fn than(left_out: &[u32]) -> Self {
        let others = numbers(Path::new("/proc")).filter(|process| !left_out.contains(process));
        let threads = others.flat_map(|process| {
            let tasks = format!("/proc/{process}/task");
            numbers(Path::new(&tasks))
                .filter_map(|thread| {
                    let line = fs::read_to_string(format!("{tasks}/{thread}/schedstat")).ok()?;
                    Some((thread, ran_ns(&line)?))
                })
                .collect::<Vec<_>>()
        });
        Self(threads.collect())
    }

    /// How long they have run since `before`, ns. Who has come since is counted, who has gone is not.
    fn ran_ns_since(&self, before: &Self) -> u64 {
        let ran = |(thread, now): (&u32, &u64)| now.saturating_sub(before.0.get(thread).copied().unwrap_or(0));
        self.0.iter().map(ran).sum()
    }
}

/// The entries of a directory that are numbers.
fn numbers(directory: &Path) -> impl Iterator<Item = u32> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The first number of a `schedstat` file (proc(5)): time spent on a core, ns.
fn ran_ns(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_quiet_is_not_measured_again() {
        // Whatever runs on this machine, nobody is left over whose time would count.
        let everybody: Vec<u32> = numbers(Path::new("/proc")).collect();
        let mut times = (0, 0);
        let quiet = quietest(
            &everybody,
            &mut times,
            |times| {
                times.0 += 1;
                Ok(())
            },
            |times| {
                times.1 += 1;
                std::thread::sleep(std::time::Duration::from_millis(20));
                Ok(times.1)
            },
        );
        let quiet = quiet.unwrap();
        assert!((1..=TRIES).contains(&times.0) && times.0 == times.1, "{times:?}");
        assert!(quiet.value <= times.1 && (quiet.others_percent > PERCENT_MAX || quiet.value == times.1));
    }

    #[test]
    fn a_process_that_is_left_out_is_not_counted() {
        let own = std::process::id();
        let (all, others) = (Others::than(&[]), Others::than(&[own]));
        assert!(all.0.contains_key(&own) && !others.0.contains_key(&own));
    }

    #[test]
    fn time_counts_from_before_and_newcomers_whole() {
        let before = Others(HashMap::from([(1, 100), (2, 50)]));
        let after = Others(HashMap::from([(1, 130), (3, 7)]));
        assert_eq!(after.ran_ns_since(&before), 37);
        assert_eq!(ran_ns("29855088 66460053 605\n"), Some(29_855_088));
        assert_eq!(ran_ns(""), None);
    }
}
