//! Mutation tests: is there a test that notices when the code is wrong?
//!
//! The operators are those of `cargo-mutants`, but a mutant costs no build: all of them are compiled into one copy of
//! the code, each behind a test of a number that comes from the environment (mutant schemata, Untch et al. 1993). So
//! hundreds of mutants take minutes. `README.md` beside this crate says how to run it and what it found.
#![forbid(unsafe_code)]

mod hunt;
mod mutate;
mod scratch;
mod sets;
mod trial;
mod values;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

const USAGE: &str = "usage: dispatchd-mutants list|run fsm|journal [--jobs N] [--only NUMBER,…] [--runs N]";
/// What must be caught at least, in percent.
const CAUGHT_PERCENT_MIN: usize = 95;

fn main() -> ExitCode {
    end_with_the_reader();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if matches!(arguments.as_slice(), [help] if help == "--help" || help == "-h") {
        println!("{USAGE}\n\ntests/mutants/README.md says what this is.");
        return ExitCode::SUCCESS;
    }
    match parse(&arguments).and_then(|asked| run(&asked)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

/// What the command line asks for.
struct Asked {
    lists: bool,
    set: &'static sets::Set,
    jobs: usize,
    only: Option<Vec<u32>>,
    /// How many of a set's runs a mutant has to pass, the quick ones first.
    runs: usize,
}

fn parse(arguments: &[String]) -> Result<Asked, String> {
    let [verb, set, options @ ..] = arguments else {
        return Err(USAGE.to_owned());
    };
    let lists = match verb.as_str() {
        "list" => true,
        "run" => false,
        _ => return Err(USAGE.to_owned()),
    };
    let set = sets::find(set).ok_or(USAGE)?;
    let (mut jobs, mut only, mut runs) = (
        std::thread::available_parallelism().map_or(1, usize::from),
        None,
        usize::MAX,
    );
    for pair in options.chunks(2) {
        let [option, value] = pair else {
            return Err(USAGE.to_owned());
        };
        let number = |text: &str| text.parse::<u32>().ok().filter(|number| *number > 0);
        let refused = |allowed: &str| format!("{option} cannot be '{value}'; allowed: {allowed}");
        let count = || number(value).ok_or_else(|| refused("a whole number of 1 and more, such as 2"));
        match option.as_str() {
            "--jobs" => jobs = count()? as usize,
            "--only" => {
                let ids: Option<Vec<u32>> = value.split(',').map(number).collect();
                let mut ids = ids.ok_or_else(|| refused("numbers as `list` shows them, such as 17 or 17,18"))?;
                ids.sort_unstable();
                ids.dedup();
                only = Some(ids);
            }
            "--runs" => runs = count()? as usize,
            _ => return Err(USAGE.to_owned()),
        }
    }
    Ok(Asked {
        lists,
        set,
        jobs,
        only,
        runs,
    })
}

/// Says whether enough was caught, and every survivor is explained.
fn run(asked: &Asked) -> Result<bool, String> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .ok_or("the crate is not where it belongs")?;
    let mutated = mutate::all(repository, asked.set)?;
    if asked.lists {
        for mutant in &mutated.mutants {
            println!("{:4}  {mutant}", mutant.id);
        }
        return Ok(true);
    }
    let known = |id: &u32| mutated.mutants.iter().any(|mutant| mutant.id == *id);
    if let Some(unknown) = asked.only.iter().flatten().find(|id| !known(id)) {
        return Err(format!(
            "there is no mutant {unknown} of {}: `list` shows them",
            asked.set.name
        ));
    }
    let (tests, mutants) = scratch::build(repository, asked.set, mutated)?;
    let wanted = mutants
        .iter()
        .filter(|mutant| asked.only.as_ref().is_none_or(|only| only.contains(&mutant.id)));
    let hunt::Hunted { survivors, endless } =
        hunt::hunt(asked.set, &tests, &wanted.collect::<Vec<_>>(), asked.jobs, asked.runs)?;
    let explained = explanations(&repository.join("tests/mutants").join(asked.set.survivors))?;
    let unexplained: Vec<_> = survivors
        .iter()
        .filter(|survivor| !explained.contains(&survivor.to_string()))
        .collect();
    for survivor in &unexplained {
        println!("not explained: {:4}  {survivor}", survivor.id);
    }
    if let Some(only) = &asked.only {
        println!("{} of {} mutants caught", only.len() - survivors.len(), only.len());
        return Ok(unexplained.is_empty());
    }
    let known: Vec<String> = survivors.iter().map(ToString::to_string).collect();
    for caught in explained.iter().filter(|line| !known.contains(line)) {
        println!("explained and caught all the same: {caught}");
    }
    let caught = mutants.len() - survivors.len();
    println!(
        "{}: {caught} of {} mutants caught ({:.1} %), {endless} of them as endless; {} survive, {} not explained",
        asked.set.name,
        mutants.len(),
        100.0 * caught as f64 / mutants.len().max(1) as f64,
        survivors.len(),
        unexplained.len()
    );
    Ok(unexplained.is_empty() && caught * 100 >= mutants.len() * CAUGHT_PERCENT_MIN)
}

/// The survivors that the file explains: its lines that begin with a file's name.
fn explanations(path: &PathBuf) -> Result<Vec<String>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let lines = text.lines().filter(|line| line.starts_with("src/"));
    Ok(lines.map(|line| line.trim_end().to_owned()).collect())
}

/// A reader who has seen enough (`| head`) ends this program as it ends others, by SIGPIPE, which Rust ignores: printing panics then.
fn end_with_the_reader() {
    let always = Arc::new(AtomicBool::new(true));
    // Without it there is the panic, and nothing worse.
    let _ = signal_hook::flag::register_conditional_default(signal_hook::consts::SIGPIPE, always);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(line: &str) -> String {
        let arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
        parse(&arguments).err().unwrap_or_default()
    }

    #[test]
    fn options_that_are_refused_are_named_with_what_is_allowed() {
        assert_eq!(error("run fsm --jobs 2 --only 3,17 --runs 1"), "");
        for (line, says) in [
            ("run fsm --jobs x", "--jobs cannot be 'x'; allowed: a whole number"),
            ("run fsm --runs 0", "--runs cannot be '0'"),
            (
                "run fsm --only 17,y",
                "--only cannot be '17,y'; allowed: numbers as `list` shows them",
            ),
            ("run fsm --only", "usage: "),
            ("run tests", "usage: "),
        ] {
            assert!(error(line).starts_with(says), "{line}: {}", error(line));
        }
    }
}
