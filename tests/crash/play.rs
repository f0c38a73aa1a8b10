//! Runs the crash play of the demo against the program under test.

use dispatchd::demo::crash::{self, CrashError, CrashOptions, CrashReport, Power};
use std::path::Path;
use std::str::FromStr;

const DRIVERS: u32 = 40;
const RATE: f64 = 40.0;

/// A number from the environment.
///
/// # Panics
/// When the variable is set and no number.
pub fn setting<T: FromStr>(name: &str, default: T) -> T {
    let Ok(value) = std::env::var(name) else {
        return default;
    };
    value.parse().unwrap_or_else(|_| panic!("{name} is no number: {value}"))
}

/// A play with so many kills; says how to repeat it.
pub fn options(kills: u32) -> CrashOptions {
    let seed = setting("CRASH_SEED", 1);
    println!("repeat with CRASH_SEED={seed} and {kills} kills");
    CrashOptions {
        kills,
        drivers: DRIVERS,
        rate: RATE,
        seed,
        // Small segments, so that they are made and dropped meanwhile, and soon read.
        settings: vec!["shards=2".into(), "journal_segment_bytes=2097152".into()],
    }
}

/// Plays it, with the node's data in `home/data`.
///
/// # Errors
/// Why there is no verdict.
pub async fn run(
    home: &Path,
    options: &CrashOptions,
    power: Option<&mut dyn Power>,
) -> Result<CrashReport, CrashError> {
    let program = Path::new(env!("CARGO_BIN_EXE_dispatchd"));
    crash::run(program, home, options, power).await
}
