//! The storage engine itself, `fjall`: a log-structured merge tree with a journal. All that the layer above asks of it is
//! snapshots, reads and one atomic durable batch at a time; it is the only file that names the crate.
//!
//! Memory: [`CACHE_BYTES`] of blocks, up to twice [`MEMTABLE_BYTES`] of recent writes (one filling, one being flushed), and
//! about 2 bytes a row of filters and indexes.

use std::error::Error;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable};

use crate::ambient::UnixMs;
use crate::kv::embedded::room::Space;
use crate::kv::embedded::tally::{FILE_NAME, Tally};
use crate::kv::write_set::Change;
use crate::kv::{KvError, Place, Row, SCAN_BYTES_MAX};

/// Memory for blocks read from disk: the hot links are in the process's own cache already, this holds what lies around them.
const CACHE_BYTES: u64 = 64 << 20;
/// Recent writes held in memory before they are written out sorted.
pub(super) const MEMTABLE_BYTES: u64 = 32 << 20;
/// Most bytes of journal on disk; it is what a restart has to read.
const JOURNAL_BYTES_MAX: u64 = 256 << 20;
/// Files that the engine keeps open between reads; it opens and closes the others as it needs them. 10 million links are dozens.
pub const FILES_KEPT_OPEN: usize = 256;
/// Threads that flush and compact: one for each, so that a long compaction never holds up a flush.
const WORKER_THREADS: usize = 2;

/// Where the store's clock lies in the `meta` keyspace.
const CLOCK: &[u8] = b"clock";
/// Where the number of the last commit lies there.
const COMMITS: &[u8] = b"commits";

/// Why the engine did not do what it was asked.
#[derive(Debug)]
pub(super) enum EngineError {
    /// The operating system refused.
    Io(io::Error),
    /// What lies on disk does not make sense, or the engine has given up on it.
    Damaged(String),
    /// A thread of the engine could not write, some time ago; it does not say why.
    Background,
}

impl From<fjall::Error> for EngineError {
    fn from(error: fjall::Error) -> Self {
        if matches!(error, fjall::Error::Poisoned) {
            return Self::Background;
        }
        let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
        while let Some(found) = cause {
            if let Some(io) = found.downcast_ref::<io::Error>() {
                return match io.kind() {
                    // The engine reads its own files only: one that is missing or too short is no matter of permissions.
                    io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => {
                        Self::Damaged(io.to_string())
                    }
                    kind => Self::Io(io.raw_os_error().map_or_else(|| kind.into(), io::Error::from_raw_os_error)),
                };
            }
            cause = found.source();
        }
        Self::Damaged(format!("{error:?}"))
    }
}

impl EngineError {
    /// The reason in words, without data.
    pub(super) fn reason(&self) -> String {
        match self {
            Self::Io(error) => format!("the disk failed: {error}"),
            Self::Damaged(what) => format!("the data is damaged: {what}"),
            Self::Background => "the disk failed: writing in the background failed; is it full?".to_owned(),
        }
    }

    /// Whether the disk was full. It has this much `space` now, and `was_short` of it since the engine was opened.
    pub(super) fn is_full(&self, space: Option<Space>, was_short: bool) -> bool {
        match self {
            Self::Io(error) => matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded),
            Self::Background => was_short || space.is_some_and(Space::may_have_been_short),
            Self::Damaged(_) => false,
        }
    }
}

impl From<EngineError> for KvError {
    fn from(error: EngineError) -> Self {
        Self::Unavailable { reason: error.reason() }
    }
}

/// An open store.
pub(super) struct Engine {
    rows: Keyspace,
    meta: Keyspace,
    database: Database,
    /// The number of the last commit.
    commits: AtomicU64,
    tally: Tally,
    /// Where it lies.
    dir: PathBuf,
    /// Held until everything above is closed: fields are dropped in this order.
    _lock: Option<File>,
}

impl Engine {
    /// Makes an empty store in an empty directory and closes it.
    pub(super) fn create(dir: &Path) -> Result<(), EngineError> {
        let database = builder(dir).open()?;
        database.keyspace("rows", rows_options)?;
        database.keyspace("meta", KeyspaceCreateOptions::default)?;
        Ok(database.persist(PersistMode::SyncAll)?)
    }

    /// Opens the store in `dir`, which must have every commit of the `tally`. `lock` is held for as long as it is open.
    pub(super) fn open(dir: &Path, tally: Tally, lock: File) -> Result<Self, EngineError> {
        // Without this file the engine would start over in the middle of the old data.
        if !dir.join("version").try_exists().map_err(EngineError::Io)? {
            return Err(EngineError::Damaged("the engine's version is missing".to_owned()));
        }
        // On damage that it does not expect the engine panics; that is damage all the same.
        let database = catch_unwind(AssertUnwindSafe(|| builder(dir).open()))
            .map_err(|_| EngineError::Damaged("the engine cannot make sense of it".to_owned()))??;
        // The engine drops a keyspace whose manifest is gone; opening it would make an empty one.
        if !database.keyspace_exists("rows") || !database.keyspace_exists("meta") {
            return Err(EngineError::Damaged("a keyspace is missing".to_owned()));
        }
        let rows = database.keyspace("rows", rows_options)?;
        let meta = database.keyspace("meta", KeyspaceCreateOptions::default)?;
        let commits = read_number(&database, &meta, COMMITS)?;
        if let Some(lost @ 1..) = tally.acknowledged.checked_sub(commits) {
            return Err(EngineError::Damaged(format!(
                "its journal broke off: the last {lost} commits are missing, which were acknowledged; to go on without \
                 them, delete the file {FILE_NAME}"
            )));
        }
        Ok(Self {
            rows,
            meta,
            database,
            commits: AtomicU64::new(commits),
            tally,
            dir: dir.to_owned(),
            _lock: Some(lock),
        })
    }

    /// Where the data directory is.
    pub(super) fn place(&self) -> Place {
        self.tally.place
    }

    /// The space on its disk; none if the system does not say.
    pub(super) fn space(&self) -> Option<Space> {
        Space::of(&self.dir)
    }

    /// The store's clock as it was last committed.
    pub(super) fn clock(&self) -> Result<UnixMs, EngineError> {
        read_number(&self.database, &self.meta, CLOCK).map(UnixMs)
    }

    /// A view of what is committed now.
    pub(super) fn snapshot(&self) -> fjall::Snapshot {
        self.database.snapshot()
    }

    pub(super) fn get(&self, at: &fjall::Snapshot, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        Ok(at.get(&self.rows, key)?.map(|value| value.to_vec()))
    }

    pub(super) fn contains(&self, at: &fjall::Snapshot, key: &[u8]) -> Result<bool, EngineError> {
        Ok(at.contains_key(&self.rows, key)?)
    }

    /// The first `limit` rows of `range`; `TooLarge` when they are more than [`SCAN_BYTES_MAX`] bytes.
    pub(super) fn scan(&self, at: &fjall::Snapshot, range: Range<Vec<u8>>, limit: usize) -> Result<Vec<Row>, KvError> {
        // The engine panics on a range that ends before it starts.
        if range.start >= range.end {
            return Ok(Vec::new());
        }
        let (mut rows, mut bytes) = (Vec::new(), 0);
        for row in at.range(&self.rows, range).take(limit) {
            let (key, value) = row.into_inner().map_err(EngineError::from)?;
            bytes += key.len() + value.len();
            crate::kv::check_limit("a scan's bytes", bytes, SCAN_BYTES_MAX)?;
            rows.push((key.to_vec(), value.to_vec()));
        }
        Ok(rows)
    }

    /// Applies all changes and the clock as one: when this returns they are on disk, and only then seen by snapshots.
    pub(super) fn apply<'a>(
        &self,
        changes: impl Iterator<Item = (&'a [u8], &'a Change)>,
        clock: UnixMs,
    ) -> Result<(), EngineError> {
        // `fdatasync` syncs the data and the file's length: all that reading the journal again needs.
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        for (key, change) in changes {
            match change {
                Change::Lock => {}
                Change::Put(value) => batch.insert(&self.rows, key, value.as_slice()),
                Change::Delete => batch.remove(&self.rows, key),
            }
        }
        batch.insert(&self.meta, CLOCK, clock.0.to_be_bytes());
        let number = self.commits.load(Ordering::Relaxed) + 1;
        batch.insert(&self.meta, COMMITS, number.to_be_bytes());
        batch.commit()?;
        self.commits.store(number, Ordering::Relaxed);
        self.tally.set(number).map_err(EngineError::Io)
    }

    /// Syncs everything.
    pub(super) fn sync(&self) -> Result<(), EngineError> {
        Ok(self.database.persist(PersistMode::SyncAll)?)
    }
}

/// A number of the `meta` keyspace; 0 where there is none yet.
fn read_number(database: &Database, meta: &Keyspace, name: &[u8]) -> Result<u64, EngineError> {
    let Some(bytes) = database.snapshot().get(meta, name)? else { return Ok(0) };
    let bytes = <[u8; 8]>::try_from(&*bytes);
    bytes.map(u64::from_be_bytes).map_err(|_| EngineError::Damaged("a number in it is not 8 bytes".to_owned()))
}

fn builder(dir: &Path) -> fjall::DatabaseBuilder<Database> {
    Database::builder(dir)
        .cache_size(CACHE_BYTES)
        .max_journaling_size(JOURNAL_BYTES_MAX)
        .worker_threads(WORKER_THREADS)
        .max_cached_files(Some(FILES_KEPT_OPEN))
        // Durability is asked for with each batch.
        .manual_journal_persist(true)
}

fn rows_options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES)
}
