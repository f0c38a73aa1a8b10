//! Runs the tests once for each mutant: one that fails, or does not come to an end, has noticed.

use crate::mutate::Mutant;
use crate::scratch::Tests;
use crate::sets::{Run, Set};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A run that takes longer waits for something that never comes. What only goes round is ended by its processor time.
const WAIT_MAX: Duration = Duration::from_secs(30 * 60);
/// How often a run is looked at.
const POLL: Duration = Duration::from_millis(5);
/// Mutants between two lines that say how far it has come.
const PROGRESS: usize = 50;
/// The number that is no mutant's: the original, which must pass.
const ORIGINAL: u32 = 0;

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
    let runs = &set.runs[..runs.min(set.runs.len())];
    let (next, survivors, failure) = (AtomicUsize::new(0), Mutex::new(Vec::new()), Mutex::new(None));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for run in runs {
                let failed = match notices(run, tests, ORIGINAL) {
                    Ok(false) => continue,
                    Ok(true) => format!("{:?} fails without a mutant", run.arguments),
                    Err(error) => error,
                };
                *failure.lock().expect("no thread panics") = Some(failed);
            }
        });
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(mutant) = mutants.get(index) else { break };
                    if index > 0 && index.is_multiple_of(PROGRESS) {
                        println!("{index} of {}", mutants.len());
                    }
                    match survives(runs, tests, mutant) {
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

fn survives(runs: &[Run], tests: &Tests, mutant: &Mutant) -> Result<bool, String> {
    let is_for = |run: &&Run| run.files.is_empty() || run.files.iter().any(|name| mutant.file().ends_with(name));
    for run in runs.iter().filter(is_for) {
        if notices(run, tests, mutant.id)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether the tests fail, or hang.
fn notices(run: &Run, tests: &Tests, id: u32) -> Result<bool, String> {
    let executable = if run.unit { &tests.unit } else { &tests.integration };
    let shown = |error: std::io::Error| format!("{}: {error}", executable.display());
    // The shell bounds the processor time, which a busy machine does not stretch.
    let mut child = Command::new("sh")
        .args(["-c", "ulimit -t \"$0\" && exec \"$@\""])
        .arg(run.cpu_seconds_max.to_string())
        .arg(executable)
        .args(run.arguments)
        .envs(run.environment.iter().copied())
        .env("MUTANT", id.to_string())
        .current_dir(&tests.directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(shown)?;
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().map_err(shown)? {
            return Ok(!status.success());
        }
        if started.elapsed() > WAIT_MAX {
            child.kill().map_err(shown)?;
            child.wait().map_err(shown)?;
            return Ok(true);
        }
        std::thread::sleep(POLL);
    }
}
