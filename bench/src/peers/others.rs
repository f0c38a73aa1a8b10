//! How long other processes ran on the two cores while something was measured, those of the machine's own and the kernel's threads included.
//!
//! Each of them is a stall of some milliseconds that says nothing of a server: what runs in the kernel is not preempted by whoever wakes
//! up. So what they disturbed is measured again. Not seen are processes that begin and end meanwhile, and a hypervisor that takes the core.
//!
//! Only for loads that leave the cores mostly idle: at saturation the kernel's threads do some of a server's own work.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;

use crate::server::Cores;

/// Time that they may run, % of the measured time: what a 99th percentile leaves out.
pub(super) const PERCENT_MAX: f64 = 1.0;
/// Times that something is measured at most until they run no longer than that.
pub(super) const TRIES: usize = 5;

/// What was measured, and what others ran meanwhile.
pub(super) struct Quiet<T> {
    pub(super) value: T,
    /// % of the measured time; not a number where the kernel does not count (`CONFIG_SCHED_INFO`).
    pub(super) others_percent: f64,
    /// Times that it was measured.
    pub(super) tries: usize,
}

/// Prepares and measures, at most so often, until the machine leaves it alone; the quietest of all tries if it never does. `read` reads
/// the time of others, who run in all of `measure`, of which `measured_s` count.
///
/// # Errors
/// The first of `prepare` and `measure`.
pub(super) fn quietest<C, T>(
    most: usize,
    measured_s: f64,
    context: &mut C,
    mut read: impl FnMut(&C) -> Others,
    mut prepare: impl FnMut(&mut C) -> io::Result<()>,
    mut measure: impl FnMut(&mut C) -> io::Result<T>,
) -> io::Result<Quiet<T>> {
    let mut best: Option<Quiet<T>> = None;
    for tries in 1..=most {
        prepare(context)?;
        let before = read(context);
        let value = measure(context)?;
        let ran_ns = read(context).ran_ns_since(&before);
        let others_percent = ran_ns.map_or(f64::NAN, |ran_ns| ran_ns as f64 / (measured_s * 1e7));
        let quiet = match best.take() {
            Some(best) if best.others_percent <= others_percent => best,
            _ => Quiet {
                value,
                others_percent,
                tries,
            },
        };
        best = Some(Quiet { tries, ..quiet });
        if others_percent.is_nan() || others_percent <= PERCENT_MAX {
            break;
        }
    }
    best.ok_or_else(|| io::Error::other("it is tried at least once"))
}

/// The running time so far of each thread that is not of the processes left out, ns.
#[derive(Default)]
pub(super) struct Others(HashMap<u32, u64>);

impl Others {
    /// Now, of threads that were last on one of these cores.
    pub(super) fn than(left_out: &[u32], cores: Cores) -> Self {
        let cores = [cores.server, cores.client];
        let others = numbers(Path::new("/proc")).filter(|process| !left_out.contains(process));
        let threads = others.flat_map(|process| {
            let tasks = format!("/proc/{process}/task");
            let read = |thread: &u32, file| fs::read_to_string(format!("{tasks}/{thread}/{file}")).ok();
            numbers(Path::new(&tasks))
                .filter(|thread| {
                    let core = read(thread, "stat").and_then(|stat| last_core(&stat));
                    core.is_none_or(|core| cores.contains(&core))
                })
                .filter_map(|thread| Some((thread, ran_ns(&read(&thread, "schedstat")?)?)))
                .collect::<Vec<_>>()
        });
        Self(threads.collect())
    }

    /// How long they have run since `before`, ns. Who has come since is counted whole, who has gone is not. `None`: the kernel does not count.
    fn ran_ns_since(&self, before: &Self) -> Option<u64> {
        let ran = |(thread, now): (&u32, &u64)| now.saturating_sub(before.0.get(thread).copied().unwrap_or(0));
        (!self.0.is_empty()).then(|| self.0.iter().map(ran).sum())
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

/// Field 39 of a `stat` file (proc(5)): the core that the thread ran on last. Its name, in parentheses, may hold anything.
fn last_core(stat: &str) -> Option<usize> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    behind_name.split_whitespace().nth(39 - 3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The result of tries during which others ran so many ms of 100, and how many of them there were.
    fn tried(most: usize, ran_ms: &[u64]) -> (usize, f64, usize) {
        let mut at_ns = 0;
        let mut readings = ran_ms.iter().flat_map(|ran| {
            let before = at_ns;
            at_ns += ran * 1_000_000;
            [before, at_ns]
        });
        let mut counts = (0, 0);
        let quiet = quietest(
            most,
            0.1,
            &mut counts,
            |_| Others(HashMap::from([(1, readings.next().expect("no more tries than told"))])),
            |counts| {
                counts.0 += 1;
                Ok(())
            },
            |counts| {
                counts.1 += 1;
                Ok(counts.1)
            },
        );
        let quiet = quiet.unwrap();
        assert_eq!((counts.0, counts.1), (quiet.tries, quiet.tries), "each is prepared");
        (quiet.value, quiet.others_percent, quiet.tries)
    }

    #[test]
    fn what_is_disturbed_is_measured_again() {
        assert_eq!(tried(5, &[1]), (1, 1.0, 1));
        assert_eq!(tried(5, &[9, 7, 0]), (3, 0.0, 3));
        assert_eq!(tried(3, &[9, 7, 8]), (2, 7.0, 3), "the quietest");
        assert_eq!(tried(1, &[9]), (1, 9.0, 1));
    }

    #[test]
    fn where_nothing_is_counted_nothing_is_measured_again() {
        let quiet = quietest(5, 0.1, &mut (), |()| Others::default(), |()| Ok(()), |()| Ok(7)).unwrap();
        assert!(quiet.others_percent.is_nan() && (quiet.value, quiet.tries) == (7, 1));
    }

    #[test]
    fn a_process_that_is_left_out_is_not_counted() {
        let own = std::process::id();
        let core = |index| Cores {
            server: index,
            client: index,
            allowed: 1,
        };
        let all = Others::than(&[], Cores::choose().unwrap());
        assert!(!Others::than(&[own], Cores::choose().unwrap()).0.contains_key(&own));
        assert!(!all.0.is_empty());
        assert!(Others::than(&[], core(usize::MAX)).0.is_empty(), "no thread is there");
    }

    #[test]
    fn time_counts_from_before_and_newcomers_whole() {
        let before = Others(HashMap::from([(1, 100), (2, 50)]));
        let after = Others(HashMap::from([(1, 130), (3, 7)]));
        assert_eq!(after.ran_ns_since(&before), Some(37));
        assert_eq!(ran_ns("29855088 66460053 605\n"), Some(29_855_088));
        assert_eq!(ran_ns(""), None);
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 3 0 0";
        assert_eq!(last_core(stat), Some(3));
    }
}
