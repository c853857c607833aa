//! The node's own Lease on the API server: what the node asks of the operator, and what it is granted (`ALLOCATION=lease`).
//!
//! Both are levels ([`shortener_crds::lease`]): the Lease is read, brought to what the node has to say, and watched; whatever goes wrong,
//! it is begun anew. It is written only when the node has something else to say, when it is new or was deleted, or when an earlier boot
//! of the pod left it. Nothing else of the node waits for the API server: while it is away or hangs, minting goes on from what is held.

mod written;

use std::net::IpAddr;
use std::pin::pin;
use std::time::Duration;

use futures::TryStreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::{Api, Client, Config};
use shortener_crds::causes::Causes;
use shortener_crds::ids::allocate::PodUid;
use shortener_crds::lease::{Grant, Report, ReportedFormats};
use tokio_util::sync::CancellationToken;

use crate::ambient::{Clock, random};
use crate::cache::redis_cluster::RedisCluster;
use crate::kv::Kv;
use crate::minter::Minter;
use crate::store::format::{Format, Formats};
use written::{is_written, lease_of};

/// How long the API server may take to answer a request. Its own limit is a minute: a client that waits so long is not waiting but hung.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How long one watch lasts, in seconds: each new one begins with a read, which finds whatever a watch has missed.
const WATCH_S: u32 = 60;
/// The resource version that a watch begins with: none, so that it begins with the Lease as it is. The version of a Lease that seldom
/// changes is soon older than what the API server remembers, and a watch from there is refused with 410.
const FROM_NOW: &str = "";
/// When a watch that the server has not ended is taken for one on a dead connection.
const WATCH_ENDS_WITHIN: Duration = Duration::from_secs(70);
const _: () = assert!(WATCH_ENDS_WITHIN.as_secs() > WATCH_S as u64);
/// How often it is looked whether store and cache have become or ceased to be reachable: a flapping one must not be a storm of writes.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The pause between two watches, and after a first failure; half of it is random.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest pause. A thousand nodes then knock 100 times a second at a server that comes back.
const PAUSE_MAX: Duration = Duration::from_secs(16);
/// Who writes, as the Lease's managed fields show it.
const FIELD_MANAGER: &str = "shortener-node";

/// Where the node runs, and so which Lease is its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseSettings {
    /// The `ShortenerCluster`.
    pub cluster: String,
    /// The namespace of all of them.
    pub namespace: String,
    /// The pod; the Lease has its name.
    pub pod: String,
    /// What tells that pod from others of its name.
    pub pod_uid: PodUid,
    /// The pod's address.
    pub pod_ip: IpAddr,
}

/// Why the Lease could not be read, written or watched.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// There is no way to the API server.
    #[error("ALLOCATION: lease finds neither a service account nor a KUBECONFIG")]
    Unconfigured(#[source] kube::config::InferConfigError),
    /// The API server refused, or could not be reached.
    #[error("the API server refused or failed")]
    Api(#[from] kube::Error),
    /// The API server hangs, or the connection is dead.
    #[error("the API server does not answer")]
    Silent,
    /// A report could not be written as JSON: never, by construction.
    #[error("cannot write the report")]
    Report(#[from] serde_json::Error),
}

/// The Lease, and all that its report tells of.
#[derive(Clone)]
pub struct OwnLease {
    api: Api<Lease>,
    settings: LeaseSettings,
    minter: Minter,
    kv: Kv,
    redis: Option<RedisCluster>,
    formats: Formats,
    clock: Clock,
}

/// The Lease as it was seen last, and what was said in it since.
struct Seen {
    lease: Option<Lease>,
    /// The report of the last write. Until the watch shows it, nothing is gained by writing it again.
    written: Option<Report>,
}

impl OwnLease {
    /// The Lease of the pod that `settings` name. Reads files, and asks nobody.
    pub async fn new(
        settings: LeaseSettings,
        minter: Minter,
        kv: Kv,
        redis: Option<RedisCluster>,
        formats: Formats,
        clock: Clock,
    ) -> Result<Self, LeaseError> {
        let mut config = Config::infer().await.map_err(LeaseError::Unconfigured)?;
        config.connect_timeout = Some(ANSWER_WITHIN);
        config.write_timeout = Some(ANSWER_WITHIN);
        // Failures are seen here, and answered by beginning anew.
        config.default_retry = false;
        let api = Api::namespaced(Client::try_from(config)?, &settings.namespace);
        Ok(Self { api, settings, minter, kv, redis, formats, clock })
    }

    /// Keeps the Lease until `shutdown`.
    pub async fn keep(self, shutdown: CancellationToken) {
        let mut failures = 0;
        loop {
            let pause = async {
                if let Err(error) = self.follow(&mut failures).await {
                    let LeaseSettings { namespace, pod, .. } = &self.settings;
                    let error = Causes(&error);
                    tracing::warn!(%error, "no word with the operator through Lease {namespace}/{pod}; trying again");
                    failures += 1;
                }
                tokio::time::sleep(pause(failures, random())).await;
            };
            tokio::select! {
                () = pause => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// Reads the Lease, brings it to what there is to say, and keeps it there while a watch on it lasts.
    async fn follow(&self, failures: &mut u32) -> Result<(), LeaseError> {
        let mut asks = self.minter.asks();
        let lease = in_time(self.api.get_opt(&self.settings.pod)).await?;
        let mut seen = Seen { lease, written: None };
        self.deliver(&seen);
        asks.mark_unchanged();
        self.say(&mut seen).await?;
        let params = WatchParams::default().fields(&format!("metadata.name={}", self.settings.pod)).timeout(WATCH_S);
        let mut events = pin!(in_time(self.api.watch(&params, FROM_NOW)).await?);
        *failures = 0;
        let mut is_dead = pin!(tokio::time::sleep(WATCH_ENDS_WITHIN));
        let mut looks = tokio::time::interval(LOOK_EVERY);
        loop {
            tokio::select! {
                event = events.try_next() => match event? {
                    Some(WatchEvent::Added(lease) | WatchEvent::Modified(lease)) => {
                        seen.lease = Some(lease);
                        self.deliver(&seen);
                    }
                    Some(WatchEvent::Deleted(_)) => seen = Seen { lease: None, written: None },
                    Some(WatchEvent::Bookmark(_)) => {}
                    Some(WatchEvent::Error(status)) => return Err(kube::Error::Api(status).into()),
                    None => return Ok(()),
                },
                // The minter lives as long as this: that it ends is not seen here.
                _ = asks.changed() => {}
                _ = looks.tick() => {}
                () = &mut is_dead => return Err(LeaseError::Silent),
            }
            self.say(&mut seen).await?;
        }
    }

    /// Brings what was granted to the minter.
    fn deliver(&self, Seen { lease, .. }: &Seen) {
        let Some(annotations) = lease.as_ref().and_then(|lease| lease.metadata.annotations.as_ref()) else { return };
        let delivered = match Grant::read(annotations) {
            Ok(Some(grant)) => {
                // Grants to an earlier boot of the pod may name a format that an earlier program was to raise to.
                let format = grant.format.filter(|_| grant.boot_id == self.minter.boot_id());
                if let Some(format) = format.and_then(Format::of_number) {
                    self.formats.want(format);
                }
                self.minter.deliver(grant.into()).map_err(|error| error.to_string())
            }
            Ok(None) => Ok(()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = delivered {
            tracing::warn!(error, "nothing can be made of what the operator has granted");
        }
    }

    /// Writes the Lease if it does not say what there is to say.
    async fn say(&self, seen: &mut Seen) -> Result<(), LeaseError> {
        let report = self.report();
        if seen.lease.is_some() && seen.written.as_ref() == Some(&report) {
            return Ok(());
        }
        let lease = lease_of(&self.settings, &report, self.clock.now())?;
        match &seen.lease {
            None => seen.lease = Some(in_time(self.api.create(&post_params(), &lease)).await?),
            Some(found) if is_written(found, &lease) => {}
            Some(_) => {
                let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
                in_time(self.api.patch(&self.settings.pod, &params, &Patch::Merge(&lease))).await?;
            }
        }
        seen.written = Some(report);
        Ok(())
    }

    fn report(&self) -> Report {
        let asks = *self.minter.asks().borrow();
        Report {
            boot_id: self.minter.boot_id(),
            pod: self.settings.pod.clone(),
            pod_uid: self.settings.pod_uid.clone(),
            pod_ip: Some(self.settings.pod_ip),
            wanted: asks.wanted,
            mark: asks.mark,
            keyspace: asks.keyspace,
            refused_worker: asks.refused_worker,
            store_reachable: self.kv.condition().is_none_or(|condition| condition.is_up),
            formats: Some(ReportedFormats {
                newest: self.formats.newest().number(),
                written: self.formats.written().number(),
            }),
            cache_reachable: self.redis.as_ref().map(|redis| redis.condition().is_up),
        }
    }
}

fn post_params() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() }
}

async fn in_time<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, LeaseError> {
    Ok(tokio::time::timeout(ANSWER_WITHIN, request).await.map_err(|_| LeaseError::Silent)??)
}

/// The pause after so many failures in a row: it doubles, and half of it is random, so that nodes which failed together do not come back
/// together.
fn pause(failures: u32, random: [u8; 2]) -> Duration {
    let whole =
        PAUSE_MIN.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX)).min(PAUSE_MAX);
    let half = whole / 2;
    half + half * u32::from(u16::from_be_bytes(random)) / u32::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound_and_half_of_each_is_random() {
        for (failures, whole_s) in [(0, 1), (1, 1), (2, 2), (3, 4), (5, 16), (6, 16), (200, 16)] {
            let whole = Duration::from_secs(whole_s);
            assert_eq!((pause(failures, [0, 0]), pause(failures, [255, 255])), (whole / 2, whole), "{failures}");
        }
    }
}
