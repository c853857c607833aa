//! The store dies and comes back: what is cached is answered throughout, and everything else soon afterwards.
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use shortener_node::ambient::Clock;
use tokio::time::sleep;

use crate::e2e::load::Load;
use crate::e2e::world::World;
use crate::server_process::wait_until;
use crate::witness::{Ask, random_code};

const BACK_WITHIN: Duration = Duration::from_secs(30);
const AWAY: Duration = Duration::from_secs(20);

pub async fn run(world: &World) -> Result<String> {
    world.nodes_ready(3, &json!({})).await?;
    let link = world.link().await?;
    let node = world.any_node().await?;
    let client = node.client()?;
    let clock = Clock::system();
    let kept = Load::start(world, Ask::Kept(vec![link.clone()]), 100).await?;
    let fresh = Load::start(world, Ask::Fresh(vec![link]), 100).await?;
    let created = Load::start(world, Ask::Create(world.service_url().await?), 20).await?;
    sleep(Duration::from_secs(10)).await;

    world.kill("tikv-0", "tikv").await?;
    world.kubectl(&["scale", "statefulset/tikv", "--replicas=0"]).await?;
    let refused = client.post("/api/v1/urls", &json!({"original_url": "https://www.example.com/"})).await?;
    ensure!(refused.status == 503, "a create without a store: {}", refused.status);
    sleep(AWAY).await;
    world.kubectl(&["scale", "statefulset/tikv", "--replicas=1"]).await?;
    world.kubectl(&["rollout", "status", "statefulset/tikv", "--timeout=120s"]).await?;
    let back = clock.monotonic();
    wait_until("links are made again", BACK_WITHIN, async || {
        Ok(client.create("https://www.example.com/").await.is_ok())
    })
    .await?;
    let took = clock.monotonic().saturating_sub(back);
    // Only the store knows that there is no such link.
    wait_until("what is in no cache is read again", BACK_WITHIN.saturating_sub(took), async || {
        Ok(client.get(&format!("/{}", random_code())).await?.status == 404)
    })
    .await?;
    let read = clock.monotonic().saturating_sub(back);
    client.until_health_is("ok").await?;
    sleep(Duration::from_secs(5)).await;

    let (kept, fresh, created) = (kept.stop(world).await?, fresh.stop(world).await?, created.stop(world).await?);
    let redirects = kept.and(fresh);
    redirects.expect_only("cached redirects", &["302"], 2_000)?;
    let lost = world.lost(created.created()).await?;
    ensure!(lost.is_empty(), "{} links are lost: {:?}", lost.len(), lost.first());
    let health: Value = client.health().await?;
    ensure!(health["status"] == "ok", "{health}");
    Ok(format!(
        "0 of {} redirects failed; links made again {:.1} s after the store was back, uncached ones read {:.1} s after; 0 of {} links lost",
        redirects.total(),
        took.as_secs_f64(),
        read.as_secs_f64(),
        created.created().count()
    ))
}
