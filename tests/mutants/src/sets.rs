//! What is mutated, and which tests are to notice.

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
    /// Arguments and environment of the runs that a mutant has to pass, the quick one first. The unit tests beside the
    /// code run before them.
    pub runs: &'static [Run],
    /// Functions that stay `const`, as constants call them.
    pub keep_const: &'static [&'static str],
}

/// One run of the test target.
pub struct Run {
    pub arguments: &'static [&'static str],
    pub environment: &'static [(&'static str, &'static str)],
}

const SETS: &[Set] = &[FSM, JOURNAL];

/// The set of this name.
pub fn find(name: &str) -> Option<&'static Set> {
    SETS.iter().find(|set| set.name == name)
}

const FSM: Set = Set {
    name: "fsm",
    survivors: "fsm.survivors",
    mutated: "src/fsm",
    lib: "pub mod fsm;\n",
    dependencies: &["compact_str", "rkyv", "xxhash-rust", "proptest"],
    tests: "fsm",
    runs: &[
        Run {
            arguments: &["transcripts"],
            environment: &[],
        },
        Run {
            arguments: &["--skip", "transcripts", "--skip", "random"],
            environment: &[("PROPTEST_CASES", "20")],
        },
        Run {
            arguments: &["random"],
            environment: &[("PROPTEST_CASES", "60"), ("PROPTEST_MAX_SHRINK_ITERS", "0")],
        },
        Run {
            arguments: &["random"],
            environment: &[("PROPTEST_CASES", "400"), ("PROPTEST_MAX_SHRINK_ITERS", "0")],
        },
    ],
    keep_const: &[],
};

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
        "rkyv",
        "rustix",
        "tempfile",
        "tracing",
        "xxhash-rust",
        "proptest",
    ],
    tests: "journal",
    runs: &[Run {
        arguments: &[],
        environment: &[("PROPTEST_MAX_SHRINK_ITERS", "0")],
    }],
    keep_const: &["new"],
};
