//! The README's way, as somebody new goes it.
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::ResourceExt;
use serde_json::Value;
use shortener_node::ambient::Clock;

use crate::e2e::kind::IMAGE;
use crate::e2e::load::Load;
use crate::e2e::world::{OPERATOR_NAMESPACE, World};
use crate::witness::Ask;

const READY_WITHIN: Duration = Duration::from_mins(1);
const FRESH: u32 = 100;
const CREATES: u32 = 10;
const TARGET: &str = "https://www.example.com/a/long/page";

pub async fn run(world: &World) -> Result<String> {
    let clock = Clock::system();
    world.helm("install", IMAGE, &[]).await?;
    world.apply(&Value::Object(serde_json::Map::new())).await?;
    let ready = clock.monotonic();
    ensure!(ready <= READY_WITHIN, "Ready after {ready:?}");
    // From the first moment on.
    let created = Load::start(world, Ask::Create(world.service_url().await?), CREATES).await?;
    let fresh = Load::start(world, Ask::Fresh(vec![world.link().await?]), FRESH).await?;
    let in_system = format!("--namespace={OPERATOR_NAMESPACE}");
    world.kubernetes().helm(&["test", "shortener", &in_system]).await?;

    let pods = world.nodes().await?;
    ensure!(pods.len() == 2, "{} nodes", pods.len());
    let grants = world.status().await?.allocation.context("grants are in the status")?.grants;
    ensure!(grants.len() == pods.len(), "{grants:?}");

    let first = format!("pod/{}", pods[0].name_any());
    let link: Value = world.forward(&first, 8000).await?.client()?.create(TARGET).await?;
    let code = link["short_code"].as_str().context("a link has a code")?;
    ensure!(link["short_url"] == format!("https://sho.rt/{code}"), "{link}");
    for pod in &pods {
        let node = world.forward(&format!("pod/{}", pod.name_any()), 8000).await?;
        let followed = node.client()?.get(&format!("/{code}")).await?;
        ensure!(followed.header("location") == Some(TARGET), "{}", followed.status);
    }

    let (created, fresh) = (created.stop(world).await?, fresh.stop(world).await?);
    created.expect_only("creates", &["201"], 10)?;
    fresh.expect_only("redirects", &["302"], 100)?;
    Ok(format!(
        "Ready {:.0} s after `helm install` began; followed through each of {} pods; 0 failed of {} redirects and {} creates beside it",
        ready.as_secs_f64(),
        pods.len(),
        fresh.total(),
        created.total(),
    ))
}
