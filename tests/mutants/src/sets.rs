//! What is mutated, and which tests are to notice.

use std::fmt;

/// A part of the program that compiles by itself, with its tests.
pub struct Set {
    /// Its name on the command line.
    pub name: &'static str,
    /// The file beside this crate that explains what survives.
    pub survivors: &'static str,
    /// The directory whose files are mutated, in the repository.
    pub mutated: &'static str,
    /// The scratch crate's `lib.rs`, where `{src}` stands for the repository's `src`.
    pub lib: &'static str,
    /// Its dependencies, as they stand in the repository's `Cargo.toml`.
    pub dependencies: &'static [&'static str],
    /// The test target, in `tests/`.
    pub tests: &'static str,
    /// The runs that notice a mutant or not, in this order: what is quick and notices much comes first.
    pub runs: &'static [Run],
    /// Functions that stay `const`, as constants call them.
    pub keep_const: &'static [&'static str],
}

/// One run of tests.
pub struct Run {
    /// The tests beside the code, not the test target.
    pub unit: bool,
    /// Only for mutants in files whose names end so; for all when there is none.
    pub files: &'static [&'static str],
    pub arguments: &'static [&'static str],
    pub environment: &'static [(&'static str, &'static str)],
}

impl Run {
    /// Whether it is for mutants in this file.
    pub fn is_for(&self, file: &str) -> bool {
        self.files.is_empty() || self.files.iter().any(|name| file.ends_with(name))
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.unit { "unit tests" } else { "tests" })?;
        self.environment
            .iter()
            .try_for_each(|(name, value)| write!(f, " {name}={value}"))?;
        self.arguments.iter().try_for_each(|argument| write!(f, " {argument}"))
    }
}

const fn unit(files: &'static [&'static str], arguments: &'static [&'static str]) -> Run {
    Run {
        unit: true,
        files,
        arguments,
        environment: &[],
    }
}

const fn target(
    files: &'static [&'static str],
    arguments: &'static [&'static str],
    environment: &'static [(&'static str, &'static str)],
) -> Run {
    Run {
        unit: false,
        files,
        arguments,
        environment,
    }
}

const SETS: &[Set] = &[FSM, JOURNAL];

/// The set of this name.
pub fn find(name: &str) -> Option<&'static Set> {
    SETS.iter().find(|set| set.name == name)
}

/// The wheel is not in the random histories: their time is their own.
const NOT_THE_WHEEL: &[&str] = &[
    "driver/life.rs",
    "driver/mod.rs",
    "driver/requests.rs",
    "fold.rs",
    "queue.rs",
    "announce.rs",
    "events.rs",
    "request/mod.rs",
    "search.rs",
    "types.rs",
];

const FSM: Set = Set {
    name: "fsm",
    survivors: "fsm.survivors",
    mutated: "src/fsm",
    lib: "pub mod fsm;\n",
    dependencies: &["compact_str", "rkyv", "xxhash-rust", "proptest"],
    tests: "fsm",
    runs: &[
        // All but what takes long, which follows.
        target(
            &[],
            &["--skip", "random::", "--skip", "fold::", "--skip", "wheel::"],
            &[],
        ),
        unit(&["wheel.rs", "queue.rs", "ids.rs"], &["--skip", "like_a_sorted_list"]),
        target(&["wheel.rs"], &["wheel::bytes", "wheel::time"], &[]),
        unit(&["wheel.rs"], &["like_a_sorted_list"]),
        target(&["wheel.rs"], &["wheel"], &[]),
        target(&["fold.rs"], &["fold"], &[("PROPTEST_CASES", "20")]),
        target(NOT_THE_WHEEL, &["random"], &[("PROPTEST_CASES", "20")]),
        target(NOT_THE_WHEEL, &["random"], &[("PROPTEST_CASES", "150")]),
    ],
    keep_const: &[],
};

/// What a simulated disk is written and read with; the tests of the rest use a real one.
const THE_PURE: &[&str] = &["format.rs", "scan.rs", "writer.rs"];

const JOURNAL: Set = Set {
    name: "journal",
    survivors: "journal.survivors",
    mutated: "src/journal",
    lib: "#[path = \"{src}/aligned.rs\"]\npub mod aligned;\n\
          #[path = \"{src}/fsm/mod.rs\"]\npub mod fsm;\n\
          pub mod journal;\n\
          pub mod wire {\n    #[path = \"{src}/wire/record.rs\"]\n    pub mod record;\n}\n",
    dependencies: &[
        "compact_str",
        "crc32c",
        "glommio",
        "libc",
        "rkyv",
        "rustix",
        "tempfile",
        "tracing",
        "tracing-subscriber",
        "xxhash-rust",
        "proptest",
    ],
    tests: "journal",
    runs: &[
        target(
            &[],
            &["writer::", "replay::", "record::", "errors::", "forged::", "torn::"],
            &[],
        ),
        target(THE_PURE, &["damage::", "--skip", "a_flipped_bit_anywhere"], &[]),
        unit(&["lock.rs", "layout.rs"], &[]),
        target(&[], &["files::", "undirect::"], &[]),
        target(THE_PURE, &["model::"], &[]),
        target(THE_PURE, &["crash::"], &[]),
        target(THE_PURE, &["a_flipped_bit_anywhere"], &[]),
    ],
    keep_const: &["new"],
};
