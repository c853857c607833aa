//! The alerts of a cluster. Each names what to do first, and its runbook.
//!
//! An objective of 99 % of redirects within the target says that a hundredth of them may be slower. A burn rate is how many times as many
//! are: fourteen times the hundredth are slower exactly when the 86th percentile lies over the target, which can be asked of a
//! histogram whatever the target is. Each burn is looked for in a long window, so that it matters, and in a short one, so that it is not over.

use serde_json::{Value, json};

use shortener_crds::cluster::TargetLatency;

use crate::kinds::Kind;
use crate::plan::validate::{Replicas, ValidatedCluster};

/// Where alerts are explained.
const RUNBOOK: &str = "docs/runbooks.md";

/// How many times its pace a month's budget burns that is gone in two days, and in five.
const FAST: f64 = 14.4;
const SLOW: f64 = 6.0;

/// One alert.
struct Alert {
    name: &'static str,
    expr: String,
    minutes: u32,
    severity: &'static str,
    summary: &'static str,
    next: &'static str,
}

pub(super) fn build_prometheus_rule(cluster: &ValidatedCluster) -> Value {
    let identity = &cluster.identity;
    let mut metadata = identity.owned(identity.main_name());
    metadata.labels.get_or_insert_default().extend(cluster.monitoring.labels.clone());
    let rules = alerts(cluster).into_iter().map(|Alert { name, expr, minutes, severity, summary, next }| {
        json!({
            "alert": name,
            "expr": expr,
            "for": format!("{minutes}m"),
            "labels": {"severity": severity, "shortener_cluster": identity.name},
            "annotations": {
                "summary": summary,
                "description": next,
                "runbook": format!("{RUNBOOK}#{}", name.to_lowercase()),
            },
        })
    });
    json!({
        "apiVersion": Kind::PrometheusRule.api_version(),
        "kind": Kind::PrometheusRule.kind(),
        "metadata": metadata,
        "spec": {"groups": [{"name": format!("shortener-{}", identity.name), "rules": rules.collect::<Vec<_>>()}]},
    })
}

#[expect(clippy::too_many_lines, reason = "a table: one alert after another")]
fn alerts(cluster: &ValidatedCluster) -> Vec<Alert> {
    let (namespace, name) = (&cluster.identity.namespace, &cluster.identity.name);
    // Of the nodes, as the PodMonitor labels them; and of the operator, which labels by itself what it says of a cluster.
    let nodes = format!(r#"namespace="{namespace}",shortener_dev_cluster="{name}""#);
    let operator = format!(r#"cluster_namespace="{namespace}",cluster="{name}""#);
    let target = match &cluster.replicas {
        Replicas::Builtin(autoscaling) | Replicas::Hpa(autoscaling, _) | Replicas::External(autoscaling, _) => {
            autoscaling.target_latency
        }
        Replicas::Fixed(_) => TargetLatency::default(),
    };
    let target_s = f64::from(target.milliseconds) / 1_000.0;
    let budget = 1.0 - f64::from(i32::from(target.percentile)) / 100.0;
    // Only where there are enough redirects to tell.
    let slow = |burns: f64, window: &str| {
        let quantile = 1.0 - burns * budget;
        format!(
            "histogram_quantile({quantile:.3}, sum by (le) (rate(shortener_redirect_duration_seconds_bucket{{{nodes},stage=\"total\"}}[{window}]))) > {target_s} \
             and sum(rate(shortener_redirect_duration_seconds_count{{{nodes},stage=\"total\"}}[{window}])) > 1"
        )
    };
    // A rate takes two scrapes, and the third may be late.
    let short = format!("{}s", (3 * cluster.monitoring.interval_seconds).max(300));
    let burn = |burns: f64, long: &str, short: &str| format!("({}) and ({})", slow(burns, long), slow(burns, short));
    // A series that begins above nothing has no increase.
    let happened = |metric: &str| {
        format!(
            "increase({metric}{{{nodes}}}[1h]) > 0 or ({metric}{{{nodes}}} > 0 unless {metric}{{{nodes}}} offset 1h)"
        )
    };
    let is_true =
        |condition: &str| format!("max(shortener_operator_condition{{{operator},condition=\"{condition}\"}})");
    let of_latency = [
        Alert {
            name: "ShortenerLatencyBurnsFast",
            expr: burn(FAST, "1h", &short),
            minutes: 2,
            severity: "critical",
            summary: "So many redirects are slower than the target that a month's budget for that is gone in two days.",
            next: "Look at the conditions BackendBound and ScalingLimited of the ShortenerCluster: they say whether more nodes would help, and what holds them back.",
        },
        Alert {
            name: "ShortenerLatencyBurnsSlowly",
            expr: burn(SLOW, "6h", "30m"),
            minutes: 15,
            severity: "warning",
            summary: "So many redirects are slower than the target that a month's budget for that is gone in five days.",
            next: "As for ShortenerLatencyBurnsFast, without the hurry.",
        },
    ];
    let mut alerts = vec![
        Alert {
            name: "ShortenerErrors",
            expr: format!(
                "sum(rate(shortener_http_requests_total{{{nodes},status=~\"5..\",status!=\"505\"}}[{short}])) / sum(rate(shortener_http_requests_total{{{nodes}}}[{short}])) > 0.01"
            ),
            minutes: 5,
            severity: "critical",
            summary: "Over 1 % of requests are answered with 5xx.",
            next: "503 is a back end that is away or too slow: look at StoreReachable and CacheReachable. Of anything else the log has the cause, with the request's ID.",
        },
        Alert {
            name: "ShortenerBackEndDown",
            expr: format!("max by (backend) (shortener_backend_breaker_open{{{nodes}}}) > 0"),
            minutes: 5,
            severity: "critical",
            summary: "Nodes do not reach TiKV or Redis.",
            next: "Look at the conditions StoreReachable and CacheReachable of the ShortenerCluster, and at that back end.",
        },
        Alert {
            name: "ShortenerBackEndBound",
            expr: format!("{} > 0", is_true("BackendBound")),
            minutes: 5,
            severity: "warning",
            summary: "Redirects are slow because TiKV or Redis is, and more nodes would not help.",
            next: "The condition BackendBound says which of them. The fleet is held meanwhile.",
        },
        Alert {
            name: "ShortenerAllocationUnhealthy",
            expr: format!("{} < 1", is_true("AllocationHealthy")),
            minutes: 5,
            severity: "critical",
            summary: "Nodes ask for IDs and get none: once they have used up what they hold, creates fail.",
            next: "The condition AllocationHealthy of the ShortenerCluster says why.",
        },
        Alert {
            name: "ShortenerIdsAwaited",
            expr: format!("max(min_over_time(shortener_allocation_waiting{{{nodes}}}[5m])) > 0"),
            minutes: 5,
            severity: "warning",
            summary: "A node has waited for IDs for ten minutes.",
            next: "Look whether the operator runs and leads (shortener_operator_leader), and whether the node reaches the API server.",
        },
        Alert {
            name: "ShortenerCodesRunOut",
            expr: format!(
                "min(shortener_operator_blocks_remaining{{{operator}}}) < 100000 or min(predict_linear(shortener_operator_blocks_remaining{{{operator}}}[1d], 90 * 86400)) < 0"
            ),
            minutes: 60,
            severity: "warning",
            summary: "Codes of this length are used up within three months, or nearly are.",
            next: "Longer codes take a new cluster on a new keyspace; see the runbook.",
        },
        Alert {
            name: "ShortenerMintClash",
            expr: happened("shortener_mint_clashes_total"),
            minutes: 0,
            severity: "critical",
            summary: "A code was minted that was there already.",
            next: "Insert-if-absent has kept the links apart. Find out whether TiKV or etcd was restored; raise spec.ids.floorBlock.",
        },
        Alert {
            name: "ShortenerClaimsBurnt",
            expr: happened("shortener_claims_burnt_total"),
            minutes: 0,
            severity: "warning",
            summary: "Blocks were granted that had been claimed before.",
            next: "The status of the ShortenerCluster was restored or edited. Nothing is lost: granting goes on above the store's mark.",
        },
        Alert {
            name: "ShortenerClicksDropped",
            expr: format!("increase(shortener_clicks_dropped_total{{{nodes}}}[15m]) > 0"),
            minutes: 5,
            severity: "warning",
            summary: "Clicks are dropped instead of counted.",
            next: "The store takes them too slowly: look at its latency, or raise spec.config.analyticsBatchSize.",
        },
    ];
    // Of a budget of a tenth nothing can burn fourteen times as much.
    if FAST * budget < 1.0 {
        alerts.extend(of_latency);
    }
    if let Replicas::Builtin(_) = &cluster.replicas {
        alerts.push(Alert {
            name: "ShortenerScalingBlind",
            expr: format!("{} < 1", is_true("ScalingActive")),
            minutes: 15,
            severity: "warning",
            summary: "The operator has no measurements to size the fleet by.",
            next: "The condition ScalingActive says why. The fleet does not shrink meanwhile.",
        });
    }
    alerts
}
