//! The node: a stateless server that shortens, redirects and counts, on an ordered transactional key-value store.
//!
//! Modules import downwards in this order, never up.
pub mod accounts;
pub mod allocation;
pub mod ambient;
pub mod cache;
pub mod clicks;
pub mod invalid;
pub mod kv;
pub mod limits;
pub mod links;
pub mod minter;
pub mod public_url;
pub mod qr;
pub mod store;
pub mod sweeper;
