//! The harness that the scenarios, benchmarks and tasks share.
