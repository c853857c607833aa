//! How large a run is. `cargo xtask test` and `cargo xtask soak` run the same code; only the numbers differ.
use std::path::PathBuf;

use anyhow::{Context, Result};

/// Set to `1` by `cargo xtask soak`.
pub const SOAK_VARIABLE: &str = "SHORTENER_SOAK";

/// Set to `1` where scenarios of one node are to run on the servers that nodes share.
pub const ON_SERVERS_VARIABLE: &str = "SHORTENER_ON_SERVERS";

/// Whether scenarios of one node run on the servers that nodes share.
pub fn on_servers() -> bool {
    environment(ON_SERVERS_VARIABLE).is_some_and(|value| value == "1")
}

/// Whether this is a soak run.
pub fn soaking() -> bool {
    environment(SOAK_VARIABLE).is_some_and(|value| value == "1")
}

/// `short` in a test run, `soak` in a soak run.
pub fn sized<T>(short: T, soak: T) -> T {
    if soaking() { soak } else { short }
}

/// Whether the run is somebody's gate, so that a tier that cannot run is a failure (`CI=true`, as every CI system sets it).
pub fn in_ci() -> bool {
    environment("CI").is_some_and(|value| value == "true" || value == "1")
}

/// A variable of the environment, none when it is unset or not UTF-8.
#[expect(clippy::disallowed_methods, reason = "the one place where the harness reads its environment")]
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The workspace's root.
pub fn workspace_root() -> Result<PathBuf> {
    let tests = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    tests.parent().map(PathBuf::from).context("the tests crate lies in the workspace")
}
