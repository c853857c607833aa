//! The contract between the operator and the nodes: the ID rules that both halves must keep and, once the operator
//! reconciles one, the `ShortenerCluster` resource. No tokio, no client, no clock, no randomness: everything here is a
//! value or a pure function of values.
pub mod ids;
