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

/// In the data directory: what tells it from every other, in the fleet's registry.
const FILE_DATA: &str = "fleet_data";

/// The name of a data directory: 16 hex digits, made at random the first time and the same ever after. Two processes of
/// one `node_id` are one after the other when they have it in common, since a data directory serves one at a time.
///
/// # Errors
/// The file cannot be written or read.
pub(super) fn data_name(dir: &Path) -> Result<String, ServeError> {
    let path = dir.join(FILE_DATA);
    match fs::read_to_string(&path) {
        Ok(text) if !text.trim_end().is_empty() => return Ok(text.trim_end().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(ServeError::new("cannot read the data directory's name", error)),
    }
    let name = format!("{:016x}", rand::random::<u64>());
    write(dir, FILE_DATA, &name).map_err(|error| ServeError::new("cannot write the data directory's name", error))?;
    Ok(name)
}

/// Remembers the node's name at its first start, and goes by that name ever after, whatever the setting says then.
///
/// # Errors
/// The file cannot be written or read, or holds no id.
pub(super) fn settle(mut config: Config) -> Result<Config, ServeError> {
    let path = config.data_dir.join(FILE);
    let kept = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            write(&config.data_dir, FILE, &config.node_id)
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

fn write(dir: &Path, name: &str, line: &str) -> std::io::Result<()> {
    // Whole or not at all: renamed once it is on the disk.
    let (path, part) = (dir.join(name), dir.join(format!("{name}.part")));
    let mut file = File::create(&part)?;
    writeln!(file, "{line}")?;
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
        let name = data_name(dir.path()).unwrap();
        assert_eq!((name.len(), data_name(dir.path()).unwrap()), (16, name));
    }
}
