//! Everything but the data and the definition is removed, and made again.
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use shortener_node::ambient::Clock;
use tokio::time::sleep;

use crate::e2e::kind::IMAGE;
use crate::e2e::load::Load;
use crate::e2e::record::Record;
use crate::e2e::world::{OPERATOR_NAMESPACE, PATIENCE, World};
use crate::server_process::wait_until;
use crate::witness::{Ask, second};

/// A Service of the test's own: that of the product goes with it, and has another address afterwards. While there are no nodes
/// nothing can be said: what is sent there may leave the cluster, where anybody may answer.
const SERVICE: &str = "always";
const KEPT: u32 = 100;
const CREATES: u32 = 50;
/// How long the load goes on before and after.
const AROUND: Duration = Duration::from_secs(5);
/// How long the machines may take to hear of nodes that are ready.
const HEARD_WITHIN: Duration = Duration::from_secs(5);

pub async fn run(world: &World) -> Result<String> {
    // Before the nodes, so that every machine knows of it by then.
    let service = lasting_service(world).await?;
    world.nodes_ready(2, &json!({})).await?;
    let clock = Clock::system();
    let link = world.link().await?;
    let code = link.rsplit_once('/').context("a link has a code")?.1;
    let kept = Load::start(world, Ask::Kept(vec![format!("{service}/{code}")]), KEPT).await?;
    let created = Load::start(world, Ask::Create(service), CREATES).await?;
    sleep(AROUND).await;

    let going = second(&clock);
    let highest = world.status().await?.allocation.context("grants are in the status")?.next_block;
    world.kubectl(&["delete", "shc", "main", "--timeout=120s"]).await?;
    wait_until("the nodes are gone", PATIENCE, async || Ok(world.nodes().await?.is_empty())).await?;
    let in_system = format!("--namespace={OPERATOR_NAMESPACE}");
    world.kubernetes().helm(&["uninstall", "shortener", &in_system, "--wait"]).await?;
    let definitions = world.kubernetes().kubectl(&["get", "crd", "-o", "name"]).await?;
    ensure!(definitions.contains("shortenerclusters.shortener.dev"), "the definition is gone: {definitions}");

    world.helm("install", IMAGE, &["--take-ownership"]).await?;
    world.nodes_ready(2, &json!({})).await?;
    sleep(HEARD_WITHIN).await;
    let back = second(&clock) + 1;
    let after = world.status().await?.allocation.context("grants are in the status")?;
    let lowest = after.grants.iter().filter_map(|grant| grant.first_block).min().context("blocks are granted")?;
    ensure!(lowest >= highest, "block {lowest} was granted, and {highest} was to be the next");
    sleep(AROUND).await;

    let (kept, created) = (kept.stop(world).await?, created.stop(world).await?);
    for (when, from, to) in [("before", 0, going), ("afterwards", back, i64::MAX)] {
        kept.between(from, to).expect_only(&format!("redirects {when}"), &["302"], 300)?;
        created.between(from, to).expect_only(&format!("creates {when}"), &["201"], 100)?;
    }
    ensure!(created.twice() == 0, "{} codes were given out twice", created.twice());
    let lost = world.lost(created.created()).await?;
    ensure!(lost.is_empty(), "{} links are lost: {:?}", lost.len(), lost.first());
    let around = |load: &Record| load.between(0, going).and(load.between(back, i64::MAX));
    Ok(format!(
        "all of {} links made before, meanwhile and afterwards are there, no code twice; blocks from {lowest} on, the next was {highest}; \
         0 failed of {} requests before and after",
        created.created().count(),
        around(&kept).total() + around(&created).total(),
    ))
}

/// One that leads to the nodes, whoever makes them; where it is.
async fn lasting_service(world: &World) -> Result<String> {
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": SERVICE},
        "spec": {
            "selector": {"app.kubernetes.io/name": "shortener", "app.kubernetes.io/instance": "main"},
            "ports": [{"port": 80, "targetPort": "http"}],
        },
    });
    world.kubectl_with_input(&["apply", "-f", "-"], &service.to_string()).await?;
    world.url_of_service(SERVICE).await
}
