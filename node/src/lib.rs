//! The node: a stateless server that shortens, redirects and counts, on an ordered transactional key-value store.
//!
//! [`run()`] is the seam between the program and everything else. Modules import downwards in this order, never up:
//! `program` → `run` → `http` → `links` `accounts` `clicks` → `limits` `lease` → `minter` → `allocation` → `cache` → `store` → `kv` → `resilience`.

mod program;
pub mod run;

pub mod config;
pub mod http;
pub mod logging;

pub mod accounts;
pub mod backup;
pub mod clicks;
pub mod links;
pub mod qr;
pub mod sweeper;

pub mod lease;
pub mod limits;
pub mod minter;
pub mod public_url;

pub mod allocation;
pub mod cache;
pub mod store;

pub mod kv;

pub mod resilience;

pub mod ambient;
pub mod cores;
pub mod domains;
pub mod invalid;
pub mod keyed_hash;
pub mod tls_files;
pub mod traces;

pub use program::program;
pub use run::{Listeners, Orders, run};
