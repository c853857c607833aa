//! Schemathesis, every check on, against a running node's own OpenAPI document, as a logged-in user. Schemathesis knows
//! nothing of the node but that document, so whatever the two disagree on is a failure.
use anyhow::{Context, Result};
use tempfile::TempDir;

use super::command::{command, run_seeing};
use super::tiers::Ending;
use crate::node::Node;

const EMAIL: &str = "schemathesis@example.com";
const PASSWORD: &str = "correct horse battery staple";

/// Runs the Schemathesis at `program` against a node of its own, and holds the node to a clean stop afterwards.
pub fn run(program: &str, soak: bool) -> Result<Ending> {
    let runtime = tokio::runtime::Runtime::new().context("starting a runtime")?;
    let (node, token) = runtime.block_on(start())?;
    let scratch = TempDir::new().context("making a scratch directory")?;
    let mut schemathesis = command(program, &["run", "--checks", "all", "--workers", "1", "--continue-on-failure"])?;
    schemathesis
        .current_dir(scratch.path())
        .args(["--max-examples", if soak { "1000" } else { "25" }, "--generation-database", "none"])
        .args(["--max-redirects", "0", "--request-timeout", "10"])
        .args(["--header", &format!("Authorization: Bearer {token}")])
        .arg(format!("{}/openapi.json", node.base_url()));
    let succeeded = run_seeing(&mut schemathesis, |_| ())?;
    runtime.block_on(node.stop())?;
    Ok(Ending::Ran { passed: u64::from(succeeded), failed: u64::from(!succeeded), succeeded })
}

async fn start() -> Result<(Node, String)> {
    let node = Node::builder().setting("LOG_LEVEL", "warn").start().await?;
    let user = node.client()?.register_and_login(EMAIL, PASSWORD).await?;
    let token = user.token().context("a logged-in client has a token")?.to_owned();
    Ok((node, token))
}
