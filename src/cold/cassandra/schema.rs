//! The tables, made and changed by migrations: `dispatchd schema apply` and `schema check`. [`migrations`] has them.
//!
//! A migration is a list of statements that may run again (`IF NOT EXISTS`): one that was interrupted is finished by the
//! next `apply`. Migrations only add, so that nodes of the version before go on working. Run it from one place at a time:
//! Cassandra does not keep two of them apart.

mod migrations;

use super::CassandraConfig;
use super::session::{CassandraError, connect, datacenters};
use migrations::{MIGRATIONS, Migration, VERSION};
use scylla::client::session::Session;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io::Write;
use std::time::Duration;

/// Copies that a datacenter with enough nodes has in most clusters: one may be away.
const COPIES_USUAL: usize = 3;
/// For a change of the schema.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(60);
/// How often, and how far apart, a new table is tried before it is taken for one that cannot be used.
const SETTLE_TRIES: u32 = 20;
const SETTLE_PAUSE: Duration = Duration::from_millis(500);

/// Where the keyspace's copies are to be, as the command line has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replication(BTreeMap<String, u32>);

impl Replication {
    /// From `simple=N`, or `datacenter=N` for each, separated by commas.
    ///
    /// # Errors
    /// It is something else; says what is expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let expected = || {
            "allowed: DATACENTER=COPIES[,DATACENTER=COPIES…], such as dc1=3, or simple=COPIES, such as simple=1"
                .to_owned()
        };
        let mut copies = BTreeMap::new();
        for part in text.split(',') {
            let (place, count) = part.trim().split_once('=').ok_or_else(expected)?;
            let count = count
                .parse()
                .ok()
                .filter(|count| (1..=99).contains(count))
                .ok_or_else(expected)?;
            let is_name = !place.is_empty() && place.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
            if !is_name || copies.insert(place.to_owned(), count).is_some() {
                return Err(expected());
            }
        }
        if copies.contains_key("simple") && copies.len() > 1 {
            return Err(expected());
        }
        Ok(Self(copies))
    }

    /// As CQL has it.
    fn cql(&self) -> String {
        if let Some(count) = self.0.get("simple") {
            return format!("{{'class': 'SimpleStrategy', 'replication_factor': {count}}}");
        }
        let mut text = String::from("{'class': 'NetworkTopologyStrategy'");
        for (datacenter, count) in &self.0 {
            write!(text, ", '{datacenter}': {count}").expect("a String takes everything");
        }
        text.push('}');
        text
    }
}

/// `dispatchd schema apply`: makes the keyspace when it is missing, and applies what was not applied. Says what it did.
///
/// # Errors
/// Cassandra cannot be reached or refuses; the keyspace is missing and `replication` is not given, or it is there with another one.
pub async fn apply(
    config: &CassandraConfig,
    replication: Option<&Replication>,
    out: &mut impl Write,
) -> Result<(), CassandraError> {
    let session = connect(config, CHANGE_TIMEOUT).await?;
    make_keyspace(&session, config, replication, out).await?;
    let keyspace = &config.keyspace;
    let table = format!(
        "CREATE TABLE IF NOT EXISTS {keyspace}.schema_migrations (version int PRIMARY KEY, name text, applied_at timestamp)"
    );
    change(&session, &table).await?;
    let applied = patiently(async || applied(&session, config).await).await?;
    for migration in MIGRATIONS {
        if applied.contains_key(&migration.version) {
            continue;
        }
        for statement in (migration.statements)(config) {
            change(&session, &statement).await?;
        }
        let text = format!(
            "INSERT INTO {keyspace}.schema_migrations (version, name, applied_at) VALUES (?, ?, toTimestamp(now()))"
        );
        patiently(async || {
            let noted = session.query_unpaged(text.as_str(), (migration.version, migration.name));
            let failed = |error| CassandraError::new("cannot note the migration", error);
            noted.await.map(drop).map_err(failed)
        })
        .await?;
        say(out, format_args!("applied {}: {}", migration.version, migration.name))?;
    }
    let found = compare(&session, config).await?;
    if !found.damage.is_empty() {
        return Err(CassandraError::plain(damaged(config, &found)));
    }
    say(
        out,
        format_args!("keyspace {keyspace} has schema version {}", found.newest),
    )
}

/// `dispatchd schema check`: says what there is and what is missing, and whether that suits this program.
///
/// # Errors
/// Cassandra cannot be reached.
pub async fn check(config: &CassandraConfig, out: &mut impl Write) -> Result<bool, CassandraError> {
    let session = connect(config, CHANGE_TIMEOUT).await?;
    let keyspace = &config.keyspace;
    let Some(replication) = find_replication(&session, config).await? else {
        say(
            out,
            format_args!("keyspace {keyspace} is missing: `dispatchd schema apply` makes it"),
        )?;
        return Ok(false);
    };
    say(out, format_args!("keyspace {keyspace}, replication {replication:?}"))?;
    let found = compare(&session, config).await?;
    say(
        out,
        format_args!("schema version {}, this program needs {VERSION}", found.newest),
    )?;
    for line in found.pending.iter().chain(&found.damage) {
        say(out, format_args!("{line}"))?;
    }
    Ok(found.pending.is_empty() && found.damage.is_empty())
}

/// Whether a node can work with the schema.
///
/// # Errors
/// It cannot; says what to do.
pub(super) async fn require(session: &Session, config: &CassandraConfig) -> Result<(), CassandraError> {
    let keyspace = &config.keyspace;
    if find_replication(session, config).await?.is_none() {
        return Err(CassandraError::plain(format!(
            "keyspace {keyspace} (fleet_cassandra_keyspace) is missing: run `dispatchd schema apply`"
        )));
    }
    let found = compare(session, config).await?;
    if !found.pending.is_empty() {
        return Err(CassandraError::plain(format!(
            "keyspace {keyspace} (fleet_cassandra_keyspace) has schema version {}, {VERSION} is needed: run `dispatchd schema apply`",
            found.newest
        )));
    }
    if !found.damage.is_empty() {
        return Err(CassandraError::plain(damaged(config, &found)));
    }
    Ok(())
}

/// For people: what is not as its migration left it, and the way out.
fn damaged(config: &CassandraConfig, found: &Compared) -> String {
    format!(
        "the schema of keyspace {} is damaged:\n{}",
        config.keyspace,
        found.damage.join("\n")
    )
}

async fn make_keyspace(
    session: &Session,
    config: &CassandraConfig,
    replication: Option<&Replication>,
    out: &mut impl Write,
) -> Result<(), CassandraError> {
    let keyspace = &config.keyspace;
    match (find_replication(session, config).await?, replication) {
        (Some(_), None) => Ok(()),
        (Some(found), Some(wanted)) => {
            if is_same(&found, wanted) {
                return Ok(());
            }
            Err(CassandraError::plain(format!(
                "keyspace {keyspace} has replication {found:?} and keeps it: change it with ALTER KEYSPACE and a repair"
            )))
        }
        (None, None) => {
            let (known, example) = suitable(session);
            Err(CassandraError::plain(format!(
                "keyspace {keyspace} is missing and --replication says not how many copies it is to have\n\
                 give it once, such as --replication {example}, or --replication simple=1 to try it with one node; {known}"
            )))
        }
        (None, Some(wanted)) => {
            let cql = wanted.cql();
            change(
                session,
                &format!("CREATE KEYSPACE IF NOT EXISTS {keyspace} WITH replication = {cql}"),
            )
            .await?;
            say(out, format_args!("made keyspace {keyspace} with replication {cql}"))
        }
    }
}

/// What the cluster says of its datacenters, and copies that would suit them.
fn suitable(session: &Session) -> (String, String) {
    let found = datacenters(session);
    let each = |what: &dyn Fn(&str, usize) -> String| -> Vec<String> {
        found.iter().map(|(name, nodes)| what(name, *nodes)).collect()
    };
    let known = each(&|name, nodes| format!("{name} (nodes: {nodes})")).join(", ");
    let example = each(&|name, nodes| format!("{name}={}", nodes.min(COPIES_USUAL))).join(",");
    (format!("datacenters of this cluster: {known}"), example)
}

fn is_same(found: &BTreeMap<String, String>, wanted: &Replication) -> bool {
    let is_simple = found
        .get("class")
        .is_some_and(|class| class.ends_with("SimpleStrategy"));
    let count = |place: &str| found.get(place).and_then(|count| count.parse().ok());
    match wanted.0.get("simple") {
        Some(copies) => is_simple && count("replication_factor") == Some(*copies),
        None => {
            !is_simple
                && found.len() == wanted.0.len() + 1
                && wanted.0.iter().all(|(place, copies)| count(place) == Some(*copies))
        }
    }
}

/// What `work` gives in the end: nodes that have just started may not have the table yet that the others have agreed on.
async fn patiently<T>(work: impl AsyncFn() -> Result<T, CassandraError>) -> Result<T, CassandraError> {
    for _ in 0..SETTLE_TRIES {
        if let Ok(done) = work().await {
            return Ok(done);
        }
        tokio::time::sleep(SETTLE_PAUSE).await;
    }
    work().await
}

async fn change(session: &Session, statement: &str) -> Result<(), CassandraError> {
    let done = session.query_unpaged(statement, ()).await;
    done.map(drop)
        .map_err(|error| CassandraError::new("cannot change the schema", error))
}

/// The keyspace's replication; `None`: there is no such keyspace.
async fn find_replication(
    session: &Session,
    config: &CassandraConfig,
) -> Result<Option<BTreeMap<String, String>>, CassandraError> {
    let unread = |error: &dyn std::fmt::Display| CassandraError::new("cannot read the schema", error);
    let text = "SELECT replication FROM system_schema.keyspaces WHERE keyspace_name = ?";
    let asked = session.query_unpaged(text, (config.keyspace.as_str(),)).await;
    let rows = asked.map_err(|error| unread(&error))?.into_rows_result();
    let rows = rows.map_err(|error| unread(&error))?;
    let found = rows.maybe_first_row::<(HashMap<String, String>,)>();
    Ok(found
        .map_err(|error| unread(&error))?
        .map(|(found,)| found.into_iter().collect()))
}

/// Versions and names of what was applied.
async fn applied(session: &Session, config: &CassandraConfig) -> Result<BTreeMap<i32, String>, CassandraError> {
    let unread = |error: &dyn std::fmt::Display| {
        CassandraError::new("cannot read schema_migrations (run `dispatchd schema apply`)", error)
    };
    let text = format!("SELECT version, name FROM {}.schema_migrations", config.keyspace);
    let rows = session.query_unpaged(text, ()).await.map_err(|error| unread(&error))?;
    let rows = rows.into_rows_result().map_err(|error| unread(&error))?;
    let rows = rows.rows::<(i32, Option<String>)>().map_err(|error| unread(&error))?;
    let mut found = BTreeMap::new();
    for row in rows {
        let (version, name) = row.map_err(|error| unread(&error))?;
        found.insert(version, name.unwrap_or_default());
    }
    Ok(found)
}

/// What is there beside what should be.
#[derive(Default)]
struct Compared {
    /// The newest version applied.
    newest: i32,
    /// Migrations that were not applied, a line each.
    pending: Vec<String>,
    /// What is not as an applied migration left it, and the way out, a line each.
    damage: Vec<String>,
}

/// Types of columns, by table and name.
type Columns = HashMap<(String, String), String>;

async fn read_columns(session: &Session, config: &CassandraConfig) -> Result<Columns, CassandraError> {
    let unread = |error: &dyn std::fmt::Display| CassandraError::new("cannot read the schema", error);
    let text = "SELECT table_name, column_name, type FROM system_schema.columns WHERE keyspace_name = ?";
    let rows = session.query_unpaged(text, (config.keyspace.as_str(),)).await;
    let rows = rows.map_err(|error| unread(&error))?.into_rows_result();
    let rows = rows.map_err(|error| unread(&error))?;
    let rows = rows.rows::<(String, String, String)>();
    let mut found = HashMap::new();
    for row in rows.map_err(|error| unread(&error))? {
        let (table, column, kind) = row.map_err(|error| unread(&error))?;
        found.insert((table, column), kind);
    }
    Ok(found)
}

async fn compare(session: &Session, config: &CassandraConfig) -> Result<Compared, CassandraError> {
    let columns = read_columns(session, config).await?;
    let has_migrations = columns.keys().any(|(table, _)| table == "schema_migrations");
    let applied = if has_migrations {
        applied(session, config).await?
    } else {
        BTreeMap::new()
    };
    let mut found = Compared {
        newest: applied.keys().last().copied().unwrap_or(0),
        ..Compared::default()
    };
    for Migration { version, name, .. } in MIGRATIONS {
        if !applied.contains_key(version) {
            found.pending.push(format!(
                "migration {version} is not applied: {name}; `dispatchd schema apply` does that"
            ));
        }
    }
    let done = MIGRATIONS.iter().filter(|one| applied.contains_key(&one.version));
    found.damage = done.flat_map(|one| damage(one, &config.keyspace, &columns)).collect();
    Ok(found)
}

/// What of a migration that was applied is not as it left it, and the way out.
fn damage(migration: &Migration, keyspace: &str, columns: &Columns) -> Vec<String> {
    let has = |table: &str| columns.keys().any(|(found, _)| found == table);
    let mut lines = Vec::new();
    for (table, column, kind) in migration.columns {
        let wanted = kind.strip_suffix(" static").unwrap_or(kind);
        let line = match columns.get(&((*table).to_owned(), (*column).to_owned())) {
            Some(is) if is == wanted => continue,
            Some(is) => format!(
                "{table}.{column} is {is} and should be {wanted}: somebody else made that table; give the nodes another \
                 fleet_cassandra_keyspace, and run `dispatchd schema apply`"
            ),
            None if has(table) => format!(
                "{table}.{column} is missing: restore the table from a snapshot, or, knowing that what stood there is lost, \
                 ALTER TABLE {keyspace}.{table} ADD {column} {kind}"
            ),
            None => format!(
                "table {table} is missing: restore it from a snapshot, or, knowing that what stood there is lost, DELETE FROM \
                 {keyspace}.schema_migrations WHERE version = {}, and run `dispatchd schema apply`, which makes it anew",
                migration.version
            ),
        };
        // A table that is gone is said once.
        if lines.last() != Some(&line) {
            lines.push(line);
        }
    }
    lines
}

fn say(out: &mut impl Write, line: std::fmt::Arguments<'_>) -> Result<(), CassandraError> {
    writeln!(out, "{line}").map_err(|error| CassandraError::new("cannot write", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of tables that are as they should be, and of some that are not.
    #[test]
    fn damage_is_said_with_the_way_out() {
        let first = &MIGRATIONS[0];
        let mut columns: Columns = HashMap::new();
        for (table, column, kind) in first.columns {
            let kind = kind.strip_suffix(" static").unwrap_or(kind);
            columns.insert(((*table).to_owned(), (*column).to_owned()), kind.to_owned());
        }
        let key = |table: &str, column: &str| (table.to_owned(), column.to_owned());
        assert!(damage(first, "ks", &columns).is_empty());
        columns.remove(&key("trips", "trip_id"));
        columns.remove(&key("trips", "request_id"));
        columns.remove(&key("requests", "length"));
        columns.insert(key("bindings", "trip_id"), "blob".to_owned());
        let lines = damage(first, "ks", &columns);
        let told = [
            "ALTER TABLE ks.requests ADD length int static",
            "bindings.trip_id is blob and should be text",
            "table trips is missing: restore it from a snapshot, or, knowing that what stood there is lost, DELETE FROM \
             ks.schema_migrations WHERE version = 1, and run `dispatchd schema apply`",
        ];
        assert_eq!(lines.len(), told.len(), "{lines:#?}");
        for (line, told) in lines.iter().zip(told) {
            assert!(line.contains(told), "{line}");
        }
    }

    #[test]
    fn replications_are_parsed_and_others_refused() {
        let cql = |text: &str| Replication::parse(text).unwrap().cql();
        assert_eq!(cql("simple=1"), "{'class': 'SimpleStrategy', 'replication_factor': 1}");
        assert_eq!(cql("b=2, a=3"), "{'class': 'NetworkTopologyStrategy', 'a': 3, 'b': 2}");
        for bad in ["", "3", "a=", "a=0", "a=100", "a=1,a=2", "simple=1,a=2", "a'=1", "=1"] {
            assert!(Replication::parse(bad).is_err(), "{bad}");
        }
    }
}
