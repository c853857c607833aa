//! Prometheus is away, or says nothing of use: the fleet is held, and the resource says why.
use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use shortener_node::ambient::Clock;
use tokio::time::sleep;

use crate::e2e::forward::Forward;
use crate::e2e::kind::LOAD_IMAGE;
use crate::e2e::load::Load;
use crate::e2e::nginx;
use crate::e2e::sizes::{Sizes, changes};
use crate::e2e::world::{MONITORING, NAMESPACE, PATIENCE, World, condition, restricted_container, restricted_pod};
use crate::server_process::wait_until;
use crate::witness::Ask;

/// More than the minimum, which is what it would shrink to.
const NODES: usize = 4;
const TOLD_WITHIN: Duration = Duration::from_mins(1);
/// How often the operator asks.
const LOOKS_EVERY: Duration = Duration::from_secs(5);
/// After the longest in which the operator believes what it saw last.
const HELD_FOR: Duration = Duration::from_secs(30);
/// Kubernetes' own name of the server, and what stands before it when it is to be slow.
const URL: &str = "http://prometheus.monitoring:9090";
const SLOW_URL: &str = "http://slow-prometheus.monitoring:9090";

pub async fn run(world: &World) -> Result<String> {
    start(world).await?;
    let link = world.link().await?;
    let load = Load::start(world, Ask::Fresh(vec![link]), 50).await?;
    let sizes = Sizes::watch(world.clusters(), Clock::system());
    let mut told = Vec::new();

    in_monitoring(world, &["delete", "deployment", "prometheus"]).await?;
    told.push(held(world, "deleted", "does not answer").await?);
    world.apply_manifest("prometheus").await?;
    recovered(world).await?;

    configure(world, &json!({"scrape_configs": []})).await?;
    told.push(held(world, "empty", "has no figures").await?);
    put_right(world).await?;
    recovered(world).await?;

    serve_nan(world).await?;
    told.push(held(world, "answering NaN", "no number").await?);
    put_right(world).await?;
    recovered(world).await?;

    serve_slowly(world).await?;
    told.push(held(world, "slow", "not within 5s").await?);
    point_at(world, URL).await?;
    recovered(world).await?;

    let sizes = sizes.stop();
    ensure!(sizes.values().all(|nodes| *nodes >= NODES), "the fleet shrank: {:?}", changes(&sizes));
    load.stop(world).await?.expect_only("redirects", &["302"], 1_000)?;
    Ok(format!("{NODES} nodes, never fewer; the condition says, {}", told.join(", ")))
}

/// Gives Prometheus its own configuration back.
pub async fn put_right(world: &World) -> Result<()> {
    world.apply_manifest("prometheus").await?;
    in_monitoring(world, &["rollout", "restart", "deployment/prometheus"]).await?;
    world.until_prometheus_is_up().await
}

async fn in_monitoring(world: &World, arguments: &[&str]) -> Result<String> {
    world.kubernetes().kubectl(&[arguments, &["--namespace", MONITORING]].concat()).await
}

/// A fleet at a floor that is taken away each time that measurements are: with them it would shrink at once.
async fn start(world: &World) -> Result<()> {
    world.install().await?;
    let autoscaling = json!({
        "minReplicas": NODES, "maxReplicas": 10,
        "prometheus": {"url": URL, "queryIntervalSeconds": LOOKS_EVERY.as_secs(), "queryWindowSeconds": 30},
        "scaleDown": {"stabilizationSeconds": 0, "percent": 100, "periodSeconds": 15},
    });
    world.apply(&json!({"spec": {"monitoring": {"intervalSeconds": 5}, "autoscaling": autoscaling}})).await?;
    world.until_rolled_out().await?;
    wait_until("all nodes are there", PATIENCE, async || Ok(world.node_names().await?.len() == NODES)).await?;
    recovered(world).await
}

async fn point_at(world: &World, url: &str) -> Result<()> {
    let patch = json!({"spec": {"autoscaling": {"prometheus": {"url": url}}}}).to_string();
    world.kubectl(&["patch", "shc", "main", "--type=merge", "-p", &patch]).await?;
    Ok(())
}

async fn set_minimum(world: &World, nodes: usize) -> Result<()> {
    let patch = json!({"spec": {"autoscaling": {"minReplicas": nodes}}}).to_string();
    world.kubectl(&["patch", "shc", "main", "--type=merge", "-p", &patch]).await?;
    Ok(())
}

/// The resource says so in time; and though it would now shrink by what it last saw, it does not. Returns what it says why.
async fn held(world: &World, what: &str, why: &str) -> Result<String> {
    world
        .until_condition("ScalingActive", "False", TOLD_WITHIN)
        .await
        .with_context(|| format!("Prometheus is {what}"))?;
    // What is said stays while the reason does, and the server was away for a moment in any case: of another spec it is said anew.
    let mut least = 1;
    let says_so = async || {
        least = 3 - least;
        set_minimum(world, least).await?;
        sleep(LOOKS_EVERY * 2).await;
        let cluster = world.clusters().get("main").await.context("asking for the resource")?;
        let (status, said) = condition(&cluster, "ScalingActive").context("it has the condition")?;
        ensure!(status == "False" && said.starts_with("MetricsUnavailable"), "Prometheus is {what}: {status} {said}");
        Ok(said.contains(why))
    };
    wait_until(&format!("the resource says of a Prometheus that is {what}: {why}"), PATIENCE, says_so).await?;
    sleep(HELD_FOR).await;
    set_minimum(world, NODES).await?;
    Ok(format!("{what}: {why}"))
}

async fn recovered(world: &World) -> Result<()> {
    world.until_condition("ScalingActive", "True", Duration::from_mins(2)).await
}

/// Another configuration for Prometheus, and a start with it on an empty disk.
async fn configure(world: &World, configuration: &Value) -> Result<()> {
    // JSON is YAML.
    let patch = json!({"data": {"prometheus.yml": configuration.to_string()}}).to_string();
    in_monitoring(world, &["patch", "configmap", "prometheus", "--type=merge", "-p", &patch]).await?;
    in_monitoring(world, &["rollout", "restart", "deployment/prometheus"]).await?;
    world.until_prometheus_is_up().await
}

/// The nodes' series, under their names, and none of them a number.
async fn serve_nan(world: &World) -> Result<()> {
    let metrics = nan_metrics(&world.node_names().await?);
    let http = "default_type text/plain; server { listen 8080; root /files; }";
    let [files, pod] = nginx::pod(MONITORING, "nan", http, &json!({"metrics": metrics}));
    world.start_pod(MONITORING, "nan", &[files, pod, service("nan", 8080)]).await?;
    configure(world, &json!({
        "global": {"scrape_interval": "5s"},
        "scrape_configs": [{
            "job_name": "nan", "honor_labels": true, "static_configs": [{"targets": [format!("nan.{MONITORING}:8080")]}],
        }],
    }))
    .await
}

fn nan_metrics(pods: &BTreeSet<String>) -> String {
    let mut lines = Vec::new();
    for pod in pods {
        let of = format!("namespace=\"{NAMESPACE}\",pod=\"{pod}\"");
        for stage in ["total", "local", "cache", "store"] {
            for series in ["bucket{le=\"0.1\",", "bucket{le=\"+Inf\",", "sum{", "count{"] {
                lines.push(format!("shortener_redirect_duration_seconds_{series}stage=\"{stage}\",{of}}} NaN\n"));
            }
        }
        lines.extend(NAN_GAUGES.map(|series| format!("{series}{{{of}}} NaN\n")));
    }
    lines.concat()
}

const NAN_GAUGES: [&str; 4] = [
    "shortener_cpu_seconds_total",
    "shortener_cpu_limit_cores",
    "shortener_in_flight_requests",
    "shortener_in_flight_limit",
];

/// What stands before Prometheus and answers after longer than the operator waits.
async fn serve_slowly(world: &World) -> Result<()> {
    const DELAY_MS: u64 = 20_000;
    let address = in_monitoring(world, &["get", "service", "prometheus", "-o", "jsonpath={.spec.clusterIP}"]).await?;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "slow-prometheus", "namespace": MONITORING, "labels": {"app": "slow-prometheus"}},
        "spec": {
            "securityContext": restricted_pod(),
            "containers": [{
                "name": "proxy", "image": LOAD_IMAGE, "args": ["proxy", "--listen=0.0.0.0:9090", format!("--to={address}:9090")],
                "securityContext": restricted_container(),
            }],
        },
    });
    world.start_pod(MONITORING, "slow-prometheus", &[pod, service("slow-prometheus", 9090)]).await?;
    let control = Forward::to(world.kubernetes(), MONITORING, "pod/slow-prometheus", 20190).await?;
    control.client()?.post(&format!("/delay/{DELAY_MS}"), &Value::Null).await?.expect_status(200)?;
    point_at(world, SLOW_URL).await
}

/// To the pod of this name.
fn service(name: &str, port: u16) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": MONITORING},
        "spec": {"selector": {"app": name}, "ports": [{"port": port}]},
    })
}
