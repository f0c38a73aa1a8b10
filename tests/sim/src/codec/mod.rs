//! What the clients speak: JSON, HTTP/1.1 and WebSocket, written for the simulator alone. None of it is the node's own
//! code, so a mistake in a codec of the node is not repeated here; all of it is cheap, so that the node is what runs.

pub mod answers;
pub mod audit;
pub mod http;
pub mod json;
pub mod messages;
pub mod ws;

/// What is not as the contract says; for the violation's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad(pub String);

impl Bad {
    /// Something that is wrong.
    pub fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

impl std::fmt::Display for Bad {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
