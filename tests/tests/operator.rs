//! The operator on a real API server: what it refuses, what it builds and repairs, whom it grants what, and that it may be stopped after
//! any of its writes.

#[path = "operator/allocation.rs"]
mod allocation;
#[path = "operator/autoscaling.rs"]
mod autoscaling;
#[path = "operator/crash.rs"]
mod crash;
#[path = "operator/objects.rs"]
mod objects;
#[path = "operator/refused.rs"]
mod refused;
#[path = "operator/rights.rs"]
mod rights;
#[path = "operator/scene.rs"]
mod scene;
