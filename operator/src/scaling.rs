//! The autoscaler's clockwork: has Prometheus asked for each cluster that the operator sizes, as often as its spec says, keeps the last
//! answer and the last decision, and has the cluster visited. A visit never waits for Prometheus: who waits for IDs must not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{ObjectRef, Store};
use shortener_crds::ShortenerCluster;
use shortener_crds::cluster::{Autoscaling, AutoscalingMode};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::ambient;
use crate::measure::{Measurements, Nodes};
use crate::observe::{Trigger, WatchedCluster, belongs};
use crate::plan::autoscale::{Decided, Measured, Seen};

/// How often it is looked whose turn it is.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Questions at once.
const ASKED_AT_ONCE: usize = 8;

/// Namespace and name.
type Key = (String, String);

/// Measurements and decisions of all clusters.
#[derive(Debug)]
pub struct Scaling {
    measurements: Measurements,
    /// All times are since then.
    began: Instant,
    clusters: Mutex<BTreeMap<Key, OfCluster>>,
}

#[derive(Debug, Default)]
struct OfCluster {
    asked: Option<Duration>,
    is_asking: bool,
    measured: Option<Measured>,
    decided: Option<Decided>,
}

impl Scaling {
    /// Nothing is measured yet.
    pub fn new() -> Result<Self, reqwest::Error> {
        let clusters = Mutex::new(BTreeMap::new());
        Ok(Self { measurements: Measurements::new()?, began: ambient::monotonic(), clusters })
    }

    /// What is known of a cluster's load, for a plan.
    pub fn seen(&self, namespace: &str, name: &str, warm: usize) -> Seen {
        let clusters = self.clusters();
        let of_cluster = clusters.get(&(namespace.to_owned(), name.to_owned()));
        Seen {
            now: self.now(),
            warm: i32::try_from(warm).unwrap_or(i32::MAX),
            measured: of_cluster.and_then(|cluster| cluster.measured.clone()),
            decided: of_cluster.and_then(|cluster| cluster.decided.clone()),
        }
    }

    /// Keeps a decision that was carried out.
    pub fn decided(&self, namespace: &str, name: &str, decided: Decided) {
        if let Some(of_cluster) = self.clusters().get_mut(&(namespace.to_owned(), name.to_owned())) {
            of_cluster.decided = Some(decided);
        }
    }

    /// Measures until `shutdown`, while this operator leads.
    pub async fn keep(
        self: Arc<Self>,
        clusters: Store<WatchedCluster>,
        pods: Store<DeserializeGuard<Pod>>,
        visits: mpsc::Sender<Trigger>,
        leads: watch::Receiver<bool>,
        shutdown: CancellationToken,
    ) {
        let (mut asking, turns) = (JoinSet::new(), Arc::new(Semaphore::new(ASKED_AT_ONCE)));
        while shutdown.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
            while asking.try_join_next().is_some() {}
            if !*leads.borrow() {
                // Somebody else decides meanwhile: what was known is not what is.
                self.clusters().clear();
                continue;
            }
            for watched in self.due(&clusters.state()) {
                let (this, pods, visits, turns) = (self.clone(), pods.clone(), visits.clone(), turns.clone());
                asking.spawn(async move {
                    // It is never closed.
                    let _turn = turns.acquire().await;
                    this.measure(&watched, &pods).await;
                    // Nobody visits any more when that fails.
                    let _ = visits.send(ObjectRef::from_obj(&*watched)).await;
                });
            }
        }
    }

    /// The clusters whose turn it is; those that are gone, or are sized by somebody else, are forgotten.
    fn due(&self, clusters: &[Arc<WatchedCluster>]) -> Vec<Arc<WatchedCluster>> {
        let (now, mut known) = (self.now(), self.clusters());
        let ours = clusters.iter().filter(|cluster| builtin(cluster).is_some());
        let there: BTreeSet<Key> = ours.map(|cluster| key(cluster)).collect();
        known.retain(|key, _| there.contains(key));
        let is_due = |cluster: &&Arc<WatchedCluster>| {
            let Some(prometheus) = builtin(cluster).and_then(|(_, autoscaling)| autoscaling.prometheus.as_ref()) else {
                return false;
            };
            let interval = Duration::from_secs(u64::try_from(prometheus.query_interval_seconds).unwrap_or_default());
            let of_cluster = known.entry(key(cluster)).or_default();
            // One that is slow to answer is not asked again meanwhile: questions would pile up, and other clusters wait behind them.
            let is_due =
                !of_cluster.is_asking && of_cluster.asked.is_none_or(|asked| now.saturating_sub(asked) >= interval);
            if is_due {
                (of_cluster.asked, of_cluster.is_asking) = (Some(now), true);
            }
            is_due
        };
        clusters.iter().filter(is_due).cloned().collect()
    }

    async fn measure(&self, watched: &WatchedCluster, pods: &Store<DeserializeGuard<Pod>>) {
        let Some((cluster, autoscaling)) = builtin(watched) else { return };
        let (namespace, name) = key(watched);
        let of_cluster = pods.state();
        let of_cluster =
            of_cluster.iter().filter_map(|pod| pod.0.as_ref().ok()).filter(|pod| belongs(*pod, &namespace, &name));
        let pods = warm(of_cluster, autoscaling, &ambient::now());
        let scraped_every = cluster.spec.monitoring.clone().unwrap_or_default().interval_seconds;
        let nodes = Nodes { namespace: &namespace, pods: &pods, scraped_every };
        let sample = self.measurements.sample(autoscaling, nodes).await;
        if let Err(unavailable) = &sample {
            tracing::debug!(namespace, name, why = unavailable.0, "no measurement");
        }
        let measured = Some(Measured { at: self.now(), sample });
        // One that was forgotten meanwhile is not known again because of an old answer.
        if let Some(of_cluster) = self.clusters().get_mut(&(namespace, name)) {
            (of_cluster.measured, of_cluster.is_asking) = (measured, false);
        }
    }

    fn now(&self) -> Duration {
        ambient::monotonic().saturating_duration_since(self.began)
    }

    fn clusters(&self) -> MutexGuard<'_, BTreeMap<Key, OfCluster>> {
        self.clusters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(cluster: &WatchedCluster) -> Key {
    (cluster.namespace().unwrap_or_default(), cluster.name_any())
}

/// A cluster that the operator is to size, and how.
fn builtin(watched: &WatchedCluster) -> Option<(&ShortenerCluster, &Autoscaling)> {
    let cluster = watched.0.as_ref().ok()?;
    let autoscaling = cluster.spec.autoscaling.as_ref()?;
    (autoscaling.mode == AutoscalingMode::Builtin).then_some((cluster, autoscaling))
}

/// The names of the pods that have been ready for as long as warming up takes, and are to stay.
pub fn warm<'a>(pods: impl Iterator<Item = &'a Pod>, autoscaling: &Autoscaling, now: &Time) -> Vec<String> {
    let ready_before = now.0.as_second() - i64::from(autoscaling.warm_up_seconds);
    let is_warm = |pod: &&Pod| {
        let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
        let ready = conditions.and_then(|all| all.iter().find(|condition| condition.type_ == "Ready"));
        let since = ready.filter(|ready| ready.status == "True").and_then(|ready| ready.last_transition_time.as_ref());
        pod.metadata.deletion_timestamp.is_none() && since.is_some_and(|since| since.0.as_second() <= ready_before)
    };
    let mut names: Vec<_> = pods.filter(is_warm).map(ResourceExt::name_any).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_is_warm_once_it_has_been_ready_for_a_while_and_while_it_stays() {
        let pod = |name: &str, ready: &str, since: &str, deleted: Option<&str>| -> Pod {
            serde_json::from_value(json!({
                "metadata": {"name": name, "deletionTimestamp": deleted},
                "status": {"conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": since}]},
            }))
            .unwrap()
        };
        let (old, new) = ("2026-01-01T00:00:00Z", "2026-01-01T00:00:45Z");
        let pods = [
            pod("warm", "True", old, None),
            pod("new", "True", new, None),
            pod("broken", "False", old, None),
            pod("leaving", "True", old, Some(new)),
            Pod::default(),
        ];
        let autoscaling: Autoscaling = serde_json::from_value(json!({"maxReplicas": 9})).unwrap();
        let at = |text: &str| Time(text.parse::<Timestamp>().unwrap());
        assert_eq!(warm(pods.iter(), &autoscaling, &at("2026-01-01T00:01:00Z")), ["warm"]);
        assert_eq!(warm(pods.iter(), &autoscaling, &at("2026-01-01T00:01:15Z")), ["new", "warm"]);
    }
}
