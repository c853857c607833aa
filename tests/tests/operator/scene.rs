//! A namespace with an operator and a resource in it.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use shortener_crds::ShortenerCluster;
use shortener_tests::kubernetes::Kubernetes;
use shortener_tests::operator::{Operator, SimulatedNode, install, kind, operator_client, sample};
use shortener_tests::server_process::wait_until;
use tokio::sync::OnceCell;

/// What takes a moment on an idle machine.
pub const SOON: Duration = Duration::from_mins(1);

/// A namespace of the shared cluster, and who works in it.
pub struct Scene {
    pub kubernetes: &'static Kubernetes,
    pub client: Client,
    pub namespace: String,
}

impl Scene {
    /// One without an operator yet; none where there is no Kubernetes.
    pub async fn new(test: &str) -> Result<Option<Self>> {
        static INSTALLED: OnceCell<()> = OnceCell::const_new();
        let Some(kubernetes) = Kubernetes::shared().await? else { return Ok(None) };
        let client = kubernetes.client().await?;
        INSTALLED.get_or_try_init(async || install(&client).await).await?;
        let namespace = kubernetes.namespace(test).await?;
        Ok(Some(Self { kubernetes, client, namespace }))
    }

    /// An operator with no more than its rights.
    pub async fn operator(&self) -> Result<Operator> {
        Operator::start(operator_client(self.kubernetes, &self.namespace).await?, &self.namespace).await
    }

    /// Makes the smallest resource, with what `patch` changes in it.
    pub async fn create(&self, patch: &Value) -> Result<ShortenerCluster> {
        let mut resource = sample(patch)?;
        json_patch::merge(&mut resource, &json!({"metadata": {"namespace": self.namespace}}));
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.namespace, &kind());
        let made = api.create(&PostParams::default(), &serde_json::from_value(resource)?).await?;
        Ok(made.try_parse()?)
    }

    /// Changes the resource.
    pub async fn change(&self, name: &str, patch: &Value) -> Result<()> {
        self.clusters().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    pub fn clusters(&self) -> Api<ShortenerCluster> {
        self.api()
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub async fn node(&self, cluster: &str, pod: &str) -> Result<SimulatedNode> {
        SimulatedNode::start(&self.client, &self.namespace, cluster, pod).await
    }

    /// Says of a pod that it is ready, as the kubelet would that nothing runs it on.
    pub async fn make_ready(&self, pod: &str) -> Result<()> {
        let since = "2026-01-01T00:00:00Z";
        let ready = json!({"type": "Ready", "status": "True", "lastTransitionTime": since});
        let status = Patch::Merge(json!({"status": {"phase": "Running", "conditions": [ready]}}));
        let patched = self.api::<Pod>().patch_status(pod, &PatchParams::default(), &status).await;
        patched.with_context(|| format!("making {pod} ready"))?;
        Ok(())
    }

    /// Waits until a condition of the resource has this status and reason.
    pub async fn until_condition(&self, name: &str, type_: &str, status: &str, reason: &str) -> Result<String> {
        let mut message = String::new();
        let mut seen = String::new();
        let waited = wait_until(&format!("{type_} is {status}, {reason}"), SOON, async || {
            let conditions = self.clusters().get(name).await?.status.unwrap_or_default().conditions;
            let found = conditions.iter().find(|condition| condition.type_ == type_);
            seen = format!("{found:?}");
            message = found.map(|found| found.message.clone()).unwrap_or_default();
            Ok(found.is_some_and(|found| found.status == status && found.reason == reason))
        })
        .await;
        waited.with_context(|| format!("it is {seen}"))?;
        Ok(message)
    }

    /// Waits until an object is there.
    pub async fn until_there<K>(&self, name: &str) -> Result<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        let mut found = None;
        wait_until(&format!("{} {name} is there", K::kind(&())), SOON, async || {
            found = self.api::<K>().get_opt(name).await?;
            Ok(found.is_some())
        })
        .await?;
        found.context("it was there a moment ago")
    }
}

/// Waits until every node has what it wants.
pub async fn until_served(nodes: &[SimulatedNode], within: Duration) -> Result<()> {
    wait_until("every node has what it wants", within, async || {
        for node in nodes {
            if !node.is_served().await? {
                return Ok(false);
            }
        }
        Ok(true)
    })
    .await
}

/// The version of an object: it changes with every write.
pub fn version<K: ResourceExt>(object: &K) -> String {
    object.resource_version().unwrap_or_default()
}
