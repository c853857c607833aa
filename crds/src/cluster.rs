//! The `ShortenerCluster` resource: what a person asks for, and what the operator answers.
//!
//! The schema refuses what can be seen to be wrong in one object, field by field and, by CEL, across fields. The operator's
//! `validate` refuses the same again, for objects that got past it. Numbers are signed here, because the API server knows no others;
//! what is stricter is made of them by whoever uses them.

mod autoscaling;
mod bounds;
mod config;
mod exposure;
mod pod;
mod status;
mod storage;

pub use autoscaling::{Autoscaling, AutoscalingMode, Percentile, Prometheus, ScaleDown, ScaleUp, TargetLatency};
pub use config::NodeConfig;
pub use exposure::{HttpRoute, Ingress, Monitoring, NetworkPolicy, ParentRef, Service, ServiceType};
pub use pod::{ImagePullPolicy, PodSettings, PullSecret};
pub use status::{AllocationStatus, AutoscalingStatus, GrantStatus, LivePod, ShortenerClusterStatus};
pub use storage::{Cache, RedisCluster, RedisCredentials, RedisTls, SecretKeyRef, Storage, Tikv};

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The longest name of a `ShortenerCluster`, in bytes: the names of its pods, and labels that hold them, add 23 at most.
pub const NAME_BYTES_MAX: usize = 40;

/// The most nodes. With the pods that a rollout adds (a quarter) they fit into the list of grants, and into the worker IDs.
pub const NODES_MAX: i32 = 1_600;

/// The most entries in the list of grants.
pub const GRANTS_MAX: usize = 2_048;

const _: () =
    assert!(NODES_MAX as usize * 5 / 4 <= GRANTS_MAX && GRANTS_MAX <= crate::ids::worker_id::WORKERS as usize);

/// A fleet of URL shortener nodes on one TiKV and, if it is to be fast, one Redis Cluster.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "shortener.dev",
    version = "v1alpha1",
    kind = "ShortenerCluster",
    plural = "shortenerclusters",
    shortname = "shc",
    namespaced,
    doc = "A fleet of URL shortener nodes that share one TiKV and one Redis Cluster.",
    status = "ShortenerClusterStatus",
    derive = "PartialEq",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Nodes", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "Desired", type_ = "integer", json_path = ".status.replicas"),
    printcolumn(name = "P99", type_ = "string", json_path = ".status.autoscaling.latency"),
    printcolumn(name = "Next-Block", type_ = "integer", json_path = ".status.allocation.nextBlock"),
    printcolumn(name = "URL", type_ = "string", json_path = ".status.url"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.size() <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("metadata.name must begin with a letter, have only a-z, 0-9 and -, and at most 40 characters: pods are named after it")
)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = schemars::transform::RecursiveTransform(bounds::bound_integers))]
#[x_kube(
    validation = Rule::new("!has(self.ingress) || !has(self.httpRoute)")
        .message("spec.httpRoute: give spec.ingress or spec.httpRoute, not both"),
    validation = Rule::new("!has(self.ingress) || !has(self.ingress.tlsSecretName) || self.baseUrl.startsWith('https://')")
        .message("spec.ingress.tlsSecretName needs a spec.baseUrl of https://"),
    validation = Rule::new("!has(self.domains) || self.domains.all(d, self.baseUrl != 'http://' + d && self.baseUrl != 'https://' + d)")
        .message("spec.domains: the host of spec.baseUrl is the default domain and must not be named again"),
    validation = Rule::new("has(self.config) && has(self.config.shortCodeLength) ? has(oldSelf.config) && has(oldSelf.config.shortCodeLength) && oldSelf.config.shortCodeLength == self.config.shortCodeLength || !(has(oldSelf.config) && has(oldSelf.config.shortCodeLength)) && self.config.shortCodeLength == 7 : !(has(oldSelf.config) && has(oldSelf.config.shortCodeLength)) || oldSelf.config.shortCodeLength == 7")
        .message("spec.config.shortCodeLength is immutable: each length has IDs of its own"),
    validation = Rule::new("has(self.storage.tikv.keyspace) == has(oldSelf.storage.tikv.keyspace) && (!has(self.storage.tikv.keyspace) || self.storage.tikv.keyspace == oldSelf.storage.tikv.keyspace)")
        .message("spec.storage.tikv.keyspace is immutable: another keyspace holds other links; make another ShortenerCluster")
)]
pub struct ShortenerClusterSpec {
    /// What short URLs begin with: http:// or https://, a host, and a port if need be.
    #[schemars(
        length(max = 255),
        regex(pattern = r"^https?://[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?(:[0-9]{1,5})?$")
    )]
    pub base_url: String,
    /// Further host names, each with codes of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?(:[0-9]{1,5})?$")),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub domains: Vec<String>,
    /// Image of the nodes. Default: the one that belonged to the operator's release when the resource was first seen; an
    /// upgrade of the operator does not change it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^[A-Za-z0-9][-A-Za-z0-9._:/@]*$"))]
    pub image: Option<String>,
    /// How many nodes, where no autoscaler of ours decides: without `autoscaling`, or with one whose mode is not `builtin`. What
    /// `kubectl scale` writes. Default: 2, or as many as there are where another autoscaler decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1600))]
    pub replicas: Option<i32>,
    /// The pods: resources, image pulling, placement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodSettings>,
    /// Settings of the nodes, named as the nodes' own. What is not set has the node's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<NodeConfig>,
    /// The Secret whose key signs access tokens, 32 bytes at least. Default: one that is generated once, named after the
    /// resource with `-secret`, and never rotated by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<SecretKeyRef>,
    /// Where links are kept.
    pub storage: Storage,
    /// What nodes share of what they have read. Without it each node has only its own memory, a change takes up to
    /// `config.localCacheTtl` to reach the others, and rate limits are kept by each node for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<Cache>,
    /// Sizes the fleet by the latency of redirects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
    /// What a person may decide about ID allocation after a restore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<Ids>,
    /// The Service in front of the nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Service>,
    /// An Ingress for the Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Ingress>,
    /// A Gateway API HTTPRoute for the Service; made once the cluster knows that kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_route: Option<HttpRoute>,
    /// What monitoring is told; each only where the cluster knows its kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitoring: Option<Monitoring>,
    /// Who may reach the nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_policy: Option<NetworkPolicy>,
    /// What becomes of the generated Secret when this resource is deleted. Rows in TiKV are never deleted by the operator.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// What becomes of the generated Secret.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeletionPolicy {
    /// It stays, so that the resource can be made again on the same data and tokens stay valid.
    #[default]
    Retain,
    /// It is deleted.
    Delete,
}

/// What a person may decide about ID allocation, and the operator never does by itself.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Ids {
    /// No block below this one is granted any more. Raise it above all that was ever granted when etcd and TiKV were both restored from backups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 12_806_691_984_075_i64))]
    pub floor_block: Option<i64>,
    /// Go on with the keyspace of this identity, although another one was recorded before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9a-f]{32}$"), length(max = 32))]
    pub adopt_keyspace: Option<String>,
}
