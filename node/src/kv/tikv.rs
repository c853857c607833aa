//! The engine that nodes share: TiKV, through its transactional API.
//!
//! Transactions are TiKV's own optimistic ones, committed in two phases: the timestamp of the commit is drawn from the
//! placement driver after all rows are locked. Timestamps are the store's clock. All keys begin with the keyspace's name,
//! so that several keyspaces, and other users of TiKV, share one cluster.
//!
//! The client (`tikv-client` 0.4) has traps, each closed here and nowhere else:
//! - It waits for a hung placement driver or store far beyond any use: every call has a deadline.
//! - Once it was told of a leader that it cannot connect to, it never asks for another: [`connection`] makes a new client.
//! - An answer that is lost is an error like any other, although the transaction may have been committed. [`commit`] then
//!   rolls back: a rollback that succeeds proves that it was not and never will be; else nobody knows, and that is said.
//! - A lock whose transaction died before its primary row was locked is never resolved: [`orphans`] does it.
//! - It sets no lower bound (`min_commit_ts`) for a commit in one phase or an asynchronous one. TiKV then commits just
//!   above the highest timestamp that the store has seen. That may lie before the start of a transaction that has read
//!   nothing yet: it misses the conflict, and a snapshot that was taken before sees the commit. Neither kind is used.
//! - An insert that is deleted again becomes a mere check, which locks nothing and leaves no primary row to commit:
//!   [`commit`] reads the row and sends a deletion.
//! - A transaction that is dropped panics, and asynchronous commits leave locks that nobody resolves: neither is used.

mod commit;
mod connection;
mod fault;
mod orphans;
mod settings;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use tikv_client::transaction::HeartbeatOption;
use tikv_client::{Backoff, CheckLevel, RetryOptions, Timestamp, Transaction, TransactionOptions};
use tokio_util::sync::CancellationToken;

use crate::ambient::{Clock, UnixMs};
use crate::kv::write_set::Write;
use crate::kv::{KvError, READ_DEADLINE, Row, SCAN_BYTES_MAX, check_limit};
use crate::resilience::{BackEndMetrics, CallError, Condition, Resilience};
use connection::Connection;
use fault::Fault;
use orphans::Orphans;

pub use settings::{TikvSettings, Tls};

/// Rows that one request for a scan may bring: many regions answer it at once, each with as many.
const PAGE_ROWS: usize = 1_024;
/// A lock that somebody died with is free after its time to live of 3 s: reads that meet one go on trying for longer. Their
/// own deadline is what ends them.
const LOCK_BACKOFF: Backoff = Backoff::no_jitter_backoff(2, 500, 14);
/// While a region moves or its leader changes.
const REGION_BACKOFF: Backoff = Backoff::no_jitter_backoff(2, 500, 10);

/// A keyspace in a TiKV cluster; cheap to clone.
#[derive(Clone)]
pub struct Tikv {
    inner: Arc<Inner>,
}

struct Inner {
    prefix: Vec<u8>,
    connection: Connection,
    resilience: Resilience,
    orphans: Orphans,
}

impl Tikv {
    /// The keyspace of `settings`. It need not be reachable yet: [`Tikv::keep`] connects, and calls fail until it has.
    pub fn new(settings: &TikvSettings, clock: Clock, metrics: &BackEndMetrics) -> Self {
        let inner = Inner {
            prefix: settings.prefix(),
            connection: Connection::new(settings, clock.clone()),
            resilience: Resilience::new("tikv", clock, metrics),
            orphans: Orphans::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Connects, and again whenever the client is lost; watches over the cluster's health. Until `shutdown`.
    pub async fn keep(self, shutdown: CancellationToken) {
        let probed = self.clone();
        let watching = self.inner.resilience.clone().watch(|| probed.probe(), shutdown.clone());
        let cleaning = async {
            tokio::select! {
                () = self.inner.clean_up() => {}
                () = shutdown.cancelled() => {}
            }
        };
        tokio::join!(self.inner.connection.keep(shutdown.clone()), watching, cleaning);
    }

    /// Waits until a client has been made.
    pub async fn connected(&self) {
        self.inner.connection.connected().await;
    }

    /// Makes a new client, which reads the certificates again. Until there is one, the client of the moment stays in use.
    pub fn connect_anew(&self) {
        let connection = &self.inner.connection;
        connection.is_stuck(connection.generation());
    }

    /// How the cluster is.
    pub fn condition(&self) -> Condition {
        self.inner.resilience.condition()
    }

    async fn probe(&self) -> bool {
        let answered = async {
            let at = self.inner.timestamp().await?;
            self.inner.get(&at, &[0]).await
        };
        matches!(tokio::time::timeout(READ_DEADLINE, answered).await, Ok(Ok(_)))
    }

    /// One read at a fresh timestamp.
    pub(super) async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.read(|| async {
            let at = self.inner.timestamp().await?;
            self.inner.get(&at, key).await
        })
        .await
    }

    /// A view as of now.
    pub(super) async fn view(&self) -> Result<View, KvError> {
        let at = self.read(|| self.inner.timestamp()).await?;
        Ok(View { engine: self.clone(), at })
    }

    /// Begins a transaction, which reads through the view.
    pub(super) async fn begin(&self) -> Result<(Started, View), KvError> {
        let begin = || async {
            let (client, generation) = self.inner.connection.client()?;
            let begun = client.begin_with_options(options()).await;
            Ok((begun.map_err(|error| self.inner.fault(generation, &error))?, generation))
        };
        let (transaction, generation) = self.read(begin).await?;
        let at = transaction.start_timestamp();
        Ok((Started { engine: self.clone(), transaction, generation }, View { engine: self.clone(), at }))
    }

    /// A call that changes nothing, so that it may be repeated.
    async fn read<T, Attempt>(&self, attempt: impl Fn() -> Attempt) -> Result<T, KvError>
    where
        Attempt: Future<Output = Result<T, Fault>>,
    {
        let generation = self.inner.connection.generation();
        let answer = self.inner.resilience.call(READ_DEADLINE, attempt, Fault::verdict).await;
        answer.map_err(|error| match error {
            CallError::Open => unavailable("it fails, and is asked again once it works"),
            CallError::Deadline => {
                self.inner.connection.timed_out(generation);
                unavailable("a read took longer than its deadline")
            }
            CallError::Failed(fault) => fault.of_a_read(),
        })
    }
}

impl fmt::Debug for Tikv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tikv").finish_non_exhaustive()
    }
}

impl Inner {
    async fn timestamp(&self) -> Result<Timestamp, Fault> {
        let (client, generation) = self.connection.client()?;
        client.current_timestamp().await.map_err(|error| self.fault(generation, &error))
    }

    async fn get(&self, at: &Timestamp, key: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        let (client, generation) = self.connection.client()?;
        let mut snapshot = client.snapshot(at.clone(), options());
        let value = snapshot.get(self.stored(key)).await.map_err(|error| self.fault(generation, &error))?;
        self.connection.answered();
        Ok(value)
    }

    async fn batch_get(&self, at: &Timestamp, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, Fault> {
        let (client, generation) = self.connection.client()?;
        let stored: Vec<Vec<u8>> = keys.iter().map(|key| self.stored(key)).collect();
        let mut snapshot = client.snapshot(at.clone(), options());
        let found = snapshot.batch_get(stored.iter().cloned()).await;
        let found = found.map_err(|error| self.fault(generation, &error))?;
        let found: HashMap<Vec<u8>, Vec<u8>> = found.map(|pair| (Vec::from(pair.0), pair.1)).collect();
        // Not taken out: a key may be asked for twice.
        Ok(stored.iter().map(|key| found.get(key).cloned()).collect())
    }

    async fn page(&self, at: &Timestamp, range: Range<Vec<u8>>, limit: usize) -> Result<Vec<Row>, Fault> {
        let (client, generation) = self.connection.client()?;
        let mut snapshot = client.snapshot(at.clone(), options());
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        let pairs = snapshot.scan(range, limit).await.map_err(|error| self.fault(generation, &error))?;
        Ok(pairs.map(|pair| (Vec::from(pair.0), pair.1)).collect())
    }

    /// What an error of the client of this generation means. An orphan that it tells of is noted, and a client that cannot
    /// connect is replaced, whether it was to read or to write: a server may be asked for writes alone.
    fn fault(&self, generation: u64, error: &tikv_client::Error) -> Fault {
        if let Some(start) = Fault::orphan(error) {
            self.orphans.found(start);
        }
        let fault = Fault::of(error, &self.prefix);
        if let Fault::Unreachable { .. } = fault {
            self.connection.is_stuck(generation);
        }
        fault
    }

    /// A key as it is in TiKV.
    fn stored(&self, key: &[u8]) -> Vec<u8> {
        [self.prefix.as_slice(), key].concat()
    }
}

/// The options of every transaction and snapshot.
fn options() -> TransactionOptions {
    TransactionOptions::new_optimistic()
        // Dropping one is how a handler whose caller went away ends: nothing was sent before the commit.
        .drop_check(CheckLevel::None)
        // A commit is over long before its locks are.
        .heartbeat_option(HeartbeatOption::NoHeartbeat)
        .retry_options(RetryOptions { region_backoff: REGION_BACKOFF, lock_backoff: LOCK_BACKOFF })
}

fn unavailable(reason: &str) -> KvError {
    KvError::Unavailable { reason: reason.to_owned() }
}

/// An unchanging view of the keyspace; cheap to clone.
#[derive(Clone)]
pub(super) struct View {
    engine: Tikv,
    at: Timestamp,
}

impl View {
    pub(super) async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.engine.read(|| self.engine.inner.get(&self.at, key)).await
    }

    pub(super) async fn batch_get(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, KvError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let values = self.engine.read(|| self.engine.inner.batch_get(&self.at, keys)).await?;
        check_limit("a batch's bytes", values.iter().flatten().map(Vec::len).sum(), SCAN_BYTES_MAX)?;
        Ok(values)
    }

    pub(super) async fn scan(&self, range: Range<Vec<u8>>, limit: usize) -> Result<Vec<Row>, KvError> {
        let inner = &self.engine.inner;
        let (mut start, end) = (inner.stored(&range.start), inner.stored(&range.end));
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while rows.len() < limit && start < end {
            let wanted = PAGE_ROWS.min(limit - rows.len());
            let page = self.engine.read(|| inner.page(&self.at, start.clone()..end.clone(), wanted)).await?;
            let is_last = page.len() < wanted;
            for (mut key, value) in page {
                start = [key.as_slice(), &[0]].concat();
                bytes += key.len() + value.len();
                check_limit("a scan's bytes", bytes, SCAN_BYTES_MAX)?;
                rows.push((key.split_off(inner.prefix.len()), value));
            }
            if is_last {
                break;
            }
        }
        Ok(rows)
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").finish_non_exhaustive()
    }
}

/// A transaction that has begun.
pub(super) struct Started {
    engine: Tikv,
    transaction: Transaction,
    /// The client's that it is of.
    generation: u64,
}

impl Started {
    /// The placement driver's clock when it began.
    pub(super) fn now(&self) -> UnixMs {
        UnixMs(u64::try_from(self.transaction.start_timestamp().physical).unwrap_or(0))
    }

    /// Commits `writes`. Goes on when nobody waits for it any more: a commit that is left half-way leaves locks that others
    /// wait for.
    pub(super) async fn commit(self, writes: BTreeMap<Vec<u8>, Write>) -> Result<(), KvError> {
        tokio::spawn(commit::commit(self, writes)).await.unwrap_or(Err(KvError::Undetermined))
    }
}

impl fmt::Debug for Started {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Started").finish_non_exhaustive()
    }
}
