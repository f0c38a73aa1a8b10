//! Whether huge pages help tables of a million rows: random touches of the same table on small pages and on huge ones.

use std::hint::black_box;
use std::time::Instant;

/// Rows of the table.
const ROWS: usize = 1_000_000;
/// Bytes of a row: a driver's.
const ROW_BYTES: usize = 104;
/// Touches of one measurement.
const TOUCHES: usize = 4_000_000;
/// A huge page of this machine, bytes.
const HUGE_BYTES: usize = 2 << 20;

/// One line: what a random touch costs on either, and whether the kernel gave huge pages at all.
pub fn compare() -> String {
    let bytes = (ROWS * ROW_BYTES).next_multiple_of(HUGE_BYTES);
    let [small, huge] = [libc::MADV_NOHUGEPAGE, libc::MADV_HUGEPAGE].map(|advice| {
        let memory = Mapping::new(bytes, advice);
        let (first, second) = (touch(&memory), touch(&memory));
        first.min(second)
    });
    format!(
        "random touch of {ROWS} rows of {ROW_BYTES} B: {small:.1} ns on small pages, {huge:.1} ns on huge ones ({})",
        std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled")
            .unwrap_or_default()
            .trim()
    )
}

/// Nanoseconds per touch.
fn touch(memory: &Mapping) -> f64 {
    let begun = Instant::now();
    let (mut state, mut sum) = (0x9e37_79b9_7f4a_7c15_u64, 0_u64);
    for _ in 0..TOUCHES {
        // xorshift64: cheap, and no prefetcher follows it.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let row = (state >> 20) as usize % ROWS;
        sum = sum.wrapping_add(memory.add(row * ROW_BYTES));
    }
    black_box(sum);
    begun.elapsed().as_nanos() as f64 / TOUCHES as f64
}

struct Mapping {
    address: *mut u8,
    bytes: usize,
}

impl Mapping {
    fn new(bytes: usize, advice: libc::c_int) -> Self {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new private mapping and advice about it touch no other memory.
        let address = unsafe {
            let address = libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0);
            assert!(address != libc::MAP_FAILED, "no memory for the table");
            // Advice that the kernel does not take shows in the figures, not here.
            libc::madvise(address, bytes, advice);
            std::ptr::write_bytes(address.cast::<u8>(), 1, bytes);
            address.cast()
        };
        Self { address, bytes }
    }

    /// Adds one to the byte at `at` and returns it.
    fn add(&self, at: usize) -> u64 {
        assert!(at < self.bytes);
        // SAFETY: inside the mapping (asserted), which this thread alone uses.
        unsafe {
            let byte = self.address.add(at);
            *byte = (*byte).wrapping_add(1);
            u64::from(*byte)
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly what `new` mapped, used for the last time.
        unsafe { libc::munmap(self.address.cast(), self.bytes) };
    }
}
