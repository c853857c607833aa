//! Redis loses everything it holds, and then a primary.
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use shortener_node::ambient::Clock;
use tokio::time::sleep;

use crate::e2e::load::Load;
use crate::e2e::record::Record;
use crate::e2e::world::{PATIENCE, World};
use crate::server_process::wait_until;
use crate::witness::{Ask, second};

const SERVERS: usize = 6;
const PRIMARIES: usize = 3;
const CREATES: u32 = 20;
/// After it, a percentile is to be well.
const SETTLED: Duration = Duration::from_secs(15);
const WATCHED: Duration = Duration::from_secs(45);
const P99_MAX_MS: u64 = 250;
const ANSWERED_MIN: f64 = 0.9999;

pub async fn run(world: &World) -> Result<String> {
    world.nodes_ready(3, &json!({})).await?;
    let service = world.service_url().await?;
    let clock = Clock::system();
    // Many links, so that most redirects ask Redis.
    let made = Load::start(world, Ask::Create(service.clone()), 100).await?;
    sleep(Duration::from_secs(10)).await;
    let made = made.stop(world).await?;
    let links: Vec<String> = made.created().map(|code| format!("{service}/{code}")).take(500).collect();
    let kept = Load::start(world, Ask::Kept(links.clone()), 150).await?;
    let fresh = Load::start(world, Ask::Fresh(links), 150).await?;
    let created = Load::start(world, Ask::Create(service.clone()), CREATES).await?;
    sleep(Duration::from_secs(10)).await;

    let wiped = second(&clock);
    let mut wiped_servers = 0;
    for server in 0..SERVERS {
        let pod = format!("redis-{server}");
        // A replica refuses it.
        let said = world.kubectl(&["exec", &pod, "--", "redis-cli", "FLUSHALL"]).await?;
        wiped_servers += usize::from(said.trim() == "OK");
    }
    ensure!(wiped_servers == PRIMARIES, "{wiped_servers} servers were wiped");
    sleep(SETTLED + WATCHED).await;

    let killed = second(&clock);
    let primary = primary(world).await?;
    world.kill(&primary, "redis").await?;
    sleep(SETTLED + WATCHED).await;
    let end = second(&clock);
    world.kubectl(&["rollout", "status", "statefulset/redis", "--timeout=120s"]).await?;
    wait_until("Redis is whole again", PATIENCE, async || {
        let info = world.kubectl(&["exec", "redis-0", "--", "redis-cli", "CLUSTER", "NODES"]).await?;
        Ok(!info.contains("fail") && info.lines().count() == SERVERS)
    })
    .await?;

    let (kept, fresh, created) = (kept.stop(world).await?, fresh.stop(world).await?, created.stop(world).await?);
    let redirects = kept.and(fresh);
    let settled = i64::try_from(SETTLED.as_secs()).context("a small number")?;
    let p99_wiped = p99(&redirects.between(wiped + settled, killed), "the wipe")?;
    let p99_killed = p99(&redirects.between(killed + settled, end), "the primary's death")?;
    #[expect(clippy::cast_precision_loss, reason = "a count of requests is far below 2^52")]
    let answered = 1.0 - redirects.other_than(&["302"]) as f64 / redirects.total() as f64;
    ensure!(answered >= ANSWERED_MIN, "{answered} of the redirects were answered: {:?}", redirects.outcomes());
    created.expect_only("creates", &["201"], 1_000)?;
    let lost = world.lost(made.created().chain(created.created())).await?;
    ensure!(lost.is_empty(), "{} links are lost: {:?}", lost.len(), lost.first());
    Ok(format!(
        "{:.3} % of {} redirects answered, and all creates; p99 {p99_wiped} ms after the wipe, {p99_killed} ms after the death; 0 of {} links lost",
        answered * 100.0,
        redirects.total(),
        made.created().count() + created.created().count()
    ))
}

fn p99(record: &Record, after: &str) -> Result<u64> {
    let p99 = record.quantile_ms(0.99);
    ensure!(record.total() > 1_000 && p99 <= P99_MAX_MS, "after {after}, of {} requests: p99 {p99} ms", record.total());
    Ok(p99)
}

/// A pod that is a primary now.
async fn primary(world: &World) -> Result<String> {
    for server in 0..SERVERS {
        let pod = format!("redis-{server}");
        let role = world.kubectl(&["exec", &pod, "--", "redis-cli", "ROLE"]).await?;
        if role.starts_with("master") {
            return Ok(pod);
        }
    }
    anyhow::bail!("no server of Redis is a primary")
}
