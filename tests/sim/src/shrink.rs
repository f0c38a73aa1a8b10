//! Makes a failing case smaller while the same check fails: fewer faults, fewer clients, fewer requests, less mischief, a
//! shorter run. Greedy, bounded in time. The steps that were taken are a path that leads there again without trying.

use crate::checks::Check;
use crate::plan::Network;
use crate::run;
use crate::swarm::Case;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// A smaller case, and how it was found.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The smallest that was found.
    pub case: Case,
    /// The way to it from the whole one: which of the possible steps was taken each time.
    pub path: Path,
    /// How many cases were tried.
    pub tried: u32,
}

/// A way from a case to a smaller one, written as `3.0.17`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(Vec<usize>);

impl Path {
    /// Whether it leads nowhere.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The case that it leads to from `case`; `None` when there is no such step, as after the steps have changed.
    pub fn follow(&self, case: &Case) -> Option<Case> {
        self.0
            .iter()
            .try_fold(case.clone(), |case, step| steps(&case).into_iter().nth(*step))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps: Vec<String> = self.0.iter().map(usize::to_string).collect();
        f.write_str(&steps.join("."))
    }
}

impl FromStr for Path {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let steps: Result<_, _> = text.split('.').map(str::parse).collect();
        let allowed =
            "allowed: the steps that a failure of this seed has printed behind --shrunk, such as 3.0.17; it is no file";
        steps.map(Self).map_err(|_| allowed.to_owned())
    }
}

/// Shrinks, for at most so long.
pub fn shrink(case: &Case, check: Check, most: Duration) -> Shrunk {
    let begun = Instant::now();
    let mut best = Shrunk {
        case: case.clone(),
        path: Path::default(),
        tried: 0,
    };
    loop {
        let mut better = false;
        for (step, smaller) in steps(&best.case).into_iter().enumerate() {
            if begun.elapsed() > most {
                return best;
            }
            best.tried += 1;
            let fails = run::once(&smaller, false)
                .violation
                .is_some_and(|found| found.check == check);
            if fails {
                best.case = smaller;
                best.path.0.push(step);
                better = true;
                break;
            }
        }
        if !better {
            return best;
        }
    }
}

/// Cases that are a little smaller, the biggest steps first.
fn steps(case: &Case) -> Vec<Case> {
    let mut all = Vec::new();
    let mut with = |change: &dyn Fn(&mut Case)| {
        let mut smaller = case.clone();
        change(&mut smaller);
        smaller.settle();
        all.push(smaller);
    };
    let count = case.plan.faults.len();
    if count > 1 {
        with(&|case| case.plan.faults.truncate(count / 2));
        with(&|case| {
            case.plan.faults.drain(..count / 2);
        });
    }
    for index in 0..count {
        with(&|case| {
            case.plan.faults.remove(index);
        });
    }
    if case.habits.requests > 1 {
        with(&|case| case.habits.requests /= 2);
        with(&|case| case.habits.requests -= 1);
    }
    if case.callers > 1 {
        with(&|case| case.callers = 1);
        with(&|case| case.callers -= 1);
    }
    if case.drivers > 1 {
        with(&|case| case.drivers = case.drivers.div_ceil(2));
        with(&|case| case.drivers -= 1);
    }
    if case.consumers_named > 0 {
        with(&|case| case.consumers_named = 0);
    }
    if case.plan.config.shards > 1 {
        with(&|case| case.plan.config.shards = 1);
        with(&|case| case.plan.config.shards -= 1);
    }
    if case.hours.close_us > 2_000_000 {
        with(&|case| case.hours.close_us /= 2);
    }
    calm_clients(case, &mut with);
    if case.plan.network.reset_permille + case.plan.network.hold_permille > 0 {
        with(&|case| {
            case.plan.network = Network {
                hold_permille: 0,
                reset_permille: 0,
                ..case.plan.network.clone()
            };
        });
    }
    if case.plan.network.piece_bytes_max < 65_536 {
        with(&|case| case.plan.network.piece_bytes_max = 65_536);
    }
    all
}

/// Takes a change to a case that may make it calmer.
type With<'a> = &'a mut dyn FnMut(&dyn Fn(&mut Case));

/// Without one kind of mischief each.
fn calm_clients(case: &Case, with: With<'_>) {
    type Knob = fn(&mut Case) -> &mut u32;
    let knobs: [Knob; 28] = [
        |case| &mut case.temper.by_http,
        |case| &mut case.temper.vanish,
        |case| &mut case.temper.double,
        |case| &mut case.temper.stray,
        |case| &mut case.temper.off_shift,
        |case| &mut case.temper.displace,
        |case| &mut case.temper.stall,
        |case| &mut case.temper.drop,
        |case| &mut case.temper.garbage,
        |case| &mut case.temper.silent,
        |case| &mut case.temper.violate,
        |case| &mut case.temper.clog,
        |case| &mut case.temper.babble,
        |case| &mut case.temper.give_up,
        |case| &mut case.habits.twins,
        |case| &mut case.habits.repeats,
        |case| &mut case.habits.cancels,
        |case| &mut case.habits.trip_cancels,
        |case| &mut case.habits.responses,
        |case| &mut case.habits.views,
        |case| &mut case.habits.probes,
        |case| &mut case.habits.welcomes,
        |case| &mut case.habits.resyncs,
        |case| &mut case.habits.rereads,
        |case| &mut case.habits.busy_wait,
        |case| &mut case.habits.parallel,
        |case| &mut case.habits.single,
        |case| &mut case.habits.rude,
    ];
    for knob in knobs {
        if *knob(&mut case.clone()) > 0 {
            with(&|case| *knob(case) = 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_to_the_same_case_again() {
        let whole = Case::draw(7);
        let mut case = whole.clone();
        let mut path = Path::default();
        for step in [2, 0, 5] {
            case = steps(&case).into_iter().nth(step).expect("a case of many steps");
            path.0.push(step);
        }
        let text = path.to_string();
        assert_eq!(text, "2.0.5");
        let again = text.parse::<Path>().expect("a path").follow(&whole);
        assert_eq!(format!("{:?}", again.expect("its steps")), format!("{case:?}"));
        assert_ne!(format!("{whole:?}"), format!("{case:?}"));
    }

    #[test]
    fn what_is_no_path_is_refused() {
        assert!("3.x".parse::<Path>().is_err());
        assert!(Path(vec![usize::MAX]).follow(&Case::draw(7)).is_none());
    }
}
