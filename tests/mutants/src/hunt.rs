//! Asks every mutant whether a test notices it: the set's runs one after the other, up to the first test that fails.

use crate::mutate::Mutant;
use crate::scratch::Tests;
use crate::sets::{Run, Set};
use crate::trial::{Bounds, Verdict};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Mutants between two lines that say how far it has come.
const PROGRESS: usize = 25;

/// What became of the mutants.
pub struct Hunted<'a> {
    /// Those that no test notices, by number.
    pub survivors: Vec<&'a Mutant>,
    /// How many were noticed because a run did not end in its time.
    pub endless: usize,
}

/// Puts the mutants to the first `runs` of the set's runs, `jobs` at a time.
///
/// # Errors
/// When a test cannot be run, or fails without a mutant.
pub fn hunt<'a>(
    set: &Set,
    tests: &Tests,
    mutants: &[&'a Mutant],
    jobs: usize,
    runs: usize,
) -> Result<Hunted<'a>, String> {
    let mut bounded = Vec::new();
    for run in &set.runs[..runs.min(set.runs.len())] {
        let bounds = Bounds::of_original(run, tests)?;
        println!("{bounds}: {run}");
        bounded.push((run, bounds));
    }
    let (next, endless) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let (survivors, failure) = (Mutex::new(Vec::new()), Mutex::new(None));
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while failure.lock().expect("no thread panics").is_none() {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(mutant) = mutants.get(index) else { break };
                    if index > 0 && index.is_multiple_of(PROGRESS) {
                        println!("{index} of {}", mutants.len());
                    }
                    match verdict(&bounded, tests, mutant) {
                        Ok(Verdict::Failed) => {}
                        Ok(Verdict::Endless) => {
                            endless.fetch_add(1, Ordering::Relaxed);
                        }
                        Ok(Verdict::Passed) => {
                            let (line, column) = mutant.place();
                            println!("survives: {:4}  {mutant}  (line {line}, column {column})", mutant.id);
                            survivors.lock().expect("no thread panics").push(*mutant);
                        }
                        Err(error) => *failure.lock().expect("no thread panics") = Some(error),
                    }
                }
            });
        }
    });
    if let Some(error) = failure.into_inner().expect("no thread panics") {
        return Err(error);
    }
    let mut survivors = survivors.into_inner().expect("no thread panics");
    survivors.sort_by_key(|mutant| mutant.id);
    Ok(Hunted {
        survivors,
        endless: endless.into_inner(),
    })
}

/// What the runs that are for the mutant's file say, up to the first that notices it.
fn verdict(runs: &[(&Run, Bounds)], tests: &Tests, mutant: &Mutant) -> Result<Verdict, String> {
    for (run, bounds) in runs.iter().filter(|(run, _)| run.is_for(mutant.file())) {
        match bounds.run(run, tests, mutant.id)? {
            Verdict::Passed => {}
            noticed => return Ok(noticed),
        }
    }
    Ok(Verdict::Passed)
}
