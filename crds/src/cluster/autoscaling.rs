//! How the fleet is sized.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Sizes the fleet so that redirects stay under a latency.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.minReplicas <= self.maxReplicas")
        .message("spec.autoscaling.minReplicas must be at most spec.autoscaling.maxReplicas"),
    validation = Rule::new("!has(self.fallbackReplicas) || (self.fallbackReplicas >= self.minReplicas && self.fallbackReplicas <= self.maxReplicas)")
        .message("spec.autoscaling.fallbackReplicas must lie between minReplicas and maxReplicas"),
    validation = Rule::new("self.mode != 'builtin' || has(self.prometheus)")
        .message("spec.autoscaling.prometheus is needed with mode builtin: latency is read from it")
)]
pub struct Autoscaling {
    /// Who decides: the operator, a HorizontalPodAutoscaler that the operator writes, or somebody else.
    #[serde(default)]
    pub mode: AutoscalingMode,
    /// The fewest nodes. Default 2.
    #[serde(default = "min_replicas")]
    #[schemars(range(min = 1, max = 1600))]
    pub min_replicas: i32,
    /// The most nodes.
    #[schemars(range(min = 1, max = 1600))]
    pub max_replicas: i32,
    /// What redirects may take. Default: 99 % of them 100 ms.
    #[serde(default)]
    pub target_latency: TargetLatency,
    /// Where the latency is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<Prometheus>,
    /// At least so many nodes while there are no measurements. Default: minReplicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1600))]
    pub fallback_replicas: Option<i32>,
    /// How busy a node should be, in percent of its CPU or of the requests it takes at once. Default 60.
    #[serde(default = "utilization_percent")]
    #[schemars(range(min = 10, max = 95))]
    pub target_utilization_percent: i32,
    /// By how much a wish must differ to be followed, in percent. Default 10.
    #[serde(default = "tolerance_percent")]
    #[schemars(range(min = 0, max = 50))]
    pub tolerance_percent: i32,
    /// How old a ready pod must be to count, in seconds. Default 30.
    #[serde(default = "warm_up_seconds")]
    #[schemars(range(min = 0, max = 600))]
    pub warm_up_seconds: i32,
    /// How fast the fleet grows.
    #[serde(default)]
    pub scale_up: ScaleUp,
    /// How fast it shrinks.
    #[serde(default)]
    pub scale_down: ScaleDown,
}

fn min_replicas() -> i32 {
    2
}

fn utilization_percent() -> i32 {
    60
}

fn tolerance_percent() -> i32 {
    10
}

fn warm_up_seconds() -> i32 {
    30
}

/// Who decides on the number of nodes.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum AutoscalingMode {
    /// The operator.
    #[default]
    Builtin,
    /// A HorizontalPodAutoscaler that the operator writes.
    Hpa,
    /// Somebody else: the operator leaves the number alone.
    None,
}

/// What redirects may take.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TargetLatency {
    /// Which percentile: 50, 90, 95 or 99.
    #[serde(default)]
    pub percentile: Percentile,
    /// How long it may be, in milliseconds. Default 100.
    #[serde(default = "milliseconds")]
    #[schemars(range(min = 5, max = 10_000))]
    pub milliseconds: i32,
}

fn milliseconds() -> i32 {
    100
}

impl Default for TargetLatency {
    fn default() -> Self {
        Self { percentile: Percentile::default(), milliseconds: milliseconds() }
    }
}

/// A percentile of latencies: 50, 90, 95 or 99.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(try_from = "i32", into = "i32")]
pub struct Percentile(i32);

impl Default for Percentile {
    fn default() -> Self {
        Self(99)
    }
}

impl TryFrom<i32> for Percentile {
    type Error = String;

    fn try_from(percentile: i32) -> Result<Self, String> {
        match percentile {
            50 | 90 | 95 | 99 => Ok(Self(percentile)),
            _ => Err(format!("a percentile is 50, 90, 95 or 99, not {percentile}")),
        }
    }
}

impl From<Percentile> for i32 {
    fn from(percentile: Percentile) -> Self {
        percentile.0
    }
}

impl JsonSchema for Percentile {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Percentile".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "integer", "enum": [50, 90, 95, 99]})
    }
}

/// A Prometheus server that scrapes the nodes.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Prometheus {
    /// Where its HTTP API is, without /api: `http://` alone, for now.
    #[schemars(
        length(max = 512),
        regex(pattern = r"^http://[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?(:[0-9]{1,5})?(/[-A-Za-z0-9._~/]*)?$")
    )]
    pub url: String,
    /// Over how long rates are taken, in seconds. Default 60.
    #[serde(default = "query_window_seconds")]
    #[schemars(range(min = 15, max = 600))]
    pub query_window_seconds: i32,
    /// Time between two decisions, in seconds. Default 15.
    #[serde(default = "query_interval_seconds")]
    #[schemars(range(min = 5, max = 300))]
    pub query_interval_seconds: i32,
}

fn query_window_seconds() -> i32 {
    60
}

fn query_interval_seconds() -> i32 {
    15
}

/// How fast the fleet grows.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ScaleUp {
    /// By at most this many percent of the nodes, in one period. Default 100.
    #[serde(default = "up_percent")]
    #[schemars(range(min = 1, max = 1000))]
    pub percent: i32,
    /// Or by this many nodes, if that is more. Default 4.
    #[serde(default = "up_nodes")]
    #[schemars(range(min = 1, max = 1600))]
    pub nodes: i32,
    /// The period, in seconds. Default 60.
    #[serde(default = "period_seconds")]
    #[schemars(range(min = 15, max = 1800))]
    pub period_seconds: i32,
}

fn up_percent() -> i32 {
    100
}

fn up_nodes() -> i32 {
    4
}

fn period_seconds() -> i32 {
    60
}

impl Default for ScaleUp {
    fn default() -> Self {
        Self { percent: up_percent(), nodes: up_nodes(), period_seconds: period_seconds() }
    }
}

/// How fast the fleet shrinks.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ScaleDown {
    /// By at most this many percent of the nodes, in one period. Default 10.
    #[serde(default = "down_percent")]
    #[schemars(range(min = 1, max = 100))]
    pub percent: i32,
    /// Or by this many nodes, if that is more. Default 1.
    #[serde(default = "down_nodes")]
    #[schemars(range(min = 1, max = 1600))]
    pub nodes: i32,
    /// The period, in seconds. Default 60.
    #[serde(default = "period_seconds")]
    #[schemars(range(min = 15, max = 1800))]
    pub period_seconds: i32,
    /// The largest wish of so many seconds counts. Default 300.
    #[serde(default = "stabilization_seconds")]
    #[schemars(range(min = 0, max = 3600))]
    pub stabilization_seconds: i32,
}

fn down_percent() -> i32 {
    10
}

fn down_nodes() -> i32 {
    1
}

fn stabilization_seconds() -> i32 {
    300
}

impl Default for ScaleDown {
    fn default() -> Self {
        Self {
            percent: down_percent(),
            nodes: down_nodes(),
            period_seconds: period_seconds(),
            stabilization_seconds: stabilization_seconds(),
        }
    }
}
