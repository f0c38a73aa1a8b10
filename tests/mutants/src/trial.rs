//! One run of tests against one mutant, within bounds that are taken from the same run of the original.

use crate::scratch::Tests;
use crate::sets::Run;
use std::fmt;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The number that is no mutant's: the original, which must pass.
const ORIGINAL: u32 = 0;
/// How many times the original's processor time a mutant gets, and no less than `CPU_SECONDS_MIN`. What only goes round
/// is ended by it, and a busy machine does not stretch it.
const CPU_FACTOR: u64 = 4;
const CPU_SECONDS_MIN: u64 = 2;
/// How long a mutant may take beside, for each second of processor time: what takes longer waits for something that
/// never comes.
const WAIT_FACTOR: u64 = 30;
/// Address space of a run, in KiB, and the longest file it may write, in units of 512 bytes: a mutant that takes more
/// and more ends by itself.
const MEMORY_KIB_MAX: u64 = 6 << 20;
const FILE_SECTORS_MAX: u64 = 1 << 20;
const SIGKILL: i32 = 9;
const SIGXCPU: i32 = 24;
/// How often a run is looked at.
const POLL: Duration = Duration::from_millis(5);

/// How long a run may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    cpu: Duration,
}

/// What a run said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No test noticed anything.
    Passed,
    /// A test failed, or the process did.
    Failed,
    /// It took too long.
    Endless,
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.2} s of processor time, at most {} s",
            self.cpu.as_secs_f64(),
            self.cpu_seconds_max()
        )
    }
}

impl Bounds {
    /// Runs the original.
    ///
    /// # Errors
    /// When it cannot be run, or does not pass.
    pub fn of_original(run: &Run, tests: &Tests) -> Result<Self, String> {
        let mut command = command(run, tests, ORIGINAL, "\"$@\" >&2 && times");
        let output = command.output().map_err(|error| error.to_string())?;
        let said = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            return Err(format!("{run} fails without a mutant:\n{said}"));
        }
        if said.contains("running 0 tests") {
            return Err(format!("{run}: there are no such tests"));
        }
        let times = String::from_utf8_lossy(&output.stdout).into_owned();
        let cpu = children_time(&times).ok_or_else(|| format!("times said {times:?}"))?;
        Ok(Self { cpu })
    }

    fn cpu_seconds_max(self) -> u64 {
        (self.cpu.as_secs_f64().ceil() as u64 * CPU_FACTOR).max(CPU_SECONDS_MIN)
    }

    /// Runs mutant `id`, up to the first test that fails.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn run(self, run: &Run, tests: &Tests, id: u32) -> Result<Verdict, String> {
        let shell = format!("ulimit -t {} && exec \"$@\" 2>/dev/null", self.cpu_seconds_max());
        let mut command = command(run, tests, id, &shell);
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        let stdout = child.stdout.take().ok_or("no pipe")?;
        let failed = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let lines = BufReader::new(stdout).lines().map_while(Result::ok);
                // "test name ... FAILED", as soon as that test is over.
                if lines.into_iter().any(|line| line.ends_with(" FAILED")) {
                    failed.store(true, Ordering::Release);
                }
            });
            self.wait(&mut child, &failed).map_err(|error| error.to_string())
        })
    }

    /// Waits for the end of a run, its first failure, or the end of its time.
    fn wait(self, child: &mut Child, failed: &AtomicBool) -> std::io::Result<Verdict> {
        let started = Instant::now();
        let wait_max = Duration::from_secs(self.cpu_seconds_max() * WAIT_FACTOR);
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(match status.signal() {
                    _ if status.success() => Verdict::Passed,
                    // How the kernel ends what has used up its processor time.
                    Some(SIGKILL | SIGXCPU) => Verdict::Endless,
                    _ => Verdict::Failed,
                });
            }
            let verdict = if failed.load(Ordering::Acquire) {
                Some(Verdict::Failed)
            } else {
                (started.elapsed() > wait_max).then_some(Verdict::Endless)
            };
            if let Some(verdict) = verdict {
                child.kill()?;
                child.wait()?;
                return Ok(verdict);
            }
            std::thread::sleep(POLL);
        }
    }
}

/// The shell that runs a test executable with a mutant, where `"$@"` stands in `shell`.
fn command(run: &Run, tests: &Tests, id: u32, shell: &str) -> Command {
    let executable: &Path = if run.unit { &tests.unit } else { &tests.integration };
    let limits = format!("ulimit -c 0 && ulimit -v {MEMORY_KIB_MAX} && ulimit -f {FILE_SECTORS_MAX}");
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("{limits} && {shell}"), "sh"])
        .arg(executable)
        .args(run.arguments)
        .envs(run.environment.iter().copied())
        .env("MUTANT", id.to_string())
        .env("TMPDIR", &tests.directory)
        // The same cases for every mutant and every time, and no files about those that fail.
        .env("PROPTEST_RNG_SEED", "1")
        .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1")
        .env("PROPTEST_MAX_SHRINK_ITERS", "0")
        .current_dir(&tests.directory)
        .stdin(Stdio::null());
    command
}

/// What the shell's `times` says of its children: the second line, `0m1.230000s 0m0.040000s`.
fn children_time(times: &str) -> Option<Duration> {
    let seconds = |text: &str| {
        let (minutes, seconds) = text.strip_suffix('s')?.split_once('m')?;
        Some(minutes.parse::<f64>().ok()? * 60.0 + seconds.parse::<f64>().ok()?)
    };
    let all: Option<Vec<f64>> = times.lines().nth(1)?.split_whitespace().map(seconds).collect();
    Some(Duration::from_secs_f64(all?.iter().sum()))
}
