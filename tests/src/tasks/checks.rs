//! The checks that run before any test: formatting, lints, documentation, dependencies; and one beside them.
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::command::{cargo, command, run};
use crate::sizes::environment;

/// Built from source once and kept in the cache; in step with `deny.toml`.
const CARGO_DENY_VERSION: &str = "0.20.2";

/// Formatting, as `rustfmt.toml` says.
pub fn fmt() -> Result<()> {
    run(&mut cargo(&["fmt", "--all", "--check"])?)
}

/// Lints, warnings denied.
pub fn clippy() -> Result<()> {
    run(&mut cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?)
}

/// Documentation without a broken link or a missing paragraph.
pub fn docs() -> Result<()> {
    run(cargo(&["doc", "--no-deps", "--workspace"])?.env("RUSTDOCFLAGS", "-Dwarnings"))
}

/// Licences, sources and bans of all dependencies, as `deny.toml` says.
pub fn deny() -> Result<()> {
    let deny = cargo_deny()?;
    run(&mut command(&deny.to_string_lossy(), &["--all-features", "check", "bans", "licenses", "sources"])?)
}

/// Known faults of all dependencies, and versions that were withdrawn. No part of the gate: the gate needs no internet beyond
/// the registry, and is not to fail by what somebody found elsewhere.
pub fn advisories() -> Result<()> {
    let deny = cargo_deny()?;
    run(&mut command(&deny.to_string_lossy(), &["--all-features", "check", "advisories"])?)
}

/// Where tools and environments are kept between runs, outside the working tree.
pub fn cache_directory() -> Result<PathBuf> {
    let home = environment("HOME").context("HOME is not set")?;
    Ok(PathBuf::from(home).join(".cache/shortener"))
}

/// The pinned cargo-deny, installed if it is not there yet. It runs for a second, so it is built quickly rather than well.
fn cargo_deny() -> Result<PathBuf> {
    let root = cache_directory()?.join(format!("cargo-deny-{CARGO_DENY_VERSION}"));
    let program = root.join("bin/cargo-deny");
    if !program.is_file() {
        let version = format!("={CARGO_DENY_VERSION}");
        let root = root.to_string_lossy();
        let install = ["install", "--locked", "cargo-deny", "--version", &version, "--root", &root];
        run(cargo(&install)?
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1"))?;
    }
    Ok(program)
}
