//! What fuzz targets are given, beside bytes.

pub mod json;
pub mod records;

/// Cuts `bytes` where `at` says, in thousandths of a percent or so: the same places whatever the length.
pub fn pieces<'a>(bytes: &'a [u8], at: &[u16]) -> Vec<&'a [u8]> {
    let place = |cut: &u16| usize::from(*cut) * (bytes.len() + 1) / (usize::from(u16::MAX) + 1);
    let mut places: Vec<usize> = at.iter().map(place).collect();
    places.sort_unstable();
    let mut begin = 0;
    let mut pieces = Vec::with_capacity(places.len() + 1);
    for end in places.into_iter().chain([bytes.len()]) {
        pieces.push(&bytes[begin..end]);
        begin = end;
    }
    pieces
}
