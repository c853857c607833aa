//! Tells the Prometheus operator where the nodes' metrics are.

use serde_json::{Value, json};

use crate::kinds::Kind;
use crate::plan::validate::ValidatedCluster;

pub(super) fn build_pod_monitor(cluster: &ValidatedCluster) -> Value {
    let identity = &cluster.identity;
    let mut metadata = identity.owned(identity.main_name());
    metadata.labels.get_or_insert_default().extend(cluster.monitoring.labels.clone());
    let interval = format!("{}s", cluster.monitoring.interval_seconds);
    json!({
        "apiVersion": Kind::PodMonitor.api_version(),
        "kind": Kind::PodMonitor.kind(),
        "metadata": metadata,
        "spec": {
            "selector": {"matchLabels": identity.selector()},
            "podMetricsEndpoints": [{"port": "admin", "path": "/metrics", "interval": interval}],
            // What tells one cluster's series from another's.
            "podTargetLabels": [shortener_crds::lease::CLUSTER_LABEL],
        },
    })
}
