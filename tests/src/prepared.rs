//! What a tier needs beyond the toolchain, and what becomes of a test that cannot have it. The scripts in `tests/env`
//! install or build it; nothing else here knows how.
use anyhow::{Context, Result, ensure};
use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;

use crate::sizes::{environment, in_ci};
use crate::tasks::command::command;

/// How a script ended.
#[derive(Clone, Debug)]
pub enum Prepared {
    /// All is there; what the script printed last, such as the path of a program.
    Ready(String),
    /// What is missing.
    Missing(String),
}

/// Runs a script that installs what a tier needs. It exits 0 and prints where that is, or fails and prints why.
pub fn prepare(script: &str) -> Result<Prepared> {
    let output = command("bash", &[script])?.output().with_context(|| format!("starting {script}"))?;
    let said = String::from_utf8_lossy(if output.status.success() { &output.stdout } else { &output.stderr });
    let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it gave no reason").to_owned();
    Ok(if output.status.success() { Prepared::Ready(last) } else { Prepared::Missing(last) })
}

/// Where something is: named by the environment variable, else what the script provides; looked for once for each `cell`.
pub async fn provided(cell: &OnceCell<Prepared>, variable: &str, script: &'static str) -> Result<Prepared> {
    let find = async || match environment(variable) {
        Some(path) => Ok(Prepared::Ready(path)),
        None => spawn_blocking(|| prepare(script)).await.context("running the script")?,
    };
    cell.get_or_try_init(find).await.cloned()
}

/// Says that a test is not run, and why. In CI it is a failure.
pub fn not_run(reason: &str) -> Result<()> {
    ensure!(!in_ci(), "NOT RUN: {reason}");
    say_not_run(reason);
    Ok(())
}

/// Says that a test is not run where that is as it should be, in CI too.
#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
pub fn say_not_run(reason: &str) {
    eprintln!("NOT RUN: {reason}");
}
