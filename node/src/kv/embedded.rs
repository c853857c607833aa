//! The embedded engine: a node alone on one machine keeps everything in one directory.
//!
//! `fjall` gives snapshots and one atomic durable batch at a time; the optimistic transactions are ours. A transaction
//! notes the number of the last commit when it begins and buffers its writes; one committer thread checks
//! and applies whole groups of them with one sync. Nothing is acknowledged or seen before it is on disk.
//!
//! Commits are refused while the disk has too little [`room`], and go on when it has enough; reads never stop. When a write or a
//! sync fails all the same, nobody can say what the disk holds. If it was full, what is known is still read, and [`reopening`]
//! opens the directory again once there is room. Otherwise the engine stops for good: every later call is `Unavailable`,
//! [`Embedded::failed`] resolves, and the node should stop. Opening the directory again reads back what the disk holds:
//! everything that was acknowledged.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::ambient::{Clock, UnixMs};
use crate::kv::embedded::committer::{COMMIT_QUEUE_MAX, Commit, Committer, Request, Writes};
use crate::kv::embedded::engine::Engine;
use crate::kv::embedded::shared::{Live, Shared};
use crate::kv::{KvError, Place, READ_DEADLINE, Row, SCAN_BYTES_MAX, WRITE_DEADLINE, check_limit};

mod committer;
mod conflicts;
mod directory;
mod engine;
mod reopening;
mod room;
mod shared;
mod tally;

pub use directory::OpenError;
pub use engine::FILES_KEPT_OPEN;

/// Most reads at work at once, each on a thread that may wait for the disk; the others wait for their turn.
const READS_IN_FLIGHT_MAX: usize = 64;

/// An open data directory; cheap to clone. It is closed by [`close`](Self::close), or when the last clone is dropped.
#[derive(Clone)]
pub struct Embedded {
    home: Arc<Home>,
}

/// The data directory, and the engine on it.
struct Home {
    dir: PathBuf,
    clock: Clock,
    place: Place,
    /// None while it is opened again.
    open: watch::Sender<Option<Arc<Inner>>>,
    /// Why it could not be opened again.
    lost: watch::Sender<Option<String>>,
    /// The largest moment that an engine which is gone had handed out, in milliseconds.
    clock_min_ms: AtomicU64,
}

/// An open engine. Fields are dropped in this order: first nobody can ask the committer any more, then it ends, then the engine
/// closes.
struct Inner {
    queue: mpsc::Sender<Request>,
    _committer: CommitterThread,
    engine: Arc<Engine>,
    shared: Arc<Shared>,
    reads: Arc<Semaphore>,
}

impl Inner {
    /// Opens the store in `dir`, whose clock was at `clock_min` at least.
    fn open(dir: &Path, clock: Clock, clock_min: UnixMs) -> Result<Self, OpenError> {
        let engine = Arc::new(directory::open(dir)?);
        let persisted = engine.clock().map_err(|error| OpenError::engine(dir, error))?;
        let shared = Arc::new(Shared::new(clock, persisted.max(clock_min)));
        let (queue, requests) = mpsc::channel(COMMIT_QUEUE_MAX);
        let committer = Committer::new(Arc::clone(&engine), Arc::clone(&shared), requests);
        let committer = std::thread::Builder::new()
            .name("kv-committer".to_owned())
            .spawn(move || committer.run())
            .map_err(|error| OpenError::io(dir, &error))?;
        let reads = Arc::new(Semaphore::new(READS_IN_FLIGHT_MAX));
        let committer = CommitterThread { thread: Some(committer), shared: Arc::clone(&shared) };
        Ok(Self { queue, _committer: committer, engine, shared, reads })
    }
}

impl Embedded {
    /// Opens the store in `dir`, making both when there is none. Blocks for as long as the journal takes to read.
    pub fn open(dir: &Path, clock: Clock) -> Result<Self, OpenError> {
        let inner = Inner::open(dir, clock.clone(), UnixMs::default())?;
        let place = inner.engine.place();
        let (open, lost) = (watch::Sender::new(Some(Arc::new(inner))), watch::Sender::new(None));
        Ok(Self {
            home: Arc::new(Home { dir: dir.to_owned(), clock, place, open, lost, clock_min_ms: AtomicU64::new(0) }),
        })
    }

    fn inner(&self) -> Result<Arc<Inner>, KvError> {
        let reason = || "it is opened again after the disk was full".to_owned();
        self.home.open.borrow().clone().ok_or_else(|| KvError::Unavailable { reason: reason() })
    }

    /// Resolves with the reason once the engine has failed for good or was closed: the node should stop then.
    pub async fn failed(&self) -> String {
        let mut lost = self.home.lost.subscribe();
        let mut open = self.home.open.subscribe();
        loop {
            // The engine itself is not held: somebody may wait for everybody to let go of it.
            let shared = open.borrow_and_update().as_ref().map(|inner| Arc::clone(&inner.shared));
            let fails = async {
                match shared {
                    Some(shared) => shared.failed_for_good().await,
                    None => std::future::pending().await,
                }
            };
            let is_lost = async { lost.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone()) };
            tokio::select! {
                reason = fails => return reason,
                reason = is_lost => return reason.unwrap_or_default(),
                // An error is that the sender is gone, which is ourselves.
                _ = open.changed() => {}
            }
        }
    }

    /// Whether the disk is too full to write to.
    pub fn is_full(&self) -> bool {
        let is_short = |inner: Arc<Inner>| {
            inner.shared.is_full() || inner.engine.space().is_some_and(|space| !space.is_enough_for_commits())
        };
        // One that is opened again was full.
        self.inner().map_or(true, is_short)
    }

    /// Where the data directory is: a copy of it is elsewhere.
    pub fn place(&self) -> Place {
        self.home.place
    }

    /// Commits what is queued, syncs, and refuses everything from then on. The directory is free for another node once
    /// every clone and everything made from them is dropped. Whether that was done within `patience`: if not, the disk hangs, and
    /// nothing waits for it any more. What was acknowledged is on disk in any case.
    pub async fn close(&self, patience: Duration) -> bool {
        // One that is being opened again is not written to.
        let Ok(inner) = self.inner() else { return true };
        let (done, closed) = oneshot::channel();
        let closing = async {
            if inner.queue.send(Request::Close(done)).await.is_ok() {
                // An error is a committer that stopped by itself: then there is nothing left to finish.
                let _ = closed.await;
            }
        };
        let is_closed = tokio::time::timeout(patience, closing).await.is_ok();
        if !is_closed {
            inner.shared.give_up(format!("it did not close within {patience:?}"));
        }
        is_closed
    }

    pub(super) fn snapshot(&self) -> Result<View, KvError> {
        let inner = self.inner()?;
        inner.shared.check_reads()?;
        let at = Arc::new(inner.engine.snapshot());
        Ok(View { at, inner })
    }

    /// Begins a transaction. It has to take its snapshot after this, so that it sees all that it cannot conflict with.
    pub(super) fn begin(&self) -> Result<Started, KvError> {
        let inner = self.inner()?;
        inner.shared.check()?;
        let (live, now) = (Live::new(&inner.shared), inner.shared.now());
        Ok(Started { inner, live, now })
    }
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedded").finish_non_exhaustive()
    }
}

/// Waits for the committer when it is dropped, unless that hangs in a group that was given up: then only the end of the process
/// ends it.
struct CommitterThread {
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
}

impl Drop for CommitterThread {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take()
            && !self.shared.is_given_up()
        {
            // A panic was reported where it happened.
            let _ = thread.join();
        }
    }
}

/// An unchanging view of the store; cheap to clone.
#[derive(Clone)]
pub(super) struct View {
    at: Arc<fjall::Snapshot>,
    inner: Arc<Inner>,
}

impl View {
    pub(super) async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        let key = key.to_vec();
        self.read(move |engine, at| Ok(engine.get(at, &key)?)).await
    }

    pub(super) async fn batch_get(&self, keys: Vec<Vec<u8>>) -> Result<Vec<Option<Vec<u8>>>, KvError> {
        self.read(move |engine, at| {
            let (mut values, mut bytes) = (Vec::with_capacity(keys.len()), 0);
            for key in &keys {
                let value = engine.get(at, key)?;
                bytes += value.as_ref().map_or(0, Vec::len);
                check_limit("a batch's bytes", bytes, SCAN_BYTES_MAX)?;
                values.push(value);
            }
            Ok(values)
        })
        .await
    }

    pub(super) async fn scan(&self, range: Range<Vec<u8>>, limit: usize) -> Result<Vec<Row>, KvError> {
        self.read(move |engine, at| engine.scan(at, range, limit)).await
    }

    /// Reads on a thread that may wait for the disk.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Engine, &fjall::Snapshot) -> Result<T, KvError> + Send + 'static,
    ) -> Result<T, KvError> {
        self.inner.shared.check_reads()?;
        let unavailable = |reason: &str| KvError::Unavailable { reason: reason.to_owned() };
        let answer = async {
            let turn = Arc::clone(&self.inner.reads).acquire_owned().await;
            let (engine, at) = (Arc::clone(&self.inner.engine), Arc::clone(&self.at));
            let reading = tokio::task::spawn_blocking(move || {
                // Given back when the read is done, even if nobody waits for it any more.
                let _turn = turn;
                read(&engine, &at)
            });
            reading.await.unwrap_or_else(|_| Err(unavailable("a read broke off: the data may be damaged")))
        };
        tokio::time::timeout(READ_DEADLINE, answer)
            .await
            .unwrap_or_else(|_| Err(unavailable("a read took longer than its deadline")))
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").finish_non_exhaustive()
    }
}

/// A transaction that has begun.
pub(super) struct Started {
    inner: Arc<Inner>,
    live: Live,
    now: UnixMs,
}

impl Started {
    /// The store's clock when it began.
    pub(super) fn now(&self) -> UnixMs {
        self.now
    }

    /// Queues the writes and waits until they are committed or refused.
    pub(super) async fn commit(self, writes: Writes) -> Result<(), KvError> {
        let Self { inner, live, now: _ } = self;
        inner.shared.check()?;
        let mut is_queued = false;
        let committed = async {
            let Ok(place) = inner.queue.reserve().await else {
                return Err(KvError::Unavailable { reason: "it was closed".to_owned() });
            };
            let (answer, answered) = oneshot::channel();
            is_queued = true;
            place.send(Request::Commit(Commit { live, writes, answer }));
            // The committer broke off without an answer.
            answered.await.unwrap_or(Err(KvError::Undetermined))
        };
        let answer = tokio::time::timeout(WRITE_DEADLINE, committed).await;
        answer.unwrap_or_else(|_| {
            inner.shared.check_stall();
            let reason = "too many commits are waiting".to_owned();
            Err(if is_queued { KvError::Undetermined } else { KvError::Unavailable { reason } })
        })
    }
}

impl fmt::Debug for Started {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Started").field("now", &self.now).finish_non_exhaustive()
    }
}
