//! Every read: the resource, what it owns, its pods, its nodes' Leases, its Secrets' versions → [`Observed`].
//!
//! What is watched is read from memory. Two things are asked for each time: the resource itself, because the ledger in its status must
//! not be an old one, and the metadata of the few Secrets that it names, because who watches Secrets must be allowed to list them all.

mod watches;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{DynamicObject, PartialObjectMeta};
use kube::core::DeserializeGuard;
use kube::{Api, Client, Resource, ResourceExt};
use shortener_crds::ShortenerCluster;
use shortener_crds::cluster::LivePod;
use shortener_crds::ids::allocate::PodUid;
use shortener_crds::lease::CLUSTER_LABEL;

use crate::ambient;
use crate::kinds::{Kind, shortener_clusters};
use crate::plan::allocate::node_leases;
use crate::plan::validate::validate;
use crate::plan::{Defaults, Observed, Owned};
use crate::scaling::{Scaling, warm};
use crate::settled::Settled;
pub use watches::{Scope, Trigger, WatchedCluster, Watches};

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// The resource.
    #[error("cannot read the ShortenerCluster {namespace}/{name}")]
    Resource {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Why not.
        #[source]
        source: kube::Error,
    },
    /// A Secret.
    #[error("cannot read the metadata of the Secret {namespace}/{name}")]
    Secret {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Why not.
        #[source]
        source: kube::Error,
    },
}

/// The resource as it is now, whatever it says; none when it is gone.
pub async fn resource(client: &Client, namespace: &str, name: &str) -> Result<Option<DynamicObject>, ObserveError> {
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &shortener_clusters());
    let failed = |source| ObserveError::Resource { namespace: namespace.to_owned(), name: name.to_owned(), source };
    api.get_opt(name).await.map_err(failed)
}

/// A resource as this release understands it; else the field that it does not understand, and why.
pub fn read(object: &DynamicObject) -> Result<ShortenerCluster, String> {
    let object = serde_json::to_value(object).map_err(|error| error.to_string())?;
    serde_path_to_error::deserialize(object).map_err(|error| format!("{}: {}", error.path(), error.inner()))
}

/// Everything else that a plan needs to know.
pub async fn observe(
    client: &Client,
    watches: &Watches,
    settled: &Settled,
    scaling: &Scaling,
    defaults: &Defaults,
    resource: &ShortenerCluster,
) -> Result<Observed, ObserveError> {
    let (namespace, name) = (resource.namespace().unwrap_or_default(), resource.name_any());
    let pods = watches.pods().state();
    let of_cluster = || pods.iter().filter(|pod| belongs(&***pod, &namespace, &name));
    let readable = || of_cluster().filter_map(|pod| pod.0.as_ref().ok());
    let warm = resource
        .spec
        .autoscaling
        .as_ref()
        .map_or(0, |autoscaling| warm(readable(), autoscaling, &ambient::now()).len());
    let pods: BTreeMap<_, _> = of_cluster().filter_map(|pod| live_pod(pod)).collect();
    let leases: Vec<_> = watches
        .leases()
        .state()
        .iter()
        .filter_map(|lease| lease.0.as_ref().ok())
        .filter(|lease| belongs(*lease, &namespace, &name))
        .cloned()
        .collect();
    let owned = watches.owned();
    let kinds: BTreeSet<Kind> = owned.keys().copied().collect();
    let owned = owned.iter().flat_map(|(kind, store)| {
        let objects = store.state().into_iter().filter(|object| belongs(&**object, &namespace, &name));
        objects.map(|object| Owned { kind: *kind, is_settled: settled.is(*kind, &object), object: (*object).clone() })
    });
    let owned: Vec<_> = owned.collect();
    Ok(Observed {
        owned,
        leases: node_leases(&leases, &pods),
        pods,
        secret_versions: secret_versions(client, resource, &namespace).await?,
        kinds,
        load: scaling.seen(&namespace, &name, warm),
        defaults: defaults.clone(),
    })
}

/// Whether an object is of this cluster, by its label.
pub fn belongs(object: &impl ResourceExt, namespace: &str, cluster: &str) -> bool {
    let labelled = object.labels().get(CLUSTER_LABEL);
    object.namespace().as_deref() == Some(namespace) && labelled.is_some_and(|name| name == cluster)
}

/// A pod that cannot be read is alive all the same: what it was granted is not free.
fn live_pod(pod: &DeserializeGuard<Pod>) -> Option<(PodUid, LivePod)> {
    let status = pod.0.as_ref().ok().and_then(|pod| pod.status.as_ref());
    let ip = status.and_then(|status| status.pod_ip.as_ref()).and_then(|ip| ip.parse::<IpAddr>().ok());
    let phase = status.and_then(|status| status.phase.as_deref());
    let has_ended = matches!(phase, Some("Succeeded" | "Failed"));
    let created_at = pod.creation_timestamp().map(|time| time.0);
    Some((PodUid(pod.uid()?), LivePod { name: pod.name_any(), ip, created_at, has_ended }))
}

/// The versions of the Secrets that exist, of those that the resource uses. Their contents are not read.
async fn secret_versions(
    client: &Client,
    resource: &ShortenerCluster,
    namespace: &str,
) -> Result<BTreeMap<String, String>, ObserveError> {
    // Of a resource that makes no sense nothing is built.
    let Ok(cluster) = validate(resource) else { return Ok(BTreeMap::new()) };
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let mut versions = BTreeMap::new();
    for name in cluster.secrets() {
        let found: Result<Option<PartialObjectMeta<Secret>>, _> = api.get_metadata_opt(&name).await;
        let failed = |source| ObserveError::Secret { namespace: namespace.to_owned(), name: name.clone(), source };
        if let Some(secret) = found.map_err(failed)? {
            versions.insert(name, secret.meta().resource_version.clone().unwrap_or_default());
        }
    }
    Ok(versions)
}
