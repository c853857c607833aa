//! Brings every change of a link to Redis, whatever became of the node that made it, and of Redis meanwhile.
//!
//! A change leaves a row in the store, in its own transaction (`store::invalidations`). The node that made it tells Redis right
//! away. After [`FIRST_AFTER`] any node makes sure of that; after [`LAST_AFTER`] one writes and publishes it once more,
//! because a failover may have lost the first time, and deletes the row. While Redis is away rows wait, one a link at most; the
//! sweeper ends those that have become pointless.

use std::collections::HashMap;
use std::time::Duration;

use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use crate::ambient::{UnixMs, random};
use crate::cache::redis_cluster::links::{SharedLink, SharedLinks};
use crate::cache::redis_cluster::{RedisCluster, RedisFailure};
use crate::kv::{Kv, KvError, Row};
use crate::store::invalidations::{InvalidationRow, all, invalidated};
use crate::store::links::{LinkAddress, decode_link, link_key};
use crate::store::{StoreError, key_after};

/// The pause between two walks; up to as much is added at random, so that nodes do not do the same at once.
const WALK_PAUSE: Duration = Duration::from_millis(750);
/// Rows of a page, which is one transaction.
const PAGE_ROWS: usize = 256;
/// Changes brought to Redis at once.
const WRITES_MAX: usize = 16;
/// How old a change is before other nodes than the one that made it care.
const FIRST_AFTER: Duration = Duration::from_secs(2);
/// How old it is when it is brought to Redis for the last time: longer than a failover takes, or a late fill.
const LAST_AFTER: Duration = Duration::from_secs(30);

/// What is to be done about a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Nothing yet.
    Wait,
    /// See to it that Redis knows.
    Ensure,
    /// Tell Redis and all nodes once more, and be done with it.
    Finish,
}

fn step(changed_at: UnixMs, now: UnixMs) -> Step {
    match now.since(changed_at) {
        age if age >= LAST_AFTER => Step::Finish,
        age if age >= FIRST_AFTER => Step::Ensure,
        _ => Step::Wait,
    }
}

/// Replays changes.
pub struct Replay {
    kv: Kv,
    redis: RedisCluster,
    shared: SharedLinks,
    /// The versions that this node has seen to already.
    ensured: HashMap<Vec<u8>, u32>,
}

impl Replay {
    /// Replays those in `kv`.
    pub fn new(kv: Kv, redis: RedisCluster, shared: SharedLinks) -> Self {
        Self { kv, redis, shared, ensured: HashMap::new() }
    }

    /// Until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let replaying = async {
            loop {
                let [jitter] = random();
                tokio::time::sleep(WALK_PAUSE + WALK_PAUSE * u32::from(jitter) / u32::from(u8::MAX)).await;
                if self.redis.condition().is_up
                    && self.redis.keys().is_ok()
                    && let Err(error) = self.walk().await
                {
                    tracing::debug!(%error, "could not bring changes to Redis");
                }
            }
        };
        shutdown.run_until_cancelled(replaying).await;
    }

    /// Looks at all changes once.
    async fn walk(&mut self) -> Result<(), StoreError> {
        let (mut range, mut ensured) = (all(), HashMap::new());
        loop {
            let mut txn = self.kv.begin().await?;
            let rows = txn.scan(range.clone(), PAGE_ROWS).await?;
            let Some((last, _)) = rows.last() else { break };
            range.start = key_after(last);
            let is_last = rows.len() < PAGE_ROWS;
            for (key, version, step) in self.page(rows, txn.now()).await? {
                match step {
                    Step::Finish => txn.delete(key),
                    Step::Ensure => drop(ensured.insert(key, version)),
                    Step::Wait => {}
                }
            }
            match txn.commit().await {
                // Another node did it, or a link was changed again: its row is there at the next walk.
                Ok(()) | Err(KvError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
            if is_last {
                break;
            }
        }
        self.ensured = ensured;
        Ok(())
    }

    /// Does what is to be done about a page of changes, and answers what was.
    async fn page(&self, rows: Vec<Row>, now: UnixMs) -> Result<Vec<(Vec<u8>, u32, Step)>, StoreError> {
        let mut done = Vec::new();
        let mut due = Vec::new();
        for (key, value) in rows {
            // A newer release may have written it; the sweeper ends it if not.
            let (Some(at), Ok(row)) = (invalidated(&key), InvalidationRow::decode(&value)) else { continue };
            let InvalidationRow { version, changed_at } = row;
            match step(changed_at, now) {
                Step::Wait => {}
                Step::Ensure if self.ensured.get(&key) == Some(&version) => done.push((key, version, Step::Ensure)),
                step => due.push((key, at, step)),
            }
        }
        let links = self.links(due.iter().map(|(_, at, _)| at)).await?;
        let replays = due.into_iter().zip(links).map(|((key, at, step), link)| async move {
            let link = link?;
            self.replay(&at, &link, step).await.then_some((key, link.version, step))
        });
        let replays: Vec<_> = replays.collect();
        let replayed = futures::stream::iter(replays).buffer_unordered(WRITES_MAX);
        done.extend(replayed.filter_map(std::future::ready).collect::<Vec<_>>().await);
        Ok(done)
    }

    /// The links as they are now; none for one that only a newer release can read.
    async fn links(&self, at: impl Iterator<Item = &LinkAddress>) -> Result<Vec<Option<SharedLink>>, StoreError> {
        let keys: Vec<_> = at.map(|at| link_key(&at.domain, &at.code)).collect();
        let found = self.kv.snapshot().await?.batch_get(&keys).await?;
        let link = |bytes: Vec<u8>| {
            let version = decode_link(&bytes).ok()?.version;
            Some(SharedLink { version, row: Some(bytes.into()) })
        };
        Ok(found.into_iter().map(|bytes| bytes.and_then(link)).collect())
    }

    /// Whether Redis knows the change now.
    async fn replay(&self, at: &LinkAddress, link: &SharedLink, step: Step) -> bool {
        let replayed = async {
            let is_news = self.shared.put_change(at, link).await?;
            if is_news || step == Step::Finish {
                self.shared.publish(at, link.version).await?;
            }
            Ok::<_, RedisFailure>(())
        };
        replayed.await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_left_to_who_made_it_then_ensured_and_finished_in_the_end() {
        let changed_at = UnixMs(1_000_000);
        let check =
            |age_ms, expected| assert_eq!(step(changed_at, UnixMs(changed_at.0 + age_ms)), expected, "{age_ms}");
        check(0, Step::Wait);
        check(1_999, Step::Wait);
        check(2_000, Step::Ensure);
        check(29_999, Step::Ensure);
        check(30_000, Step::Finish);
        assert_eq!(step(changed_at, UnixMs(0)), Step::Wait, "a clock that is behind");
    }
}
