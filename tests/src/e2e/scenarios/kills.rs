//! Pods and operators die while links are made: no code twice, and nothing lost that was acknowledged.
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use shortener_node::ambient::Clock;
use tokio::time::{MissedTickBehavior, interval};

use crate::e2e::load::Load;
use crate::e2e::world::{OPERATOR_NAMESPACE, PATIENCE, World};
use crate::server_process::wait_until;
use crate::witness::Ask;

const NODES: usize = 3;
const CREATES: u32 = 50;
const EACH_POD: Duration = Duration::from_secs(5);
/// In pods: the operator goes every 30 s, and each third pod is killed.
const EACH_OPERATOR: u64 = 6;
const EACH_KILLED: u64 = 3;

pub async fn run(world: &World) -> Result<String> {
    let (clock, lasts) = (Clock::system(), world.sized(Duration::from_mins(1), Duration::from_mins(5)));
    world.nodes_ready(NODES, &json!({})).await?;
    let service = world.service_url().await?;
    let created = Load::start(world, Ask::Create(service), CREATES).await?;

    wait_until("Prometheus knows the nodes", PATIENCE, async || Ok(mint_clashes(world).await.is_ok())).await?;

    let begin = clock.monotonic();
    let mut tick = interval(EACH_POD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut deleted, mut killed, mut operators, mut clashes) = (0_u64, 0_u64, 0_u64, 0.0_f64);
    for number in 1_u64.. {
        tick.tick().await;
        if clock.monotonic().saturating_sub(begin) > lasts {
            break;
        }
        // What nodes counted goes with them; the counter of one that dies within a scrape is lost, its links are checked below.
        clashes = clashes.max(mint_clashes(world).await?);
        let pods = world.ready_node_names().await?;
        let Some(pod) = pods.iter().next() else { continue };
        if number % EACH_KILLED == 0 {
            world.kill(pod, "node").await?;
            killed += 1;
        } else {
            world.kubectl(&["delete", "pod", pod, "--wait=false"]).await?;
            deleted += 1;
        }
        if number % EACH_OPERATOR == 0 {
            let selector = "--selector=app.kubernetes.io/name=shortener-operator";
            let in_system = format!("--namespace={OPERATOR_NAMESPACE}");
            world.kubernetes().kubectl(&["delete", "pod", selector, &in_system, "--wait=false"]).await?;
            operators += 1;
        }
    }
    world.until_rolled_out().await?;
    let record = created.stop(world).await?;
    wait_until("all nodes are back", PATIENCE, async || Ok(world.node_names().await?.len() == NODES)).await?;
    clashes = clashes.max(mint_clashes(world).await?);

    let outcomes = record.outcomes();
    let failed: u64 = outcomes.iter().filter(|(said, _)| !said.starts_with("201")).map(|(_, count)| count).sum();
    ensure!(failed == 0, "{failed} creates failed twice: {outcomes:?}");
    ensure!(record.twice() == 0, "{} codes were given out twice", record.twice());
    let links = record.created().count();
    ensure!(u64::try_from(links).context("counting")? == record.total(), "{links} links of {} creates", record.total());
    let lost = world.lost(record.created()).await?;
    ensure!(lost.is_empty(), "{} of {links} links are lost: {:?}", lost.len(), lost.first());
    ensure!(clashes < 0.5, "{clashes} minted codes were there already");
    let again = record.other_than(&["201"]);
    Ok(format!(
        "{links} links made, {again} of them at the second attempt; 0 failed, 0 codes twice, 0 clashes, 0 lost; \
         {deleted} pods deleted, {killed} killed, the operators replaced {operators} times"
    ))
}

/// Minted codes that were there already, over all pods that Prometheus has seen.
async fn mint_clashes(world: &World) -> Result<f64> {
    let all = "sum(max_over_time(shortener_mint_clashes_total[10m]))";
    world.query(all).await?.context("the nodes' series are not there")
}
