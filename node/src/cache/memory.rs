//! The in-process stand-in for a shared cache: bounded in bytes, each entry with a time to live.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::ambient::Clock;

/// Bytes kept at most: QR codes and summaries, a few kilobytes each.
const BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Bytes of a typical entry, from which the cache sizes its tables.
const ENTRY_BYTES_TYPICAL: u64 = 2 * 1024;

#[derive(Clone, Debug)]
struct Entry {
    value: Bytes,
    /// Monotonic time from which on the entry is a miss.
    ends: Duration,
}

#[derive(Clone, Debug)]
struct ByBytes;

impl Weighter<String, Entry> for ByBytes {
    fn weight(&self, key: &String, entry: &Entry) -> u64 {
        (key.len() + entry.value.len() + size_of::<Entry>()) as u64
    }
}

/// The cache; cheap to clone.
#[derive(Clone, Debug)]
pub struct Memory {
    entries: Arc<Cache<String, Entry, ByBytes>>,
    clock: Clock,
}

impl Memory {
    /// An empty cache.
    pub fn new(clock: Clock) -> Self {
        let items = usize::try_from(BYTES_MAX / ENTRY_BYTES_TYPICAL).unwrap_or(usize::MAX);
        Self { entries: Arc::new(Cache::with_weighter(items, BYTES_MAX, ByBytes)), clock }
    }

    /// What is under `key` and has not run out.
    pub fn get(&self, key: &str) -> Option<Bytes> {
        let now = self.clock.monotonic();
        self.entries.get(key).filter(|entry| now < entry.ends).map(|entry| entry.value)
    }

    /// Keeps `value` for `ttl`.
    pub fn put(&self, key: String, value: Bytes, ttl: Duration) {
        self.entries.insert(key, Entry { value, ends: self.clock.monotonic().saturating_add(ttl) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ambient::UnixMs;

    #[test]
    fn an_entry_is_there_until_its_time_is_over_and_memory_is_bounded() {
        let clock = Clock::manual(UnixMs(0));
        let cache = Memory::new(clock.clone());
        cache.put("a".to_owned(), Bytes::from_static(b"1"), Duration::from_secs(5));
        clock.advance(Duration::from_millis(4_999));
        assert_eq!(cache.get("a"), Some(Bytes::from_static(b"1")));
        clock.advance(Duration::from_millis(1));
        assert_eq!(cache.get("a"), None);
        for n in 0..100_000 {
            cache.put(n.to_string(), Bytes::from(vec![0; 1_000]), Duration::from_secs(5));
        }
        assert!(cache.entries.weight() <= BYTES_MAX);
    }
}
