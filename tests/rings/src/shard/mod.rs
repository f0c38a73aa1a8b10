//! `src/shard`, as far as threads meet in it.

#[path = "../../../../src/shard/mailbox.rs"]
#[allow(clippy::missing_panics_doc, reason = "private in the product")]
pub mod mailbox;
#[path = "../../../../src/shard/spsc.rs"]
pub mod whole_spsc;

/// The ring as the mailbox sees it, cut to [`PLACES`] places: a model that fills a thousand would never end.
pub mod spsc {
    pub use super::whole_spsc::{Consumer, Producer};

    /// Places of every ring of a mesh.
    pub const PLACES: usize = 2;

    /// A ring of as many places as asked for, but at most [`PLACES`].
    pub fn ring<T: Send>(capacity: usize) -> (Producer<T>, Consumer<T>) {
        super::whole_spsc::ring(capacity.min(PLACES))
    }
}
