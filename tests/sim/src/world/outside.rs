//! Whose code runs: the node's, or what is around it. A panic of the node is what a run finds; one of the world, a client
//! or the checker is our own and ends the run as such, even where it comes up in the middle of the node's start.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, resume_unwind};

thread_local! {
    static NODE: Cell<bool> = const { Cell::new(false) };
    static PLACE: Cell<Option<String>> = const { Cell::new(None) };
}

/// Keeps where the node panicked, for whoever catches it.
pub fn note_place(panic: &PanicHookInfo<'_>) {
    PLACE.set(panic.location().map(ToString::to_string));
}

/// Where the node panicked last, as the panic hook noted it, once.
pub(super) fn take_place() -> Option<String> {
    PLACE.take()
}

/// Whether a panic on this thread would be the node's.
pub fn is_node() -> bool {
    NODE.get()
}

/// Runs the node's code.
///
/// # Errors
/// What it panicked with.
///
/// # Panics
/// When what is around the node did, while it was called from there.
pub(super) fn node_does<R>(code: impl FnOnce() -> R) -> std::thread::Result<R> {
    let before = NODE.replace(true);
    let ended = catch_unwind(AssertUnwindSafe(code));
    let own = NODE.replace(before);
    match ended {
        Err(payload) if !own => resume_unwind(payload),
        ended => ended,
    }
}

/// Runs what is no part of the node, perhaps in the middle of its code. A panic leaves the mark as it is, so that
/// whoever catches it knows whose it is.
pub(super) fn others_do<R>(code: impl FnOnce() -> R) -> R {
    let before = NODE.replace(false);
    let done = code();
    NODE.set(before);
    done
}

#[cfg(test)]
mod tests {
    use super::super::run;
    use super::{is_node, node_does, others_do};
    use crate::client::{Action, Actor, Input, NodeEvent, Observer};
    use crate::swarm::Case;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    fn fails() {
        panic!("on purpose");
    }

    #[test]
    fn a_panic_has_an_owner() {
        assert!(node_does(fails).is_err());
        assert!(node_does(is_node).is_ok_and(|is| is));
        let others = catch_unwind(|| node_does(|| others_do(fails)));
        assert!(others.is_err(), "it goes up");
        assert!(!is_node());
        let nested = node_does(|| others_do(|| node_does(fails).is_err() && !is_node()));
        assert!(nested.is_ok_and(|nested| nested));
    }

    struct Silent;

    impl Observer for Silent {
        fn node(&mut self, _node: u8, _event: NodeEvent<'_>, _now_us: u64) {}
    }

    /// Panics as soon as time goes on, which is in the middle of the node's start.
    struct Broken;

    impl Actor for Broken {
        fn on(&mut self, input: Input<'_>, _now_us: u64, out: &mut Vec<Action>) {
            match input {
                Input::Timer(_) => panic!("the client's own"),
                _ => out.push(Action::Wake { at_us: 1, token: 0 }),
            }
        }
    }

    #[test]
    fn a_client_that_panics_while_the_node_starts_is_not_the_node() {
        let plan = Case::draw(1).plan;
        let run = catch_unwind(AssertUnwindSafe(|| run(&plan, vec![Box::new(Broken)], &mut Silent)));
        assert!(run.is_err());
    }
}
