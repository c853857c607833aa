//! Three nodes behind one port with the servers that they need, to play with. Nothing of it is there afterwards, however
//! the task ends.
use anyhow::{Context, Result};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use super::command::{cargo, run as run_command};
use crate::cluster::Cluster;

/// Builds the node, starts the cluster on `port`, and ends it at Ctrl-C or SIGTERM.
pub fn run(port: u16) -> Result<()> {
    run_command(&mut cargo(&["build", "--workspace", "--bins"])?)?;
    Runtime::new().context("starting a runtime")?.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).context("listening for Ctrl-C")?;
        let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
        announce("starting; the first time, PD and the store are built, which takes minutes");
        // What has been started by then is ended when it is dropped.
        let started = tokio::select! {
            started = Cluster::start(port) => started?,
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
        };
        let cluster = started.context("the servers behind the nodes cannot be had; see above")?;
        announce(&description(&cluster));
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        announce("stopping");
        cluster.stop().await
    })
}

fn description(cluster: &Cluster) -> String {
    let mut lines =
        vec![format!("Open {url} or {url}/docs; each connection goes to the next node.", url = cluster.url())];
    for (number, node) in cluster.nodes().iter().enumerate() {
        let pid = node.pid().unwrap_or_default();
        lines.push(format!("node {number}   {}   {}/metrics   process {pid}", node.base_url(), node.admin_url()));
    }
    let back_ends = cluster.back_ends();
    lines.extend(back_ends.tikv.admin_urls().into_iter().map(|url| format!("behind   {url}")));
    lines.push(format!("behind   Redis at {}", back_ends.redis.seeds().join(" ")));
    lines.push("For a further node by hand:".to_owned());
    lines.extend(back_ends.settings.iter().map(|(name, value)| format!("  export {name}={value}")));
    lines.push("Kill a node, and the others go on. Ctrl-C ends everything and removes the data.".to_owned());
    lines.join("\n")
}

#[expect(clippy::print_stdout, reason = "the task's own output")]
fn announce(text: &str) {
    println!("{text}");
}
