//! A copy of the part that is mutated, as a crate of its own in `target/mutants/{set}`.
//!
//! The compiler is called directly, with the dependencies that cargo has built for the repository's own tests: nothing
//! but the mutated code and its tests is built here.

use crate::mutate::{Mutant, Mutated};
use crate::sets::Set;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::SystemTime;

/// What a mutant is asked by: nothing is on without the variable.
const SWITCH: &str = "pub mod mutant {\n    use std::sync::LazyLock;\n\n    static ACTIVE: LazyLock<u32> = LazyLock::new(|| {\n        \
     std::env::var(\"MUTANT\").ok().and_then(|text| text.parse().ok()).unwrap_or(0)\n    });\n\n    \
     pub fn on(id: u32) -> bool {\n        *ACTIVE == id\n    }\n}\n";

/// Builds after which mutants that do not compile must all have been found.
const BUILDS_MAX: usize = 8;

/// The tests of a set, built.
pub struct Tests {
    /// Beside the code.
    pub unit: PathBuf,
    /// In `tests/`.
    pub integration: PathBuf,
    /// Where they run and keep their files: a mutant writes and removes where it should not.
    pub directory: PathBuf,
}

/// Writes the scratch crate and builds its tests, without the mutants that do not compile.
pub fn build(repository: &Path, set: &Set, mutated: Mutated) -> Result<(Tests, Vec<Mutant>), String> {
    let Mutated { mut mutants, mut files } = mutated;
    let scratch = repository.join("target/mutants").join(set.name);
    let libraries = built(repository).join("debug/deps");
    let compiler = Compiler {
        dependencies: dependencies(&libraries, set)?,
        libraries,
        scratch: scratch.clone(),
    };
    let src = repository.join("src").display().to_string();
    let lib = set.lib.replace("{src}", &src);
    let root = scratch.join("src/lib.rs");
    write(&root, &format!("#![allow(warnings, clippy::all)]\n{lib}\n{SWITCH}"))?;
    let source = scratch.join("src").join(set.mutated.trim_start_matches("src/"));
    for _ in 0..BUILDS_MAX {
        for (below, text) in &files {
            write(&source.join(below), text)?;
        }
        let library = compiler.rustc("dispatchd", &root, &["--crate-type", "rlib"])?;
        if library.status.success() {
            let tests = repository.join("tests").join(set.tests).join("main.rs");
            let own = format!("dispatchd={}", scratch.join("libdispatchd.rlib").display());
            for (name, path, more) in [("unit", &root, &[][..]), (set.tests, &tests, &["--extern", &own])] {
                let built = compiler.rustc(name, path, &[&["--test"], more].concat())?;
                if !built.status.success() {
                    return Err(format!("{name} does not build:\n{}", text_of(&built)));
                }
            }
            let directory = scratch.join("tmp");
            empty(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
            let tests = Tests {
                unit: scratch.join("unit"),
                integration: scratch.join(set.tests),
                directory,
            };
            return Ok((tests, mutants));
        }
        let broken = broken(&library, &source, &files)?;
        println!("{} mutants do not compile and are left out", broken.len());
        for (_, text) in &mut files {
            for id in &broken {
                *text = text.replace(&format!("{SWITCH_CALL}{id}u32)"), "(false)");
            }
        }
        mutants.retain(|mutant| !broken.contains(&mutant.id));
    }
    Err("the mutated code does not compile".to_owned())
}

/// Makes a directory, or removes what earlier runs, ended before they could, left in it.
fn empty(directory: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::create_dir_all(directory)
}

/// How a switch reads in the text that is compiled.
const SWITCH_CALL: &str = "crate :: mutant :: on (";

/// Where cargo puts what it builds of the repository.
fn built(repository: &Path) -> PathBuf {
    let told = std::env::var_os("CARGO_TARGET_DIR").and_then(|told| std::path::absolute(told).ok());
    told.unwrap_or_else(|| repository.join("target"))
}

/// The crates that a set needs, as cargo built them last in this directory.
fn dependencies(directory: &Path, set: &Set) -> Result<BTreeMap<String, PathBuf>, String> {
    let hint = format!(
        "the tests must be built first: `cargo test --locked --workspace --no-run --test {}`",
        set.tests
    );
    let shown = |error: std::io::Error| format!("{}: {error}\n{hint}", directory.display());
    let mut found: BTreeMap<String, (SystemTime, PathBuf)> = BTreeMap::new();
    for entry in std::fs::read_dir(directory).map_err(shown)? {
        let entry = entry.map_err(shown)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let library = name.strip_prefix("lib").and_then(|name| name.strip_suffix(".rlib"));
        let Some((crate_name, _)) = library.and_then(|library| library.rsplit_once('-')) else {
            continue;
        };
        let built_at = entry
            .metadata()
            .and_then(|metadata| metadata.modified())
            .map_err(shown)?;
        if found.get(crate_name).is_none_or(|(other, _)| *other < built_at) {
            found.insert(crate_name.to_owned(), (built_at, entry.path()));
        }
    }
    let library = |dependency: &&str| {
        let name = dependency.replace('-', "_");
        let missing = format!("{}: {name} is not built\n{hint}", directory.display());
        let (_, path) = found.get(&name).ok_or(missing)?;
        Ok((name, path.clone()))
    };
    set.dependencies.iter().map(library).collect()
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    let shown = |error: std::io::Error| format!("{}: {error}", path.display());
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(shown)?;
    }
    std::fs::write(path, text).map_err(shown)
}

struct Compiler {
    dependencies: BTreeMap<String, PathBuf>,
    libraries: PathBuf,
    scratch: PathBuf,
}

impl Compiler {
    /// Optimised a little, as the tests run hundreds of times; checks of overflow and the like are on.
    fn rustc(&self, name: &str, path: &Path, more: &[&str]) -> Result<Output, String> {
        let mut command = Command::new("rustc");
        command.args(["--edition", "2024", "--cap-lints", "allow", "--error-format", "json"]);
        command.args([
            "-C",
            "opt-level=1",
            "-C",
            "debug-assertions=on",
            "-C",
            "codegen-units=16",
            "--crate-name",
            name,
        ]);
        command.arg("--out-dir").arg(&self.scratch);
        command
            .arg("-L")
            .arg(format!("dependency={}", self.libraries.display()));
        for (name, path) in &self.dependencies {
            command.arg("--extern").arg(format!("{name}={}", path.display()));
        }
        let output = command.args(more).arg(path).current_dir(&self.scratch).output();
        output.map_err(|error| format!("rustc: {error}"))
    }
}

/// The compiler's errors, as it would print them.
fn text_of(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let messages = stderr
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let errors = messages.filter(|message| message["level"] == "error");
    errors
        .filter_map(|error| error["rendered"].as_str().map(str::to_owned))
        .collect()
}

/// Numbers of the mutants at which the compiler stumbled.
fn broken(output: &Output, source: &Path, files: &[(PathBuf, String)]) -> Result<Vec<u32>, String> {
    let mut broken = Vec::new();
    let stderr = String::from_utf8_lossy(&output.stderr);
    for message in stderr
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
    {
        let spans = message["spans"].as_array().filter(|_| message["level"] == "error");
        for span in spans.into_iter().flatten().filter(|span| span["is_primary"] == true) {
            let (Some(name), Some(offset)) = (span["file_name"].as_str(), span["byte_start"].as_u64()) else {
                continue;
            };
            let file = files.iter().find(|(below, _)| source.join(below).ends_with(name));
            // The nearest switch before the place: branches follow their switches.
            let before = file.and_then(|(_, text)| text.get(..offset as usize));
            let switch = before.and_then(|before| before.rsplit_once(SWITCH_CALL));
            let digits = |(_, rest): (&str, &str)| rest.chars().take_while(char::is_ascii_digit).collect::<String>();
            let id = switch.and_then(|switch| digits(switch).parse().ok());
            broken.extend(id.filter(|id| !broken.contains(id)));
        }
    }
    if broken.is_empty() {
        return Err(format!("the scratch crate does not build:\n{}", text_of(output)));
    }
    Ok(broken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_tests_that_are_built_it_says_what_builds_them() {
        let set = crate::sets::find("journal").expect("a set");
        let empty = std::env::temp_dir().join(format!("mutants-{}", std::process::id()));
        let missing = dependencies(&empty, set).expect_err("no directory");
        std::fs::create_dir(&empty).expect("a directory");
        let nothing = dependencies(&empty, set).expect_err("nothing in it");
        std::fs::remove_dir(&empty).expect("it is empty");
        for error in [missing, nothing] {
            assert!(
                error.contains("`cargo test --locked --workspace --no-run --test journal`"),
                "{error}"
            );
            assert!(error.starts_with(&empty.display().to_string()), "{error}");
        }
    }
}
