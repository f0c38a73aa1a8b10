//! Counters, gauges and histograms that one thread writes and any thread reads.
//!
//! A write is a relaxed load and a relaxed store, no locked instruction: with one writer nothing is lost. With two it
//! would be, so each shard has its own set and the registry sums them when asked.

use super::labels::Label;
use super::text::Encoder;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Only ever grows, until the process ends.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Counts `more`.
    pub fn add(&self, more: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(more), Relaxed);
    }

    /// The count so far.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Replaces the value.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// One more.
    pub fn inc(&self) {
        self.add(1);
    }

    /// One less.
    pub fn dec(&self) {
        self.sub(1);
    }

    /// `more` more.
    pub fn add(&self, more: u64) {
        let sum = self.get().checked_add(more);
        debug_assert!(sum.is_some(), "a gauge overflowed");
        self.set(sum.unwrap_or(u64::MAX));
    }

    /// `less` less.
    pub fn sub(&self, less: u64) {
        let rest = self.get().checked_sub(less);
        debug_assert!(rest.is_some(), "a gauge fell below 0");
        self.set(rest.unwrap_or(0));
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Upper bounds of the buckets in microseconds: 100 µs to 10 s, about three to a decade. What is above the last
/// falls into `+Inf`.
pub const BUCKET_BOUNDS_US: [u64; 16] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000,
];

const _: () = {
    let mut at = 1;
    while at < BUCKET_BOUNDS_US.len() {
        assert!(BUCKET_BOUNDS_US[at - 1] < BUCKET_BOUNDS_US[at]);
        at += 1;
    }
};

/// Durations in fixed buckets.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; BUCKET_BOUNDS_US.len() + 1],
    sum_us: Counter,
}

impl Histogram {
    /// Counts a duration of `duration_us` microseconds.
    pub fn record_us(&self, duration_us: u64) {
        let bucket = BUCKET_BOUNDS_US.partition_point(|bound| *bound < duration_us);
        self.buckets[bucket].inc();
        self.sum_us.add(duration_us);
    }

    /// All durations together, microseconds.
    pub fn sum_us(&self) -> u64 {
        self.sum_us.get()
    }

    /// How many durations were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(Counter::get).sum()
    }
}

/// One instrument per value of a label.
#[derive(Debug)]
pub struct Family<L, M, const N: usize> {
    members: [M; N],
    label: PhantomData<fn(L)>,
}

impl<L: Label, M: Default, const N: usize> Default for Family<L, M, N> {
    fn default() -> Self {
        const { assert!(N == L::ALL.len()) };
        Self {
            members: std::array::from_fn(|_| M::default()),
            label: PhantomData,
        }
    }
}

impl<L: Label, M, const N: usize> Family<L, M, N> {
    /// The instrument of `label`.
    pub fn of(&self, label: L) -> &M {
        &self.members[label.index()]
    }
}

/// An instrument that can be summed over its writers and put into text.
pub(super) trait Instrument: Sized {
    /// The `TYPE` of the exposition format.
    const TYPE: &'static str;
    /// Writes the samples of `name`, summed over `parts`. `label` is `""` or `key="value"`.
    fn encode(parts: &[&Self], name: &str, label: &str, out: &mut Encoder);
}

impl Instrument for Counter {
    const TYPE: &'static str = "counter";
    fn encode(parts: &[&Self], name: &str, label: &str, out: &mut Encoder) {
        out.sample(
            name,
            label,
            parts.iter().map(|part| part.get()).fold(0, u64::wrapping_add),
        );
    }
}

impl Instrument for Gauge {
    const TYPE: &'static str = "gauge";
    fn encode(parts: &[&Self], name: &str, label: &str, out: &mut Encoder) {
        out.sample(
            name,
            label,
            parts.iter().map(|part| part.get()).fold(0, u64::saturating_add),
        );
    }
}

impl Instrument for Histogram {
    const TYPE: &'static str = "histogram";
    fn encode(parts: &[&Self], name: &str, label: &str, out: &mut Encoder) {
        assert!(label.is_empty(), "histograms have no labels of their own");
        let mut cumulated = 0;
        for (index, bound_us) in BUCKET_BOUNDS_US.iter().map(Some).chain([None]).enumerate() {
            cumulated += parts.iter().map(|part| part.buckets[index].get()).sum::<u64>();
            out.bucket(name, bound_us.copied(), cumulated);
        }
        out.sample_us_as_seconds(&format!("{name}_sum"), parts.iter().map(|part| part.sum_us.get()).sum());
        out.sample(&format!("{name}_count"), "", cumulated);
    }
}

impl<L: Label, M: Instrument, const N: usize> Instrument for Family<L, M, N> {
    const TYPE: &'static str = M::TYPE;
    fn encode(parts: &[&Self], name: &str, label: &str, out: &mut Encoder) {
        assert!(label.is_empty(), "one label is enough");
        for (index, value) in L::ALL.iter().enumerate() {
            let members: Vec<&M> = parts.iter().map(|part| &part.members[index]).collect();
            M::encode(&members, name, &format!("{}=\"{}\"", L::KEY, value.name()), out);
        }
    }
}
