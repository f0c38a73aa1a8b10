//! What must hold in every execution. loom reports a race on a slot, a sleep without end and a leak by itself.

mod bell;
pub mod inbox;
pub mod mailbox;
pub mod ring;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Tries all executions of `model` in which threads are interrupted at most `preemptions` times (`None`: any number),
/// and prints how many there were.
///
/// # Panics
/// When one of them breaks what the model says.
fn check(name: &str, preemptions: Option<usize>, model: impl Fn() + Sync + Send + 'static) {
    let executions = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&executions);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        model();
    });
    println!("{name}: {} executions", executions.load(Ordering::Relaxed));
}
