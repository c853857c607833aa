//! What `cargo xtask` does: the steps of CI, the test tiers, the benchmarks. A task is a few lines; what it runs prints
//! for itself.
pub mod agents;
pub mod bench;
pub mod checks;
pub mod cluster;
pub mod command;
pub mod end_to_end;
pub mod schemathesis;
pub mod tiers;
