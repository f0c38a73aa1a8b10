//! Runs the tests once for each mutant: one that fails, or does not come to an end, has noticed.

use crate::mutate::Mutant;
use crate::scratch::Tests;
use crate::sets::{Run, Set};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A run of a mutant that takes so much longer than one of the original hangs.
const SLOWER_MAX: u32 = 10;
/// And so long at least, for busy machines.
const TIMEOUT_MIN: Duration = Duration::from_secs(20);
/// Mutants between two lines that say how far it has come.
const PROGRESS: usize = 50;
/// How often a run is looked at.
const POLL: Duration = Duration::from_millis(5);

/// One executable with its arguments, and how long the original takes.
struct Step<'a> {
    executable: &'a Path,
    run: &'a Run,
    timeout: Duration,
}

/// The mutants that no test notices.
pub fn hunt<'a>(
    set: &Set,
    tests: &Tests,
    mutants: &[&'a Mutant],
    jobs: usize,
    runs: usize,
) -> Result<Vec<&'a Mutant>, String> {
    let mut steps = Vec::new();
    for run in set.runs.iter().take(runs) {
        let executable = if run.unit { &tests.unit } else { &tests.integration };
        let started = Instant::now();
        let mut step = Step {
            executable,
            run,
            timeout: Duration::MAX,
        };
        if step.notices(tests, 0)? {
            return Err(format!("{} fails without a mutant", executable.display()));
        }
        step.timeout = TIMEOUT_MIN.max(started.elapsed() * SLOWER_MAX);
        steps.push(step);
    }
    let (next, survivors, failure) = (AtomicUsize::new(0), Mutex::new(Vec::new()), Mutex::new(None));
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(mutant) = mutants.get(index) else { break };
                    if index > 0 && index.is_multiple_of(PROGRESS) {
                        println!("{index} of {}", mutants.len());
                    }
                    match survives(&steps, tests, mutant) {
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

fn survives(steps: &[Step<'_>], tests: &Tests, mutant: &Mutant) -> Result<bool, String> {
    for step in steps.iter().filter(|step| step.is_for(mutant)) {
        if step.notices(tests, mutant.id)? {
            return Ok(false);
        }
    }
    Ok(true)
}

impl Step<'_> {
    fn is_for(&self, mutant: &Mutant) -> bool {
        self.run.files.is_empty() || self.run.files.iter().any(|name| mutant.file().ends_with(name))
    }

    /// Whether the tests fail, or hang.
    fn notices(&self, tests: &Tests, id: u32) -> Result<bool, String> {
        let shown = |error: std::io::Error| format!("{}: {error}", self.executable.display());
        let mut child = Command::new(self.executable)
            .args(self.run.arguments)
            .envs(self.run.environment.iter().copied())
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
            if started.elapsed() > self.timeout {
                child.kill().map_err(shown)?;
                child.wait().map_err(shown)?;
                return Ok(true);
            }
            std::thread::sleep(POLL);
        }
    }
}
