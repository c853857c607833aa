//! The fleet follows the load, and does not follow a slow store.
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use shortener_node::ambient::Clock;
use tokio::time::sleep;

use crate::e2e::load::Load;
use crate::e2e::picture::{self, Run};
use crate::e2e::record::Record;
use crate::e2e::results_folder;
use crate::e2e::sizes::{Sizes, changes};
use crate::e2e::world::World;
use crate::server_process::wait_until;
use crate::witness::{Ask, second};

/// The fewest nodes, and the most.
const NODES: usize = 2;
const NODES_MAX: usize = 10;
/// What a node may use of a core, in thousandths: so little that a few hundred requests a second are a load.
const CPU_LIMIT: u32 = 65;
/// So much that none of what it does is one.
const CPU_AMPLE: u32 = 500;
const TARGET_MS: u64 = 50;
/// How much more is asked after the step.
const STEP: u32 = 6;
/// Redirects a second that are tried first to find out what is too much, and at most; each try is of a quarter more.
const TRIED_FIRST: u32 = 300;
const TRIED_LAST: u32 = 5_000;
const TRIED_FOR: Duration = Duration::from_secs(10);
/// What a client counts as one moment when it judges a percentile.
const MOMENT_S: i64 = 15;
const BACK_UNDER_TARGET: Duration = Duration::from_mins(2);
/// How long it is to stay there.
const STAYS: Duration = Duration::from_secs(30);
const SHRINKS_WITHIN: Duration = Duration::from_mins(15);

/// Spec of a fleet that is sized by the operator. In the short form it looks over less time than by default, and shrinks sooner.
fn scaled(world: &World, cpu: u32) -> Value {
    let fast = json!({
        "prometheus": {"queryWindowSeconds": 30, "queryIntervalSeconds": 5},
        "warmUpSeconds": 10,
        "scaleUp": {"periodSeconds": 30},
        "scaleDown": {"percent": 50, "periodSeconds": 15, "stabilizationSeconds": 60},
    });
    let mut spec = json!({
        "pod": {"resources": {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"cpu": format!("{cpu}m"), "memory": "256Mi"}}},
        "monitoring": {"intervalSeconds": 5},
        "autoscaling": {
            "minReplicas": NODES, "maxReplicas": NODES_MAX,
            "targetLatency": {"percentile": 99, "milliseconds": TARGET_MS},
            "prometheus": {"url": "http://prometheus.monitoring:9090"},
        },
    });
    json_patch::merge(&mut spec["autoscaling"], &world.sized(fast, json!({})));
    spec
}

/// A fleet at its minimum, measured, that has a link.
async fn start(world: &World, cpu: u32, more: &Value) -> Result<String> {
    world.install().await?;
    let mut patch = json!({"spec": scaled(world, cpu)});
    json_patch::merge(&mut patch, more);
    world.apply(&patch).await?;
    world.until_rolled_out().await?;
    world.until_condition("ScalingActive", "True", Duration::from_mins(3)).await?;
    until_at_minimum(world).await?;
    world.link().await
}

async fn until_at_minimum(world: &World) -> Result<()> {
    wait_until("the fleet is at its minimum", SHRINKS_WITHIN, async || Ok(world.node_names().await?.len() == NODES))
        .await
}

/// Redirects a second that are too much for the fewest nodes: one in ten is slow. Machines differ, and so does one from hour to hour, so it
/// is tried. The fleet must be kept from growing.
async fn too_much(world: &World, link: &str) -> Result<u32> {
    let mut per_second = TRIED_FIRST;
    while per_second <= TRIED_LAST {
        let load = Load::start(world, Ask::Fresh(vec![link.to_owned()]), per_second).await?;
        sleep(TRIED_FOR).await;
        let record = load.stop(world).await?;
        record.expect_only("redirects", &["302"], 1_000)?;
        if record.quantile_ms(0.9) > TARGET_MS {
            return Ok(per_second);
        }
        per_second += per_second / 4;
    }
    bail!("{NODES} nodes with {CPU_LIMIT}m of a core each took {TRIED_LAST} redirects a second")
}

pub async fn load(world: &World) -> Result<String> {
    let link = start(world, CPU_LIMIT, &json!({"spec": {"autoscaling": {"maxReplicas": NODES}}})).await?;
    // Few requests wake a node for each, many are served together: of what is too much a sixth fills it by nearly a half. With that the fleet
    // would be left between two sizes in the end, so half of it ends with the step.
    let least = too_much(world, &link).await? / STEP / 2;
    let usual = 2 * least;
    sleep(world.sized(Duration::from_secs(40), Duration::from_secs(90))).await; // until the operator's window has nothing of it
    world.apply(&json!({"spec": scaled(world, CPU_LIMIT)})).await?;
    let clock = Clock::system();
    let now = || second(&clock);
    let sizes = Sizes::watch(world.clusters(), clock.clone());
    let base = Load::start(world, Ask::Fresh(vec![link.clone()]), least).await?;
    let rest = Load::start(world, Ask::Fresh(vec![link.clone()]), least).await?;
    sleep(world.sized(Duration::from_secs(20), Duration::from_mins(1))).await;

    let step = now();
    let more = Load::start(world, Ask::Fresh(vec![link]), usual * (STEP - 1)).await?;
    sleep(BACK_UNDER_TARGET + STAYS).await;
    let end = now();
    let more = more.stop(world).await?.and(rest.stop(world).await?);
    until_at_minimum(world).await?;
    world.until_rolled_out().await?;
    sleep(Duration::from_secs(10)).await;
    let record = base.stop(world).await?.and(more);
    let sizes = sizes.stop();

    let run = Run { step, end, target_ms: TARGET_MS, seconds: record.by_second(), nodes: sizes.clone() };
    picture::draw(&results_folder()?.join(picture::FILE), &run)?;
    record.expect_only("redirects", &["302"], 1_000)?;
    let worst = (step..end - MOMENT_S).map(|from| record.between(from, from + MOMENT_S).quantile_ms(0.99)).max();
    ensure!(worst.is_some_and(|worst| worst > TARGET_MS), "the load did not bite: p99 was at most {worst:?} ms");
    let back = back_under_target(&record, step, end).with_context(|| format!("sizes: {:?}", changes(&sizes)))?;
    let most = sizes.values().copied().max().unwrap_or_default();
    ensure!(most > NODES, "it did not grow");
    // That it shrinks once there is less to do is none.
    let reversals = reversals(&sizes.values().copied().collect::<Vec<_>>()).saturating_sub(1);
    ensure!(reversals <= 1, "{reversals} reversals: {:?}", changes(&sizes));
    Ok(format!(
        "{usual} → {} → {least} requests/s with {CPU_LIMIT}m of a core for each node: p99 up to {} ms in {MOMENT_S} s, under {TARGET_MS} ms again after {back} s, {NODES} → {most} → {NODES} nodes, \
         {reversals} reversals; 0 failed of {}",
        usual * STEP,
        worst.unwrap_or_default(),
        record.total()
    ))
}

/// Seconds from the step until every later moment, up to its end, was under the target.
fn back_under_target(record: &Record, step: i64, end: i64) -> Result<i64> {
    let slow = |from: &i64| {
        let moment = record.between(*from, *from + MOMENT_S);
        moment.total() == 0 || moment.quantile_ms(0.99) > TARGET_MS
    };
    let last_slow = (step..=end - MOMENT_S).rfind(slow);
    let back = last_slow.map_or(0, |from| from + 1 - step);
    let latest = i64::try_from(BACK_UNDER_TARGET.as_secs()).context("a small number")?;
    let each = (step..end).step_by(10).map(|from| record.between(from, from + 10).quantile_ms(0.99));
    ensure!(
        back <= latest,
        "p99 was still over {TARGET_MS} ms {back} s after the step; in ms, each 10 s: {:?}",
        each.collect::<Vec<_>>()
    );
    Ok(back)
}

/// How often sizes that grew shrink, or the other way round.
fn reversals(sizes: &[usize]) -> usize {
    let mut directions: Vec<std::cmp::Ordering> = sizes.windows(2).map(|pair| pair[1].cmp(&pair[0])).collect();
    directions.retain(|direction| direction.is_ne());
    directions.dedup();
    directions.len().saturating_sub(1)
}

/// Makes each answer of the store so late, in milliseconds.
pub async fn set_delay(world: &World, milliseconds: u64) -> Result<()> {
    let store = world.forward("pod/tikv-0", 20190).await?;
    store.client()?.post(&format!("/delay/{milliseconds}"), &Value::Null).await?.expect_status(200)?;
    Ok(())
}

pub async fn slow_store(world: &World) -> Result<String> {
    const DELAY_MS: u64 = 500;
    const STORE_SLOW: &str = "--field-selector=reason=StoreSlow";
    let within = Duration::from_mins(1);
    // Unknown codes, of which the store alone knows, come from many addresses.
    let link = start(world, CPU_AMPLE, &json!({"spec": {"config": {"trustedProxies": ["10.0.0.0/8"]}}})).await?;
    let unknown = format!("{}/{{random}}", world.service_url().await?);
    let clock = Clock::system();
    let sizes = Sizes::watch(world.clusters(), clock.clone());
    let known = Load::start(world, Ask::Fresh(vec![link]), 50).await?;
    let unknown = Load::start(world, Ask::Fresh(vec![unknown]), 20).await?;
    sleep(Duration::from_secs(20)).await;

    world.until_condition("BackendBound", "False", Duration::from_mins(2)).await?;
    world.kubectl(&["delete", "events", STORE_SLOW]).await?;
    let begin = clock.monotonic();
    set_delay(world, DELAY_MS).await?;
    world.until_condition("BackendBound", "True", within).await?;
    let took = clock.monotonic().saturating_sub(begin);
    ensure!(took <= within, "BackendBound after {took:?}");
    // It would grow in one of the next decisions, if at all.
    sleep(world.sized(Duration::from_secs(30), within)).await;
    let events = world.kubectl(&["get", "events", STORE_SLOW, "-o", "name"]).await?;
    ensure!(!events.is_empty(), "no event says so");
    set_delay(world, 0).await?;
    world.until_condition("BackendBound", "False", Duration::from_mins(2)).await?;
    let (known, unknown) = (known.stop(world).await?, unknown.stop(world).await?);
    let sizes = sizes.stop();
    known.expect_only("known codes", &["302"], 1_000)?;
    unknown.expect_only("unknown codes", &["404"], 500)?;
    ensure!(sizes.values().all(|nodes| *nodes == NODES), "the fleet was resized: {:?}", changes(&sizes));
    Ok(format!(
        "{NODES} nodes throughout; `BackendBound` after {:.0} s; 0 failed of {}",
        took.as_secs_f64(),
        known.total() + unknown.total()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reversal_is_a_change_of_direction() {
        assert_eq!(reversals(&[2, 2, 4, 4, 6, 6]), 0);
        assert_eq!(reversals(&[2, 4, 6, 5, 5, 4]), 1);
        assert_eq!(reversals(&[2, 4, 3, 5]), 2);
        assert_eq!(reversals(&[]), 0);
    }
}
