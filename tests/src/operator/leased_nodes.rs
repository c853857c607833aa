//! Real nodes that an operator grants their IDs: each a process of this machine that comes in with the token of a pod which nothing runs.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::ResourceExt;
use kube::api::{Api, PostParams};
use serde_json::json;
use shortener_crds::lease::CLUSTER_LABEL;

use crate::fleet::Fleet;
use crate::kubernetes::Kubernetes;
use crate::server_process::wait_until;

/// The operator makes an account within seconds.
const ACCOUNT_WITHIN: Duration = Duration::from_mins(1);

/// Starts so many nodes of `cluster`, which an operator looks after in this namespace already, each with more in its environment if
/// that is wanted. They are ready; their IDs come later.
pub async fn leased_nodes(
    kubernetes: &Kubernetes,
    namespace: &str,
    cluster: &str,
    database_url: &str,
    nodes: usize,
    environment: impl Fn(usize) -> Vec<(&'static str, String)>,
) -> Result<Arc<Fleet>> {
    let client = kubernetes.client().await?;
    let account = format!("{cluster}-shortener-node");
    let (accounts, bindings): (Api<ServiceAccount>, Api<RoleBinding>) =
        (Api::namespaced(client.clone(), namespace), Api::namespaced(client.clone(), namespace));
    wait_until("the operator has made the nodes' account and its rights", ACCOUNT_WITHIN, async || {
        Ok(accounts.get_opt(&account).await?.is_some() && bindings.get_opt(&account).await?.is_some())
    })
    .await?;
    let pods: Api<Pod> = Api::namespaced(client, namespace);
    let mut builders = Vec::new();
    for node in 0..nodes {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": format!("{cluster}-{node}"), "labels": {CLUSTER_LABEL: cluster}},
            "spec": {
                "serviceAccountName": account,
                "schedulerName": "nobody",
                "containers": [{"name": "node", "image": "shortener:test"}],
            },
        }))?;
        let pod = pods.create(&PostParams::default(), &pod).await.context("making a pod")?;
        let token = kubernetes.token(namespace, &account, Some(&pod)).await?;
        let kubeconfig = kubernetes.kubeconfig_with_token(&token)?;
        let settings = [
            ("ALLOCATION", "lease".to_owned()),
            ("CLUSTER_NAME", cluster.to_owned()),
            ("POD_NAMESPACE", namespace.to_owned()),
            ("POD_NAME", pod.name_any()),
            ("POD_UID", pod.uid().context("a pod has a UID")?),
            ("POD_IP", "127.0.0.1".to_owned()),
            ("KUBECONFIG", kubeconfig.to_str().context("a path is text")?.to_owned()),
        ];
        let builder = Fleet::builder(database_url, None);
        builders.push(
            settings
                .into_iter()
                .chain(environment(node))
                .fold(builder, |builder, (name, value)| builder.setting(name, value)),
        );
    }
    Fleet::of_each(builders).await
}
