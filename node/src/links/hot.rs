//! Links that many follow at the moment: they stay longer in the cache that nodes share, and each node keeps its own copy.
//!
//! Redirects are counted in the process. Every [`FLUSH_INTERVAL`] the links with many of them are added to counters in Redis,
//! which all nodes share and which run out an hour after the last: no redirect waits for that, nor costs a write. From a number of
//! redirects on a link is hot. Its copy in this process is read again before its time is over, so that none of its redirects
//! ever waits.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use super::Resolve;
use crate::ambient::Clock;
use crate::cache::redis_cluster::links::SharedLinks;
use crate::cache::redis_cluster::{RedisCluster, RedisFailure, Script};
use crate::clicks::ClickedLink;
use crate::domains::Domains;
use crate::store::links::LinkAddress;

/// How often counts go to Redis.
const FLUSH_INTERVAL: Duration = Duration::from_secs(2);
/// Links whose counts go there at once, those with most redirects first: at most 128 writes a second.
const FLUSHED_MAX: usize = 256;
/// A link's redirects are sent once they are this part of the threshold: fewer writes than redirects, whatever is followed.
const FLUSHED_PART: u32 = 16;
/// How long counters in Redis outlive the last redirect, and counts in the process their first.
const COUNTED_FOR: Duration = Duration::from_hours(1);
/// How long a link stays hot here without being found hot again.
const HOT_FOR: Duration = Duration::from_mins(1);
/// Links that are hot here at once at most: so many reads every local time to live.
const HOT_MAX: usize = 1_024;
/// Parts that counts are kept in, each behind a lock of its own.
const PARTS: usize = 16;
/// Links that are counted in a part at most; beyond that those seen first are forgotten together.
const COUNTED_MAX: usize = 1_024;
/// Calls of Redis, and reads of hot links, under way at once.
const CONCURRENT_MAX: usize = 32;
/// How often copies are looked at.
const RENEWAL_INTERVAL: Duration = Duration::from_millis(500);
/// A copy that ends sooner than this is read again.
const RENEWED_BEFORE: Duration = Duration::from_millis(1_500);

/// Adds `ARGV[1]` to a counter that runs out after `ARGV[2]` ms, and answers what it is then.
static COUNT: Script = Script::new(
    "local count = redis.call('INCRBY', KEYS[1], ARGV[1]) \
     redis.call('PEXPIRE', KEYS[1], ARGV[2]) \
     return count",
);

type Counts = HashMap<Arc<ClickedLink>, u32>;

/// Counts redirects, and knows which links are hot.
#[derive(Debug)]
pub struct HotLinks {
    threshold: u32,
    hasher: RandomState,
    parts: [Mutex<Counts>; PARTS],
    /// Until when (monotonic).
    hot: Mutex<HashMap<Arc<ClickedLink>, Duration>>,
}

impl HotLinks {
    /// A link is hot from `threshold` redirects in an hour on (`HOT_URL_CLICK_THRESHOLD`).
    pub fn new(threshold: u32) -> Self {
        Self { threshold, hasher: RandomState::new(), parts: Default::default(), hot: Mutex::default() }
    }

    /// Counts a redirect.
    pub fn count(&self, link: &Arc<ClickedLink>) {
        let [part, ..] = self.hasher.hash_one(link).to_be_bytes();
        let mut counts = lock(&self.parts[usize::from(part) % PARTS]);
        if let Some(count) = counts.get_mut(link) {
            *count += 1;
            return;
        }
        if counts.len() >= COUNTED_MAX {
            // They were too few to be sent for as long as it took to fill this.
            counts.clear();
        }
        counts.insert(link.clone(), 1);
    }

    /// Takes out the counts that are worth sending.
    fn take(&self) -> Vec<(Arc<ClickedLink>, u32)> {
        let worth = (self.threshold / FLUSHED_PART).max(1);
        let mut taken = Vec::new();
        for part in &self.parts {
            let mut counts = lock(part);
            let (many, few) = mem::take(&mut *counts).into_iter().partition::<Counts, _>(|(_, count)| *count >= worth);
            *counts = few;
            taken.extend(many);
        }
        taken.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        taken.truncate(FLUSHED_MAX);
        taken
    }

    fn forget_counts(&self) {
        self.parts.iter().for_each(|part| lock(part).clear());
    }

    /// Takes note that a link was found hot at `now`; answers whether that is new or long ago.
    fn found_hot(&self, link: &Arc<ClickedLink>, now: Duration) -> bool {
        let mut hot = lock(&self.hot);
        let is_full = hot.len() >= HOT_MAX;
        let until = now.saturating_add(HOT_FOR);
        match hot.entry(link.clone()) {
            Entry::Occupied(mut known) => mem::replace(known.get_mut(), until) <= now.saturating_add(HOT_FOR / 2),
            Entry::Vacant(_) if is_full => false,
            Entry::Vacant(unknown) => {
                unknown.insert(until);
                true
            }
        }
    }

    /// The links that are hot at `now`.
    fn hot_at(&self, now: Duration) -> Vec<Arc<ClickedLink>> {
        let mut hot = lock(&self.hot);
        hot.retain(|_, until| now < *until);
        hot.keys().cloned().collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends counts to Redis, and keeps the copies of hot links.
pub struct HotKeeper {
    /// What is counted.
    pub links: Arc<HotLinks>,
    /// Where counts are shared.
    pub redis: RedisCluster,
    /// What stays longer there.
    pub shared: SharedLinks,
    /// What reads copies again.
    pub resolve: Resolve,
    /// Which domains are answered.
    pub domains: Domains,
    /// The clock.
    pub clock: Clock,
}

impl HotKeeper {
    /// Until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        shutdown.run_until_cancelled(async { tokio::join!(self.flush_for_ever(), self.renew_for_ever()) }).await;
    }

    async fn flush_for_ever(&self) {
        let mut counting_since = self.clock.monotonic();
        loop {
            tokio::time::sleep(FLUSH_INTERVAL).await;
            let flushes: Vec<_> = self.links.take().into_iter().map(|(link, count)| self.flush(link, count)).collect();
            futures::stream::iter(flushes).buffer_unordered(CONCURRENT_MAX).for_each(std::future::ready).await;
            let now = self.clock.monotonic();
            if now.saturating_sub(counting_since) > COUNTED_FOR {
                self.links.forget_counts();
                counting_since = now;
            }
        }
    }

    async fn flush(&self, link: Arc<ClickedLink>, count: u32) {
        let flushed = async {
            let key = self.redis.keys()?.hot(&link.domain, &link.code);
            let ttl_ms = u64::try_from(COUNTED_FOR.as_millis()).unwrap_or(u64::MAX);
            let arguments = |script: &mut redis::Cmd| {
                script.arg(count).arg(ttl_ms);
            };
            let in_all: u64 = self.redis.run(&COUNT, &key, arguments).await?;
            if in_all >= self.links.threshold.into() && self.links.found_hot(&link, self.clock.monotonic()) {
                self.shared
                    .keep_hot(&LinkAddress { domain: link.domain.to_string(), code: link.code.to_string() })
                    .await?;
            }
            Ok::<_, RedisFailure>(())
        };
        if let Err(error) = flushed.await {
            // What was counted is lost: a link that is hot will be counted again.
            tracing::debug!(%error, "could not count redirects in Redis");
        }
    }

    async fn renew_for_ever(&self) {
        loop {
            tokio::time::sleep(RENEWAL_INTERVAL).await;
            let hot = self.links.hot_at(self.clock.monotonic());
            let renewals: Vec<_> = hot.into_iter().map(|link| self.renew(link)).collect();
            futures::stream::iter(renewals).buffer_unordered(CONCURRENT_MAX).for_each(std::future::ready).await;
        }
    }

    async fn renew(&self, link: Arc<ClickedLink>) {
        let Ok(served) = self.domains.now() else { return };
        if let Some(domain) = served.by_id(&link.domain) {
            self.resolve.renew(domain, &link.code, RENEWED_BEFORE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(code: &str) -> Arc<ClickedLink> {
        Arc::new(ClickedLink { domain: "".into(), code: code.into() })
    }

    #[test]
    fn counts_are_sent_once_they_are_many_and_no_more_links_at_once_than_the_bound() {
        let links = HotLinks::new(160);
        (0..9).for_each(|_| links.count(&link("few")));
        assert_eq!(links.take(), []);
        links.count(&link("few"));
        (0..20).for_each(|_| links.count(&link("many")));
        assert_eq!(links.take(), [(link("many"), 20), (link("few"), 10)]);
        assert_eq!(links.take(), []);
        let links = HotLinks::new(1);
        (0..2_000).for_each(|n| links.count(&link(&n.to_string())));
        assert_eq!(links.take().len(), FLUSHED_MAX);
    }

    #[test]
    fn however_many_links_are_followed_memory_is_bounded() {
        let links = HotLinks::new(1_000);
        (0..100_000).for_each(|n| links.count(&link(&n.to_string())));
        let counted: usize = links.parts.iter().map(|part| lock(part).len()).sum();
        assert!(counted <= PARTS * COUNTED_MAX, "{counted}");
        for n in 0..2 * HOT_MAX {
            links.found_hot(&link(&n.to_string()), Duration::ZERO);
        }
        assert_eq!(links.hot_at(Duration::ZERO).len(), HOT_MAX);
    }

    #[test]
    fn a_link_is_hot_until_it_is_no_longer_found_so() {
        let links = HotLinks::new(100);
        assert!(links.found_hot(&link("abc"), Duration::ZERO));
        assert!(!links.found_hot(&link("abc"), Duration::from_secs(2)));
        assert!(links.found_hot(&link("abc"), Duration::from_secs(40)));
        assert_eq!(links.hot_at(Duration::from_secs(99)), [link("abc")]);
        assert_eq!(links.hot_at(Duration::from_secs(100)), []);
    }
}
