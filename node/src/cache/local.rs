//! Where redirects are answered from: links in this process's memory, bounded in bytes, for a few seconds.
//!
//! Concurrent misses on one code become one read. A change removes its entry, and with it the place of a read that is
//! under way, so that a late fill never brings back what was changed.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use quick_cache::Weighter;
use quick_cache::sync::{Cache, EntryAction};

/// Bytes of a typical entry, from which the cache sizes its tables.
const ENTRY_BYTES_TYPICAL: u64 = 256;
/// What the cache itself needs for an entry beside what we put in, in bytes.
const ENTRY_BYTES_OVERHEAD: u64 = 96;

#[derive(Debug)]
struct Entry<V> {
    value: Arc<V>,
    /// Monotonic time from which on the entry is a miss.
    ends: Duration,
}

impl<V> Clone for Entry<V> {
    fn clone(&self) -> Self {
        Self { value: self.value.clone(), ends: self.ends }
    }
}

#[derive(Debug)]
struct ByBytes<V>(fn(&V) -> u64);

impl<V> Clone for ByBytes<V> {
    fn clone(&self) -> Self {
        Self(self.0)
    }
}

impl<V> Weighter<String, Entry<V>> for ByBytes<V> {
    fn weight(&self, name: &String, entry: &Entry<V>) -> u64 {
        name.len() as u64 + (self.0)(&entry.value) + ENTRY_BYTES_OVERHEAD
    }
}

/// The name of a code in the cache. A hit on the default domain, the usual case, allocates nothing; `/` is in no code.
fn name(domain: u16, code: &str) -> Cow<'_, str> {
    match domain {
        0 => Cow::Borrowed(code),
        domain => Cow::Owned(format!("{domain}/{code}")),
    }
}

/// The cache of what codes mean.
#[derive(Debug)]
pub struct LocalCache<V> {
    entries: Cache<String, Entry<V>, ByBytes<V>>,
    ttl: Duration,
}

impl<V> LocalCache<V> {
    /// An empty cache of at most `bytes_max` that keeps each entry for `ttl`; `bytes_of` tells the memory a value takes.
    pub fn new(bytes_max: u64, ttl: Duration, bytes_of: fn(&V) -> u64) -> Self {
        let items = usize::try_from(bytes_max / ENTRY_BYTES_TYPICAL).unwrap_or(usize::MAX);
        Self { entries: Cache::with_weighter(items, bytes_max, ByBytes(bytes_of)), ttl }
    }

    /// What a code means, if that is known at `now` (monotonic).
    pub fn get(&self, domain: u16, code: &str, now: Duration) -> Option<Arc<V>> {
        let entry = self.entries.get(&*name(domain, code))?;
        (now < entry.ends).then_some(entry.value)
    }

    /// What a code means: what is known, or what `read` finds, which then is known until `now` + TTL. `read` is polled
    /// only if nobody else reads the same code at the moment.
    pub async fn get_or_read<E>(
        &self,
        domain: u16,
        code: &str,
        now: Duration,
        read: impl Future<Output = Result<V, E>>,
    ) -> Result<Arc<V>, E> {
        let name = name(domain, code);
        self.entries.remove_if(&*name, |entry| entry.ends <= now);
        let read = async {
            let value = Arc::new(read.await?);
            Ok(Entry { value, ends: now.saturating_add(self.ttl) })
        };
        let entry = self.entries.get_or_insert_async(&*name, read).await?;
        Ok(entry.value)
    }

    /// What a code means and until when that is known, if it is known at `now`.
    pub fn known_until(&self, domain: u16, code: &str, now: Duration) -> Option<(Arc<V>, Duration)> {
        let entry = self.entries.get(&*name(domain, code))?;
        (now < entry.ends).then_some((entry.value, entry.ends))
    }

    /// Replaces what a code means, known until `now` + TTL, if that is still what was `seen`: if the code was forgotten since, so
    /// is `value`, which was read before.
    pub fn renew(&self, domain: u16, code: &str, seen: &Arc<V>, value: V, now: Duration) {
        let renewed = Entry { value: Arc::new(value), ends: now.saturating_add(self.ttl) };
        // An entry that is not there is not made: its place is given back.
        let _ = self.entries.entry(&*name(domain, code), None, |_, entry| {
            if Arc::ptr_eq(&entry.value, seen) {
                *entry = renewed.clone();
            }
            EntryAction::Retain(())
        });
    }

    /// Forgets a code, and whatever a read that is under way is going to find.
    pub fn forget(&self, domain: u16, code: &str) {
        self.entries.remove(&*name(domain, code));
    }

    /// Forgets everything, and whatever the reads that are under way are going to find.
    pub fn clear(&self) {
        self.entries.clear();
    }

    /// Bytes kept at the moment.
    pub fn bytes(&self) -> u64 {
        self.entries.weight()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;

    use super::*;

    const AT_START: Duration = Duration::ZERO;

    fn cache() -> LocalCache<u32> {
        LocalCache::new(1 << 20, Duration::from_secs(5), |_| 4)
    }

    #[expect(clippy::unused_async, reason = "it stands for a read of the store")]
    async fn read(value: u32) -> Result<u32, Infallible> {
        Ok(value)
    }

    #[tokio::test]
    async fn an_entry_lives_for_its_ttl_and_domains_do_not_answer_for_each_other() {
        let cache = cache();
        cache.get_or_read(0, "abc", AT_START, read(1)).await.unwrap();
        cache.get_or_read(1, "abc", AT_START, read(2)).await.unwrap();
        let just_before = Duration::from_millis(4_999);
        assert_eq!(cache.get(0, "abc", just_before).as_deref(), Some(&1));
        assert_eq!(cache.get(1, "abc", just_before).as_deref(), Some(&2));
        assert_eq!(cache.get(0, "abc", Duration::from_secs(5)), None);
        assert_eq!(*cache.get_or_read(0, "abc", Duration::from_secs(5), read(3)).await.unwrap(), 3);
    }

    #[tokio::test]
    async fn what_was_forgotten_is_not_renewed_and_what_is_known_stays_for_longer() {
        let cache = cache();
        let (soon, later) = (Duration::from_secs(4), Duration::from_secs(8));
        cache.get_or_read(0, "abc", AT_START, read(1)).await.unwrap();
        let (seen, ends) = cache.known_until(0, "abc", soon).unwrap();
        assert_eq!((*seen, ends), (1, Duration::from_secs(5)));
        cache.renew(0, "abc", &seen, 2, soon);
        assert_eq!(cache.get(0, "abc", later).as_deref(), Some(&2));
        // Another was read meanwhile, or it was changed.
        cache.renew(0, "abc", &seen, 3, soon);
        assert_eq!(cache.get(0, "abc", later).as_deref(), Some(&2));
        let (seen, _) = cache.known_until(0, "abc", later).unwrap();
        cache.forget(0, "abc");
        cache.renew(0, "abc", &seen, 4, later);
        assert_eq!(cache.get(0, "abc", later), None);
        assert_eq!(*cache.get_or_read(0, "abc", later, read(5)).await.unwrap(), 5);
        cache.clear();
        assert_eq!(cache.get(0, "abc", later), None);
    }

    #[tokio::test]
    async fn concurrent_misses_become_one_read() {
        let (cache, reads, go) = (cache(), AtomicUsize::new(0), Notify::new());
        let miss = || {
            cache.get_or_read(0, "abc", AT_START, async {
                reads.fetch_add(1, Ordering::SeqCst);
                go.notified().await;
                read(7).await
            })
        };
        let open_the_gate = async {
            while reads.load(Ordering::SeqCst) == 0 {
                tokio::task::yield_now().await;
            }
            go.notify_one();
            Ok(Arc::new(7))
        };
        let misses = (0..64).map(|_| futures::FutureExt::boxed_local(miss()));
        let all = misses.chain(std::iter::once(futures::FutureExt::boxed_local(open_the_gate)));
        let found = futures::future::join_all(all).await;
        assert!(found.iter().all(|value| **value.as_ref().unwrap() == 7));
        assert_eq!(reads.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_fill_that_began_before_a_change_does_not_bring_back_what_was_changed() {
        let cache = cache();
        let old = cache.get_or_read(0, "abc", AT_START, async {
            cache.forget(0, "abc");
            read(1).await
        });
        assert_eq!(*old.await.unwrap(), 1);
        assert_eq!(cache.get(0, "abc", AT_START), None);
    }

    #[tokio::test]
    async fn a_failed_read_is_not_remembered_and_memory_is_bounded() {
        let cache = cache();
        assert_eq!(cache.get_or_read(0, "abc", AT_START, async { Err("down") }).await, Err("down"));
        assert_eq!(*cache.get_or_read(0, "abc", AT_START, read(2)).await.unwrap(), 2);
        for n in 0..50_000_u32 {
            cache.get_or_read(0, &n.to_string(), AT_START, read(n)).await.unwrap();
        }
        assert!(cache.bytes() <= 1 << 20);
    }
}
