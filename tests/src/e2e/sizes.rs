//! How many nodes there are to be, over time.
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::api::Api;
use shortener_crds::ShortenerCluster;
use shortener_node::ambient::Clock;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use crate::witness::second;

/// How many nodes the resource asks for, each second.
#[derive(Debug)]
pub struct Sizes {
    seen: Arc<Mutex<BTreeMap<i64, usize>>>,
    _watching: AbortOnDropHandle<()>,
}

impl Sizes {
    /// Begins to look.
    pub fn watch(clusters: Api<ShortenerCluster>, clock: Clock) -> Self {
        let seen = Arc::<Mutex<BTreeMap<i64, usize>>>::default();
        let writes = Arc::clone(&seen);
        let watching = tokio::spawn(async move {
            loop {
                let cluster = clusters.get("main").await.ok();
                let nodes =
                    cluster.and_then(|cluster| cluster.status?.replicas).and_then(|nodes| usize::try_from(nodes).ok());
                if let Some(nodes) = nodes {
                    writes.lock().unwrap_or_else(PoisonError::into_inner).insert(second(&clock), nodes);
                }
                sleep(Duration::from_secs(1)).await;
            }
        });
        Self { seen, _watching: AbortOnDropHandle::new(watching) }
    }

    /// What was seen, by the second since 1970.
    pub fn stop(self) -> BTreeMap<i64, usize> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// When there were how many nodes, in seconds from the beginning.
pub fn changes(sizes: &BTreeMap<i64, usize>) -> Vec<(i64, usize)> {
    let begin = sizes.keys().next().copied().unwrap_or_default();
    let mut changes: Vec<(i64, usize)> = sizes.iter().map(|(at, nodes)| (at - begin, *nodes)).collect();
    changes.dedup_by_key(|change| change.1);
    changes
}
