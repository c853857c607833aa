//! Everything that a cluster owns: one `build_*` an object, one object a file, all from a [`ValidatedCluster`].
//!
//! They are applied by the server, under one field manager, in the order of [`build_all`]. What is written here is the whole of what we
//! own in an object; what others add to it stays theirs.
//!
//! **What changes in [`deployment`] restarts every node of every user when they upgrade the operator.** So a release that needs another
//! template takes it from the cluster's own release, `status.image`, and the golden test beside it says when that was forgotten.

mod config_map;
mod dashboard;
mod deployment;
mod horizontal_pod_autoscaler;
mod http_route;
mod ingress;
mod network_policy;
mod pod_disruption_budget;
mod pod_monitor;
mod prometheus_rule;
mod role;
mod role_binding;
mod service;
mod service_account;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource;
use kube::api::ObjectMeta;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use shortener_crds::ShortenerCluster;
use shortener_crds::lease::CLUSTER_LABEL;

pub use deployment::GENERATED_KEY;

use crate::kinds::Kind;
use crate::plan::PlanError;
use crate::plan::validate::{Identity, ValidatedCluster};

/// Who applies what is here, to the API server.
pub const FIELD_MANAGER: &str = "shortener-operator";
/// Who keeps the size of a fleet as it was when it is no longer ours to say.
pub const HAND_OVER_MANAGER: &str = "shortener-operator-hand-over";
/// What changes when what we want changes: then fields that are no longer wanted are taken back.
pub const HASH_ANNOTATION: &str = "shortener.dev/wanted-hash";
/// In a pod, what its settings and Secrets were.
pub const CONFIG_ANNOTATION: &str = "shortener.dev/config-hash";
/// The label by which we know what is ours.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";

/// How the ServiceAccounts of nodes are told from all others, by the admission policy that ties each node to its own Lease.
pub const NODE_ACCOUNT_SUFFIX: &str = "-shortener-node";

/// The port of public HTTP in a pod.
const PUBLIC_PORT: i32 = 8000;
/// The port of probes and metrics in a pod.
const ADMIN_PORT: i32 = 9000;

/// What the objects are made of beside the spec.
#[derive(Clone, Debug)]
pub struct Inputs<'a> {
    /// The image of the nodes.
    pub image: &'a str,
    /// How many nodes; `None` leaves that to whoever decides.
    pub replicas: Option<i32>,
    /// The Secrets that pods use, with their versions.
    pub secret_versions: BTreeMap<String, String>,
    /// The kinds that the cluster knows.
    pub kinds: &'a BTreeSet<Kind>,
}

/// An object as it is to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// Its kind.
    pub kind: Kind,
    /// Its name; the namespace is the cluster's.
    pub name: String,
    /// All of it, with our hash in its annotations.
    pub object: Value,
}

impl Desired {
    /// `object` as it is to be applied.
    pub fn new(kind: Kind, object: impl Serialize) -> Result<Self, PlanError> {
        let mut object = serde_json::to_value(object).map_err(PlanError::Encode)?;
        let hash = hash(&object);
        let metadata = object.get_mut("metadata").and_then(Value::as_object_mut).ok_or(PlanError::NoMetadata)?;
        let name = metadata.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let annotations = metadata.entry("annotations").or_insert_with(|| Value::Object(serde_json::Map::new()));
        annotations[HASH_ANNOTATION] = Value::String(hash);
        Ok(Self { kind, name, object })
    }
}

/// Sixteen hexadecimal digits that stand for a value.
fn hash(value: &Value) -> String {
    let digest = Sha256::digest(value.to_string());
    hex::encode(&digest[..8])
}

/// Everything that the cluster owns, in the order in which it is applied. Kinds that the API server does not know are left out.
pub fn build_all(cluster: &ValidatedCluster, inputs: &Inputs<'_>) -> Result<Vec<Desired>, PlanError> {
    let config = config_map::build_config_map(cluster);
    let config_hash = config_hash(config.data.as_ref(), &inputs.secret_versions)?;
    let mut all = vec![
        Desired::new(Kind::ServiceAccount, service_account::build_service_account(cluster))?,
        Desired::new(Kind::Role, role::build_role(cluster))?,
        Desired::new(Kind::RoleBinding, role_binding::build_role_binding(cluster))?,
        Desired::new(Kind::ConfigMap, config)?,
        Desired::new(Kind::Service, service::build_service(cluster))?,
        Desired::new(Kind::Deployment, deployment::build_deployment(cluster, inputs, &config_hash))?,
        Desired::new(Kind::PodDisruptionBudget, pod_disruption_budget::build_pod_disruption_budget(cluster))?,
    ];
    if cluster.network_policy.enabled {
        all.push(Desired::new(Kind::NetworkPolicy, network_policy::build_network_policy(cluster))?);
    }
    if let Some(autoscaler) = horizontal_pod_autoscaler::build_horizontal_pod_autoscaler(cluster) {
        all.push(Desired::new(Kind::HorizontalPodAutoscaler, autoscaler)?);
    }
    if let Some(ingress) = &cluster.ingress {
        all.push(Desired::new(Kind::Ingress, ingress::build_ingress(cluster, ingress))?);
    }
    if let Some(route) = &cluster.http_route {
        all.push(Desired::new(Kind::HttpRoute, http_route::build_http_route(cluster, route))?);
    }
    if cluster.monitoring.pod_monitor {
        all.push(Desired::new(Kind::PodMonitor, pod_monitor::build_pod_monitor(cluster))?);
    }
    if cluster.monitoring.prometheus_rule {
        all.push(Desired::new(Kind::PrometheusRule, prometheus_rule::build_prometheus_rule(cluster))?);
    }
    if cluster.monitoring.dashboard {
        all.push(Desired::new(Kind::ConfigMap, dashboard::build_dashboard(cluster))?);
    }
    all.retain(|desired| inputs.kinds.contains(&desired.kind));
    Ok(all)
}

fn config_hash(
    settings: Option<&BTreeMap<String, String>>,
    secret_versions: &BTreeMap<String, String>,
) -> Result<String, PlanError> {
    serde_json::to_value((settings, secret_versions)).map(|value| hash(&value)).map_err(PlanError::Encode)
}

impl Identity {
    /// The Deployment, the Service and whatever else there is one of its kind of.
    pub fn main_name(&self) -> String {
        self.name.clone()
    }

    /// ServiceAccount, Role and RoleBinding of the nodes.
    pub fn node_name(&self) -> String {
        format!("{}{NODE_ACCOUNT_SUFFIX}", self.name)
    }

    /// The settings.
    pub fn config_name(&self) -> String {
        format!("{}-config", self.name)
    }

    /// The generated Secret.
    pub fn secret_name(&self) -> String {
        format!("{}-secret", self.name)
    }

    /// The dashboard.
    pub fn dashboard_name(&self) -> String {
        format!("{}-dashboard", self.name)
    }

    /// The labels by which pods are found. They can never change: a Deployment's selector is immutable.
    pub fn selector(&self) -> BTreeMap<String, String> {
        [("app.kubernetes.io/name", "shortener"), (CLUSTER_LABEL, &self.name)]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into()
    }

    /// The labels of everything.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.selector();
        labels.insert("app.kubernetes.io/instance".to_owned(), self.name.clone());
        labels.insert(MANAGED_BY_LABEL.to_owned(), FIELD_MANAGER.to_owned());
        labels
    }

    /// Makes what carries it go when the resource goes.
    pub fn owner_reference(&self) -> OwnerReference {
        OwnerReference {
            api_version: ShortenerCluster::api_version(&()).into_owned(),
            kind: ShortenerCluster::kind(&()).into_owned(),
            name: self.name.clone(),
            uid: self.uid.clone(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }
    }

    /// The metadata of an object of this name that belongs to the resource.
    pub fn owned(&self, name: String) -> ObjectMeta {
        ObjectMeta {
            name: Some(name),
            namespace: Some(self.namespace.clone()),
            labels: Some(self.labels()),
            owner_references: Some(vec![self.owner_reference()]),
            ..ObjectMeta::default()
        }
    }
}

/// Whether everything that is wanted is there. What others have added, and what the server fills in, does not count.
pub fn is_as_wanted(wanted: &Value, actual: &Value) -> bool {
    match (wanted, actual) {
        (Value::Object(wanted), Value::Object(actual)) => {
            wanted.iter().all(|(key, value)| actual.get(key).is_some_and(|actual| is_as_wanted(value, actual)))
        }
        (Value::Array(wanted), Value::Array(actual)) => {
            wanted.len() == actual.len()
                && wanted.iter().zip(actual).all(|(wanted, actual)| is_as_wanted(wanted, actual))
        }
        _ => wanted == actual,
    }
}
