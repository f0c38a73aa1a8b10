//! The files into which a run writes its results, tried before it begins: a run may take hours.
#![forbid(unsafe_code)]

use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;

use serde_json::Value;

use crate::html;
use crate::misuse::misuse;

/// Where results go, if anywhere.
#[derive(Debug, Clone, Copy, Default)]
pub struct Files<'a> {
    /// As JSON.
    pub json: Option<&'a Path>,
    /// As a page.
    pub html: Option<&'a Path>,
}

impl Files<'_> {
    /// Tries all of them, and leaves them as they are.
    ///
    /// # Errors
    /// One cannot be written; names it and says why.
    pub fn check(&self) -> io::Result<()> {
        for (option, path) in [("--json", self.json), ("--html", self.html)] {
            let Some(path) = path else { continue };
            check(path).map_err(|error| named(&format!("{option} {}", path.display()), &error))?;
        }
        Ok(())
    }

    /// Writes a document of results, and its page.
    ///
    /// # Errors
    /// The files'; names the one.
    pub fn write(&self, document: &Value) -> io::Result<()> {
        self.write_with(document, || html::page(document))
    }

    /// The same with a page of its own.
    ///
    /// # Errors
    /// The files'; names the one.
    pub fn write_with(&self, document: &Value, page: impl FnOnce() -> String) -> io::Result<()> {
        if let Some(path) = self.json {
            write(path, &format!("{document:#}\n"))?;
        }
        if let Some(path) = self.html {
            write(path, &page())?;
        }
        Ok(())
    }
}

/// Writes a file.
///
/// # Errors
/// The file's, with its name.
pub fn write(path: &Path, text: &str) -> io::Result<()> {
    fs::write(path, text).map_err(|error| named(&format!("cannot write {}", path.display()), &error))
}

/// Reads a file of results.
///
/// # Errors
/// The file's, or it is no JSON; with its name.
pub fn read_json(path: &Path) -> io::Result<Value> {
    let read = fs::read_to_string(path).and_then(|text| Ok(serde_json::from_str(&text)?));
    read.map_err(|error| misuse(format!("cannot read {}: {error}", path.display())))
}

/// An error that says what it is about.
pub(crate) fn named(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// Whether a file can be written here. What is there keeps what it holds; what is not is made and taken away again.
fn check(path: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // Opening a pipe would tell its reader that there is nothing more to come.
            if fs::metadata(path).is_ok_and(|found| found.is_file() || found.is_dir()) {
                OpenOptions::new().write(true).open(path)?;
            }
            Ok(())
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(path: &Path) -> Option<String> {
        let files = Files {
            html: Some(path),
            ..Files::default()
        };
        files.check().err().map(|error| error.to_string())
    }

    #[test]
    fn a_path_that_cannot_be_written_is_named() {
        let home = tempfile::tempdir().unwrap();
        for path in [home.path().join("missing/page.html"), home.path().to_owned()] {
            let error = refused(&path).expect("it is refused");
            assert!(error.starts_with(&format!("--html {}: ", path.display())), "{error}");
        }
    }

    #[test]
    fn a_path_that_is_tried_stays_as_it_was() {
        let home = tempfile::tempdir().unwrap();
        let (new, old) = (home.path().join("new"), home.path().join("old"));
        fs::write(&old, "kept").unwrap();
        assert_eq!((refused(&new), refused(&old)), (None, None));
        assert!(!new.exists());
        assert_eq!(fs::read_to_string(&old).unwrap(), "kept");
        assert_eq!(refused(Path::new("/dev/null")), None);
    }
}
