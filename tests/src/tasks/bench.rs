//! Builds what a benchmark needs in release, and runs it. The measuring program is itself a release build, so that the
//! load generator takes as little of the machine as it can.
use anyhow::Result;

use super::command::{cargo, command, run};

/// Runs the benchmark program with the given arguments, such as `redirect`.
pub fn bench(arguments: &[String]) -> Result<()> {
    run(&mut command("bash", &["tests/env/bench.sh"])?)?;
    // The whole workspace: another selection would unify other features and compile the dependencies again.
    run(&mut cargo(&["build", "--release", "--workspace", "--bins"])?)?;
    run(cargo(&["run", "--release", "--package", "shortener-tests", "--bin", "bench", "--"])?.args(arguments))
}
