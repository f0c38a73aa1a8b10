//! Records as bytes: every record comes back, and no bytes make the decoder fall over.
#![no_main]

use dispatchd::aligned::AlignedBuffer;
use dispatchd::fsm::types::{Record, RequestLog};
use dispatchd::given::records;
use dispatchd::wire::record::{RECORD_ALIGN, RECORD_OVERHEAD_MAX, decode, encode, entry_len_max};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;

fn comes_back(record: &Record, before: usize) -> Vec<u8> {
    let mut out = AlignedBuffer::new();
    out.resize(before * RECORD_ALIGN, 0xee);
    let len = encode(record, &mut out).expect("it is small");
    let bytes = &out.as_slice()[before * RECORD_ALIGN..];
    assert_eq!(bytes.len(), len);
    assert_eq!(decode(bytes).as_ref().ok(), Some(record));
    if let Record::Steps { entries, .. }
    | Record::ImageRest { entries, .. }
    | Record::Image(RequestLog { log: entries, .. }) = record
    {
        let bound = RECORD_OVERHEAD_MAX + entries.iter().map(entry_len_max).sum::<usize>();
        assert!(len <= bound, "{len} bytes, bound {bound}");
    }
    bytes.to_vec()
}

/// A record and harm to its bytes.
fn harmed(u: &mut Unstructured<'_>) -> Result<()> {
    let record = records::record(u)?;
    let mut bytes = comes_back(&record, usize::from(u.arbitrary::<u8>()? % 4));
    while !u.is_empty() {
        let at = u.choose_index(bytes.len())?;
        bytes[at] ^= u.arbitrary::<u8>()?;
        let _ = decode(&bytes);
        let _ = decode(&bytes[..at]);
    }
    Ok(())
}

fuzz_target!(|data: &[u8]| {
    match data {
        [0, bytes @ ..] => {
            if let Ok(record) = decode(bytes) {
                comes_back(&record, 0);
            }
        }
        [_, rest @ ..] => drop(harmed(&mut Unstructured::new(rest))),
        [] => {}
    }
});
