//! The contract between the operator and the nodes: the ID rules that both halves must keep, what they tell each other through
//! Leases, and the `ShortenerCluster` resource. No tokio, no client, no clock, no randomness: everything here is a value or a
//! pure function of values.
pub mod causes;
pub mod cluster;
pub mod conditions;
pub mod ids;
pub mod lease;

pub use cluster::{ShortenerCluster, ShortenerClusterSpec, ShortenerClusterStatus};
