//! Each event in each state, as text.

mod asking;
mod busy_wait;
mod drivers;
mod durability;
mod late;
mod offers;
mod outcomes;
mod parallel;
mod restarts;
mod strays;
mod waits;
