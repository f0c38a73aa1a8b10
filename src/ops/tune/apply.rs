//! `tune apply`: writes what is off and may be written, and says the rest.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use super::host::Host;
use super::show::drop_in;
use super::table::{Line, Remedy};
use super::{Verdict, check};

/// Where kernel settings are kept for the next boot.
const DROP_IN: &str = "/etc/sysctl.d/90-dispatchd.conf";

/// Puts right what is off. With `dry_run` it only says what it would do. Answers 1 when something remains: a write failed, or
/// only a person can do it.
///
/// # Errors
/// The output's.
pub fn apply_command(host: &Host, dry_run: bool, out: &mut dyn Write) -> io::Result<u8> {
    let mut remains = 0;
    let verdicts = check(host);
    for (line, verdict) in &verdicts {
        let now = match verdict {
            Verdict::Good(_) | Verdict::Absent => continue,
            Verdict::Off(now) | Verdict::Unreadable(now) => now,
        };
        match line.remedy {
            Remedy::Sysctl | Remedy::File => remains += set(host, line, now, dry_run, out)?,
            Remedy::Unit(_) | Remedy::Script(_) | Remedy::Service(_) | Remedy::Boot(_) => {
                writeln!(out, "by hand: {} (now {now}): {}", line.name, line.remedy.words())?;
                remains += 1;
            }
        }
    }
    remains += keep(host, &verdicts, dry_run, out)?;
    let done = if dry_run { "nothing was changed" } else { "done" };
    writeln!(out, "{done}; {remains} left to do")?;
    Ok(u8::from(remains > 0 && !dry_run))
}

/// Writes one line's value; answers how many of its files could not be written.
fn set(host: &Host, line: &Line, now: &str, dry_run: bool, out: &mut dyn Write) -> io::Result<u32> {
    let value = line.want.value();
    let mut failed = 0;
    for path in host.files(line).iter().filter(|path| path.exists()) {
        let would = if dry_run { "would write" } else { "write" };
        writeln!(out, "{would} {} = {value} (now {now})", path.display())?;
        if !dry_run && let Err(error) = fs::write(path, &value) {
            writeln!(out, "  failed: {error}")?;
            failed += 1;
        }
    }
    Ok(failed)
}

/// Keeps the kernel settings for the next boot: what is good already as it is, which may be more than is asked for.
fn keep(host: &Host, verdicts: &[(&Line, Verdict)], dry_run: bool, out: &mut dyn Write) -> io::Result<u32> {
    let path = host.path(DROP_IN);
    let text = drop_in(
        |line| match verdicts.iter().find(|(other, _)| other.name == line.name) {
            Some((_, Verdict::Good(now))) => now.clone(),
            _ => line.want.value(),
        },
    );
    if fs::read_to_string(&path).is_ok_and(|there| there == text) {
        return Ok(0);
    }
    let would = if dry_run { "would write" } else { "write" };
    writeln!(out, "{would} {}", path.display())?;
    if dry_run {
        return Ok(0);
    }
    let written = fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).and_then(|()| fs::write(&path, text));
    match written {
        Ok(()) => Ok(0),
        Err(error) => {
            writeln!(out, "  failed: {error}")?;
            Ok(1)
        }
    }
}
