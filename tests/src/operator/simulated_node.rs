//! A node as the operator sees one: a Pod, and a Lease with a report. Nothing runs behind it.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::json;
use shortener_crds::ids::allocate::PodUid;
use shortener_crds::ids::{BootId, KeyspaceId};
use shortener_crds::lease::{CLUSTER_LABEL, Grant, REPORT_ANNOTATION, Report};
use shortener_node::ambient::random;

/// The keyspace of all simulated stores.
pub const KEYSPACE: KeyspaceId = KeyspaceId(0x5eed);

/// One node.
#[derive(Clone)]
pub struct SimulatedNode {
    client: Client,
    namespace: String,
    cluster: String,
    /// What it says.
    pub report: Report,
}

impl SimulatedNode {
    /// Makes its Pod; it asks for nothing yet.
    pub async fn start(client: &Client, namespace: &str, cluster: &str, pod: &str) -> Result<Self> {
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
        let made: Pod = serde_json::from_value(json!({
            "metadata": {"name": pod, "labels": {CLUSTER_LABEL: cluster}},
            "spec": {
                "containers": [{"name": "node", "image": "shortener:simulated"}],
                "automountServiceAccountToken": false,
                // No controller and no scheduler need look at it.
                "schedulerName": "nobody",
            },
        }))?;
        let made = pods.create(&PostParams::default(), &made).await.with_context(|| format!("making the pod {pod}"))?;
        let report = Report {
            boot_id: BootId(u128::from_be_bytes(random())),
            pod: pod.to_owned(),
            pod_uid: PodUid(made.uid().context("the pod has a UID")?),
            pod_ip: None,
            wanted: 0,
            mark: 0,
            keyspace: Some(KEYSPACE),
            refused_worker: None,
            formats: None,
            store_reachable: true,
            cache_reachable: Some(true),
        };
        let (namespace, cluster) = (namespace.to_owned(), cluster.to_owned());
        Ok(Self { client: client.clone(), namespace, cluster, report })
    }

    /// Begins anew, as a container does that restarts in place.
    pub fn restart(&mut self) {
        self.report.boot_id = BootId(u128::from_be_bytes(random()));
        self.report.wanted = 0;
    }

    /// Says what it says now, wanting so many blocks in all.
    pub async fn want(&mut self, wanted: u64) -> Result<()> {
        self.report.wanted = wanted;
        let report = &self.report;
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": report.pod,
                "labels": {CLUSTER_LABEL: self.cluster},
                "annotations": {REPORT_ANNOTATION: serde_json::to_string(report)?},
            },
            "spec": {"holderIdentity": report.boot_id.to_string()},
        });
        let params = PatchParams::apply("shortener-node").force();
        self.leases().patch(&report.pod, &params, &Patch::Apply(lease)).await.context("writing its Lease")?;
        Ok(())
    }

    /// What it was granted last, if that is addressed to it.
    pub async fn grant(&self) -> Result<Option<Grant>> {
        let lease = self.leases().get_opt(&self.report.pod).await.context("reading its Lease")?;
        let annotations: BTreeMap<_, _> = lease.map(|lease| lease.annotations().clone()).unwrap_or_default();
        let grant = Grant::read(&annotations)?;
        Ok(grant.filter(|grant| grant.boot_id == self.report.boot_id))
    }

    /// Whether it has what it wants.
    pub async fn is_served(&self) -> Result<bool> {
        Ok(self.grant().await?.is_some_and(|grant| grant.granted >= self.report.wanted))
    }

    /// Takes its Pod away, at once.
    pub async fn end(&self) -> Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        pods.delete(&self.report.pod, &now).await.context("deleting its pod")?;
        Ok(())
    }

    fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}
