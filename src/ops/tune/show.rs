//! The table as words, as a drop-in for `/etc/sysctl.d`, and as the table of `tuning/README.md`.

use std::fmt::Write as _;

use super::table::{LINES, Line, Probe, Remedy, Want};

/// Shapes of `tune show`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// `/etc/sysctl.d/90-dispatchd.conf`
    Sysctl,
    /// The table of `tuning/README.md`
    Markdown,
}

impl Want {
    /// For people.
    pub fn words(self) -> String {
        match self {
            Self::AtLeast(least) => format!("at least {least}"),
            Self::AtLeastPerCore(bytes) => format!("at least {bytes} for each core"),
            Self::AtMost(most) => format!("at most {most}"),
            Self::Exactly(words) => words.to_owned(),
            Self::OneOf(words) => words.join(" or "),
            Self::Range(from, to) => format!("from {from} or less to {to}"),
        }
    }

    /// What is written to put it right.
    pub fn value(self) -> String {
        match self {
            Self::AtLeast(number) | Self::AtLeastPerCore(number) | Self::AtMost(number) => number.to_string(),
            Self::Exactly(words) => words.to_owned(),
            Self::OneOf(words) => words[0].to_owned(),
            Self::Range(from, to) => format!("{from} {to}"),
        }
    }
}

impl Remedy {
    /// For people.
    pub fn words(self) -> String {
        match self {
            Self::Sysctl => "`dispatchd tune apply`, or `sysctl.d/90-dispatchd.conf`".into(),
            Self::File => "`dispatchd tune apply`, until the next boot".into(),
            Self::Unit(setting) => format!("`{setting}` in the unit, as `systemd/dispatchd.service` has it"),
            Self::Script(path) => format!("`{path}`"),
            Self::Service(path) => format!("`{path}`, or `dispatchd tune keep-awake`"),
            Self::Boot(parameter) => format!("`{parameter}` on the kernel's command line, from the next boot on"),
        }
    }
}

/// Prints the table in a shape.
pub fn show(format: Format) -> String {
    match format {
        Format::Sysctl => drop_in(|line| line.want.value()),
        Format::Markdown => markdown(),
    }
}

/// A drop-in for `/etc/sysctl.d` that sets every kernel setting of the table to `value`.
pub(super) fn drop_in(value: impl Fn(&Line) -> String) -> String {
    let mut text = String::from(
        "# Kernel settings for a dispatchd node. Printed by `dispatchd tune show --format sysctl`.\n\
         # A line that begins with \"-\" is skipped where the kernel does not know it.\n",
    );
    for line in LINES.iter().filter(|line| line.probe == Probe::Sysctl) {
        let dash = if line.optional { "-" } else { "" };
        let _ = write!(text, "\n# {}\n{dash}{} = {}\n", line.why, line.name, value(line));
    }
    text
}

fn markdown() -> String {
    let mut text = String::from("| what | should be | why | measured effect | how |\n|---|---|---|---|---|\n");
    for line in LINES {
        let (want, how) = (line.want.words(), line.remedy.words());
        let _ = writeln!(
            text,
            "| `{}` | {want} | {} | {} | {how} |",
            line.name, line.why, line.effect
        );
    }
    text
}
