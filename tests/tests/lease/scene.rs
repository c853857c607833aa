//! A namespace with a cluster's nodes: pods that nothing runs, and for each a real node process that comes in with its pod's own token
//! and may do with Leases what the operator lets nodes do. Grants are written by hand, or by an [`Operator`] that decides as the
//! real one does and keeps its ledger in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use shortener_crds::ids::allocate::{Ledger, PodUid, allocate};
use shortener_crds::ids::{BootId, CodeLength, IdRange, SnowflakeId, WorkerId};
use shortener_crds::lease::{CLUSTER_LABEL, GRANT_ANNOTATION, Grant, Report};
use shortener_node::store::links::read_link;
use shortener_tests::fleet::Metrics;
use shortener_tests::kubernetes::Kubernetes;
use shortener_tests::node::{Node, NodeBuilder};
use shortener_tests::server_process::{fresh_name, wait_until};
use shortener_tests::tikv::Tikv;
use shortener_tests::tikv_engine::Engine;
use tokio::task::JoinHandle;

/// The `ShortenerCluster` that the nodes belong to.
pub const CLUSTER: &str = "main";
/// The name of what nodes come in as, of their rights, and of what binds the two.
const ACCOUNT: &str = "node";
const SECRET_KEY: &str = "a secret of tests alone, 32 bytes";
/// What is waited for takes a second or two on an idle machine.
pub const PATIENCE: Duration = Duration::from_mins(1);
/// How often the operator looks: it batches for a quarter of a second.
const OPERATOR_LOOKS: Duration = Duration::from_millis(250);

/// Where nodes live.
pub struct Scene<'a> {
    pub kubernetes: &'a Kubernetes,
    pub tikv: &'static Tikv,
    pub keyspace: String,
    pub namespace: String,
    client: Client,
}

impl<'a> Scene<'a> {
    /// A fresh namespace and a fresh keyspace; none where TiKV cannot be had.
    pub async fn open(kubernetes: &'a Kubernetes, test: &str) -> Result<Option<Self>> {
        let Some(tikv) = Tikv::shared().await? else { return Ok(None) };
        let client = kubernetes.client().await?;
        let namespace = kubernetes.namespace(test).await?;
        let scene = Self { kubernetes, tikv, keyspace: fresh_name(test), namespace, client };
        let metadata = json!({ "name": ACCOUNT });
        scene.create::<ServiceAccount>(json!({ "metadata": metadata })).await?;
        let rule = json!({
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "verbs": ["get", "watch", "create", "patch"],
        });
        scene.create::<Role>(json!({ "metadata": metadata, "rules": [rule] })).await?;
        let binding = json!({
            "metadata": metadata,
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": ACCOUNT },
            "subjects": [{ "kind": "ServiceAccount", "name": ACCOUNT, "namespace": scene.namespace }],
        });
        scene.create::<RoleBinding>(binding).await?;
        Ok(Some(scene))
    }

    async fn create<K>(&self, resource: Value) -> Result<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
        K: Clone + std::fmt::Debug + DeserializeOwned + Serialize,
    {
        let resource = serde_json::from_value(resource).context("writing a resource")?;
        Ok(Api::namespaced(self.client.clone(), &self.namespace).create(&PostParams::default(), &resource).await?)
    }

    /// The nodes' Leases.
    pub fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Makes a pod, and says how a node in it is started.
    pub async fn pod(&self, name: &str) -> Result<NodeBuilder> {
        let containers = json!([{ "name": "node", "image": "localhost/node:1" }]);
        let spec = json!({ "serviceAccountName": ACCOUNT, "containers": containers });
        let metadata = json!({ "name": name, "labels": { CLUSTER_LABEL: CLUSTER } });
        let pod: Pod = self.create(json!({ "metadata": metadata, "spec": spec })).await?;
        let token = self.kubernetes.token(&self.namespace, ACCOUNT, Some(&pod)).await?;
        let kubeconfig = self.kubernetes.kubeconfig_with_token(&token)?;
        let settings = [
            ("ALLOCATION", "lease"),
            ("CLUSTER_NAME", CLUSTER),
            ("POD_NAMESPACE", self.namespace.as_str()),
            ("POD_NAME", name),
            ("POD_UID", pod.metadata.uid.as_deref().context("a pod has a UID")?),
            ("POD_IP", "127.0.0.1"),
            ("KUBECONFIG", kubeconfig.to_str().context("a path is text")?),
        ];
        Ok(settings.iter().fold(self.self_sufficient(), |node, (name, value)| node.setting(name, *value)))
    }

    /// Makes a pod and starts a node in it; what is done once it asks for its first block is done before it is ready.
    pub async fn start_with<T>(&self, name: &str, then: impl AsyncFnOnce(Report) -> Result<T>) -> Result<(Node, T)> {
        let node = self.pod(name).await?;
        let asked = async { then(self.until_asks(name).await?).await };
        tokio::try_join!(node.start(), asked)
    }

    /// A node on the same keyspace that hands itself what it wants.
    pub fn self_sufficient(&self) -> NodeBuilder {
        Node::builder()
            .setting("DATABASE_URL", self.tikv.database_url(&self.keyspace))
            .setting("SECRET_KEY", SECRET_KEY)
            .setting("LOG_LEVEL", "warn")
    }

    /// A Lease as it is, and what its node says in it.
    pub async fn lease(&self, pod: &str) -> Result<Option<(Lease, Report)>> {
        let Some(lease) = self.leases().get_opt(pod).await? else { return Ok(None) };
        let report = Report::read(lease.metadata.annotations.as_ref().context("a node writes an annotation")?)?;
        Ok(Some((lease, report.context("a node writes its report")?)))
    }

    /// Waits until the node in `pod` says what is waited for.
    pub async fn until_says(&self, pod: &str, what: &str, says: impl Fn(&Report) -> bool) -> Result<Report> {
        let mut said = None;
        let waited = wait_until(what, PATIENCE, async || {
            said = self.lease(pod).await?.map(|(_, report)| report);
            Ok(said.as_ref().is_some_and(&says))
        });
        waited.await?;
        said.context("it was there")
    }

    /// Waits until the node in `pod` asks for its first block.
    pub async fn until_asks(&self, pod: &str) -> Result<Report> {
        self.until_says(pod, "it wants a block", |report| report.wanted == 1).await
    }

    /// The worker ID in the ID of a link. Only the store tells it.
    pub async fn worker_of(&self, code: &str) -> Result<u16> {
        let engine = Engine::open(self.tikv.pd_endpoints(), &self.keyspace).await?;
        let link = read_link(&engine.kv.snapshot().await?, "", code).await?.context("the link is in the store")?;
        Ok(SnowflakeId::try_from(link.id)?.worker().get())
    }

    /// Writes a Lease that is nobody's.
    pub async fn other_writes(&self) -> Result<()> {
        let (params, name) = (PatchParams::apply("other").force(), "other");
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": { "name": name, "annotations": { "turn": fresh_name("turn") } },
        });
        self.leases().patch(name, &params, &Patch::Apply(lease)).await?;
        Ok(())
    }

    /// Writes a grant on the Lease of `pod` as the operator would.
    pub async fn grant(&self, pod: &str, boot_id: BootId, worker: u16, first_block: u64, granted: u64) -> Result<()> {
        let run = Some(IdRange::new(CodeLength::DEFAULT, first_block, 1)?);
        let grant = Grant { boot_id, worker_id: WorkerId::try_from(worker)?, run, granted, format: None };
        write_grant(&self.leases(), pod, &grant).await
    }

    /// Begins to grant what nodes ask for, from this ledger on.
    pub fn operate(&self, ledger: Ledger) -> Operator {
        let ledger = Arc::new(Mutex::new(ledger));
        let pods = Api::namespaced(self.client.clone(), &self.namespace);
        let task = tokio::spawn(operate(self.leases(), pods, ledger.clone()));
        Operator { ledger, task }
    }
}

async fn write_grant(leases: &Api<Lease>, pod: &str, grant: &Grant) -> Result<()> {
    let annotations = BTreeMap::from([(GRANT_ANNOTATION, serde_json::to_string(grant)?)]);
    let patch = Patch::Merge(json!({ "metadata": { "annotations": annotations } }));
    leases.patch(pod, &PatchParams::default(), &patch).await?;
    Ok(())
}

/// Grants until it is dropped.
#[derive(Debug)]
pub struct Operator {
    ledger: Arc<Mutex<Ledger>>,
    task: JoinHandle<()>,
}

impl Operator {
    /// What it has granted so far.
    pub fn ledger(&self) -> Ledger {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn operate(leases: Api<Lease>, pods: Api<Pod>, ledger: Arc<Mutex<Ledger>>) {
    loop {
        // What fails is tried again, as the real one does.
        let _ = visit(&leases, &pods, &ledger).await;
        tokio::time::sleep(OPERATOR_LOOKS).await;
    }
}

/// One visit: reads the Leases, plans, writes the ledger, and delivers what it says.
async fn visit(leases: &Api<Lease>, pods: &Api<Pod>, ledger: &Mutex<Ledger>) -> Result<()> {
    let ours = ListParams::default().labels(&format!("{CLUSTER_LABEL}={CLUSTER}"));
    let found = leases.list(&ours).await?;
    let live: BTreeSet<_> =
        pods.list(&ours).await?.items.into_iter().filter_map(|pod| pod.metadata.uid).map(PodUid).collect();
    let annotations = found.items.into_iter().filter_map(|lease| lease.metadata.annotations);
    let read = annotations.map(|all| Ok((Report::read(&all)?.context("a report")?, Grant::read(&all)?)));
    let read = read.collect::<Result<Vec<_>>>()?;
    let requests: Vec<_> = read.iter().filter_map(|(report, _)| report.request()).collect();
    let ledger = {
        let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
        *ledger = allocate(&ledger, &requests, &live, 0).ledger;
        ledger.clone()
    };
    for (report, delivered) in read {
        let granted =
            ledger.entries.get(&report.pod_uid).filter(|entry| entry.boot_id == report.boot_id).map(Grant::from);
        if let Some(grant) = granted.filter(|grant| delivered.as_ref() != Some(grant)) {
            write_grant(leases, &report.pod, &grant).await?;
        }
    }
    Ok(())
}

/// The part of `GET /api/v1/health` about IDs.
pub async fn ids(node: &Node) -> Result<Value> {
    Ok(node.client()?.health().await?["ids"].clone())
}

/// Creates a link: its code. None while the node has nothing to mint from.
pub async fn create(node: &Node) -> Result<Option<String>> {
    let target = json!({ "original_url": "https://example.com/a/long/page" });
    let answer = node.client()?.post("/api/v1/urls", &target).await?;
    if answer.status == 503 {
        return Ok(None);
    }
    let link: Value = answer.expect_status(201)?.json()?;
    link["short_code"].as_str().map(|code| Some(code.to_owned())).with_context(|| format!("no code in {link}"))
}

/// Waits until the node creates a link.
pub async fn until_creates(node: &Node) -> Result<String> {
    let mut created = None;
    wait_until("a link is created", PATIENCE, async || {
        created = create(node).await?;
        Ok(created.is_some())
    })
    .await?;
    created.context("it was created")
}

/// Blocks that were to be the node's and were not.
pub async fn burnt(node: &Node) -> Result<u64> {
    let burnt = Metrics::of(node).await?.sum("shortener_claims_burnt_total");
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a counter of a few")]
    Ok(burnt as u64)
}
