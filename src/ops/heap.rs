//! How much memory the allocator has handed out, as it says itself: no counting on the way of an allocation.

/// Bytes handed out and not given back, rounded up to the allocator's sizes; `None` where jemalloc is not the program's allocator.
///
/// Sums up what each thread and each arena has counted, so it is for a scrape, not for every request.
#[cfg(feature = "jemalloc")]
pub fn allocated_bytes() -> Option<u64> {
    use tikv_jemalloc_ctl::{epoch, stats};
    // What is read next is as of this moment.
    epoch::advance().ok()?;
    let bytes = stats::allocated::read().ok()? as u64;
    (bytes > 0).then_some(bytes)
}

/// See the other.
#[cfg(not(feature = "jemalloc"))]
pub fn allocated_bytes() -> Option<u64> {
    None
}

#[cfg(all(test, feature = "jemalloc"))]
mod tests {
    use super::allocated_bytes;

    #[global_allocator]
    static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

    #[test]
    fn what_is_allocated_is_counted() {
        const BYTES: u64 = 256 << 20;
        let before = allocated_bytes().unwrap();
        let held = std::hint::black_box(vec![1_u8; BYTES as usize]);
        let during = allocated_bytes().unwrap();
        drop(held);
        // Other tests allocate at the same time, but not this much.
        assert!(during.saturating_sub(before) > BYTES / 2, "{before} {during}");
    }
}
