//! How a cluster is reached, and how it is watched.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::NetworkPolicyPeer;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The Service in front of the nodes.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.nodePort) || self.type != 'ClusterIP'")
    .message("spec.service.nodePort needs spec.service.type NodePort or LoadBalancer"))]
pub struct Service {
    /// Its type.
    #[serde(default, rename = "type")]
    pub service_type: ServiceType,
    /// Its port. Default 80.
    #[serde(default = "port")]
    #[schemars(range(min = 1, max = 65_535))]
    pub port: i32,
    /// The port on every machine, for the types that have one. Default: the cluster chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub node_port: Option<i32>,
    /// Annotations, as load balancers of clouds want them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub annotations: BTreeMap<String, String>,
}

fn port() -> i32 {
    80
}

impl Default for Service {
    fn default() -> Self {
        Self { service_type: ServiceType::default(), port: port(), node_port: None, annotations: BTreeMap::new() }
    }
}

/// How a Service is reached.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServiceType {
    /// From inside the cluster.
    #[default]
    ClusterIP,
    /// Also at a port of every machine.
    NodePort,
    /// Also through a load balancer of the cloud.
    LoadBalancer,
}

/// An Ingress for the hosts of `baseUrl` and `domains`.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Ingress {
    /// Which controller serves it. Default: the cluster's default class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub class_name: Option<String>,
    /// Secret with the certificate of all hosts. Default: no TLS at the Ingress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub tls_secret_name: Option<String>,
    /// Annotations, as ingress controllers and cert-manager want them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub annotations: BTreeMap<String, String>,
}

/// An HTTPRoute for the hosts of `baseUrl` and `domains`.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct HttpRoute {
    /// Gateways that it is attached to.
    #[schemars(length(min = 1, max = 16))]
    pub parent_refs: Vec<ParentRef>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub annotations: BTreeMap<String, String>,
}

/// A Gateway.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ParentRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
    /// Its namespace. Default: ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub namespace: Option<String>,
    /// One of its listeners. Default: all that take the route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub section_name: Option<String>,
}

/// What monitoring is told. Each is made only where the cluster knows its kind.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Monitoring {
    /// A PodMonitor, with which the Prometheus operator finds the nodes.
    #[serde(default = "yes")]
    pub pod_monitor: bool,
    /// A PrometheusRule with the alerts.
    #[serde(default = "yes")]
    pub prometheus_rule: bool,
    /// A ConfigMap with the Grafana dashboard, labelled for Grafana's sidecar.
    #[serde(default = "yes")]
    pub dashboard: bool,
    /// Time between two scrapes, in seconds. Default 15.
    #[serde(default = "interval_seconds")]
    #[schemars(range(min = 1, max = 300))]
    pub interval_seconds: i32,
    /// Labels by which the Prometheus operator selects its objects.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub labels: BTreeMap<String, String>,
}

fn yes() -> bool {
    true
}

fn interval_seconds() -> i32 {
    15
}

impl Default for Monitoring {
    fn default() -> Self {
        Self {
            pod_monitor: yes(),
            prometheus_rule: yes(),
            dashboard: yes(),
            interval_seconds: interval_seconds(),
            labels: BTreeMap::new(),
        }
    }
}

/// Who may reach the nodes. Where they may connect to is left open: only PD knows the addresses of the stores.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NetworkPolicy {
    /// Whether there is one.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Who may read metrics, such as the namespace of Prometheus. Default: nobody. The kubelet's probes come from the pod's own
    /// machine, which network plugins let through in any case.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub metrics_from: Vec<NetworkPolicyPeer>,
}

impl Default for NetworkPolicy {
    fn default() -> Self {
        Self { enabled: yes(), metrics_from: Vec::new() }
    }
}
