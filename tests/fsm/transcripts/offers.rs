//! One driver after the other.
use crate::script::check;

#[test]
fn offered_and_accepted() {
    check(
        "d1",
        "
        > POST r1 d1
        > d1 reads
        > d1 ACK r1/1
        > d1 ACCEPT r1/1
        > d1 TRIP r1 arrived
        > d1 TRIP r1 pickup
        > d1 TRIP r1 complete
        ",
    );
}
