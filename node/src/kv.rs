//! An ordered transactional key-value store: the one interface that everything above is written against, once.
//!
//! Reads see a snapshot. Transactions are optimistic: they buffer their writes, and `commit` fails with
//! [`KvError::Conflict`] when a key they write was written by somebody else since they began. The engine is chosen once,
//! at start; all engines pass the same contract suite.
//!
//! What every engine promises: a snapshot never changes; a transaction is seen whole or not at all; what was acknowledged
//! is on disk; reads alone never conflict. Two transactions that merely [`lock`](Transaction::lock) the same key may or
//! may not conflict with each other.
//!
//! Deadlines are kept here and not by callers: a read that takes longer than [`READ_DEADLINE`] is `Unavailable`, a commit
//! that takes longer than [`WRITE_DEADLINE`] is `Undetermined`.

use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::field;

use crate::ambient::UnixMs;
use crate::kv::embedded::Embedded;
use crate::kv::tikv::Tikv;
use crate::kv::write_set::{Change, WriteSet};
use crate::resilience::Condition;
use crate::traces::{self, STEP};

pub mod embedded;
pub mod tikv;
mod transact;
pub(crate) mod write_set;

pub use transact::TRANSACT_DEADLINE;

/// Longest key, in bytes: far above the longest text in a key, and below what either engine takes.
pub const KEY_BYTES_MAX: usize = 4 << 10;
/// Longest value, in bytes: rows are a few hundred bytes; a larger one is a mistake that would stall the others.
pub const VALUE_BYTES_MAX: usize = 1 << 20;
/// Most rows that one scan or one `batch_get` answers: larger reads are made in pages.
pub const SCAN_ROWS_MAX: usize = 10_000;
/// Most bytes that one scan or one `batch_get` answers: it is held in memory whole.
pub const SCAN_BYTES_MAX: usize = 64 << 20;
/// Most keys that one transaction writes or locks: it holds up everybody in its commit group.
pub const TRANSACTION_ROWS_MAX: usize = 10_000;
/// Most bytes of keys and values that one transaction writes: what a replicated log takes as one entry.
pub const TRANSACTION_BYTES_MAX: usize = 8 << 20;
/// How long a read may take.
pub const READ_DEADLINE: Duration = Duration::from_secs(1);
/// How long a commit may take.
pub const WRITE_DEADLINE: Duration = Duration::from_secs(3);

const _: () = assert!(KEY_BYTES_MAX + VALUE_BYTES_MAX <= TRANSACTION_BYTES_MAX, "any one row fits a transaction");

/// Why the key-value store did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KvError {
    /// Another transaction wrote one of this one's keys first. Begin again.
    #[error("another transaction wrote the same key first")]
    Conflict,
    /// An `insert` found its key taken.
    #[error("the key exists already")]
    AlreadyExists {
        /// The key that was there.
        key: Vec<u8>,
    },
    /// A scan, key, value or transaction is larger than the engine takes.
    #[error("{what} is over the limit of {limit}")]
    TooLarge {
        /// What was too large.
        what: &'static str,
        /// The limit, in bytes or rows.
        limit: usize,
    },
    /// The store cannot be reached or has failed; asking again later may help.
    #[error("the store is unavailable: {reason}")]
    Unavailable {
        /// What happened, without data.
        reason: String,
    },
    /// Whether the commit took place is not known: read back.
    #[error("whether the transaction was committed is not known")]
    Undetermined,
}

impl KvError {
    /// The kind of error in one word, without data.
    fn kind(&self) -> &'static str {
        match self {
            Self::Conflict => "conflict",
            Self::AlreadyExists { .. } => "already_exists",
            Self::TooLarge { .. } => "too_large",
            Self::Unavailable { .. } => "unavailable",
            Self::Undetermined => "undetermined",
        }
    }
}

/// The engines' names.
const EMBEDDED: &str = "embedded";
const TIKV: &str = "tikv";

/// A key and its value.
pub type Row = (Vec<u8>, Vec<u8>);

/// Tells a store's files on this machine from every copy of them. It stays when they are moved or renamed, and cannot tell when
/// a whole file system was put back as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The number of one of the files in its file system.
    pub inode: u64,
    /// When that file was born, in nanoseconds since 1970, as numbers of deleted files are used again; 0 where that is not kept.
    pub created_ns: u64,
}

/// The store of a node; cheap to clone.
#[derive(Clone, Debug)]
pub enum Kv {
    /// On this machine's disk.
    Embedded(Embedded),
    /// In a cluster that nodes share.
    Tikv(Tikv),
}

impl Kv {
    /// Reads one key at a fresh timestamp: everything acknowledged before the call is seen.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        match self {
            Self::Embedded(engine) => {
                let snapshot = engine.snapshot()?;
                step(EMBEDDED, "get", snapshot.get(key)).await
            }
            Self::Tikv(engine) => step(TIKV, "get", engine.get(key)).await,
        }
    }

    /// Waits until there is a connection to the store: an embedded one needs none. That it answers is another matter.
    pub async fn connected(&self) {
        if let Self::Tikv(engine) = self {
            engine.connected().await;
        }
    }

    /// Whether the store answers.
    pub async fn ping(&self) -> Result<(), KvError> {
        self.get(&[0]).await.map(drop)
    }

    /// The engine's name, as `GET /api/v1/health` shows it.
    pub fn engine(&self) -> &'static str {
        match self {
            Self::Embedded(_) => EMBEDDED,
            Self::Tikv(_) => TIKV,
        }
    }

    /// How a store on other machines is, which is watched all the time; none for one in this process.
    pub fn condition(&self) -> Option<Condition> {
        match self {
            Self::Embedded(_) => None,
            Self::Tikv(engine) => Some(engine.condition()),
        }
    }

    /// Whether nothing can be written because the disk is full. Reads go on.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Embedded(engine) => engine.is_full(),
            Self::Tikv(_) => false,
        }
    }

    /// Where the store's files are; none when they are not on this machine.
    pub fn place(&self) -> Option<Place> {
        match self {
            Self::Embedded(engine) => Some(engine.place()),
            Self::Tikv(_) => None,
        }
    }

    /// Resolves with the reason once the engine has failed for good: the node should stop then. A store on other machines may
    /// always come back.
    pub async fn failed(&self) -> String {
        match self {
            Self::Embedded(engine) => engine.failed().await,
            Self::Tikv(_) => std::future::pending().await,
        }
    }

    /// Closes the store and tells whether that was done within `patience`; what was acknowledged is safe in any case.
    pub async fn close(&self, patience: Duration) -> bool {
        match self {
            Self::Embedded(engine) => engine.close(patience).await,
            Self::Tikv(_) => true,
        }
    }

    /// A view of the store as it is now, which never changes. Keep it for seconds, not minutes: it holds back compaction.
    pub async fn snapshot(&self) -> Result<Snapshot, KvError> {
        let view = match self {
            Self::Embedded(engine) => View::Embedded(engine.snapshot()?),
            Self::Tikv(engine) => View::Tikv(engine.view().await?),
        };
        Ok(Snapshot { view })
    }

    /// Begins a transaction on the store as it is now.
    pub async fn begin(&self) -> Result<Transaction, KvError> {
        let (started, now, view) = match self {
            Self::Embedded(engine) => {
                let started = engine.begin()?;
                let now = started.now();
                (Started::Embedded(started), now, View::Embedded(engine.snapshot()?))
            }
            Self::Tikv(engine) => {
                let (started, view) = step(TIKV, "begin", engine.begin()).await?;
                let now = started.now();
                (Started::Tikv(Box::new(started)), now, View::Tikv(view))
            }
        };
        Ok(Transaction { started, snapshot: Snapshot { view }, now, writes: WriteSet::default() })
    }
}

/// An unchanging view of the store.
#[derive(Clone, Debug)]
pub struct Snapshot {
    view: View,
}

#[derive(Clone, Debug)]
enum View {
    Embedded(embedded::View),
    Tikv(tikv::View),
}

impl Snapshot {
    /// Reads one key.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        match &self.view {
            View::Embedded(view) => step(EMBEDDED, "get", view.get(key)).await,
            View::Tikv(view) => step(TIKV, "get", view.get(key)).await,
        }
    }

    /// Reads many keys, at most [`SCAN_ROWS_MAX`]; the answers are in the order of `keys`.
    pub async fn batch_get(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, KvError> {
        check_limit("a batch of keys to read", keys.len(), SCAN_ROWS_MAX)?;
        match &self.view {
            View::Embedded(view) => view.batch_get(keys.to_vec()).await,
            View::Tikv(view) => view.batch_get(keys).await,
        }
    }

    /// The first `limit` rows of `range` in ascending order of their keys; `limit` is at most [`SCAN_ROWS_MAX`].
    pub async fn scan(&self, range: Range<Vec<u8>>, limit: usize) -> Result<Vec<Row>, KvError> {
        check_limit("a scan's number of rows", limit, SCAN_ROWS_MAX)?;
        self.scan_any(range, limit).await
    }

    async fn scan_any(&self, range: Range<Vec<u8>>, limit: usize) -> Result<Vec<Row>, KvError> {
        match &self.view {
            View::Embedded(view) => view.scan(range, limit).await,
            View::Tikv(view) => view.scan(range, limit).await,
        }
    }
}

/// What an engine needs to commit.
#[derive(Debug)]
enum Started {
    Embedded(embedded::Started),
    Tikv(Box<tikv::Started>),
}

/// A transaction: reads see the store as it was when it began, with its own writes on top.
///
/// Dropping it forgets its writes. A write that is over a limit, or an `insert` of a key that it wrote itself, is
/// reported by [`commit`](Self::commit).
#[derive(Debug)]
pub struct Transaction {
    started: Started,
    snapshot: Snapshot,
    now: UnixMs,
    writes: WriteSet,
}

impl Transaction {
    /// The store's own clock when this transaction began. It never goes back behind what a committed transaction saw, across
    /// restarts too, whatever the machine's clock does.
    pub fn now(&self) -> UnixMs {
        self.now
    }

    /// The store as it was when this transaction began: what it reads but for its own writes.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Reads one key.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        match self.writes.get(key) {
            Some(own @ (Change::Put(_) | Change::Delete)) => Ok(own.after(None)),
            Some(Change::Lock) | None => self.snapshot.get(key).await,
        }
    }

    /// Reads many keys, at most [`SCAN_ROWS_MAX`]; the answers are in the order of `keys`.
    pub async fn batch_get(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, KvError> {
        let mut values = self.snapshot.batch_get(keys).await?;
        for (key, value) in keys.iter().zip(&mut values) {
            if let Some(own) = self.writes.get(key) {
                *value = own.after(value.take());
            }
        }
        Ok(values)
    }

    /// The first `limit` rows of `range` in ascending order of their keys; `limit` is at most [`SCAN_ROWS_MAX`].
    pub async fn scan(&self, range: Range<Vec<u8>>, limit: usize) -> Result<Vec<Row>, KvError> {
        check_limit("a scan's number of rows", limit, SCAN_ROWS_MAX)?;
        // A row that this transaction deleted must not cost the answer one of its places.
        let stored = self.snapshot.scan_any(range.clone(), limit + self.writes.deletes_in(&range)).await?;
        Ok(self.writes.overlay(stored, &range, limit))
    }

    /// Writes a row, whether its key exists or not.
    pub fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.writes.put(key, value);
    }

    /// Writes a row whose key must not exist: else the commit fails with `AlreadyExists`, or with `Conflict` when the key
    /// was written since this transaction began.
    pub fn insert(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.writes.insert(key, value);
    }

    /// Deletes a row; no error when there is none.
    pub fn delete(&mut self, key: Vec<u8>) {
        self.writes.delete(key);
    }

    /// Makes the commit fail with `Conflict` when another transaction writes this key first, without writing it here.
    pub fn lock(&mut self, key: Vec<u8>) {
        self.writes.lock(key);
    }

    /// Commits. After `Ok` the writes are on disk; after `Undetermined` they may be; after any other error none is.
    pub async fn commit(self) -> Result<(), KvError> {
        let Self { started, snapshot, now: _, writes } = self;
        // The store may now forget the old versions that this transaction was reading.
        drop(snapshot);
        let writes = writes.finish()?;
        if writes.is_empty() {
            return Ok(());
        }
        match started {
            Started::Embedded(started) => step(EMBEDDED, "commit", started.commit(writes)).await,
            Started::Tikv(started) => step(TIKV, "commit", started.commit(writes)).await,
        }
    }
}

/// Does what `operation` names, as a step of the trace if the request is followed.
fn step<T>(
    engine: &'static str,
    operation: &'static str,
    run: impl Future<Output = Result<T, KvError>>,
) -> impl Future<Output = Result<T, KvError>> {
    let span = tracing::info_span!(
        target: STEP,
        "store",
        otel.name = operation,
        otel.kind = if engine == EMBEDDED { "internal" } else { "client" },
        otel.status_code = field::Empty,
        db.system.name = engine,
        db.operation.name = operation,
        "error.type" = field::Empty,
    );
    traces::within(span, KvError::kind, run)
}

/// All keys that start with `prefix`.
pub fn prefix_range(prefix: Vec<u8>) -> Range<Vec<u8>> {
    let mut end = prefix.clone();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return prefix..end;
        }
    }
    // The prefix is empty or all 0xff: no key sorts behind this one, as none is so long.
    prefix..vec![u8::MAX; KEY_BYTES_MAX + 1]
}

/// Fails with `TooLarge` when `found` is over `limit`.
pub(crate) fn check_limit(what: &'static str, found: usize, limit: usize) -> Result<(), KvError> {
    if found > limit { Err(KvError::TooLarge { what, limit }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_range_holds_what_starts_with_the_prefix_and_nothing_else() {
        for prefix in
            ["", "a", "a\u{7f}", "b"].map(str::as_bytes).into_iter().chain([&b"a\xff"[..], b"\xff", b"\xff\xff"])
        {
            let range = prefix_range(prefix.to_vec());
            for key in [&b""[..], b"a", b"a\x00", b"a\x7f", b"a\xff", b"a\xff\xff", b"b", b"\xff", b"\xff\xff\xff"] {
                assert_eq!(range.contains(&key.to_vec()), key.starts_with(prefix), "{prefix:?} {key:?}");
            }
        }
    }
}
