//! Who changed what since when: the pure half of the optimistic commit.
//!
//! Every committed transaction gets the next sequence number. A transaction conflicts when a key it writes or locks was
//! last changed under a number higher than the one it began at. Only changes that a live transaction could still conflict
//! with are remembered, and no more than [`REMEMBERED_BYTES_MAX`] of them: what has to be forgotten early makes older
//! transactions conflict, which costs them another attempt and never a wrong answer.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Most bytes of keys to remember: a minute of 5,000 writes a second beside one forgotten transaction.
pub(super) const REMEMBERED_BYTES_MAX: usize = 32 << 20;

/// What remembering a key costs beside the key itself: two entries, two pointers and a reference count.
const ENTRY_BYTES: usize = 96;

/// The recent changes.
#[derive(Debug, Default)]
pub(super) struct Conflicts {
    latest: HashMap<Arc<[u8]>, u64>,
    /// In the order of their numbers, oldest first. A key is here once for each of its changes.
    changes: VecDeque<(u64, Arc<[u8]>)>,
    bytes: usize,
    /// Changes up to this number are forgotten although somebody may still ask.
    forgotten: u64,
}

impl Conflicts {
    /// Whether `key` was changed after the transaction that began at `begun_at` began, or may have been.
    pub(super) fn changed_since(&self, key: &[u8], begun_at: u64) -> bool {
        begun_at < self.forgotten || self.latest.get(key).is_some_and(|changed_at| *changed_at > begun_at)
    }

    /// Remembers that `key` was changed by the transaction with this number, the highest so far.
    pub(super) fn record(&mut self, key: &[u8], sequence: u64) {
        let key: Arc<[u8]> = key.into();
        self.bytes += key.len() + ENTRY_BYTES;
        self.latest.insert(Arc::clone(&key), sequence);
        self.changes.push_back((sequence, key));
        while self.bytes > REMEMBERED_BYTES_MAX {
            let Some(oldest) = self.forget_oldest() else { break };
            self.forgotten = oldest;
        }
    }

    /// Forgets what no transaction that began at `oldest_live` or later can conflict with.
    pub(super) fn prune(&mut self, oldest_live: u64) {
        while self.changes.front().is_some_and(|(sequence, _)| *sequence <= oldest_live) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) -> Option<u64> {
        let (sequence, key) = self.changes.pop_front()?;
        self.bytes -= key.len() + ENTRY_BYTES;
        // A later change of the same key stays remembered.
        if self.latest.get(&key) == Some(&sequence) {
            self.latest.remove(&key);
        }
        Some(sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_conflicts_with_those_who_began_before_it() {
        let mut conflicts = Conflicts::default();
        conflicts.record(b"a", 5);
        assert!(conflicts.changed_since(b"a", 4));
        assert!(!conflicts.changed_since(b"a", 5));
        assert!(!conflicts.changed_since(b"b", 4));
    }

    #[test]
    fn pruning_forgets_only_what_nobody_can_conflict_with() {
        let mut conflicts = Conflicts::default();
        conflicts.record(b"a", 5);
        conflicts.record(b"b", 6);
        conflicts.record(b"a", 7);
        conflicts.prune(6);
        assert_eq!((conflicts.changes.len(), conflicts.latest.len()), (1, 1));
        assert!(conflicts.changed_since(b"a", 6));
        conflicts.prune(7);
        assert_eq!((conflicts.bytes, conflicts.latest.len()), (0, 0));
    }

    #[test]
    fn memory_is_bounded_and_those_older_than_it_conflict() {
        let mut conflicts = Conflicts::default();
        let keys = 2 * u64::try_from(REMEMBERED_BYTES_MAX / (4_096 + ENTRY_BYTES)).unwrap();
        for sequence in 1..=keys {
            let mut key = vec![0; 4_096];
            key[..8].copy_from_slice(&sequence.to_be_bytes());
            conflicts.record(&key, sequence);
        }
        assert!(conflicts.bytes <= REMEMBERED_BYTES_MAX);
        assert!(conflicts.changed_since(b"never written", 1), "older than what is remembered");
        assert!(!conflicts.changed_since(b"never written", keys));
    }
}
