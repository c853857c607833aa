//! The data directory: who may open it, and what lies in it.
//!
//! ```text
//! LOCK      held while a node has the directory open; the operating system lets go of it when the process dies
//! FORMAT    the version of everything below, as text
//! COMMITS   how many commits were acknowledged; see `tally`
//! engine/   the engine's own files, readable by their owner only
//! ```
//! A new store is made as `engine.new` and renamed when it is whole, so that a crash in between leaves nothing half made.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::kv::embedded::engine::{Engine, EngineError};
use crate::kv::embedded::tally::{FILE_NAME, Tally};

/// The version of what lies in the directory. It goes up when an older node could not read it any more.
const FORMAT_VERSION: u32 = 1;

/// Why a data directory cannot be opened. Each is one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Somebody else holds its lock.
    #[error("the data directory {} is in use by another node: stop that one, or choose another directory", dir.display())]
    InUse {
        /// The data directory.
        dir: PathBuf,
    },
    /// What lies there does not make sense.
    #[error("the data directory {} is damaged ({what}): restore a backup of it, or move it away to start empty", dir.display())]
    Damaged {
        /// The data directory.
        dir: PathBuf,
        /// What was found.
        what: String,
    },
    /// The operating system does not let us read or write.
    #[error("the data directory {} cannot be read and written ({reason}): check its owner, permissions and mount", dir.display())]
    NotWritable {
        /// The data directory.
        dir: PathBuf,
        /// What the operating system said.
        reason: String,
    },
    /// No space is left.
    #[error("the disk of the data directory {} is full: make space and start again; nothing acknowledged is lost", dir.display())]
    DiskFull {
        /// The data directory.
        dir: PathBuf,
    },
    /// A newer release wrote it.
    #[error("the data directory {} was written by a newer release (format {found}, this one reads up to {FORMAT_VERSION}): upgrade the node", dir.display())]
    NewerFormat {
        /// The data directory.
        dir: PathBuf,
        /// Its format version.
        found: u32,
    },
}

impl OpenError {
    pub(super) fn io(dir: &Path, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { dir: dir.to_path_buf() },
            _ => Self::NotWritable { dir: dir.to_path_buf(), reason: error.to_string() },
        }
    }

    pub(super) fn damaged(dir: &Path, what: impl Into<String>) -> Self {
        Self::Damaged { dir: dir.to_path_buf(), what: what.into() }
    }

    pub(super) fn engine(dir: &Path, error: EngineError) -> Self {
        match error {
            EngineError::Io(error) => Self::io(dir, &error),
            EngineError::Damaged(what) => Self::damaged(dir, what),
            error @ EngineError::Background => Self::io(dir, &io::Error::other(error.reason())),
        }
    }
}

/// Opens the store in `dir`, making both when there is none.
pub(super) fn open(dir: &Path) -> Result<Engine, OpenError> {
    let io_error = |error: io::Error| OpenError::io(dir, &error);
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io_error)?;
    let lock = lock(dir)?;
    let engine_dir = dir.join("engine");
    let is_there = engine_dir.try_exists().map_err(io_error)?;
    check_format(dir, is_there)?;
    if !is_there {
        let unfinished = dir.join("engine.new");
        if unfinished.try_exists().map_err(io_error)? {
            fs::remove_dir_all(&unfinished).map_err(io_error)?;
        }
        DirBuilder::new().mode(0o700).create(&unfinished).map_err(io_error)?;
        Engine::create(&unfinished).map_err(|error| OpenError::engine(dir, error))?;
        fs::rename(&unfinished, &engine_dir).map_err(io_error)?;
        sync_dir(dir).map_err(io_error)?;
    }
    let tally = Tally::open(dir).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => OpenError::damaged(dir, format!("{FILE_NAME} holds no number")),
        _ => io_error(error),
    })?;
    Engine::open(&engine_dir, tally, lock).map_err(|error| OpenError::engine(dir, error))
}

fn lock(dir: &Path) -> Result<File, OpenError> {
    let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(dir.join("LOCK"));
    let lock = lock.map_err(|error| OpenError::io(dir, &error))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { dir: dir.to_path_buf() }),
        Err(TryLockError::Error(error)) => Err(OpenError::io(dir, &error)),
    }
}

/// Checks the directory's format version, or writes it when there is no store yet.
fn check_format(dir: &Path, is_there: bool) -> Result<(), OpenError> {
    match fs::read_to_string(dir.join("FORMAT")) {
        Ok(text) => match text.trim().parse() {
            Ok(FORMAT_VERSION) => Ok(()),
            Ok(found) if found > FORMAT_VERSION => Err(OpenError::NewerFormat { dir: dir.to_path_buf(), found }),
            _ => Err(OpenError::damaged(dir, "FORMAT holds no version")),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound && is_there => {
            Err(OpenError::damaged(dir, "FORMAT is missing"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            write_format(dir).map_err(|error| OpenError::io(dir, &error))
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(OpenError::damaged(dir, "FORMAT holds no version"))
        }
        Err(error) => Err(OpenError::io(dir, &error)),
    }
}

/// Writes the format version, whole or not at all.
fn write_format(dir: &Path) -> io::Result<()> {
    let unfinished = dir.join("FORMAT.new");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&unfinished)?;
    writeln!(file, "{FORMAT_VERSION}")?;
    file.sync_all()?;
    fs::rename(&unfinished, dir.join("FORMAT"))?;
    sync_dir(dir)
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(dir: &Path) -> Result<(), String> {
        open(dir).map(drop).map_err(|error| error.to_string())
    }

    #[test]
    fn a_directory_is_made_private_and_opens_again() {
        use std::os::unix::fs::PermissionsExt;
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("a/b");
        opened(&dir).unwrap();
        opened(&dir).unwrap();
        for path in [dir.clone(), dir.join("engine")] {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o700);
        }
    }

    #[test]
    fn every_refusal_is_one_line_that_names_the_directory_and_what_to_do() {
        let check = |spoil: &dyn Fn(&Path), expected: &str| {
            let dir = tempfile::tempdir().unwrap();
            opened(dir.path()).unwrap();
            spoil(dir.path());
            let message = opened(dir.path()).unwrap_err();
            assert!(message.contains(expected), "{message}");
            assert!(message.contains(dir.path().to_str().unwrap()) && !message.contains('\n'), "{message}");
        };
        let write = |name: &'static str, text: &'static str| move |dir: &Path| fs::write(dir.join(name), text).unwrap();
        check(&write("FORMAT", "2\n"), "written by a newer release (format 2");
        check(&write("FORMAT", "x"), "damaged (FORMAT holds no version): restore a backup");
        check(&|dir| fs::write(dir.join("FORMAT"), [0xff]).unwrap(), "damaged (FORMAT holds no version)");
        check(&|dir| fs::remove_file(dir.join("FORMAT")).unwrap(), "damaged (FORMAT is missing)");
        check(&write("COMMITS", "7"), "damaged (COMMITS holds no number)");
        check(&write("COMMITS", "\0\0\0\0\0\0\0\x07"), "the last 7 commits are missing");
        check(&|dir| fs::remove_file(dir.join("engine/version")).unwrap(), "damaged (the engine's version is missing)");
        check(&write("engine/version", "FJL\x09"), "damaged");
        check(&|dir| fs::remove_dir_all(dir.join("engine/keyspaces")).unwrap(), "damaged");
        check(&|dir| fs::remove_file(dir.join("engine/keyspaces/1/current")).unwrap(), "damaged");
    }

    #[test]
    fn a_file_in_the_way_is_not_writable() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let message = opened(file.path()).unwrap_err();
        assert!(message.contains("cannot be read and written"), "{message}");
    }

    #[test]
    fn a_store_that_was_half_made_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("engine.new")).unwrap();
        fs::write(dir.path().join("engine.new/0.jnl"), "half").unwrap();
        opened(dir.path()).unwrap();
    }
}
