//! Deletes what has expired: one walk over the rows of every kind in [`table`], a page at a time, for ever.
//!
//! A kind whose keys are ordered by time names the ranges that have expired ([`Expiring::within`]); of the others every row
//! is looked at ([`Expiring::where_row`]). A page is one transaction, so a row that somebody writes meanwhile stays. The
//! walk goes on at once while it finds something to delete, and else rests between pages. *Now* is the earlier of the store's clock
//! and this machine's: neither a node whose clock is ahead, nor a store that such a node has moved on, deletes anything early.
//! Any number of nodes may sweep the same store.

use std::ops::Range;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::ambient::{Clock, UnixMs};
use crate::kv::{Kv, KvError, Row};
use crate::store::{Kind, accounts, clicks, idempotency, invalidations, key_after};

/// Rows that one transaction reads, and deletes at most.
const PAGE_ROWS: usize = 500;
/// The rest between two pages when the first had nothing to delete.
const PAGE_PAUSE: Duration = Duration::from_millis(50);
/// The rest between two walks: nothing waits for a row to go, as whoever reads one checks that it holds.
const WALK_PAUSE: Duration = Duration::from_hours(1);

type Ranges = Box<dyn Fn(UnixMs) -> Vec<Range<Vec<u8>>> + Send + Sync>;
type Expired = Box<dyn Fn(&[u8], &[u8], UnixMs) -> bool + Send + Sync>;

/// A kind of row that expires, and how one tells.
pub struct Expiring {
    kind: Kind,
    ranges: Ranges,
    expired: Expired,
}

impl Expiring {
    /// Every row within `ranges(now)` has expired, and no other.
    pub fn within(kind: Kind, ranges: impl Fn(UnixMs) -> Vec<Range<Vec<u8>>> + Send + Sync + 'static) -> Self {
        Self { kind, ranges: Box::new(ranges), expired: Box::new(|_, _, _| true) }
    }

    /// Those rows of the kind have expired of which `expired(key, value, now)` says so.
    pub fn where_row(kind: Kind, expired: impl Fn(&[u8], &[u8], UnixMs) -> bool + Send + Sync + 'static) -> Self {
        let all = move |_now| vec![kind.rows()];
        Self { kind, ranges: Box::new(all), expired: Box::new(expired) }
    }
}

/// Everything in a node's store that expires. A row that cannot be read stays: a newer release may have written it.
pub fn table(click_retention_days: u32) -> Vec<Expiring> {
    let kept = Duration::from_hours(24 * u64::from(click_retention_days));
    let has_expired = |key: &[u8], value: &[u8], now| accounts::has_expired(key, value, now).unwrap_or(false);
    vec![
        Expiring::within(Kind::Click, move |now| clicks::expired_clicks(now, kept).collect()),
        Expiring::within(Kind::VisitorSalt, |now| vec![clicks::expired_salts(now)]),
        Expiring::where_row(Kind::ClickHour, move |key, _value, now| clicks::hour_has_expired(key, now, kept)),
        Expiring::where_row(Kind::Idempotency, |_key, value, now| idempotency::expired(value, now)),
        Expiring::where_row(Kind::Invalidation, |_key, value, now| invalidations::expired(value, now)),
        Expiring::where_row(Kind::RefreshToken, has_expired),
        Expiring::where_row(Kind::RefreshFamily, has_expired),
        Expiring::where_row(Kind::KnownNetwork, has_expired),
    ]
}

/// Deletes what has expired.
pub struct Sweeper {
    kv: Kv,
    clock: Clock,
    table: Vec<Expiring>,
}

/// What a page came to.
struct Page {
    deleted: u64,
    /// What is left of the range.
    rest: Option<Range<Vec<u8>>>,
}

impl Sweeper {
    /// Sweeps the kinds of `table` in `kv`.
    pub fn new(kv: Kv, clock: Clock, table: Vec<Expiring>) -> Self {
        Self { kv, clock, table }
    }

    /// Walks over the table again and again until `shutdown`. A store that fails is tried again at the next walk.
    pub async fn run(self, shutdown: CancellationToken) {
        let sweep_for_ever = async {
            loop {
                if let Err(error) = self.walk().await {
                    tracing::warn!(%error, "could not delete what has expired");
                }
                tokio::time::sleep(WALK_PAUSE).await;
            }
        };
        shutdown.run_until_cancelled(sweep_for_ever).await;
    }

    /// Walks over the table once, and answers how many rows it deleted.
    pub async fn walk(&self) -> Result<u64, KvError> {
        let mut deleted_in_all = 0;
        for expiring in &self.table {
            let deleted = self.walk_kind(expiring).await?;
            if deleted > 0 {
                tracing::info!(kind = ?expiring.kind, rows = deleted, "deleted what had expired");
            }
            deleted_in_all += deleted;
        }
        Ok(deleted_in_all)
    }

    async fn walk_kind(&self, expiring: &Expiring) -> Result<u64, KvError> {
        let now = self.kv.begin().await?.now().min(self.clock.now());
        let mut deleted = 0;
        for range in (expiring.ranges)(now) {
            let mut next = Some(range);
            while let Some(range) = next {
                let page = self.sweep_page(expiring, range, now).await?;
                deleted += page.deleted;
                if page.deleted == 0 && page.rest.is_some() {
                    tokio::time::sleep(PAGE_PAUSE).await;
                }
                next = page.rest;
            }
        }
        Ok(deleted)
    }

    async fn sweep_page(&self, expiring: &Expiring, range: Range<Vec<u8>>, now: UnixMs) -> Result<Page, KvError> {
        let mut transaction = self.kv.begin().await?;
        let rows = transaction.scan(range.clone(), PAGE_ROWS).await?;
        let rest = rest_of(&range, &rows);
        let mut deleted = 0;
        for (key, _) in rows.into_iter().filter(|(key, value)| (expiring.expired)(key, value, now)) {
            transaction.delete(key);
            deleted += 1;
        }
        match transaction.commit().await {
            Ok(()) => Ok(Page { deleted, rest }),
            // Another node deleted some of them, or somebody wrote one: what is left is there at the next walk.
            Err(KvError::Conflict) => Ok(Page { deleted: 0, rest }),
            Err(error) => Err(error),
        }
    }
}

/// What is left of `range` behind the page of `rows`; nothing when the page was not full.
fn rest_of(range: &Range<Vec<u8>>, rows: &[Row]) -> Option<Range<Vec<u8>>> {
    let (last, _) = rows.get(PAGE_ROWS - 1)?;
    Some(key_after(last)..range.end.clone())
}

#[cfg(test)]
mod tests;
