//! The alerts of a cluster. Each names what to do first.

use serde_json::{Value, json};

use crate::kinds::Kind;
use crate::plan::validate::ValidatedCluster;

pub(super) fn build_prometheus_rule(cluster: &ValidatedCluster) -> Value {
    let identity = &cluster.identity;
    let mut metadata = identity.owned(identity.main_name());
    metadata.labels.get_or_insert_default().extend(cluster.monitoring.labels.clone());
    let of_cluster = format!(r#"namespace="{}",shortener_dev_cluster="{}""#, identity.namespace, identity.name);
    let alert = |name: &str, expr: String, minutes: u32, severity: &str, summary: &str, next: &str| {
        json!({
            "alert": name,
            "expr": expr,
            "for": format!("{minutes}m"),
            "labels": {"severity": severity, "shortener_cluster": identity.name},
            "annotations": {"summary": summary, "description": next},
        })
    };
    json!({
        "apiVersion": Kind::PrometheusRule.api_version(),
        "kind": Kind::PrometheusRule.kind(),
        "metadata": metadata,
        "spec": {"groups": [{"name": format!("shortener-{}", identity.name), "rules": [
            alert(
                "ShortenerMintClash",
                format!("increase(shortener_mint_clashes_total{{{of_cluster}}}[1h]) > 0"),
                0,
                "critical",
                "A code was minted that was there already.",
                "Insert-if-absent has kept the links apart. Find out whether TiKV or etcd was restored; raise spec.ids.floorBlock.",
            ),
            alert(
                "ShortenerClaimsBurnt",
                format!("increase(shortener_claims_burnt_total{{{of_cluster}}}[1h]) > 0"),
                0,
                "warning",
                "Blocks were granted that had been claimed before.",
                "The status of the ShortenerCluster was restored or edited. Nothing is lost: granting goes on above the store's mark.",
            ),
            alert(
                "ShortenerBackEndDown",
                format!("max by (backend) (shortener_backend_breaker_open{{{of_cluster}}}) > 0"),
                5,
                "critical",
                "Nodes do not reach TiKV or Redis.",
                "Look at the conditions StoreReachable and CacheReachable of the ShortenerCluster, and at that back end.",
            ),
            alert(
                "ShortenerClicksDropped",
                format!("increase(shortener_clicks_dropped_total{{{of_cluster}}}[15m]) > 0"),
                5,
                "warning",
                "Clicks are dropped instead of counted.",
                "The store takes them too slowly: look at its latency, or raise spec.config.analyticsBatchSize.",
            ),
        ]}]},
    })
}
