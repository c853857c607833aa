//! What a transaction wants to write: pure, the same for every engine.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::kv::{
    KEY_BYTES_MAX, KvError, Row, TRANSACTION_BYTES_MAX, TRANSACTION_ROWS_MAX, VALUE_BYTES_MAX, check_limit,
};

/// What a transaction does to one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Write {
    /// The key must not exist when the transaction commits.
    pub(crate) must_not_exist: bool,
    /// What becomes of the row.
    pub(crate) change: Change,
}

/// What becomes of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It stays, and nobody else may have changed it.
    Lock,
    /// It gets this value.
    Put(Vec<u8>),
    /// It goes.
    Delete,
}

impl Change {
    /// The row's value after the change; `stored` before it.
    pub(crate) fn after(&self, stored: Option<Vec<u8>>) -> Option<Vec<u8>> {
        match self {
            Self::Lock => stored,
            Self::Put(value) => Some(value.clone()),
            Self::Delete => None,
        }
    }
}

/// The buffered writes of a transaction, and the first mistake made with them.
#[derive(Debug, Default)]
pub(crate) struct WriteSet {
    writes: BTreeMap<Vec<u8>, Write>,
    /// Bytes ever buffered; rewriting a key counts again, which keeps this simple and is still a bound.
    bytes: usize,
    mistake: Option<KvError>,
}

impl WriteSet {
    /// What the transaction makes of a key, if it writes it at all.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&Change> {
        self.writes.get(key).map(|write| &write.change)
    }

    pub(crate) fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        let must_not_exist = self.writes.get(&key).is_some_and(|before| before.must_not_exist);
        self.set(key, Write { must_not_exist, change: Change::Put(value) });
    }

    pub(crate) fn insert(&mut self, key: Vec<u8>, value: Vec<u8>) {
        let must_not_exist = match self.writes.get(&key) {
            None | Some(Write { change: Change::Lock, .. }) => true,
            // What it deleted itself it may write again.
            Some(Write { change: Change::Delete, must_not_exist }) => *must_not_exist,
            Some(Write { change: Change::Put(_), .. }) => {
                self.mistake.get_or_insert(KvError::AlreadyExists { key });
                return;
            }
        };
        self.set(key, Write { must_not_exist, change: Change::Put(value) });
    }

    pub(crate) fn delete(&mut self, key: Vec<u8>) {
        let must_not_exist = self.writes.get(&key).is_some_and(|before| before.must_not_exist);
        self.set(key, Write { must_not_exist, change: Change::Delete });
    }

    pub(crate) fn lock(&mut self, key: Vec<u8>) {
        if !self.writes.contains_key(&key) {
            self.set(key, Write { must_not_exist: false, change: Change::Lock });
        }
    }

    fn set(&mut self, key: Vec<u8>, write: Write) {
        let value_bytes = if let Change::Put(value) = &write.change { value.len() } else { 0 };
        self.bytes += key.len() + value_bytes;
        let within_limits = check_limit("a key", key.len(), KEY_BYTES_MAX)
            .and_then(|()| check_limit("a value", value_bytes, VALUE_BYTES_MAX))
            .and_then(|()| check_limit("a transaction's bytes", self.bytes, TRANSACTION_BYTES_MAX))
            .and_then(|()| check_limit("a transaction's rows", self.writes.len() + 1, TRANSACTION_ROWS_MAX));
        match within_limits {
            Ok(()) => {
                self.writes.insert(key, write);
            }
            Err(too_large) => {
                self.mistake.get_or_insert(too_large);
            }
        }
    }

    /// How many rows of `range` the transaction deletes.
    pub(crate) fn deletes_in(&self, range: &Range<Vec<u8>>) -> usize {
        self.own_in(range).filter(|(_, write)| write.change == Change::Delete).count()
    }

    /// The first `limit` rows of `range`: the `stored` ones with the transaction's own writes on top.
    pub(crate) fn overlay(&self, stored: Vec<Row>, range: &Range<Vec<u8>>, limit: usize) -> Vec<Row> {
        let mut rows: BTreeMap<Vec<u8>, Vec<u8>> = stored.into_iter().collect();
        for (key, write) in self.own_in(range) {
            match &write.change {
                Change::Lock => {}
                Change::Put(value) => {
                    rows.insert(key.clone(), value.clone());
                }
                Change::Delete => {
                    rows.remove(key);
                }
            }
        }
        rows.into_iter().take(limit).collect()
    }

    fn own_in(&self, range: &Range<Vec<u8>>) -> impl Iterator<Item = (&Vec<u8>, &Write)> {
        // A map panics on a range that ends before it starts.
        let is_possible = range.start < range.end;
        is_possible.then(|| self.writes.range(range.clone())).into_iter().flatten()
    }

    /// The writes to commit, or the first mistake that was made.
    pub(crate) fn finish(self) -> Result<BTreeMap<Vec<u8>, Write>, KvError> {
        self.mistake.map_or(Ok(self.writes), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Vec<u8> {
        b"k".to_vec()
    }

    #[test]
    fn an_insert_stays_one_whatever_follows_it() {
        let mut writes = WriteSet::default();
        writes.insert(key(), vec![1]);
        writes.delete(key());
        writes.insert(key(), vec![2]);
        writes.put(key(), vec![3]);
        writes.lock(key());
        let expected = Write { must_not_exist: true, change: Change::Put(vec![3]) };
        assert_eq!(writes.finish().unwrap(), BTreeMap::from([(key(), expected)]));
    }

    #[test]
    fn what_a_transaction_deleted_it_may_insert() {
        let mut writes = WriteSet::default();
        writes.delete(key());
        writes.insert(key(), vec![1]);
        let expected = Write { must_not_exist: false, change: Change::Put(vec![1]) };
        assert_eq!(writes.finish().unwrap(), BTreeMap::from([(key(), expected)]));
    }

    #[test]
    fn inserting_twice_is_a_mistake_that_the_commit_reports() {
        let mut writes = WriteSet::default();
        writes.put(key(), vec![1]);
        writes.insert(key(), vec![2]);
        assert_eq!(writes.finish(), Err(KvError::AlreadyExists { key: key() }));
    }

    #[test]
    fn what_is_too_large_is_reported_by_the_commit() {
        let too_large = |what, limit| Err(KvError::TooLarge { what, limit });
        let mut writes = WriteSet::default();
        writes.put(vec![0; KEY_BYTES_MAX + 1], vec![]);
        assert_eq!(writes.finish(), too_large("a key", KEY_BYTES_MAX));

        let mut writes = WriteSet::default();
        writes.put(key(), vec![0; VALUE_BYTES_MAX + 1]);
        assert_eq!(writes.finish(), too_large("a value", VALUE_BYTES_MAX));

        let mut writes = WriteSet::default();
        for row in 0..=TRANSACTION_ROWS_MAX {
            writes.delete(row.to_be_bytes().to_vec());
        }
        assert_eq!(writes.finish(), too_large("a transaction's rows", TRANSACTION_ROWS_MAX));
    }

    #[test]
    fn own_writes_lie_on_top_of_stored_rows_in_order() {
        let row = |k: u8, v: u8| (vec![k], vec![v]);
        let mut writes = WriteSet::default();
        writes.put(vec![2], vec![20]);
        writes.delete(vec![3]);
        writes.put(vec![9], vec![90]);
        let range = vec![1]..vec![8];
        assert_eq!(writes.deletes_in(&range), 1);
        let stored = vec![row(1, 1), row(3, 3), row(4, 4)];
        assert_eq!(writes.overlay(stored, &range, 2), [row(1, 1), row(2, 20)]);
        assert!(writes.overlay(vec![], &(vec![8]..vec![1]), 2).is_empty());
    }
}
