//! A node: its shards, store and threads, from start to drain.
#![forbid(unsafe_code)]

use crate::config::Config;

/// Why a node could not start, or ended before it was told to.
#[derive(Debug)]
pub struct ServeError(String);

impl std::fmt::Display for ServeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ServeError {}

/// Runs a node until SIGTERM.
///
/// # Errors
/// When it cannot start, or a shard or the store fails.
pub fn serve(config: Config) -> Result<(), ServeError> {
    let Config { data_dir, .. } = config;
    Err(ServeError(format!("nothing serves {} yet", data_dir.display())))
}
