//! Who is granted what: through the status first, then each Lease; once, whatever is restarted, edited or restored.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt};
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use shortener_crds::ids::allocate::GRANT_BLOCKS_MAX;
use shortener_crds::ids::{IdRange, KeyspaceId};
use shortener_crds::lease::Grant;
use shortener_node::ambient::Clock;
use shortener_tests::operator::{Operator, SimulatedNode, operator_client};
use shortener_tests::server_process::wait_until;
use shortener_tests::sizes::sized;

use crate::scene::{SOON, Scene, until_served};

/// A waiting node has its block within this.
const SERVED_WITHIN: Duration = Duration::from_secs(5);
/// What hundreds of requests to one API server are made with at once.
const AT_ONCE: usize = 32;

/// Every block that was ever granted, and to whom; two boots with one block are a failure.
#[derive(Default)]
struct Blocks(BTreeMap<u64, Grant>);

impl Blocks {
    fn take(&mut self, grant: &Grant) {
        for block in grant.run.iter().flat_map(|run| run.blocks()) {
            let other = self.0.insert(block.number(), grant.clone());
            assert!(
                other.as_ref().is_none_or(|other| other.boot_id == grant.boot_id),
                "block {} was granted to {other:?} and {grant:?}",
                block.number()
            );
        }
    }
}

#[tokio::test]
async fn nodes_are_granted_blocks_and_workers_of_their_own_through_the_status() -> Result<()> {
    let Some(scene) = Scene::new("granted").await? else { return Ok(()) };
    let operator = scene.operator().await?;
    scene.create(&json!({})).await?;
    let (mut blocks, mut nodes) = (Blocks::default(), Vec::new());
    for pod in ["main-a", "main-b", "main-c"] {
        let mut node = scene.node("main", pod).await?;
        node.want(2).await?;
        nodes.push(node);
    }
    until_served(&nodes, SERVED_WITHIN + SERVED_WITHIN).await?;
    let mut workers = BTreeSet::new();
    for node in &nodes {
        let grant = node.grant().await?.context("a grant")?;
        workers.insert(grant.worker_id);
        blocks.take(&grant);
    }
    assert_eq!((workers.len(), blocks.0.len()), (3, 6));
    let allocation =
        scene.clusters().get("main").await?.status.and_then(|status| status.allocation).context("a ledger")?;
    assert_eq!((allocation.next_block, allocation.grants.len()), (6, 3));

    // Each asks again and is served soon; a restart in place is another boot and inherits nothing.
    nodes[0].want(3).await?;
    until_served(&nodes, SERVED_WITHIN).await?;
    nodes[1].restart();
    nodes[1].want(1).await?;
    until_served(&nodes, SERVED_WITHIN).await?;
    for node in &nodes {
        blocks.take(&node.grant().await?.context("a grant")?);
    }
    // Who is gone keeps nothing, and its worker ID may go round.
    nodes[2].end().await?;
    wait_until("its entry is gone", SOON, async || {
        let allocation = scene.clusters().get("main").await?.status.and_then(|status| status.allocation);
        Ok(allocation.context("a ledger")?.grants.len() == 2)
    })
    .await?;
    operator.stop().await
}

#[tokio::test]
async fn a_thousand_nodes_are_served_together_with_few_writes_and_a_small_status() -> Result<()> {
    let Some(scene) = Scene::new("thousand").await? else { return Ok(()) };
    let operator = scene.operator().await?;
    scene.create(&json!({"spec": {"autoscaling": null, "replicas": 0}})).await?;
    scene.until_condition("main", "Ready", "False", "ScaledToZero").await?;
    let pods = 1_000;
    let scene_ref = &scene;
    let nodes: Vec<SimulatedNode> = futures::stream::iter(0..pods)
        .map(|pod| async move { scene_ref.node("main", &format!("main-7c9d8b6f5d-{pod:05}")).await })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    wait_until("the operator has looked", SOON, async || {
        Ok(operator.metric("shortener_operator_reconciles_total").await? > 0.0)
    })
    .await?;
    let before = operator.metric("shortener_operator_status_writes_total").await?;
    let clock = Clock::system();
    let started = clock.monotonic();
    let nodes: Vec<SimulatedNode> = futures::stream::iter(nodes)
        .map(|mut node| async move { node.want(1).await.map(|()| node) })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    let asked = clock.monotonic().saturating_sub(started);
    until_served(&nodes, SOON).await?;
    let writes = operator.metric("shortener_operator_status_writes_total").await? - before;
    let status = scene.clusters().get("main").await?;
    let bytes = serde_json::to_vec(&status)?.len();
    println!(
        "{pods} nodes: asked within {asked:?}, all served after {:?}; {writes} status writes, {bytes} bytes",
        clock.monotonic().saturating_sub(started)
    );
    assert!(writes <= 20.0, "{writes} status writes");
    assert!(bytes < 512 * 1024, "{bytes} bytes");
    let mut blocks = Blocks::default();
    for node in &nodes {
        blocks.take(&node.grant().await?.context("a grant")?);
    }
    assert_eq!(blocks.0.len(), pods);
    operator.stop().await
}

#[tokio::test]
async fn two_operators_at_once_and_killed_at_random_never_grant_a_block_twice() -> Result<()> {
    let Some(scene) = Scene::new("rivals").await? else { return Ok(()) };
    let client = operator_client(scene.kubernetes, &scene.namespace).await?;
    scene.create(&json!({})).await?;
    let (mut blocks, mut nodes) = (Blocks::default(), Vec::new());
    for pod in 0..20 {
        nodes.push(scene.node("main", &format!("main-{pod}")).await?);
    }
    let mut operators = vec![
        Operator::start(client.clone(), &scene.namespace).await?,
        Operator::start(client.clone(), &scene.namespace).await?,
    ];
    let mut wanted = 0;
    for round in 0..sized(8_usize, 60) {
        wanted += 1;
        let (restarting, len) = (round * 7 % 20, nodes.len());
        nodes[restarting].restart();
        for node in &mut nodes {
            let more = node.report.wanted.max(wanted - 1).min(node.report.wanted + 2) + 1;
            node.want(more.min(node.report.wanted + u64::from(GRANT_BLOCKS_MAX))).await?;
        }
        // One of the two dies in the middle of it, and another begins.
        operators.remove(round % 2).kill().await;
        operators.push(Operator::start(client.clone(), &scene.namespace).await?);
        until_served(&nodes, SOON).await?;
        for node in &nodes {
            blocks.take(&node.grant().await?.context("a grant")?);
        }
        assert_eq!(nodes.len(), len);
    }
    for operator in operators {
        operator.stop().await?;
    }
    let ledger = scene.clusters().get("main").await?.status.and_then(|status| status.allocation).context("a ledger")?;
    assert!(blocks.0.keys().all(|block| i64::try_from(*block).is_ok_and(|block| block < ledger.next_block)));
    Ok(())
}

#[tokio::test]
async fn a_status_that_was_deleted_and_a_resource_made_again_go_on_above_what_was_claimed() -> Result<()> {
    let Some(scene) = Scene::new("again").await? else { return Ok(()) };
    let operator = scene.operator().await?;
    scene.create(&json!({})).await?;
    let mut blocks = Blocks::default();
    let mut node = scene.node("main", "main-a").await?;
    let mut wants = async |node: &mut SimulatedNode, wanted: u64| {
        node.want(wanted).await?;
        until_served(std::slice::from_ref(node), SOON).await?;
        let grant = node.grant().await?.context("a grant")?;
        blocks.take(&grant);
        // As a node does: what it has claimed raises the store's mark, which it reports.
        node.report.mark = node.report.mark.max(grant.run.map_or(0, IdRange::end_block));
        node.want(wanted).await
    };
    wants(&mut node, 3).await?;

    let none = Patch::Merge(json!({"status": null}));
    scene.clusters().patch_status("main", &PatchParams::default(), &none).await?;
    node.restart();
    wants(&mut node, 2).await?;

    scene.clusters().delete("main", &DeleteParams::default()).await?;
    wait_until("it is gone", SOON, async || Ok(scene.clusters().get_opt("main").await?.is_none())).await?;
    scene.create(&json!({})).await?;
    node.restart();
    wants(&mut node, 1).await?;
    assert_eq!(blocks.0.len(), 6, "no block was granted again");

    // Another store answers: nothing more is granted until somebody says so.
    node.report.keyspace = Some(KeyspaceId(7));
    node.want(2).await?;
    let message = scene.until_condition("main", "AllocationHealthy", "False", "KeyspaceChanged").await?;
    assert!(message.contains("spec.ids.adoptKeyspace"), "{message}");
    assert!(!node.is_served().await?);
    scene.change("main", &json!({"spec": {"ids": {"adoptKeyspace": KeyspaceId(7).to_string()}}})).await?;
    until_served(std::slice::from_ref(&node), SOON).await?;
    scene.until_condition("main", "AllocationHealthy", "True", "Granted").await?;
    operator.stop().await
}

#[tokio::test]
async fn of_two_replicas_one_leads_and_when_it_stops_the_other_takes_over_at_once() -> Result<()> {
    let Some(scene) = Scene::new("leader").await? else { return Ok(()) };
    let client = operator_client(scene.kubernetes, &scene.namespace).await?;
    let start = async |name: &str| {
        let settings = shortener_operator::config::Run {
            leader_election: true,
            pod_name: Some(name.to_owned()),
            ..shortener_tests::operator::settings(&scene.namespace)
        };
        Operator::start_with(client.clone(), settings).await
    };
    let leads = async |operator: &Operator| anyhow::Ok(operator.metric("shortener_operator_leader").await? > 0.0);
    let first = start("first").await?;
    wait_until("the first leads", SOON, async || leads(&first).await).await?;
    let second = start("second").await?;
    scene.create(&json!({})).await?;
    let mut node = scene.node("main", "main-a").await?;
    node.want(1).await?;
    until_served(std::slice::from_ref(&node), SOON).await?;
    assert!(!leads(&second).await?);
    first.stop().await?;
    // Well before the Lease would have run out.
    wait_until("the second leads", Duration::from_secs(6), async || leads(&second).await).await?;
    node.want(2).await?;
    until_served(std::slice::from_ref(&node), SOON).await?;
    let third = start("third").await?;
    second.kill().await;
    wait_until("the third leads after the second died", SOON, async || leads(&third).await).await?;
    node.want(3).await?;
    until_served(std::slice::from_ref(&node), SOON).await?;
    assert!(scene.clusters().get("main").await?.uid().is_some());
    third.stop().await
}
