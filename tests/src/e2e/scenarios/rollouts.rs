//! No request is lost, whatever is changed.
use anyhow::{Context, Result, ensure};
use kube::ResourceExt;
use serde_json::json;

use crate::e2e::kind::{IMAGE, NEXT_IMAGE};
use crate::e2e::load::Load;
use crate::e2e::world::{OF_PRODUCT, PATIENCE, World};
use crate::server_process::wait_until;
use crate::witness::Ask;

const NODES: usize = 3;
/// Half of the redirects a second; the others take a connection each.
const KEPT: u32 = 150;
const FRESH: u32 = 150;
const CREATES: u32 = 10;

pub async fn run(world: &World) -> Result<String> {
    world.nodes_ready(NODES, &json!({})).await?;
    let (link, service) = (world.link().await?, world.service_url().await?);
    let kept = Load::start(world, Ask::Kept(vec![link.clone()]), KEPT).await?;
    let fresh = Load::start(world, Ask::Fresh(vec![link]), FRESH).await?;
    let created = Load::start(world, Ask::Create(service), CREATES).await?;

    // A rolling restart.
    let before = world.node_names().await?;
    world.kubectl(&["rollout", "restart", "deployment/main"]).await?;
    world.until_rolled_out().await?;
    let after = world.node_names().await?;
    ensure!(after.len() == NODES && after.is_disjoint(&before), "{before:?}, then {after:?}");

    // Another configuration.
    let patch = json!({"spec": {"config": {"analyticsRetentionDays": 30}}}).to_string();
    world.kubectl(&["patch", "shc", "main", "--type=merge", "-p", &patch]).await?;
    wait_until("pods are replaced", PATIENCE, async || Ok(!world.node_names().await?.is_subset(&after))).await?;
    world.until_rolled_out().await?;

    // Another operator, and the old one again: no node is replaced.
    let before = world.node_names().await?;
    for (image, release) in [(NEXT_IMAGE, "next"), (IMAGE, "first")] {
        world.helm("upgrade", image, &[&format!("--set=podAnnotations.release={release}")]).await?;
        world.until_operator_has_visited(release).await?;
        ensure!(world.node_names().await? == before, "another release of the operator replaced nodes");
    }

    let most = world.sized(5, 8);
    for nodes in [most, NODES] {
        scale_to(world, nodes).await?;
    }
    drain(world).await?;

    let (kept, fresh, created) = (kept.stop(world).await?, fresh.stop(world).await?, created.stop(world).await?);
    kept.expect_only("kept connections", &["302"], 1_000)?;
    fresh.expect_only("a connection for each request", &["302"], 1_000)?;
    created.expect_only("creates", &["201"], 100)?;
    Ok(format!(
        "0 failed of {} on kept connections, {} on one each, {} creates at {} requests/s, 3 → {most} → 3 nodes",
        kept.total(),
        fresh.total(),
        created.total(),
        KEPT + FRESH + CREATES
    ))
}

async fn scale_to(world: &World, nodes: usize) -> Result<()> {
    world.kubectl(&["scale", "shc", "main", &format!("--replicas={nodes}")]).await?;
    wait_until("the fleet has its size", PATIENCE, async || Ok(world.node_names().await?.len() == nodes)).await?;
    world.until_rolled_out().await
}

/// Takes all of the product's pods off a machine that has some, and gives the machine back.
async fn drain(world: &World) -> Result<()> {
    let nodes = world.nodes().await?;
    let machine = nodes.iter().find_map(|pod| pod.spec.as_ref()?.node_name.clone()).context("a pod is on a machine")?;
    let leaves = async || {
        let of_product = format!("--pod-selector={OF_PRODUCT}");
        let arguments =
            ["drain", &machine, "--ignore-daemonsets", "--delete-emptydir-data", &of_product, "--timeout=180s"];
        world.kubernetes().kubectl(&arguments).await?;
        world.until_rolled_out().await?;
        let nodes = world.nodes().await?;
        let stays =
            nodes.iter().find(|pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.as_ref() == Some(&machine)));
        ensure!(stays.is_none(), "{:?} stays on {machine}", stays.map(ResourceExt::name_any));
        Ok(())
    };
    let drained = leaves().await;
    world.kubernetes().kubectl(&["uncordon", &machine]).await?;
    drained
}
