//! The operator: turns a `ShortenerCluster` into the objects that run it, and hands out worker IDs and ID ranges through the resource's
//! status. It reads, thinks and writes: [`observe`] → [`plan`] → [`execute`]. What it decides about IDs lives in `shortener_crds::ids`,
//! shared with the nodes.
//!
//! To follow one `ShortenerCluster`: [`controller`] is one visit; [`plan`] decides all of it from what [`observe`] has read;
//! [`execute`] writes the ledger first, by compare-and-swap, then delivers what it says, then applies what the cluster owns.

pub mod ambient;
pub mod check;
pub mod config;
pub mod controller;
pub mod execute;
pub mod kinds;
pub mod leader;
pub mod manifest;
pub mod measure;
pub mod metrics;
pub mod observe;
pub mod plan;
pub mod rbac;
pub mod run;
pub mod scaling;
pub mod settled;

pub use run::run;
