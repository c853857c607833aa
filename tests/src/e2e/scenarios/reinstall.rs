//! Everything but the data and the definition is removed, and made again.
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::time::sleep;

use crate::e2e::kind::IMAGE;
use crate::e2e::load::Load;
use crate::e2e::world::{OPERATOR_NAMESPACE, PATIENCE, World};
use crate::server_process::wait_until;
use crate::witness::Ask;

pub async fn run(world: &World) -> Result<String> {
    world.nodes_ready(2, &json!({})).await?;
    let made = make(world).await?;
    let before = world.status().await?.allocation.context("grants are in the status")?;
    let highest = before.next_block;

    world.kubectl(&["delete", "shc", "main", "--timeout=120s"]).await?;
    wait_until("the nodes are gone", PATIENCE, async || Ok(world.nodes().await?.is_empty())).await?;
    let in_system = format!("--namespace={OPERATOR_NAMESPACE}");
    world.kubernetes().helm(&["uninstall", "shortener", &in_system, "--wait"]).await?;
    let definitions = world.kubernetes().kubectl(&["get", "crd", "-o", "name"]).await?;
    ensure!(definitions.contains("shortenerclusters.shortener.dev"), "the definition is gone: {definitions}");

    world.helm("install", IMAGE, &["--take-ownership"]).await?;
    world.nodes_ready(2, &json!({})).await?;
    let lost = world.lost(made.iter().map(String::as_str)).await?;
    ensure!(lost.is_empty(), "{} links are lost: {:?}", lost.len(), lost.first());
    let after = world.status().await?.allocation.context("grants are in the status")?;
    let lowest = after.grants.iter().filter_map(|grant| grant.first_block).min().context("blocks are granted")?;
    ensure!(lowest >= highest, "block {lowest} was granted, and {highest} was to be the next");
    let again = make(world).await?;
    ensure!(again.iter().all(|code| !made.contains(code)), "a code was given out twice");
    Ok(format!(
        "{} links are there; blocks from {lowest} on, the next was {}; {} new links, no code twice",
        made.len(),
        highest,
        again.len()
    ))
}

/// Some links; their codes.
async fn make(world: &World) -> Result<Vec<String>> {
    let load = Load::start(world, Ask::Create(format!("{}/api/v1/urls", world.service_url().await?)), 50).await?;
    sleep(Duration::from_secs(5)).await;
    let record = load.stop(world).await?;
    record.expect_only("creates", &["201"], 100)?;
    Ok(record.created().map(str::to_owned).collect())
}
