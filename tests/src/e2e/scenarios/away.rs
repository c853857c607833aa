//! Neither operator nor API server for a while: nodes go on with what they were granted.
use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use tokio::time::sleep;

use crate::e2e::load::Load;
use crate::e2e::world::{OPERATOR_NAMESPACE, PATIENCE, World};
use crate::server_process::wait_until;
use crate::witness::Ask;

/// Where the kubelet of the control plane finds what it runs, and where it does not.
const MANIFEST: &str = "/etc/kubernetes/manifests/kube-apiserver.yaml";
const ASIDE: &str = "/etc/kubernetes/kube-apiserver.yaml";

pub async fn run(world: &World) -> Result<String> {
    let away = world.sized(Duration::from_mins(1), Duration::from_mins(10));
    world.nodes_ready(3, &json!({})).await?;
    let (link, service) = (world.link().await?, world.service_url().await?);
    let kept = Load::start(world, Ask::Kept(vec![link.clone()]), 100).await?;
    let fresh = Load::start(world, Ask::Fresh(vec![link]), 50).await?;
    let created = Load::start(world, Ask::Create(service), 50).await?;

    let gone = take_away(world, away).await;
    // However that went: without an API server nobody can look at why.
    let back = put_right(world).await;
    gone.and(back)?;
    world.until_ready().await?;

    let (kept, fresh, created) = (kept.stop(world).await?, fresh.stop(world).await?, created.stop(world).await?);
    kept.expect_only("kept connections", &["302"], 1_000)?;
    fresh.expect_only("a connection for each request", &["302"], 1_000)?;
    created.expect_only("creates", &["201"], 1_000)?;
    Ok(format!(
        "{:.0} min away: 0 failed of {} redirects and {} creates",
        away.as_secs_f64() / 60.0,
        kept.total() + fresh.total(),
        created.total()
    ))
}

async fn take_away(world: &World, away: Duration) -> Result<()> {
    operators(world, 0).await?;
    world.kind.on_control_plane(&["mv", MANIFEST, ASIDE]).await?;
    let answers = async || world.kubectl(&["get", "--raw=/readyz", "--request-timeout=2s"]).await.is_ok();
    wait_until("the API server is gone", PATIENCE, async || Ok(!answers().await)).await?;
    sleep(away).await;
    Ok(())
}

/// Brings both back.
async fn put_right(world: &World) -> Result<()> {
    world.kind.on_control_plane(&["sh", "-c", &format!("[ ! -e {ASIDE} ] || mv {ASIDE} {MANIFEST}")]).await?;
    let answers = async || Ok(world.kubectl(&["get", "--raw=/readyz", "--request-timeout=2s"]).await.is_ok());
    wait_until("the API server is back", PATIENCE, answers).await?;
    operators(world, 2).await
}

async fn operators(world: &World, count: usize) -> Result<()> {
    let in_system = format!("--namespace={OPERATOR_NAMESPACE}");
    let deployment = "--selector=app.kubernetes.io/name=shortener-operator";
    let replicas = format!("--replicas={count}");
    world.kubernetes().kubectl(&["scale", "deployment", deployment, &replicas, &in_system]).await?;
    if count == 0 {
        let gone = ["wait", "--for=delete", "pod", deployment, &in_system, "--timeout=60s"];
        world.kubernetes().kubectl(&gone).await?;
    } else {
        let arguments = ["rollout", "status", "deployment", deployment, &in_system, "--timeout=120s"];
        world.kubernetes().kubectl(&arguments).await?;
    }
    Ok(())
}
