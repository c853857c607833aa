//! What a Prometheus without discovery of its own in Kubernetes (Debian's) asks by HTTP: where the programs of the product are. Each request
//! is one look at the API server.
use std::net::SocketAddr;

use anyhow::{Context, Result};
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use shortener_crds::lease::CLUSTER_LABEL;
use tokio::net::TcpListener;

/// Both programs, by the label that all their pods have.
const PODS: &str = "app.kubernetes.io/name in (shortener, shortener-operator)";
/// What the ports are called that have metrics.
const PORTS: [&str; 2] = ["admin", "metrics"];

/// Answers `GET /targets` as `http_sd_configs` wants it, as the ServiceAccount that it runs as.
pub async fn serve(listen: SocketAddr) -> Result<()> {
    let client = Client::try_default().await.context("finding the API server")?;
    let answer = async |State(client): State<Client>| match Api::<Pod>::all(client)
        .list(&ListParams::default().labels(PODS))
        .await
    {
        Ok(pods) => Ok(Json(pods.iter().filter_map(target).collect::<Vec<_>>())),
        // Prometheus goes on with what it knew.
        Err(error) => Err((StatusCode::BAD_GATEWAY, error.to_string())),
    };
    let router = Router::new().route("/targets", get(answer)).with_state(client);
    let listener = TcpListener::bind(listen).await.with_context(|| format!("listening on {listen}"))?;
    axum::serve(listener, router).await.context("serving targets")
}

/// A pod that runs, with the labels that a PodMonitor would give its series.
fn target(pod: &Pod) -> Option<Value> {
    let status = pod.status.as_ref().filter(|status| status.phase.as_deref() == Some("Running"))?;
    let ports =
        pod.spec.iter().flat_map(|spec| &spec.containers).flat_map(|container| container.ports.iter().flatten());
    let port = ports.into_iter().find(|port| port.name.as_deref().is_some_and(|name| PORTS.contains(&name)))?;
    let address = format!("{}:{}", status.pod_ip.as_ref()?, port.container_port);
    let mut labels = json!({"namespace": pod.namespace(), "pod": pod.name_any()});
    if let Some(cluster) = pod.labels().get(CLUSTER_LABEL) {
        labels["shortener_dev_cluster"] = json!(cluster);
    }
    Some(json!({"targets": [address], "labels": labels}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(phase: &str, port: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "main-1", "namespace": "links", "labels": {CLUSTER_LABEL: "main"}},
            "spec": {"containers": [{"name": "node", "ports": [
                {"name": "http", "containerPort": 8000}, {"name": port, "containerPort": 9000},
            ]}]},
            "status": {"phase": phase, "podIP": "10.0.0.7"},
        }))
        .unwrap()
    }

    #[test]
    fn a_pod_that_runs_is_a_target_at_its_port_for_metrics() {
        let labels = json!({"namespace": "links", "pod": "main-1", "shortener_dev_cluster": "main"});
        assert_eq!(target(&pod("Running", "admin")), Some(json!({"targets": ["10.0.0.7:9000"], "labels": labels})));
        assert_eq!(target(&pod("Pending", "admin")), None);
        assert_eq!(target(&pod("Running", "other")), None);
    }
}
