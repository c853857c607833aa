//! Writes the search index, an owner at a time, in the background: one bounded transaction a step.
//!
//! One write of 64, an owner's first search, and a search that meets many unindexed links ask for it. A node that stops leaves
//! the work to whoever is asked next; any number of nodes may do it at once.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::plan::{Found, Plan, Revision, STEP_LINKS, plan, revision, segments};
use crate::ambient::random;
use crate::kv::{Kv, KvError, Transaction};
use crate::store::StoreError;
use crate::store::accounts::UserId;
use crate::store::format::{Format, Formats};
use crate::store::links::{links_by_id, links_of_owner};
use crate::store::search::{
    Head, Segment, Unindexed, are_unindexed, delete_segment, delete_unindexed, each_segment_of_whole, head,
    insert_segment, put_head, put_segment, put_unindexed, unindexed,
};

/// Owners that wait at most; one that finds no place comes again with a later write or search.
const WAITING_MAX: usize = 4_096;
/// One write of so many has its owner's index brought up to date: about twice in a segment.
const WRITES_A_TURN: u8 = 64;
/// Steps before it is another owner's turn.
const TURN_STEPS: usize = 64;
/// The rest between two steps: requests come first.
const STEP_PAUSE: Duration = Duration::from_millis(5);

/// Brings search indexes up to date; clones share one queue.
#[derive(Clone, Debug)]
pub struct Indexer {
    kv: Kv,
    formats: Formats,
    waiting: Arc<Waiting>,
}

/// Owners whose index is behind, each once.
#[derive(Debug, Default)]
struct Waiting {
    owners: Mutex<(VecDeque<UserId>, HashSet<UserId>)>,
    came: Notify,
}

impl Waiting {
    fn add(&self, owner: UserId) {
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        let (order, known) = &mut *owners;
        if order.len() < WAITING_MAX && known.insert(owner) {
            order.push_back(owner);
            self.came.notify_one();
        }
    }

    async fn next(&self) -> UserId {
        loop {
            let came = self.came.notified();
            {
                let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
                let (order, known) = &mut *owners;
                if let Some(owner) = order.pop_front() {
                    known.remove(&owner);
                    return owner;
                }
            }
            came.await;
        }
    }
}

impl Indexer {
    /// For the owners in `kv`.
    pub fn new(kv: Kv, formats: Formats) -> Self {
        Self { kv, formats, waiting: Arc::default() }
    }

    /// Has `owner`'s index brought up to date soon.
    pub fn is_behind(&self, owner: UserId) {
        self.waiting.add(owner);
    }

    /// After a write of one of `owner`'s links: has the index brought up to date now and then.
    pub fn was_written(&self, owner: UserId) {
        let [chance] = random();
        if chance % WRITES_A_TURN == 0 {
            self.waiting.add(owner);
        }
    }

    /// Brings up to date what is behind until `shutdown`. Where the store fails, a later write or search asks again.
    pub async fn run(self, shutdown: CancellationToken) {
        let for_ever = async {
            loop {
                let owner = self.waiting.next().await;
                match self.take_turn(owner).await {
                    Ok(true) => {}
                    Ok(false) => self.waiting.add(owner),
                    Err(error) => tracing::warn!(%error, "could not bring a search index up to date"),
                }
            }
        };
        shutdown.run_until_cancelled(for_ever).await;
    }

    /// Some steps; answers whether nothing is left to do.
    async fn take_turn(&self, owner: UserId) -> Result<bool, StoreError> {
        for _ in 0..TURN_STEPS {
            if self.step(owner).await? {
                return Ok(true);
            }
            tokio::time::sleep(STEP_PAUSE).await;
        }
        Ok(false)
    }

    /// One step; answers whether nothing is left to do.
    pub async fn step(&self, owner: UserId) -> Result<bool, StoreError> {
        // An older program leaves links unindexed and does not say so.
        if self.formats.written() < Format::SEARCH_INDEX {
            return Ok(true);
        }
        self.kv
            .transact(async |txn| match head(txn.snapshot(), owner).await? {
                None => cover(txn, owner, None).await,
                Some(Head::DownTo(lowest)) => cover(txn, owner, Some(lowest)).await,
                Some(Head::Whole) => index(txn, owner).await,
            })
            .await
    }
}

/// Begins an index, or goes on with it: covers the next links after `after`. Each step writes the head, so that of two nodes that do
/// it at once one begins again.
async fn cover(mut txn: Transaction, owner: UserId, after: Option<u64>) -> Result<(Transaction, bool), StoreError> {
    let page = links_of_owner(txn.snapshot(), owner, after, STEP_LINKS).await?;
    let ids: Vec<u64> = page.iter().map(|(_, row)| row.id).collect();
    let next = if page.len() == STEP_LINKS { ids.last().copied() } else { None };
    let unindexed = are_unindexed(txn.snapshot(), owner, &ids).await?;
    add(&mut txn, owner, &aside(move || segments(page, true)).await?);
    for link in unindexed {
        delete_unindexed(&mut txn, owner, link);
    }
    put_head(&mut txn, owner, next.map_or(Head::Whole, Head::DownTo));
    Ok((txn, false))
}

/// Makes segments of unindexed links.
async fn index(mut txn: Transaction, owner: UserId) -> Result<(Transaction, bool), StoreError> {
    let waiting = unindexed(txn.snapshot(), owner, STEP_LINKS).await?;
    let ids: Vec<u64> = waiting.iter().map(|unindexed| unindexed.link).collect();
    let links = links_by_id(txn.snapshot(), &ids).await?;
    let found: Vec<Found> = waiting.into_iter().zip(links).collect();
    let Some(Plan { segments, done, moved }) = aside(move || plan(found)).await? else { return Ok((txn, true)) };
    let mut revised = Vec::new();
    if !moved.is_empty() {
        let snapshot = txn.snapshot().clone();
        each_segment_of_whole(&snapshot, owner, |number, segment| match revision(segment, &moved) {
            Revision::Kept => {}
            revision => revised.push((number, revision)),
        })
        .await?;
    }
    add(&mut txn, owner, &segments);
    for (number, revision) in revised {
        match revision {
            Revision::Kept => {}
            Revision::Shrunk(segment) => put_segment(&mut txn, owner, number, &segment),
            Revision::GivenUp(links) => {
                delete_segment(&mut txn, owner, number);
                for link in links {
                    put_unindexed(&mut txn, owner, Unindexed { link, was_indexed: false });
                }
            }
        }
    }
    for link in done {
        delete_unindexed(&mut txn, owner, link);
    }
    Ok((txn, false))
}

fn add(txn: &mut Transaction, owner: UserId, segments: &[Segment]) {
    for segment in segments {
        insert_segment(txn, owner, u64::from_be_bytes(random()), segment);
    }
}

/// Cuts text into pieces where it holds up no request.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StoreError> {
    let done = spawn_blocking(work).await;
    done.map_err(|_| KvError::Unavailable { reason: "a step of the search index panicked".to_owned() }.into())
}
