//! The crash-prefix test: an operator that dies after its k-th write, for every k, is followed by one that comes to the same end, and
//! no block is granted twice.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use kube::ResourceExt;
use kube::api::{Api, DynamicObject, ListParams};
use serde_json::json;
use shortener_crds::lease::Grant;
use shortener_operator::kinds::Kind;
use shortener_operator::plan::resources::HASH_ANNOTATION;
use shortener_tests::operator::{Operator, SimulatedNode, StopAfter, client_that_stops, operator_token};
use shortener_tests::server_process::wait_until;

use crate::scene::{SOON, Scene};

/// What there is in the end: objects with what they were wanted to be, leaving out what differs from namespace to namespace.
type End = BTreeMap<String, bool>;

async fn end(scene: &Scene) -> Result<End> {
    let mut end = End::new();
    for kind in Kind::ALL.iter().filter(|kind| kind.is_everywhere()) {
        let api: Api<DynamicObject> =
            Api::namespaced_with(scene.client.clone(), &scene.namespace, &kind.api_resource());
        let ours = ListParams::default().labels("app.kubernetes.io/managed-by=shortener-operator");
        for object in api.list(&ours).await? {
            end.insert(
                format!("{} {}", kind.kind(), object.name_any()),
                object.annotations().contains_key(HASH_ANNOTATION),
            );
        }
    }
    let secrets: Api<k8s_openapi::api::core::v1::Secret> = scene.api();
    end.insert("the generated Secret".to_owned(), secrets.get_opt("main-secret").await?.is_some());
    let status = scene.clusters().get("main").await?.status.unwrap_or_default();
    let granted = status.allocation.map(|allocation| allocation.grants.len()).unwrap_or_default();
    end.insert("both nodes are in the ledger".to_owned(), granted == 2);
    Ok(end)
}

/// Runs an operator that dies after `writes`, then one that does not; answers where that ended, and whether the first died.
async fn after(writes: u64) -> Result<Option<(End, bool)>> {
    let Some(scene) = Scene::new("crash").await? else { return Ok(None) };
    scene.create(&json!({})).await?;
    let mut nodes: Vec<SimulatedNode> = Vec::new();
    for pod in ["main-a", "main-b"] {
        let mut node = scene.node("main", pod).await?;
        node.want(2).await?;
        nodes.push(node);
    }
    let token = operator_token(scene.kubernetes, &scene.namespace).await?;
    let fault = StopAfter::writes(writes);
    let config = scene.kubernetes.config_with_token(&token).await?;
    let doomed = Operator::start(client_that_stops(config, &fault)?, &scene.namespace).await?;
    let is_served = async |nodes: &[SimulatedNode]| {
        for node in nodes {
            if !node.is_served().await? {
                return anyhow::Ok(false);
            }
        }
        Ok(true)
    };
    let is_whole = async |nodes: &[SimulatedNode]| {
        anyhow::Ok(end(&scene).await?.values().all(|right| *right) && is_served(nodes).await?)
    };
    // It dies, or all is done before it would have.
    let died = tokio::select! {
        () = fault.stopped() => true,
        done = wait_until("all is done", SOON, async || {
            Ok(is_whole(&nodes).await? && end(&scene).await?.contains_key("ConfigMap main-dashboard"))
        }) => { done?; false }
    };
    doomed.kill().await;
    let mut granted: Vec<Grant> = Vec::new();
    for node in &nodes {
        granted.extend(node.grant().await?);
    }
    // What was delivered before is not taken back, and more is asked for.
    for node in &mut nodes {
        node.want(3).await?;
    }
    let survivor = Operator::start(scene.kubernetes.client_with_token(&token).await?, &scene.namespace).await?;
    wait_until("the second operator has done all", SOON, async || {
        Ok(end(&scene).await?.contains_key("ConfigMap main-dashboard")
            && is_whole(&nodes).await?
            && is_served(&nodes).await?)
    })
    .await
    .with_context(|| format!("after {writes} writes"))?;
    for node in &nodes {
        granted.push(node.grant().await?.context("a grant")?);
    }
    assert_disjoint(&granted, writes);
    survivor.stop().await?;
    Ok(Some((end(&scene).await?, died)))
}

fn assert_disjoint(grants: &[Grant], writes: u64) {
    let mut owners = BTreeMap::new();
    for grant in grants {
        for block in grant.run.iter().flat_map(|run| run.blocks()) {
            let other = owners.insert(block.number(), grant.boot_id);
            let is_shared = other.is_some_and(|other| other != grant.boot_id);
            assert!(!is_shared, "after {writes} writes block {} was granted twice: {grants:?}", block.number());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_after_any_of_its_writes_it_comes_to_the_same_end() -> Result<()> {
    let Some((whole, _)) = after(u64::MAX).await? else { return Ok(()) };
    assert!(whole.len() >= 11, "{whole:?}");
    let mut deaths = 0;
    for writes in 0.. {
        let (found, died) = after(writes).await?.context("there is a Kubernetes")?;
        assert_eq!(found, whole, "after {writes} writes");
        if !died {
            break;
        }
        deaths += 1;
    }
    println!("died after each of {deaths} writes");
    assert!(deaths >= 12, "{deaths} writes are too few to build all that");
    Ok(())
}
