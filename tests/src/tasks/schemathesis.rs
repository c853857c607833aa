//! Schemathesis, every check on, against a running node's own OpenAPI document, as two users who must not see each
//! other's links. Schemathesis knows nothing of the node but that document, so whatever the two disagree on is a failure.
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::command::{command, run_seeing};
use super::tiers::Ending;
use crate::node::Node;

const USERS: [&str; 2] = ["ada", "grace"];
const PASSWORD: &str = "correct horse battery staple";
/// Without `peers` the check that compares the two users would be left out silently. What no schema can say, such as that
/// a host is public or a moment in the future, may be refused with 422, and a link that expired is 410 as one that is not
/// there is 404. What violates the document may also be too large (413) before it is anything else; every other check holds these requests to the document as well.
const CONFIGURATION: &str = r#"
hooks = "hooks.py"
[auth.wfc]
path = "users.json"
peers = ["ada", "grace"]

[checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", "401", "403", "404", "409", "410", "429", "5xx"]

[checks.negative_data_rejection]
expected-statuses = ["400", "401", "403", "404", "405", "406", "409", "413", "415", "422", "428", "429", "5xx"]

[[operations]]
include-name = ["POST /api/v1/urls", "PATCH /api/v1/urls/{id}", "POST /shortener/url/", "POST /api/v1/auth/register"]
checks.positive_data_acceptance.expected-statuses = ["2xx", "401", "404", "409", "422"]
"#;
/// What Schemathesis is to do differently.
const HOOKS: &str = include_str!("../../env/schemathesis_hooks.py");
/// What Schemathesis says when a check that was asked for cannot run.
const LEFT_OUT: &str = "will not run";

/// Runs the Schemathesis at `program` against a node of its own, and holds the node to a clean stop afterwards.
pub fn run(program: &str, soak: bool) -> Result<Ending> {
    let runtime = tokio::runtime::Runtime::new().context("starting a runtime")?;
    let node = runtime.block_on(Node::builder().setting("LOG_LEVEL", "warn").start())?;
    let scratch = TempDir::new().context("making a scratch directory")?;
    runtime.block_on(register_users(&node, scratch.path()))?;
    let mut schemathesis = command(program, &["run", "--checks", "all", "--workers", "1", "--continue-on-failure"])?;
    schemathesis
        .current_dir(scratch.path())
        .args(["--max-examples", if soak { "1000" } else { "25" }, "--generation-database", "none"])
        .args(["--max-redirects", "0", "--request-timeout", "10"])
        .arg(format!("{}/openapi.json", node.base_url()));
    let mut left_out = Vec::new();
    let succeeded = run_seeing(&mut schemathesis, |line| {
        if line.contains(LEFT_OUT) {
            left_out.push(line.to_owned());
        }
    })?;
    runtime.block_on(node.stop())?;
    ensure!(left_out.is_empty(), "not every check was run: {left_out:?}");
    Ok(Ending::Ran { passed: u64::from(succeeded), failed: u64::from(!succeeded), succeeded, failures: Vec::new() })
}

/// Registers the users, and writes down for Schemathesis how each of them is recognised.
async fn register_users(node: &Node, scratch: &Path) -> Result<()> {
    let mut users = Vec::new();
    for name in USERS {
        let user = node.client()?.register_and_login(&format!("{name}@example.com"), PASSWORD).await?;
        let token = user.token().context("a logged-in client has a token")?;
        users.push(json!({
            "name": name,
            "fixedHeaders": [{ "name": "Authorization", "value": format!("Bearer {token}") }],
        }));
    }
    let users: Value = json!({ "auth": users });
    std::fs::write(scratch.join("users.json"), users.to_string()).context("writing the users")?;
    std::fs::write(scratch.join("hooks.py"), HOOKS).context("writing Schemathesis' hooks")?;
    std::fs::write(scratch.join("schemathesis.toml"), CONFIGURATION).context("writing Schemathesis' configuration")
}
