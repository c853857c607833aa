//! What is watched: the objects that clusters own, pods, and Leases. Every change triggers a visit of the cluster that it belongs to.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::pin::pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::DynamicObject;
use kube::core::{DeserializeGuard, NamespaceResourceScope};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use shortener_crds::ShortenerCluster;
use shortener_crds::causes::Causes;
use shortener_crds::lease::CLUSTER_LABEL;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::kinds::Kind;
use crate::plan::resources::{FIELD_MANAGER, MANAGED_BY_LABEL};

/// How often the API server is asked for the kinds that it did not know.
const DISCOVER_EVERY: Duration = Duration::from_secs(15);
/// The pause after the first failure of a watch; doubled with each that follows.
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// The longest pause: so soon after the API server is back everything is known again.
const PAUSE_MAX: Duration = Duration::from_secs(8);
/// Visits that may wait to be made; watches wait beyond that.
const TRIGGERS_MAX: usize = 1024;

/// Which namespaces are looked after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All of them.
    Cluster,
    /// One.
    Namespace(String),
}

impl Scope {
    /// The objects of a kind that Rust knows.
    pub fn api<K>(&self, client: &Client) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        match self {
            Self::Cluster => Api::all(client.clone()),
            Self::Namespace(namespace) => Api::namespaced(client.clone(), namespace),
        }
    }

    fn dynamic_api(&self, client: &Client, kind: Kind) -> Api<DynamicObject> {
        match self {
            Self::Cluster => Api::all_with(client.clone(), &kind.api_resource()),
            Self::Namespace(namespace) => Api::namespaced_with(client.clone(), namespace, &kind.api_resource()),
        }
    }
}

/// A resource as it is watched: one that cannot be read costs the others nothing.
pub type WatchedCluster = DeserializeGuard<ShortenerCluster>;

/// A visit to be made.
pub type Trigger = ObjectRef<WatchedCluster>;

/// All watches; they end when it is dropped.
#[derive(Debug)]
pub struct Watches {
    clusters: Store<WatchedCluster>,
    pods: Store<DeserializeGuard<Pod>>,
    leases: Store<DeserializeGuard<Lease>>,
    owned: Arc<RwLock<BTreeMap<Kind, Store<DynamicObject>>>>,
    triggers: mpsc::Sender<Trigger>,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

impl Watches {
    /// Begins to watch, and waits until everything that is there has been seen once: a ledger made without some of the pods would
    /// take their grants for those of the dead.
    pub async fn start(client: &Client, scope: &Scope) -> (Self, mpsc::Receiver<Trigger>) {
        let (triggers, visits) = mpsc::channel(TRIGGERS_MAX);
        let (all, labelled) = (watcher::Config::default(), watcher::Config::default().labels(CLUSTER_LABEL));
        let (clusters, watching_clusters) =
            watch(scope.api(client), all, (), triggers.clone(), lean::<WatchedCluster>, itself);
        let (pods, watching_pods) =
            watch(scope.api(client), labelled.clone(), (), triggers.clone(), lean_pod, cluster_of);
        let (leases, watching_leases) =
            watch(scope.api(client), labelled, (), triggers.clone(), lean::<DeserializeGuard<Lease>>, cluster_of);
        let owned = Arc::new(RwLock::new(BTreeMap::new()));
        let ours = triggers.clone();
        let watcher = OwnedWatcher { client: client.clone(), scope: scope.clone(), owned: owned.clone(), triggers };
        let mut tasks = vec![watching_clusters, watching_pods, watching_leases];
        for kind in Kind::ALL.iter().copied().filter(|kind| kind.is_everywhere()) {
            tasks.push(watcher.begin(kind).await);
        }
        // Only a watch whose task is gone is never ready, and tasks live as long as this does.
        let _ = clusters.wait_until_ready().await;
        let _ = pods.wait_until_ready().await;
        let _ = leases.wait_until_ready().await;
        let mut watching = BTreeMap::new();
        watcher.discover(&mut watching).await;
        tasks.push(AbortOnDropHandle::new(tokio::spawn(watcher.keep_discovering(watching))));
        (Self { clusters, pods, leases, owned, triggers: ours, _tasks: tasks }, visits)
    }

    /// All clusters. What is decided on is read anew, as it is at that moment.
    pub fn clusters(&self) -> &Store<WatchedCluster> {
        &self.clusters
    }

    /// The pods of all clusters.
    pub fn pods(&self) -> &Store<DeserializeGuard<Pod>> {
        &self.pods
    }

    /// The Leases of all nodes.
    pub fn leases(&self) -> &Store<DeserializeGuard<Lease>> {
        &self.leases
    }

    /// Has a cluster visited for another reason than a change.
    pub fn triggers(&self) -> mpsc::Sender<Trigger> {
        self.triggers.clone()
    }

    /// What clusters own, by kind; of the kinds that the API server knows.
    pub fn owned(&self) -> BTreeMap<Kind, Store<DynamicObject>> {
        self.owned.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Watches kinds of owned objects as the API server comes to know them.
struct OwnedWatcher {
    client: Client,
    scope: Scope,
    owned: Arc<RwLock<BTreeMap<Kind, Store<DynamicObject>>>>,
    triggers: mpsc::Sender<Trigger>,
}

impl OwnedWatcher {
    /// Watches one kind; it counts as known once all that is there has been seen.
    async fn begin(&self, kind: Kind) -> AbortOnDropHandle<()> {
        let ours = watcher::Config::default().labels(&format!("{MANAGED_BY_LABEL}={FIELD_MANAGER}"));
        let api = self.scope.dynamic_api(&self.client, kind);
        let (store, task) = watch(
            api,
            ours,
            kind.api_resource(),
            self.triggers.clone(),
            lean::<DynamicObject>,
            cluster_of::<DynamicObject>,
        );
        let _ = store.wait_until_ready().await;
        self.owned.write().unwrap_or_else(PoisonError::into_inner).insert(kind, store);
        task
    }

    async fn keep_discovering(self, mut watching: BTreeMap<Kind, AbortOnDropHandle<()>>) {
        loop {
            tokio::time::sleep(DISCOVER_EVERY).await;
            self.discover(&mut watching).await;
        }
    }

    /// Begins to watch the kinds that have appeared, and forgets those that are gone.
    async fn discover(&self, watching: &mut BTreeMap<Kind, AbortOnDropHandle<()>>) {
        for kind in Kind::ALL.iter().copied().filter(|kind| !kind.is_everywhere()) {
            let Some(is_known) = self.is_known(kind).await else { continue };
            let is_watched = self.owned.read().unwrap_or_else(PoisonError::into_inner).contains_key(&kind);
            if is_known && !is_watched {
                tracing::info!(kind = kind.kind(), "the API server knows this kind now");
                watching.insert(kind, self.begin(kind).await);
            } else if !is_known && is_watched {
                tracing::info!(kind = kind.kind(), "the API server does not know this kind any more");
                self.owned.write().unwrap_or_else(PoisonError::into_inner).remove(&kind);
                watching.remove(&kind);
            }
        }
    }

    /// Whether the API server serves a kind; nothing where it did not say.
    async fn is_known(&self, kind: Kind) -> Option<bool> {
        match self.client.list_api_group_resources(&kind.api_version()).await {
            Ok(resources) => Some(resources.resources.iter().any(|resource| resource.name == kind.plural())),
            Err(kube::Error::Api(status)) if status.code == 404 => Some(false),
            Err(error) => {
                tracing::debug!(
                    error = %Causes(&error),
                    kind = kind.kind(),
                    "cannot ask for the kind"
                );
                None
            }
        }
    }
}

/// Follows the objects of one kind: keeps them in a store and triggers visits of the clusters that they belong to. `K` must be readable
/// whatever the object says: one that fails to decode would end the watch of all.
fn watch<K>(
    api: Api<K>,
    config: watcher::Config,
    dyntype: K::DynamicType,
    triggers: mpsc::Sender<Trigger>,
    lean: fn(&mut K),
    belongs_to: fn(&K) -> Option<Trigger>,
) -> (Store<K>, AbortOnDropHandle<()>)
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    K::DynamicType: Clone + Debug + Eq + Hash + Send + Sync + Unpin,
{
    let mut writer = reflector::store::Writer::new(dyntype);
    let store = writer.as_reader();
    let task = tokio::spawn(async move {
        let mut failures = 0;
        loop {
            let mut changes = pin!(watcher(api.clone(), config.clone()).modify(lean));
            while let Some(change) = changes.next().await {
                match change {
                    Ok(event) => {
                        failures = 0;
                        writer.apply_watcher_event(&event);
                        // Nobody listens any more: the operator ends.
                        if !trigger(&triggers, &event, belongs_to).await {
                            return;
                        }
                    }
                    // Begun anew, and not gone on with from the last version: an etcd that was restored from a backup knows nothing of
                    // that one, and says nothing until it has counted up to it.
                    Err(error) => {
                        failures += 1;
                        tracing::warn!(error = %Causes(&error), failures, "a watch broke off");
                        break;
                    }
                }
            }
            tokio::time::sleep(pause_after(failures)).await;
        }
    });
    (store, AbortOnDropHandle::new(task))
}

fn pause_after(failures: u32) -> Duration {
    PAUSE_MIN.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(PAUSE_MAX)
}

/// Has the cluster visited that an event is about; answers whether anybody listens.
async fn trigger<K>(
    triggers: &mpsc::Sender<Trigger>,
    event: &watcher::Event<K>,
    belongs_to: fn(&K) -> Option<Trigger>,
) -> bool {
    let object = match event {
        watcher::Event::Apply(object) | watcher::Event::Delete(object) | watcher::Event::InitApply(object) => object,
        watcher::Event::Init | watcher::Event::InitDone => return true,
    };
    match belongs_to(object) {
        Some(trigger) => triggers.send(trigger).await.is_ok(),
        None => true,
    }
}

#[expect(clippy::unnecessary_wraps, reason = "what is asked of objects of which not all belong to a cluster")]
fn itself(cluster: &WatchedCluster) -> Option<Trigger> {
    Some(ObjectRef::from_obj(cluster))
}

fn cluster_of<K: Resource>(object: &K) -> Option<Trigger> {
    let name = object.meta().labels.as_ref()?.get(CLUSTER_LABEL)?;
    Some(ObjectRef::new(name).within(object.meta().namespace.as_ref()?))
}

/// Nobody here asks who wrote which field.
fn lean<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}

/// Of a pod only its name, its labels, its address and whether it has ended count; a thousand of them stay small so.
fn lean_pod(pod: &mut DeserializeGuard<Pod>) {
    lean(pod);
    let Ok(pod) = &mut pod.0 else { return };
    pod.spec = None;
    pod.annotations_mut().clear();
    if let Some(status) = &mut pod.status {
        let (phase, pod_ip, mut conditions) = (status.phase.take(), status.pod_ip.take(), status.conditions.take());
        if let Some(conditions) = &mut conditions {
            conditions.retain(|condition| condition.type_ == "Ready");
        }
        *status = k8s_openapi::api::core::v1::PodStatus { phase, pod_ip, conditions, ..Default::default() };
    }
}
