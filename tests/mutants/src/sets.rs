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
    /// Several times what the original takes.
    pub cpu_seconds_max: u32,
    pub arguments: &'static [&'static str],
    pub environment: &'static [(&'static str, &'static str)],
}

/// A failure is enough: nobody reads the history.
const SHRINK_NOTHING: (&str, &str) = ("PROPTEST_MAX_SHRINK_ITERS", "0");

const fn unit(files: &'static [&'static str], arguments: &'static [&'static str]) -> Run {
    Run {
        unit: true,
        files,
        cpu_seconds_max: 15,
        arguments,
        environment: &[],
    }
}

const fn target(
    files: &'static [&'static str],
    cpu_seconds_max: u32,
    arguments: &'static [&'static str],
    environment: &'static [(&'static str, &'static str)],
) -> Run {
    Run {
        unit: false,
        files,
        cpu_seconds_max,
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
        target(&[], 3, &["transcripts", "views"], &[]),
        unit(&["wheel.rs", "queue.rs", "ids.rs"], &["--skip", "like_a_sorted_list"]),
        target(&["wheel.rs"], 5, &["wheel::bytes", "wheel::time"], &[]),
        unit(&["wheel.rs"], &["like_a_sorted_list"]),
        target(&["wheel.rs"], 20, &["wheel"], &[]),
        target(&["fold.rs"], 20, &["fold"], &[("PROPTEST_CASES", "20"), SHRINK_NOTHING]),
        target(
            NOT_THE_WHEEL,
            6,
            &["random"],
            &[("PROPTEST_CASES", "20"), SHRINK_NOTHING],
        ),
        target(
            NOT_THE_WHEEL,
            30,
            &["random"],
            &[("PROPTEST_CASES", "150"), SHRINK_NOTHING],
        ),
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
        "libc",
        "rkyv",
        "rustix",
        "tempfile",
        "tracing",
        "xxhash-rust",
        "proptest",
    ],
    tests: "journal",
    runs: &[
        target(&[], 5, &["writer", "replay", "record", "files"], &[SHRINK_NOTHING]),
        target(
            &[],
            20,
            &["damage", "--skip", "a_flipped_bit_anywhere"],
            &[SHRINK_NOTHING],
        ),
        unit(&["lock.rs", "layout.rs"], &[]),
        target(&[], 15, &["model"], &[SHRINK_NOTHING]),
        target(&[], 20, &["crash"], &[SHRINK_NOTHING]),
        target(&[], 40, &["a_flipped_bit_anywhere"], &[SHRINK_NOTHING]),
    ],
    keep_const: &["new"],
};
