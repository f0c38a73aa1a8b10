//! Each event in each state, as text.

mod offers;
