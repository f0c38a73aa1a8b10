//! `tests/CLAUSES.md` and the documentation comments of the tests say the same.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

type Clauses = BTreeMap<String, BTreeSet<String>>;

/// Whether a word is the id of a clause: `W1.3`, `V.7`.
fn is_clause(word: &str) -> bool {
    let Some((section, number)) = word.split_once('.') else {
        return false;
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let mut letters = section.chars();
    letters.next().is_some_and(|first| first.is_ascii_uppercase())
        && digits(letters.as_str())
        && !number.is_empty()
        && digits(number)
}

/// The clauses that a line's comment names: `/// W1.3, V.7: what is shown`.
fn named(line: &str) -> Option<Vec<String>> {
    let (ids, _) = line.strip_prefix("/// ")?.split_once(": ")?;
    let ids: Vec<&str> = ids.split(", ").collect();
    let all = ids.iter().all(|id| is_clause(id));
    all.then(|| ids.into_iter().map(str::to_owned).collect())
}

/// Clause → tests, from the sources in a directory.
fn in_sources(directory: &Path, prefix: &str, clauses: &mut Clauses) {
    for entry in std::fs::read_dir(directory).expect("the tests' sources") {
        let path = entry.expect("a directory entry").path();
        let module = path.file_stem().expect("a file name").to_string_lossy().into_owned();
        let source = std::fs::read_to_string(&path).expect("a source file");
        let mut waiting: Vec<String> = Vec::new();
        for line in source.lines() {
            if let Some(ids) = named(line) {
                waiting = ids;
            } else if let Some(rest) = line.strip_prefix("async fn ") {
                let name = rest.split('(').next().expect("a name");
                for id in waiting.drain(..) {
                    clauses
                        .entry(id)
                        .or_default()
                        .insert(format!("{prefix}{module}::{name}"));
                }
            }
        }
    }
}

/// Clause → tests, from the table.
fn in_table(table: &str) -> Clauses {
    let mut clauses = Clauses::new();
    for line in table.lines() {
        let cells: Vec<&str> = line.split(" | ").collect();
        let Some(id) = cells.first().and_then(|cell| cell.strip_prefix("| ")) else {
            continue;
        };
        if is_clause(id) {
            let tests = cells.last().expect("a cell").trim_end_matches(" |").split(", ");
            let tests = tests.map(|test| test.trim_matches('`').to_owned());
            clauses.insert(id.to_owned(), tests.collect());
        }
    }
    clauses
}

#[test]
fn table_and_tests_agree() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut sources = Clauses::new();
    in_sources(&root.join("contract"), "", &mut sources);
    in_sources(&root.join("crash"), "crash::", &mut sources);
    let table = std::fs::read_to_string(root.join("CLAUSES.md")).expect("tests/CLAUSES.md");
    let table = in_table(&table);
    assert!(table.len() > 100, "the table is not read: {table:?}");
    assert_eq!(table, sources);
}
