//! The size of a fleet, from what a real Prometheus scrapes of nodes whose load the test makes up.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{Api, ListParams, PostParams};
use serde_json::json;
use shortener_crds::lease::CLUSTER_LABEL;
use shortener_tests::operator::{MeasuredNodes, NodeLoad, Operator};
use shortener_tests::prometheus::Prometheus;
use shortener_tests::server_process::wait_until;

use crate::scene::{SOON, Scene};

/// Nodes at the beginning.
const NODES: usize = 2;
/// A window has to pass before a fleet shrinks, and a period after each node.
const PATIENCE: Duration = Duration::from_mins(3);
/// The shortest that the spec takes.
const WINDOW_S: u64 = 15;
const FAST: NodeLoad =
    NodeLoad { redirects: 100.0, latency: Duration::from_millis(10), store: Duration::ZERO, cpu: 0.5 };
const SLOW: NodeLoad = NodeLoad { latency: Duration::from_millis(300), cpu: 0.7, ..FAST };
const STORE_SLOW: NodeLoad =
    NodeLoad { latency: Duration::from_millis(510), store: Duration::from_millis(500), cpu: 0.2, ..FAST };

/// A cluster of nodes that are ready, scraped, and fast.
struct Scaled {
    scene: Scene,
    operator: Operator,
    prometheus: Prometheus,
    nodes: MeasuredNodes,
}

impl Scaled {
    async fn start(test: &str) -> Result<Option<Self>> {
        let Some(scene) = Scene::new(test).await? else { return Ok(None) };
        let Some(prometheus) = Prometheus::start().await? else { return Ok(None) };
        let nodes = MeasuredNodes::start(NODES).await?;
        nodes.set(FAST);
        let operator = scene.operator().await?;
        let patch = json!({"spec": {
            "monitoring": {"intervalSeconds": 1},
            "autoscaling": {
                "minReplicas": NODES, "maxReplicas": 10, "warmUpSeconds": 0,
                "prometheus": {"url": prometheus.url(), "queryWindowSeconds": WINDOW_S, "queryIntervalSeconds": 5},
                "scaleDown": {"stabilizationSeconds": 10, "periodSeconds": 15},
            },
        }});
        scene.create(&patch).await?;
        scene.until_there::<Deployment>("main").await?;
        let scaled = Self { scene, operator, prometheus, nodes };
        for node in 0..NODES {
            scaled.ready_pod(&pod_name(node)).await?;
        }
        scaled.scrape()?;
        scaled.scene.until_condition("main", "ScalingActive", "True", "MeasurementsAvailable").await?;
        Ok(Some(scaled))
    }

    fn scrape(&self) -> Result<()> {
        let namespace = &self.scene.namespace;
        let targets: Vec<_> = (0..NODES).map(|node| self.nodes.target(node, namespace, &pod_name(node))).collect();
        self.prometheus.scrape(&targets)
    }

    /// A pod that says it is ready; nothing runs in it.
    async fn ready_pod(&self, name: &str) -> Result<()> {
        let pods: Api<Pod> = self.scene.api();
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {CLUSTER_LABEL: "main"}},
            "spec": {
                "containers": [{"name": "node", "image": "shortener:simulated"}],
                "automountServiceAccountToken": false,
                "schedulerName": "nobody",
            },
        }))?;
        pods.create(&PostParams::default(), &pod).await.context("making a pod")?;
        self.scene.make_ready(name).await
    }

    async fn size(&self) -> Result<i32> {
        let deployment = self.scene.api::<Deployment>().get("main").await?;
        deployment.spec.and_then(|spec| spec.replicas).context("a Deployment has a size")
    }

    async fn until_size(&self, what: &str, is_so: impl Fn(i32) -> bool) -> Result<()> {
        wait_until(what, PATIENCE, async || Ok(is_so(self.size().await?))).await
    }

    /// The size stays for so long.
    async fn keeps(&self, size: i32, span: Duration) -> Result<()> {
        let changed = tokio::time::timeout(span, self.until_size("it changes", |now| now != size)).await;
        ensure!(changed.is_err(), "the fleet went from {size} to {}", self.size().await?);
        Ok(())
    }
}

fn pod_name(node: usize) -> String {
    format!("main-{node}")
}

#[tokio::test]
async fn a_fleet_grows_when_its_nodes_are_slow_shrinks_when_they_are_idle_and_says_why() -> Result<()> {
    let Some(scaled) = Scaled::start("scaled").await? else { return Ok(()) };
    assert_eq!(scaled.size().await?, 2);
    scaled.nodes.set(SLOW);
    scaled.until_size("the fleet grows", |size| size >= 4).await?;
    let status = scaled.scene.clusters().get("main").await?.status.and_then(|status| status.autoscaling);
    let status = status.context("the status tells of it")?;
    let reason = status.reason.clone().unwrap_or_default();
    ensure!(reason.contains("of 100 ms") && reason.contains("nodes' own"), "{status:?}");
    ensure!(
        status.local_percent == Some(100) && status.wanted_replicas.is_some_and(|wanted| wanted >= 4),
        "{status:?}"
    );
    let events: Api<Event> = scaled.scene.api();
    wait_until("an event tells of it", SOON, async || {
        let events = events.list(&ListParams::default()).await?;
        Ok(events.iter().any(|event| event.reason.as_deref() == Some("Scaled")))
    })
    .await?;
    scaled.nodes.set(NodeLoad { redirects: 1.0, cpu: 0.01, ..FAST });
    scaled.until_size("the fleet shrinks to its minimum", |size| size == 2).await?;
    scaled.operator.stop().await
}

#[tokio::test]
async fn a_slow_store_is_named_and_changes_no_size() -> Result<()> {
    let Some(scaled) = Scaled::start("bound").await? else { return Ok(()) };
    scaled.nodes.set(STORE_SLOW);
    let message = scaled.scene.until_condition("main", "BackendBound", "True", "StoreSlow").await?;
    ensure!(message.contains("TiKV"), "{message}");
    scaled.keeps(2, Duration::from_secs(WINDOW_S)).await?;
    scaled.nodes.set(FAST);
    scaled.scene.until_condition("main", "BackendBound", "False", "LocalTime").await?;
    scaled.keeps(2, Duration::from_secs(5)).await?;
    scaled.operator.stop().await
}

#[tokio::test]
async fn while_prometheus_hangs_is_gone_or_knows_nothing_no_fleet_shrinks_and_the_status_says_why() -> Result<()> {
    let Some(scaled) = Scaled::start("blind").await? else { return Ok(()) };
    scaled.nodes.set(SLOW);
    scaled.until_size("the fleet grows", |size| size >= 4).await?;
    // All that is measured from now on would shrink it.
    scaled.nodes.set(NodeLoad { redirects: 1.0, cpu: 0.01, ..FAST });
    for (fault, said) in [("hangs", "not within"), ("gone", "does not answer"), ("empty", "figures of")] {
        match fault {
            "hangs" => scaled.prometheus.pause()?,
            "gone" => scaled.prometheus.kill()?,
            _ => scaled.prometheus.scrape(&[])?,
        }
        let message = scaled.scene.until_condition("main", "ScalingActive", "False", "MetricsUnavailable").await?;
        ensure!(message.contains(said), "{fault}: {message}");
        let size = scaled.size().await?;
        scaled.keeps(size, Duration::from_secs(20)).await.context(fault)?;
        match fault {
            "hangs" => scaled.prometheus.resume()?,
            "gone" => scaled.prometheus.restart().await?,
            _ => scaled.scrape()?,
        }
        scaled.scene.until_condition("main", "ScalingActive", "True", "MeasurementsAvailable").await?;
    }
    scaled.until_size("the fleet shrinks once it is measured again", |size| size == 2).await?;
    scaled.operator.stop().await
}
