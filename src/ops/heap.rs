//! How much memory the allocator has handed out, as it says itself: no counting on the way of an allocation.
//!
//! The one place outside the rings and `net` with `unsafe`: the C library has no other way to ask.

/// Bytes handed out and not given back, the allocator's own headers included; `None` where the C library cannot say.
///
/// Takes each arena's lock and walks its free chunks, so it is for a scrape, not for every request.
#[cfg(target_env = "gnu")]
#[allow(unsafe_code)]
pub fn allocated_bytes() -> Option<u64> {
    // SAFETY: mallinfo2(3) has no arguments, returns a plain struct by value and is thread-safe.
    let heap = unsafe { libc::mallinfo2() };
    Some(heap.uordblks as u64 + heap.hblkhd as u64)
}

/// See the other.
#[cfg(not(target_env = "gnu"))]
pub fn allocated_bytes() -> Option<u64> {
    None
}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use super::allocated_bytes;

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
