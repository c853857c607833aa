//! Locks that the client never resolves: those whose transaction died before its primary row was locked.
//!
//! Whoever meets such a lock asks for the primary, is told that there is no such transaction, and is to roll it back there once
//! the lock has run out of time. The client (0.4) takes that answer for an error of its own, so that the row would stay
//! unreadable for ever. Its way to clean up before garbage collection does it right, and is used here for the keyspace.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tikv_client::transaction::ResolveLocksOptions;
use tikv_client::{Timestamp, TimestampExt};
use tokio::sync::Notify;

use super::Inner;

/// How old an orphan has to be: no transaction of ours is at work for so long, and no lock of it lives on.
const ORPHAN_AGE_MIN: Duration = Duration::from_secs(5);
/// How long a clean-up may take, and the pause after one.
const CLEAN_UP_DEADLINE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_secs(1);
/// Locks that are read at once.
const LOCKS_AT_ONCE: u32 = 256;

/// The youngest transaction that is known to have left such a lock.
#[derive(Debug, Default)]
pub(super) struct Orphans {
    start: AtomicU64,
    found: Notify,
}

impl Orphans {
    /// Takes note of a transaction by its start.
    pub(super) fn found(&self, start: u64) {
        self.start.fetch_max(start, Ordering::AcqRel);
        self.found.notify_one();
    }
}

impl Inner {
    /// Cleans up after orphans that were found, for ever.
    pub(super) async fn clean_up(&self) {
        loop {
            self.orphans.found.notified().await;
            // One more than that: some stores take the end of a scan of locks for exclusive.
            let start = Timestamp::from_version(self.orphans.start.load(Ordering::Acquire).saturating_add(1));
            let cleaning = tokio::time::timeout(CLEAN_UP_DEADLINE, self.clean_up_until(&start));
            if !matches!(cleaning.await, Ok(true)) {
                tracing::warn!("locks of a dead transaction could not be cleaned up; trying again when they are met");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Rolls back what began at `start` or before and is still locked. A transaction that is not dead after all is only made to
    /// begin again.
    async fn clean_up_until(&self, start: &Timestamp) -> bool {
        let Ok(now) = self.timestamp().await else { return false };
        let age = Duration::from_millis(u64::try_from(now.physical - start.physical).unwrap_or_default());
        tokio::time::sleep(ORPHAN_AGE_MIN.saturating_sub(age)).await;
        let Ok((client, _)) = self.connection.client() else { return false };
        let options = ResolveLocksOptions { batch_size: LOCKS_AT_ONCE, ..ResolveLocksOptions::default() };
        let range = crate::kv::prefix_range(self.prefix.clone());
        let cleaned = client.cleanup_locks(range, start, options).await;
        cleaned.is_ok_and(|cleaned| cleaned.key_error.is_none() && cleaned.region_error.is_none())
    }
}
