//! `dispatchd tune`: what this host has, what it should have for a loaded node, and why.
//!
//! Everything that is asked of a host stands once, in [`table`]. The drop-in and the table in `tuning/` are printed from it
//! (`tune show`), and a test compares them. Nothing here touches a running node; `apply` writes kernel settings and says what only
//! a person can do.
#![forbid(unsafe_code)]

pub mod apply;
pub mod awake;
pub mod host;
pub mod show;
pub mod table;
mod unit;

use std::io::{self, Write};

use host::Host;
use table::{LINES, Line};

/// What became of a line on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Good(String),
    /// Not as it should be: what is there now.
    Off(String),
    /// This host or kernel does not have it, and does not need it.
    Absent,
    /// It could not be read.
    Unreadable(String),
}

/// Looks at every line.
pub fn check(host: &Host) -> Vec<(&'static Line, Verdict)> {
    LINES.iter().map(|line| (line, host.verdict(line))).collect()
}

/// Prints what this host has beside what it should have. Answers 0 when all is as it should be, else 1.
///
/// # Errors
/// The output's.
pub fn check_command(host: &Host, out: &mut dyn Write) -> io::Result<u8> {
    let verdicts = check(host);
    let mut off = 0;
    for (line, verdict) in &verdicts {
        let (word, now) = match verdict {
            Verdict::Good(now) => ("ok", now.as_str()),
            Verdict::Off(now) => ("OFF", now.as_str()),
            Verdict::Absent => ("-", "not on this host"),
            Verdict::Unreadable(why) => ("?", why.as_str()),
        };
        writeln!(out, "{word:<4}{:<38} {now}", line.name)?;
        if matches!(verdict, Verdict::Off(_) | Verdict::Unreadable(_)) {
            off += 1;
            writeln!(out, "      should be {}: {}", line.want.words(), line.why)?;
            writeln!(out, "      effect: {}", line.effect)?;
            writeln!(out, "      how: {}", line.remedy.words())?;
        }
    }
    writeln!(out, "{} lines, {off} off", verdicts.len())?;
    Ok(u8::from(off > 0))
}
