//! Bodies of the HTTP API: what callers send, checked, and what they are answered.

mod answers;
mod audit;
mod requests;

pub use answers::*;
pub use audit::audit;
pub use requests::*;
