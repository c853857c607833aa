//! How many commits were acknowledged, in a file beside the engine's own.
//!
//! The engine takes a journal that stops making sense for one that a crash cut short, and goes on without the rest. That is
//! right for a commit that was never acknowledged, and wrong for all others. So each commit carries its number in the store,
//! and once it is synced the number is written here, without a sync: after a crash the file may be behind the store, never
//! ahead of it. A store that is behind the file has lost what it had acknowledged, and says so instead of going on.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// The file's name in the data directory.
pub(super) const FILE_NAME: &str = "COMMITS";

/// The open file.
pub(super) struct Tally {
    file: File,
    /// The number that it held when it was opened.
    pub(super) acknowledged: u64,
}

impl Tally {
    /// Opens the file in the data directory `dir`. One that is not there, or empty, has seen nothing acknowledged.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let options = options.create(true).truncate(false).read(true).write(true).mode(0o600);
        let mut file = options.open(dir.join(FILE_NAME))?;
        let mut bytes = Vec::with_capacity(8);
        file.by_ref().take(9).read_to_end(&mut bytes)?;
        let acknowledged = match bytes.as_slice() {
            [] => 0,
            bytes => u64::from_be_bytes(bytes.try_into().map_err(|_| io::ErrorKind::InvalidData)?),
        };
        Ok(Self { file, acknowledged })
    }

    /// Writes down that commit number `commits` is on disk.
    pub(super) fn set(&self, commits: u64) -> io::Result<()> {
        self.file.write_all_at(&commits.to_be_bytes(), 0)
    }
}
