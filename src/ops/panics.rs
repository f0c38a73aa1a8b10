//! A panic ends the process.
#![forbid(unsafe_code)]

use std::time::Duration;

/// Longest time for telling about a panic, before the process ends without a word.
const REPORT_MAX: Duration = Duration::from_secs(3);

/// A panic is a bug, and what the process believes is then not to be trusted: the journal is. So from now on the process
/// ends there, by SIGABRT, in every build and on whichever thread it happens.
pub fn abort() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        // Nobody may read stderr, and then the report would wait for ever.
        let _ = std::thread::Builder::new().spawn(|| {
            std::thread::sleep(REPORT_MAX);
            std::process::abort();
        });
        // The lines before it say how it came to this.
        super::log::end();
        report(info);
        std::process::abort();
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LogFormat, LogLevel};
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    /// Has the tests' own process run the play below, where it is not skipped.
    const PLAY: &str = "PANIC_PLAY";
    const SIGABRT: i32 = 6;

    /// What a process does whose shard has a bug. Without [`PLAY`] it does nothing.
    #[test]
    fn the_play() {
        if std::env::var_os(PLAY).is_none() {
            return;
        }
        abort();
        crate::ops::log::init(LogLevel::Info, LogFormat::Text);
        let shard = std::thread::Builder::new().name("shard-7".to_owned()).spawn(|| {
            tracing::info!("the line before it");
            // As a thread that is unwound, or joined by somebody who goes on, would not end the process.
            let _ = std::panic::catch_unwind(|| panic!("a bug in a shard"));
        });
        let _ = shard.expect("a thread").join();
        std::process::exit(0);
    }

    #[test]
    fn a_panic_on_any_thread_is_told_and_ends_the_process() {
        let mut play = Command::new(std::env::current_exe().expect("the tests' program"));
        play.args(["--exact", "ops::panics::tests::the_play", "--nocapture"]);
        let played = play.env(PLAY, "1").output().expect("the tests' program runs");
        let told = String::from_utf8_lossy(&played.stderr);
        assert_eq!(played.status.signal(), Some(SIGABRT), "{:?}: {told}", played.status);
        let place = |words: &str| told.find(words).unwrap_or_else(|| panic!("{words} is not in {told}"));
        assert!(place("the line before it") < place("a bug in a shard"), "{told}");
        place("thread 'shard-7'");
        place("src/ops/panics.rs");
    }
}
