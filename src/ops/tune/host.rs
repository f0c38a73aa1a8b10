//! Reads a host's settings below a root, so that tests can make one up.

use std::fs;
use std::path::{Path, PathBuf};

use super::Verdict;
use super::awake;
use super::table::{Line, Probe, Want};
use super::unit::{self, UnitLimit};

/// A host, seen through `/proc` and `/sys`.
#[derive(Clone, Debug)]
pub struct Host {
    root: PathBuf,
}

impl Host {
    /// This one.
    pub fn this() -> Self {
        Self::at("/")
    }

    /// One whose `proc` and `sys` stand below `root`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The file of an absolute path.
    pub(super) fn path(&self, absolute: &str) -> PathBuf {
        self.root.join(absolute.trim_start_matches('/'))
    }

    /// The file of a sysctl's name.
    pub(super) fn sysctl_path(&self, name: &str) -> PathBuf {
        self.path("/proc/sys").join(name.replace('.', "/"))
    }

    /// Files of a line that `tune apply` writes as they are.
    pub(super) fn files(&self, line: &Line) -> Vec<PathBuf> {
        match line.probe {
            Probe::Sysctl => vec![self.sysctl_path(line.name)],
            Probe::Word(path) => vec![self.path(path)],
            Probe::EachCpu(file) => self.cpus().iter().map(|cpu| cpu.join(file)).collect(),
            Probe::Limit { .. } | Probe::WakeUp | Probe::ConnectionTable | Probe::Conntrack | Probe::NicIrqs => {
                Vec::new()
            }
        }
    }

    /// Compares what is there with what should be.
    pub fn verdict(&self, line: &Line) -> Verdict {
        let (now, source) = match line.probe {
            Probe::Limit { own, unit } => self.limit(own, unit),
            probe => (self.read(probe, line.name), ""),
        };
        match now {
            Ok(Some(now)) if self.meets(line.want, &now) => Verdict::Good(now + source),
            Ok(Some(now)) => Verdict::Off(now + source),
            Ok(None) if line.optional => Verdict::Absent,
            Ok(None) => Verdict::Unreadable("does not exist".into()),
            Err(why) => Verdict::Unreadable(why),
        }
    }

    /// What is there; nothing when the host has no such thing.
    fn read(&self, probe: Probe, name: &str) -> Result<Option<String>, String> {
        match probe {
            Probe::Sysctl => read(&self.sysctl_path(name)),
            Probe::Word(path) => Ok(read(&self.path(path))?.map(|text| chosen(&text).to_owned())),
            Probe::Limit { own, .. } => {
                let limits = read(&self.path("/proc/self/limits"))?.unwrap_or_default();
                Ok(hard_limit(&limits, own).map(str::to_owned))
            }
            Probe::EachCpu(file) => self.each_cpu(file),
            Probe::WakeUp => self.wake_up(),
            // Below zero in a network namespace that shares the host's.
            Probe::ConnectionTable => {
                let buckets = read(&self.sysctl_path(name))?;
                Ok(buckets.map(|buckets| buckets.trim_start_matches('-').to_owned()))
            }
            Probe::Conntrack => read(&self.path("/proc/sys/net/netfilter/nf_conntrack_count")),
            Probe::NicIrqs => self.wandering_irqs(),
        }
    }

    /// A limit as the node will have it, and whose that is: a service gets its unit's, not those of the shell that asks.
    fn limit(&self, own: &'static str, unit: &'static str) -> (Result<Option<String>, String>, &'static str) {
        const OF_UNIT: &str = " (dispatchd.service)";
        match unit::limit(self, unit) {
            Ok(UnitLimit::Set(value)) => (Ok(Some(value)), OF_UNIT),
            Ok(UnitLimit::NotSet) => (Ok(Some("not set".to_owned())), OF_UNIT),
            Ok(UnitLimit::NoUnit) => {
                let now = self.read(Probe::Limit { own, unit }, own);
                (now, " (this shell; no dispatchd.service is installed)")
            }
            Err(why) => (Err(why), ""),
        }
    }

    fn meets(&self, want: Want, now: &str) -> bool {
        let number = |text: &str| match text {
            "unlimited" => Some(u64::MAX),
            digits => digits.parse().ok(),
        };
        let at_least = |least: u64| number(now).is_some_and(|now| now >= least);
        match want {
            Want::AtLeast(least) => at_least(least),
            Want::AtLeastPerCore(bytes) => at_least(bytes * self.cpus().len().max(1) as u64),
            Want::AtMost(most) => number(now).is_some_and(|now| now <= most),
            Want::Exactly(words) => now == words,
            Want::OneOf(words) => words.contains(&now),
            Want::Range(from, to) => now.split_once(' ').is_some_and(|(low, high)| {
                number(low).is_some_and(|low| low <= from) && number(high).is_some_and(|high| high >= to)
            }),
        }
    }

    fn cpus(&self) -> Vec<PathBuf> {
        let is_cpu = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let number = name.strip_prefix("cpu").unwrap_or_default();
            !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
        };
        entries(&self.path("/sys/devices/system/cpu"))
            .into_iter()
            .filter(is_cpu)
            .collect()
    }

    /// The value of all cores, or the first that differs.
    fn each_cpu(&self, file: &str) -> Result<Option<String>, String> {
        let mut all = None;
        for cpu in self.cpus() {
            let Some(now) = read(&cpu.join(file))? else { continue };
            match &all {
                Some(before) if *before != now => return Ok(Some(format!("{before} and {now}"))),
                _ => all = Some(now),
            }
        }
        Ok(all)
    }

    /// The bound that the kernel was asked for; nothing where no core has a choice of sleep states.
    fn wake_up(&self) -> Result<Option<String>, String> {
        match awake::latency_us_max(self) {
            Ok(awake::NOBODY_ASKED) => Ok(Some("nobody asked".into())),
            Ok(latency) => Ok(Some(latency.to_string())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("{}: {error}", awake::DEVICE)),
        }
    }

    /// How many interrupts of network cards may run on more than one core; nothing when there are none of their own.
    fn wandering_irqs(&self) -> Result<Option<String>, String> {
        let (mut irqs, mut wandering) = (0, 0);
        for card in entries(&self.path("/sys/class/net")) {
            for irq in entries(&card.join("device/msi_irqs")) {
                let Some(number) = irq.file_name().and_then(|name| name.to_str()) else {
                    continue;
                };
                let path = self.path("/proc/irq").join(number).join("effective_affinity_list");
                let Some(cores) = read(&path)? else { continue };
                irqs += 1;
                wandering += u64::from(cores.contains([',', '-']));
            }
        }
        Ok((irqs > 0).then(|| wandering.to_string()))
    }
}

/// A file's words, separated by single spaces; nothing when there is no such file.
fn read(path: &Path) -> Result<Option<String>, String> {
    let words = |text: String| text.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
    Ok(text(path)?.map(words))
}

/// What a file holds; nothing when there is no such file.
pub(super) fn text(path: &Path) -> Result<Option<String>, String> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

/// The word in brackets, or all of it.
fn chosen(text: &str) -> &str {
    let inside = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    inside.map_or(text, |(word, _)| word)
}

fn hard_limit<'a>(limits: &'a str, name: &str) -> Option<&'a str> {
    // Words of a limit's name, soft and hard value, and unit stand beside each other with single spaces.
    let rest = limits.split_once(name)?.1;
    rest.split_ascii_whitespace().nth(1)
}

/// What a directory holds, in order of names; nothing when there is none.
pub(super) fn entries(directory: &Path) -> Vec<PathBuf> {
    let found = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = found.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}
