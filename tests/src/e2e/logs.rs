//! What nodes and operators log, followed while they run: the pods that a scenario replaces are gone, with all they logged, when it has failed.
use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use futures::io::{AllowStdIo, copy_buf};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, LogParams};
use kube::{Client, ResourceExt};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::interval;

use super::empty_folder;
use super::world::{NAMESPACE, OF_PRODUCT, OPERATOR_NAMESPACE};

/// Pods live longer: they stop for some seconds.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Follows until it is dropped.
#[derive(Debug)]
pub struct Logs {
    folder: PathBuf,
    following: JoinHandle<()>,
}

impl Logs {
    /// Begins, without what an earlier run kept.
    pub fn follow(client: Client) -> Result<Self> {
        let folder = empty_folder("logs")?;
        let following = tokio::spawn(follow(client, folder.clone()));
        Ok(Self { folder, following })
    }

    /// Where they are so far, a file for each run of a container.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        self.following.abort();
    }
}

/// A container of a pod, from its start to its end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Run {
    namespace: String,
    pod: String,
    container: String,
    restarts: i32,
}

async fn follow(client: Client, folder: PathBuf) {
    let (mut followed, mut streams) = (BTreeSet::new(), JoinSet::new());
    let mut tick = interval(LOOK_EVERY);
    loop {
        tick.tick().await;
        // One that broke off, such as with the API server, is followed again from its beginning.
        while let Some(ended) = streams.try_join_next() {
            followed.retain(|run| ended.as_ref().ok() != Some(run));
        }
        for namespace in [NAMESPACE, OPERATOR_NAMESPACE] {
            let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
            // Not now is at the next look.
            let Ok(found) = pods.list(&ListParams::default().labels(OF_PRODUCT)).await else { continue };
            for run in found.items.iter().flat_map(running) {
                if followed.insert(run.clone()) {
                    let (pods, folder) = (pods.clone(), folder.clone());
                    streams.spawn(async move {
                        // What has been written stays.
                        let _ = stream(&pods, &run, &folder).await;
                        run
                    });
                }
            }
        }
    }
}

fn running(pod: &Pod) -> Vec<Run> {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let run = |name: &str, restarts| Run {
        namespace: pod.namespace().unwrap_or_default(),
        pod: pod.name_any(),
        container: name.to_owned(),
        restarts,
    };
    statuses
        .filter(|container| container.state.as_ref().is_some_and(|state| state.running.is_some()))
        .map(|container| run(&container.name, container.restart_count))
        .collect()
}

async fn stream(pods: &Api<Pod>, run: &Run, folder: &Path) -> Result<()> {
    let Run { namespace, pod, container, restarts } = run;
    let all = LogParams { follow: true, container: Some(container.clone()), ..LogParams::default() };
    let log = pods.log_stream(pod, &all).await.context("following a log")?;
    let path = folder.join(format!("{namespace}_{pod}_{container}_{restarts}.log"));
    let mut file = AllowStdIo::new(File::create(path).context("making a log file")?);
    copy_buf(log, &mut file).await.context("following a log")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_that_was_started_again_is_another_run_and_one_that_waits_is_none() {
        let pod = |statuses: serde_json::Value| -> Pod {
            serde_json::from_value(serde_json::json!({
                "metadata": {"name": "main-0", "namespace": "links"},
                "status": {"containerStatuses": statuses},
            }))
            .unwrap()
        };
        let status = |restarts: i32, state: &str| {
            serde_json::json!([{
                "name": "node", "restartCount": restarts, "image": "", "imageID": "", "ready": true, "state": {state: {}},
            }])
        };
        let [first] = running(&pod(status(0, "running"))).try_into().unwrap();
        let [second] = running(&pod(status(1, "running"))).try_into().unwrap();
        assert_ne!(first, second);
        assert_eq!(
            (first.namespace.as_str(), first.pod.as_str(), first.container.as_str()),
            ("links", "main-0", "node")
        );
        assert!(running(&pod(status(1, "waiting"))).is_empty());
    }
}
