//! The operator in the tests: in this process, as its own service account with the rules that the chart gives it, so that every test
//! also shows that they suffice. Its nodes are Pods and Leases that a test writes as nodes would, where no kubelet runs them.

mod faults;
mod leased_nodes;
mod measured_nodes;
mod simulated_node;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule};
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, CustomResourceExt};
use serde_json::{Value, json};
use shortener_crds::ShortenerCluster;
use shortener_operator::config::{LogFormat, LogLevel, Run};
use shortener_operator::kinds::shortener_clusters;
use shortener_operator::manifest::lease_policy;
use shortener_operator::rbac::{in_own_namespace, in_watched_namespaces};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use faults::{StopAfter, client_that_stops};
pub use leased_nodes::leased_nodes;
pub use measured_nodes::{MeasuredNodes, NodeLoad};
pub use simulated_node::SimulatedNode;

use crate::kubernetes::Kubernetes;
use crate::server_process::wait_until;

/// Who the operator is in a test's namespace.
pub const ACCOUNT: &str = "shortener-operator";
/// The image of nodes; no kubelet pulls it.
pub const IMAGE: &str = "shortener:test";
/// A new definition is served within a second on an idle machine.
const SERVED_WITHIN: Duration = Duration::from_mins(1);

const SMALLEST: &str = include_str!("../samples/cluster.yaml");

/// An operator at work.
#[derive(Debug)]
pub struct Operator {
    shutdown: CancellationToken,
    task: JoinHandle<Result<()>>,
    /// Where its metrics are.
    pub metrics_addr: SocketAddr,
}

impl Operator {
    /// Starts one that looks after one namespace.
    pub async fn start(client: Client, namespace: &str) -> Result<Self> {
        Self::start_with(client, settings(namespace)).await
    }

    /// Starts one with these settings.
    pub async fn start_with(client: Client, settings: Run) -> Result<Self> {
        let listener = TcpListener::bind(settings.metrics_addr).await.context("a port for metrics")?;
        let metrics_addr = listener.local_addr()?;
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let task = tokio::spawn(async move {
            shortener_operator::run(&settings, client, listener, stop).await.context("running the operator")
        });
        Ok(Self { shutdown, task, metrics_addr })
    }

    /// Stops it as SIGTERM does.
    pub async fn stop(self) -> Result<()> {
        self.shutdown.cancel();
        self.task.await.context("the operator ended well")?
    }

    /// Ends it in the middle of whatever it does, as SIGKILL does.
    pub async fn kill(self) {
        self.task.abort();
        // That it was ended is what was wanted.
        let _ = self.task.await;
    }

    /// One of its metrics, summed over all labels.
    pub async fn metric(&self, name: &str) -> Result<f64> {
        let text = reqwest::get(format!("http://{}/metrics", self.metrics_addr)).await?.text().await?;
        let values = text
            .lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{') || rest.starts_with(' ')));
        Ok(values.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum())
    }
}

/// An operator for one namespace, without a leader to elect.
pub fn settings(namespace: &str) -> Run {
    Run {
        watch_namespace: Some(namespace.to_owned()),
        node_image: IMAGE.to_owned(),
        format_raise_after_seconds: 0,
        metrics_addr: SocketAddr::from(([127, 0, 0, 1], 0)),
        leader_election: false,
        operator_namespace: Some(namespace.to_owned()),
        pod_name: None,
        log_level: LogLevel::Info,
        log_format: LogFormat::Json,
    }
}

/// Makes the API server know the resource, and tie Leases to pods.
pub async fn install(client: &Client) -> Result<()> {
    apply(client, &serde_json::to_value(ShortenerCluster::crd())?).await?;
    for object in lease_policy() {
        apply(client, &object).await?;
    }
    let clusters: Api<ShortenerCluster> = Api::default_namespaced(client.clone());
    wait_until("ShortenerClusters are served", SERVED_WITHIN, async || {
        Ok(clusters.list(&kube::api::ListParams::default().limit(1)).await.is_ok())
    })
    .await
}

/// Applies one object of any cluster-wide kind.
async fn apply(client: &Client, object: &Value) -> Result<()> {
    let text = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
    let (group, version) = text("apiVersion")
        .split_once('/')
        .map_or_else(|| (String::new(), text("apiVersion")), |(group, version)| (group.to_owned(), version.to_owned()));
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(&group, &version, &text("kind")));
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind);
    let name = object["metadata"]["name"].as_str().context("it has a name")?;
    let params = PatchParams::apply("shortener-tests").force();
    api.patch(name, &params, &Patch::Apply(object)).await.with_context(|| format!("applying {} {name}", kind.kind))?;
    Ok(())
}

/// A client with the operator's rights, for an operator that looks after this namespace.
pub async fn operator_client(kubernetes: &Kubernetes, namespace: &str) -> Result<Client> {
    kubernetes.client_with_token(&operator_token(kubernetes, namespace).await?).await
}

/// A token with the operator's rights.
pub async fn operator_token(kubernetes: &Kubernetes, namespace: &str) -> Result<String> {
    let client = kubernetes.client().await?;
    let rules: Vec<PolicyRule> =
        in_watched_namespaces().into_iter().chain(in_own_namespace()).map(|rule| rule.rule).collect();
    let name = format!("{ACCOUNT}-{namespace}");
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let account = serde_json::from_value(json!({"metadata": {"name": ACCOUNT}}))?;
    accounts.create(&PostParams::default(), &account).await.context("making the operator's account")?;
    let role: ClusterRole = serde_json::from_value(json!({"metadata": {"name": name}, "rules": rules}))?;
    Api::all(client.clone()).create(&PostParams::default(), &role).await.context("making the operator's role")?;
    let binding: ClusterRoleBinding = serde_json::from_value(json!({
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": namespace}],
    }))?;
    Api::all(client).create(&PostParams::default(), &binding).await.context("giving the operator its role")?;
    kubernetes.token(namespace, ACCOUNT, None).await
}

/// The smallest resource, with what `patch` changes in it.
pub fn sample(patch: &Value) -> Result<Value> {
    let mut resource: Value = serde_saphyr::from_str(SMALLEST).context("the sample is YAML")?;
    json_patch::merge(&mut resource, patch);
    Ok(resource)
}

/// The kind, for objects that may make no sense.
pub fn kind() -> ApiResource {
    shortener_clusters()
}
