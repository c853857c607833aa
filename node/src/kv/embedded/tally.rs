//! How many commits were acknowledged, in a file beside the engine's own.
//!
//! The engine takes a journal that stops making sense for one that a crash cut short, and goes on without the rest. That is
//! right for a commit that was never acknowledged, and wrong for all others. So each commit carries its number in the store,
//! and once it is synced the number is written here, without a sync: after a crash the file may be behind the store, never
//! ahead of it. A store that is behind the file has lost what it had acknowledged, and says so instead of going on.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::UNIX_EPOCH;

use crate::kv::Place;

/// The file's name in the data directory.
pub(super) const FILE_NAME: &str = "COMMITS";

/// The open file.
pub(super) struct Tally {
    file: File,
    /// Where the file is, and with it the data directory. Nothing replaces it but a restore, or somebody who deletes it.
    pub(super) place: Place,
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
        let metadata = file.metadata()?;
        let created = metadata.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let created_ns = created.map_or(0, |at| u64::try_from(at.as_nanos()).unwrap_or(0));
        Ok(Self { file, place: Place { inode: metadata.ino(), created_ns }, acknowledged })
    }

    /// Writes down that commit number `commits` is on disk.
    pub(super) fn set(&self, commits: u64) -> io::Result<()> {
        self.file.write_all_at(&commits.to_be_bytes(), 0)
    }
}
