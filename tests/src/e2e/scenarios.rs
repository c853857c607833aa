//! What happens in each scenario.
pub(super) mod away;
pub(super) mod caches;
pub(super) mod gateway;
pub(super) mod install;
pub(super) mod kills;
pub(super) mod measurements;
pub(super) mod reinstall;
pub(super) mod rollouts;
pub(super) mod scaling;
pub(super) mod stores;
