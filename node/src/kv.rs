//! An ordered transactional key-value store: the one interface that everything above is written against, once.
//!
//! Reads see a snapshot. Transactions are optimistic: they buffer their writes, and `commit` fails with
//! [`KvError::Conflict`] when a key they write was written by somebody else since they began. The engine is chosen once,
//! at start; all engines pass the same contract suite.

use std::future::Future;

/// Why the key-value store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum KvError {
    /// Another transaction wrote one of this one's keys first. Begin again.
    #[error("another transaction wrote the same key first")]
    Conflict,
    /// An `insert` found its key taken.
    #[error("the key exists already")]
    AlreadyExists {
        /// The key that was there.
        key: Vec<u8>,
    },
    /// A scan, key or value is larger than the engine takes.
    #[error("{what} is over the limit of {limit}")]
    TooLarge {
        /// What was too large.
        what: &'static str,
        /// The limit, in bytes or rows.
        limit: usize,
    },
    /// The store cannot be reached or has failed; asking again later may help.
    #[error("the store is unavailable: {reason}")]
    Unavailable {
        /// What happened, without data.
        reason: String,
    },
    /// Whether the commit took place is not known: read back.
    #[error("whether the transaction was committed is not known")]
    Undetermined,
}

/// A key and its value.
pub type Row = (Vec<u8>, Vec<u8>);

/// The store of a node.
#[derive(Clone, Debug)]
pub enum Kv {
    /// On this machine's disk.
    Embedded(embedded::Embedded),
}
pub mod embedded;
#[expect(unused, reason = "replaced with the engine")]
fn unused(_: impl Future<Output = ()>) {}
