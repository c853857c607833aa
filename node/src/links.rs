//! Shortening and resolving: what a link is and what may be one.

pub mod alias;
pub mod blocked_hosts;
pub mod target_url;
