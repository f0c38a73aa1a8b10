//! Every check of the witness notices what it is there for, and nothing in a good story.

mod answers;
mod closes;
mod looks;
mod offers;
mod owed;
mod presence;
mod queues;
mod reports;
mod story;
mod words;
