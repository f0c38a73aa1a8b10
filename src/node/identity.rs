//! Whose data it is: audits and records name the node that decided, and must name the same one for ever.

use super::ServeError;
use crate::config::Config;
use crate::fsm::ids::DriverId;
use compact_str::CompactString;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

/// In the data directory: the name under which the node was started first.
const FILE: &str = "node_id";

/// Remembers the node's name at its first start, and goes by that name ever after, whatever the setting says then.
///
/// # Errors
/// The file cannot be written or read, or holds no id.
pub(super) fn settle(mut config: Config) -> Result<Config, ServeError> {
    let path = config.data_dir.join(FILE);
    let kept = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            write(&config.data_dir, &config.node_id)
                .map_err(|error| ServeError::new("cannot write the node's name", error))?;
            return Ok(config);
        }
        Err(error) => return Err(ServeError::new("cannot read the node's name", error)),
    };
    let kept = kept.trim_end();
    if let Err(error) = DriverId::parse(kept) {
        return Err(ServeError::new(
            "the file node_id of the data directory holds no name",
            error,
        ));
    }
    if kept != config.node_id.as_str() {
        tracing::warn!(
            kept,
            setting = config.node_id.as_str(),
            "the data directory belongs to another node_id, which stays: audits name it"
        );
        config.node_id = CompactString::new(kept);
    }
    Ok(config)
}

fn write(dir: &Path, node_id: &str) -> std::io::Result<()> {
    // Whole or not at all: renamed once it is on the disk.
    let (path, part) = (dir.join(FILE), dir.join("node_id.part"));
    let mut file = File::create(&part)?;
    writeln!(file, "{node_id}")?;
    file.sync_all()?;
    fs::rename(part, path)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_stays() {
        let dir = tempfile::tempdir().unwrap();
        let named = |node_id: &str| Config {
            data_dir: dir.path().to_owned(),
            node_id: CompactString::new(node_id),
            ..Config::default()
        };
        assert_eq!(settle(named("first")).unwrap().node_id, "first");
        assert_eq!(settle(named("second")).unwrap().node_id, "first");
        fs::write(dir.path().join(FILE), "no name\n").unwrap();
        assert!(settle(named("third")).is_err());
    }
}
