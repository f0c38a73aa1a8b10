//! Runs a case, and runs it again to see that it repeats itself.

use crate::actors::{Auditor, Caller, Consumer, Driver};
use crate::checks::{About, Check, Counts, Violation};
use crate::client::Actor;
use crate::rng::Rng;
use crate::swarm::{Case, STREAM_ACTORS};
use crate::witness::{Line, Reporter, Shared, Witness};
use crate::world::{self, Summary};

/// What a run was.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The first check that did not hold.
    pub violation: Option<Violation>,
    /// How often each check was made.
    pub counts: Counts,
    /// Dispatch requests posted.
    pub requests: u64,
    /// HTTP calls made.
    pub calls: u64,
    /// Messages of drivers.
    pub messages: u64,
    /// Shifts off that were forgotten since their time was over.
    pub shifts_over: u64,
    /// What the world says.
    pub summary: Summary,
    /// The timeline, when it was wanted.
    pub lines: Vec<Line>,
}

/// Runs a case once.
pub fn once(case: &Case, trace: bool) -> Outcome {
    let witness = Witness::shared(case.expect(trace));
    let actors = cast(case, &witness);
    let summary = world::run(&case.plan, actors, &mut Reporter(witness.clone()));
    let mut witness = witness.borrow_mut();
    witness.at(case.plan.end_us);
    if let Some(bug) = &summary.bug {
        witness.broken(Check::NodeLives, About::default(), bug.clone());
    } else if !witness.is_audited() {
        witness.check_open_calls();
        witness.broken(
            Check::Answered,
            About::default(),
            "the auditor did not get all its answers",
        );
    }
    Outcome {
        violation: witness.violation().cloned(),
        counts: witness.counts().clone(),
        requests: witness.requests_posted(),
        calls: witness.calls_made(),
        messages: witness.messages(),
        shifts_over: witness.shifts_over(),
        lines: witness.lines().to_vec(),
        summary,
    }
}

/// Runs a case twice; a difference is a violation.
pub fn twice(case: &Case) -> Outcome {
    compare(once(case, false), &once(case, false))
}

/// The first of two runs of one case, with the violation that they differ if they do.
pub fn compare(mut first: Outcome, second: &Outcome) -> Outcome {
    first.counts.add(Check::Repeats);
    let same = first.summary == second.summary && first.violation == second.violation && first.calls == second.calls;
    if !same && first.violation.is_none() {
        first.violation = Some(Violation {
            check: Check::Repeats,
            at_us: 0,
            about: About::default(),
            text: format!(
                "two runs differ: digests {:#x} and {:#x}, steps {} and {}",
                first.summary.digest, second.summary.digest, first.summary.steps, second.summary.steps
            ),
        });
    }
    first
}

/// The actors of a case.
pub fn cast(case: &Case, witness: &Shared) -> Vec<Box<dyn Actor>> {
    let mut actors: Vec<Box<dyn Actor>> = Vec::new();
    let nodes = case.plan.nodes();
    // The stream of an actor does not hang on how many others there are, so that a shrunk run resembles the whole one.
    let rng = |kind: u64, number: u32| Rng::stream(case.seed, STREAM_ACTORS + kind * 1_000 + u64::from(number));
    for number in 0..case.drivers {
        let driver = Driver::new(number, witness.clone(), rng(0, number), case.hours, case.temper);
        actors.push(Box::new(driver));
    }
    for number in 0..case.callers {
        let (witness, rng) = (witness.clone(), rng(1, number));
        let caller = Caller::new(number, case.drivers, witness, rng, case.hours, case.habits);
        actors.push(Box::new(caller));
    }
    for number in 0..case.consumers_named {
        let node = (number % u32::from(nodes)) as u8;
        let consumer = Consumer::new(number, true, node, witness.clone(), rng(2, number), case.hours);
        actors.push(Box::new(consumer));
    }
    for number in 0..case.consumers {
        let node = ((number + 1) % u32::from(nodes)) as u8;
        let consumer = Consumer::new(number, false, node, witness.clone(), rng(3, number), case.hours);
        actors.push(Box::new(consumer));
    }
    actors.push(Box::new(Auditor::new(
        case.drivers,
        nodes,
        witness.clone(),
        rng(4, 0),
        case.hours,
    )));
    actors
}
