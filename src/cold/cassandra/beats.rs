//! Statements of beats: who lives.

use super::session::CassandraError;
use super::statements::prepare;
use scylla::client::session::Session;
use scylla::statement::prepared::PreparedStatement;

/// See the module.
pub(super) struct BeatStatements {
    pub(super) insert: PreparedStatement,
    pub(super) select: PreparedStatement,
}

impl BeatStatements {
    /// Prepares them.
    ///
    /// # Errors
    /// Cassandra does not answer, or the table is not as it should be.
    pub(super) async fn prepare(session: &Session, keyspace: &str) -> Result<Self, CassandraError> {
        Ok(Self {
            insert: prepare(
                session,
                format!("INSERT INTO {keyspace}.beats (node, beat) VALUES (?, ?)"),
            )
            .await?,
            select: prepare(session, format!("SELECT beat FROM {keyspace}.beats WHERE node = ?")).await?,
        })
    }
}
