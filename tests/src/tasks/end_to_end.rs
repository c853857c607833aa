//! Builds the product and runs the end-to-end suite with it.
use anyhow::{Result, bail, ensure};

use super::command::{cargo, run as run_command};
use super::tiers::Ending;
use crate::e2e::{self, Scenario, play};

/// Runs these scenarios, or all; with `short` as they are run on every change. With `write` what was seen goes into `docs/`.
pub fn run(scenarios: &[Scenario], short: bool, write: bool) -> Result<()> {
    run_command(&mut cargo(&["build", "--workspace", "--bins"])?)?;
    let scenarios = if scenarios.is_empty() { &Scenario::ALL } else { scenarios };
    match e2e::run(scenarios, !short, write)? {
        Ending::Ran { failed, .. } => ensure!(failed == 0, "{failed} scenarios failed"),
        Ending::NotRun { reason } => bail!("the suite cannot run here: {reason}"),
    }
    Ok(())
}

/// Builds the product and makes a cluster to install it in.
pub fn cluster_to_play_with() -> Result<()> {
    run_command(&mut cargo(&["build", "--workspace", "--bins"])?)?;
    play::run()
}
