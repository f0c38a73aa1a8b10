//! The pure core: request actors and driver actors, joined by channels and a durability port in memory.
//!
//! `transcripts` shows each event in each state as text, `random` looks for histories in which an invariant breaks,
//! `fold` cuts the logs of such histories everywhere, `wheel` arms a million timers, `views` looks at a driver between events,
//! `moves` has drivers go from node to node and `standing` has them ask how they stand, `words` has them speak of
//! trips, `owners` and `fences` have requests change their owner.
#![forbid(unsafe_code)]

mod fences;
mod fold;
mod moves;
mod owners;
mod random;
mod reserved;
mod said;
mod script;
mod standing;
mod transcripts;
mod views;
mod wheel;
mod words;
mod world;
