//! The product's own programs, as cargo has built them beside the tests.
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The node that was built with this program.
pub fn node_program() -> Result<PathBuf> {
    beside_this_program("shortener-node")
}

/// The node that knows one format of rows more.
pub fn next_node_program() -> Result<PathBuf> {
    beside_this_program("next_node")
}

/// The operator that was built with this program.
pub fn operator_program() -> Result<PathBuf> {
    beside_this_program("shortener-operator")
}

/// Lies in the directory of this program, or in the one above.
pub fn beside_this_program(name: &str) -> Result<PathBuf> {
    let program = std::env::current_exe().context("asking for this program's path")?;
    let beside = program.ancestors().skip(1).take(2).map(|directory| directory.join(name));
    beside
        .into_iter()
        .find(|path| Path::is_file(path))
        .with_context(|| format!("{name} is not built: run `cargo build --workspace` first (`cargo xtask test` does)"))
}
