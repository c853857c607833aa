//! The Grafana dashboard of a cluster, as a ConfigMap that Grafana's sidecar finds.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};

use super::hash;
use crate::plan::validate::ValidatedCluster;

/// The label that Grafana's sidecar looks for, as its chart sets it by default.
const SIDECAR_LABEL: (&str, &str) = ("grafana_dashboard", "1");

pub(super) fn build_dashboard(cluster: &ValidatedCluster) -> ConfigMap {
    let identity = &cluster.identity;
    let mut metadata = identity.owned(identity.dashboard_name());
    let (label, value) = SIDECAR_LABEL;
    metadata.labels.get_or_insert_default().insert(label.to_owned(), value.to_owned());
    let file = format!("shortener-{}-{}.json", identity.namespace, identity.name);
    ConfigMap {
        metadata,
        data: Some(BTreeMap::from([(
            file,
            dashboard(&identity.namespace, &identity.name, cluster.redis.is_some()).to_string(),
        )])),
        ..ConfigMap::default()
    }
}

#[expect(clippy::too_many_lines, reason = "a table: one panel after another")]
fn dashboard(namespace: &str, name: &str, has_redis: bool) -> Value {
    let of = format!(r#"namespace="{namespace}",shortener_dev_cluster="{name}""#);
    let latency = |quantile: &str, stage: &str| {
        format!(
            "histogram_quantile({quantile}, sum by (le) (rate(shortener_redirect_duration_seconds_bucket{{{of},stage=\"{stage}\"}}[$__rate_interval])))"
        )
    };
    let rate = |metric: &str, by: &str| format!("sum by ({by}) (rate({metric}{{{of}}}[$__rate_interval]))");
    // What waited for a tier was not answered before it.
    let answered = |stage: &str| {
        let count = |stage: &str| {
            format!("sum(rate(shortener_redirect_duration_seconds_count{{{of},stage=\"{stage}\"}}[$__rate_interval]))")
        };
        format!("({} / {})", count(stage), count("total"))
    };
    let of_operator = format!(r#"cluster_namespace="{namespace}",cluster="{name}""#);
    let panels = [
        (
            "Redirect latency, p99",
            "s",
            vec![
                ("total", latency("0.99", "total")),
                ("local", latency("0.99", "local")),
                ("cache", latency("0.99", "cache")),
                ("store", latency("0.99", "store")),
            ],
        ),
        ("Requests", "reqps", vec![("{{status}}", rate("shortener_http_requests_total", "status"))]),
        (
            "In flight ÷ limit",
            "percentunit",
            vec![("{{pod}}", format!("shortener_in_flight_requests{{{of}}} / shortener_in_flight_limit{{{of}}}"))],
        ),
        (
            "CPU ÷ limit",
            "percentunit",
            vec![(
                "{{pod}}",
                format!(
                    "rate(shortener_cpu_seconds_total{{{of}}}[$__rate_interval]) / on (pod) shortener_cpu_limit_cores{{{of}}}"
                ),
            )],
        ),
        (
            "Where redirects were answered",
            "percentunit",
            match has_redis {
                true => vec![
                    ("node's memory", format!("1 - {}", answered("cache"))),
                    ("Redis", format!("{} - {}", answered("cache"), answered("store"))),
                    ("store", answered("store")),
                ],
                false => {
                    vec![("node's memory", format!("1 - {}", answered("store"))), ("store", answered("store"))]
                }
            },
        ),
        ("Nodes", "short", vec![("{{state}}", format!("max by (state) (shortener_operator_nodes{{{of_operator}}})"))]),
        (
            "Back ends: calls",
            "ops",
            vec![("{{backend}} {{outcome}}", rate("shortener_backend_calls_total", "backend, outcome"))],
        ),
        (
            "Back ends given up",
            "short",
            vec![("{{backend}}", format!("max by (backend) (shortener_backend_breaker_open{{{of}}})"))],
        ),
        (
            "Clicks",
            "ops",
            vec![
                ("recorded", rate("shortener_clicks_recorded_total", "")),
                ("written", rate("shortener_clicks_written_total", "")),
                ("dropped", rate("shortener_clicks_dropped_total", "")),
            ],
        ),
        (
            "Clashes and burnt claims: must stay 0",
            "short",
            vec![
                ("clashes", format!("sum(shortener_mint_clashes_total{{{of}}})")),
                ("burnt", format!("sum(shortener_claims_burnt_total{{{of}}})")),
            ],
        ),
        (
            "Codes that a node can mint without asking for more",
            "short",
            vec![("{{pod}}", format!("shortener_code_ids_remaining{{{of}}}"))],
        ),
        (
            "Conditions that are True",
            "short",
            vec![("{{condition}}", format!("max by (condition) (shortener_operator_condition{{{of_operator}}})"))],
        ),
    ];
    let panels = panels.into_iter().zip(0_u32..).map(|((title, unit, queries), index)| {
        let targets = queries.into_iter().zip('A'..='Z').map(|((legend, expr), id)| {
            json!({"refId": id.to_string(), "expr": expr, "legendFormat": legend, "datasource": {"type": "prometheus", "uid": "${datasource}"}})
        });
        json!({
            "id": index + 1,
            "type": "timeseries",
            "title": title,
            "datasource": {"type": "prometheus", "uid": "${datasource}"},
            "gridPos": {"x": index % 2 * 12, "y": index / 2 * 8, "w": 12, "h": 8},
            "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
            "targets": targets.collect::<Vec<_>>(),
        })
    });
    json!({
        "uid": uid(namespace, name),
        "title": format!("Shortener {namespace}/{name}"),
        "tags": ["shortener"],
        "schemaVersion": 39,
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [{"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"}]},
        "panels": panels.collect::<Vec<_>>(),
    })
}

/// Grafana takes 40 characters. Cut off, the names of two clusters could be one.
fn uid(namespace: &str, name: &str) -> String {
    format!("shortener-{}", hash(&json!([namespace, name])))
}
