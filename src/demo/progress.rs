//! The line that moves while the demo runs: a bar on a terminal, a plain line every few seconds otherwise.

use super::observe::{Counters, total};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Between two updates of the bar.
const TICK: Duration = Duration::from_millis(250);
/// Between two plain lines.
const LINE: Duration = Duration::from_secs(5);

/// The progress of one run.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    trips: u64,
    begin: Instant,
    shown: Instant,
    before: Rates,
    /// The last plain line of how things stand.
    line: String,
}

/// Totals whose growth is shown as rates.
#[derive(Clone, Copy, Debug, Default)]
struct Rates {
    offers: u64,
    accepted: u64,
}

impl Progress {
    /// A bar of `trips` steps, or lines when stderr is no terminal.
    pub fn new(trips: u64) -> Self {
        let style = "{elapsed_precise} [{bar:32}] {pos}/{len} trips posted  {msg}";
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(trips).with_style(style.progress_chars("=> "))
        });
        let now = Instant::now();
        Self {
            bar,
            trips,
            begin: now,
            shown: now,
            before: Rates::default(),
            line: String::new(),
        }
    }

    /// How often [`Progress::show`] is to be called.
    pub fn tick(&self) -> Duration {
        TICK
    }

    /// Says something once.
    pub fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => eprintln!("{:6.1} s  {text}", self.begin.elapsed().as_secs_f64()),
        }
    }

    /// Shows how things stand, if it is time to.
    pub fn show(&mut self, counters: &Counters) {
        let passed = self.shown.elapsed();
        let due = if self.bar.is_some() {
            Duration::from_secs(1)
        } else {
            LINE
        };
        let posted = total(&counters.posted);
        if let Some(bar) = &self.bar {
            bar.set_position(posted);
        }
        if passed < due {
            return;
        }
        let now = Rates {
            offers: total(&counters.offers),
            accepted: total(&counters.accepted),
        };
        let rate = |now: u64, before: u64| (now - before) as f64 / passed.as_secs_f64();
        let message = format!(
            "{:.0} offers/s  {:.0} accepted/s  {} accepted  {} drivers connected",
            rate(now.offers, self.before.offers),
            rate(now.accepted, self.before.accepted),
            now.accepted,
            total(&counters.connected),
        );
        if let Some(bar) = &self.bar {
            bar.set_message(message);
        } else {
            let line = format!("{posted}/{} trips posted  {message}", self.trips);
            if self.is_news(&line) {
                self.say(&line);
            }
        }
        self.before = now;
        self.shown = Instant::now();
    }

    /// Whether a plain line says what the last one did not: while everything is read back, nothing moves.
    fn is_news(&mut self, line: &str) -> bool {
        let news = self.line != line;
        line.clone_into(&mut self.line);
        news
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_line_is_said_once() {
        let mut progress = Progress::new(7);
        let lines = ["1/7", "7/7", "7/7", "7/7", "6/7", "7/7"];
        assert_eq!(
            lines.map(|line| progress.is_news(line)),
            [true, true, false, false, true, true]
        );
    }
}
