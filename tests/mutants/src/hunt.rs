//! Asks every mutant whether a test notices it: the set's runs one after the other, up to the first test that fails.

use crate::mutate::Mutant;
use crate::scratch::Tests;
use crate::sets::{Run, Set};
use crate::trial::{Bounds, Verdict};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Mutants between two lines that say how far it has come.
const PROGRESS: usize = 25;

/// The mutants that no test notices, of the first `runs` of the set's runs.
///
/// # Errors
/// When a test cannot be run, or fails without a mutant.
pub fn hunt<'a>(
    set: &Set,
    tests: &Tests,
    mutants: &[&'a Mutant],
    jobs: usize,
    runs: usize,
) -> Result<Vec<&'a Mutant>, String> {
    let mut bounded = Vec::new();
    for run in &set.runs[..runs.min(set.runs.len())] {
        let bounds = Bounds::of_original(run, tests)?;
        println!("{bounds}: {run}");
        bounded.push((run, bounds));
    }
    let (next, survivors, failure) = (AtomicUsize::new(0), Mutex::new(Vec::new()), Mutex::new(None));
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while failure.lock().expect("no thread panics").is_none() {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(mutant) = mutants.get(index) else { break };
                    if index > 0 && index.is_multiple_of(PROGRESS) {
                        println!("{index} of {}", mutants.len());
                    }
                    match survives(&bounded, tests, mutant) {
                        Ok(false) => {}
                        Ok(true) => {
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
    Ok(survivors)
}

fn survives(runs: &[(&Run, Bounds)], tests: &Tests, mutant: &Mutant) -> Result<bool, String> {
    for (run, bounds) in runs {
        if run.is_for(mutant.file()) && bounds.run(run, tests, mutant.id)? != Verdict::Passed {
            return Ok(false);
        }
    }
    Ok(true)
}
