//! What the operator answers: the status of a `ShortenerCluster`, with the ledger of all that was granted.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::ids::allocate::{Entry, Ledger, PodUid};
use crate::ids::{CodeLength, IdRange, KeyspaceId, WorkerId};

/// What the operator has seen and done.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = schemars::transform::RecursiveTransform(super::bounds::bound_integers))]
pub struct ShortenerClusterStatus {
    /// The generation of the resource that this answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How many nodes are wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// How many nodes are ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,
    /// Which pods are its nodes, as a label selector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// What short URLs begin with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The image of the nodes. Where the spec names none, the one that was the operator's own when the resource was first seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// How it is, by type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// What the autoscaler saw, and why it decided as it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<AutoscalingStatus>,
    /// Who was granted what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocation: Option<AllocationStatus>,
}

/// What the autoscaler saw when it last decided.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AutoscalingStatus {
    /// Latency at the target's percentile, rounded, such as `42ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<String>,
    /// Of the time of redirects, the share that nodes spent themselves, in percent; the rest was cache and store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_percent: Option<i32>,
    /// How busy the nodes were, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub utilization_percent: Option<i32>,
    /// How many nodes that asks for, before limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted_replicas: Option<i32>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The ledger of IDs: what was granted, and where granting goes on. Written by compare-and-swap, and before anything is delivered.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AllocationStatus {
    /// Identity of the keyspace that these blocks are of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9a-f]{32}$"), length(max = 32))]
    pub keyspace_id: Option<String>,
    /// The lowest block that was never granted.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub next_block: i64,
    /// How many blocks are left, of 65,536 codes each.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub blocks_remaining: i64,
    /// Characters in a code. Never changes.
    #[schemars(range(min = 6, max = 10))]
    pub code_length: i32,
    /// Where the search for a free worker ID goes on.
    #[serde(default)]
    #[schemars(range(min = 0, max = 4095))]
    pub next_worker: i32,
    /// What the newest process of each live pod was granted.
    #[serde(default)]
    #[schemars(length(max = 2048), extend("x-kubernetes-list-type" = "atomic"))]
    pub grants: Vec<GrantStatus>,
}

/// What one process was granted.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct GrantStatus {
    /// Its pod.
    pub pod: String,
    /// The pod's UID.
    pub pod_uid: String,
    /// The pod's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// The process: 128 random bits, drawn when it started.
    #[schemars(regex(pattern = r"^[0-9a-f]{32}$"), length(max = 32))]
    pub boot_id: String,
    /// Its Snowflake worker ID.
    #[schemars(range(min = 0, max = 4095))]
    pub worker_id: i32,
    /// First block of its newest run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub first_block: Option<i64>,
    /// Length of that run, in blocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16))]
    pub blocks: Option<i32>,
    /// How many blocks it was granted in all.
    #[schemars(range(min = 0))]
    pub granted: i64,
}

/// A live pod of a cluster, as the list of grants names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LivePod {
    /// Its name.
    pub name: String,
    /// Its address, once it has one.
    pub ip: Option<IpAddr>,
    /// When it was made.
    pub created_at: Option<Timestamp>,
    /// Whether nothing of it runs any more.
    pub has_ended: bool,
}

impl AllocationStatus {
    /// The status that says what the ledger says. Entries of pods that are not `live` are left out.
    pub fn of(ledger: &Ledger, keyspace: Option<KeyspaceId>, live: &BTreeMap<PodUid, LivePod>) -> Self {
        let Ledger { code_length, next_block, next_worker, entries } = ledger;
        let grants = entries.iter().filter_map(|(uid, entry)| Some(GrantStatus::of(uid, live.get(uid)?, entry)));
        Self {
            keyspace_id: keyspace.map(|keyspace| keyspace.to_string()),
            next_block: signed(*next_block),
            blocks_remaining: signed(code_length.blocks().saturating_sub(*next_block)),
            code_length: i32::from(u8::from(*code_length)),
            next_worker: i32::from(next_worker.get()),
            grants: grants.collect(),
        }
    }

    /// The ledger that this says, for codes of `code_length`.
    ///
    /// A status may have been edited or lost. What makes no sense in it is left out, which is safe: who has no entry is granted
    /// anew, the claims in the store keep blocks apart that were granted before, and the nodes' reports raise the next block.
    pub fn ledger(&self, code_length: CodeLength) -> Ledger {
        let is_ours = self.code_length == i32::from(u8::from(code_length));
        let grants = self.grants.iter().filter(|_| is_ours);
        Ledger {
            code_length,
            next_block: if is_ours { u64::try_from(self.next_block).unwrap_or_default() } else { 0 },
            next_worker: worker(self.next_worker).unwrap_or_default(),
            entries: grants.filter_map(|grant| grant.entry(code_length)).collect(),
        }
    }

    /// The recorded keyspace.
    pub fn keyspace(&self) -> Option<KeyspaceId> {
        self.keyspace_id.as_ref()?.parse().ok()
    }
}

impl GrantStatus {
    fn of(uid: &PodUid, pod: &LivePod, entry: &Entry) -> Self {
        let Entry { boot_id, worker, run, granted } = entry;
        Self {
            pod: pod.name.clone(),
            pod_uid: uid.0.clone(),
            ip: pod.ip.map(|ip| ip.to_string()),
            boot_id: boot_id.to_string(),
            worker_id: i32::from(worker.get()),
            first_block: run.map(|run| signed(run.first_block())),
            blocks: run.and_then(|run| i32::try_from(run.len_blocks()).ok()),
            granted: signed(*granted),
        }
    }

    fn entry(&self, code_length: CodeLength) -> Option<(PodUid, Entry)> {
        let run = match (self.first_block, self.blocks) {
            (Some(first), Some(blocks)) => {
                Some(IdRange::new(code_length, u64::try_from(first).ok()?, u32::try_from(blocks).ok()?).ok()?)
            }
            _ => None,
        };
        let entry = Entry {
            boot_id: self.boot_id.parse().ok()?,
            worker: worker(self.worker_id)?,
            run,
            granted: u64::try_from(self.granted).ok()?,
        };
        Some((PodUid(self.pod_uid.clone()), entry))
    }
}

fn worker(number: i32) -> Option<WorkerId> {
    u16::try_from(number).ok().and_then(|number| WorkerId::try_from(number).ok())
}

/// Blocks are far fewer than 2^63.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::BootId;

    fn ledger() -> (Ledger, BTreeMap<PodUid, LivePod>) {
        let mut ledger = Ledger { next_block: 7, ..Ledger::new(CodeLength::DEFAULT) };
        let run = IdRange::new(CodeLength::DEFAULT, 5, 2).ok();
        let entry = Entry { boot_id: BootId(9), worker: WorkerId::default().following(), run, granted: 2 };
        ledger.entries.insert(PodUid("a".into()), entry.clone());
        ledger.entries.insert(PodUid("b".into()), Entry { run: None, granted: 0, ..entry });
        let pod = |name: &str| LivePod {
            name: name.into(),
            ip: Some(IpAddr::from([10, 0, 0, 1])),
            created_at: None,
            has_ended: false,
        };
        let live = BTreeMap::from([(PodUid("a".into()), pod("main-a")), (PodUid("b".into()), pod("main-b"))]);
        (ledger, live)
    }

    #[test]
    fn a_ledger_reads_back_from_the_status_that_says_it() {
        let (ledger, live) = ledger();
        let status = AllocationStatus::of(&ledger, Some(KeyspaceId(3)), &live);
        assert_eq!(status.ledger(CodeLength::DEFAULT), ledger);
        assert_eq!(status.keyspace(), Some(KeyspaceId(3)));
        assert_eq!((status.next_block, status.blocks_remaining), (7, signed(CodeLength::DEFAULT.blocks()) - 7));
        let json = serde_json::to_value(&status).expect("JSON");
        assert_eq!(serde_json::from_value::<AllocationStatus>(json).expect("a status"), status);
    }

    #[test]
    fn what_makes_no_sense_in_an_edited_status_is_left_out() {
        let (ledger, live) = ledger();
        let whole = AllocationStatus::of(&ledger, None, &live);
        let edited: [fn(&mut AllocationStatus); 5] = [
            |status| status.grants[0].boot_id = "me".into(),
            |status| status.grants[0].worker_id = 4096,
            |status| status.grants[0].first_block = Some(-1),
            |status| status.grants[0].granted = -1,
            |status| status.grants[0].blocks = Some(0),
        ];
        for edit in edited {
            let mut status = whole.clone();
            edit(&mut status);
            let read = status.ledger(CodeLength::DEFAULT);
            assert_eq!((read.entries.len(), read.next_block), (1, 7));
        }
        let negative = AllocationStatus { next_block: -4, ..whole.clone() };
        assert_eq!(negative.ledger(CodeLength::DEFAULT).next_block, 0);
        let other_length = whole.ledger(CodeLength::try_from(8).expect("a length"));
        assert!(other_length.entries.is_empty() && other_length.next_block == 0, "blocks of another length are others");
    }

    #[test]
    fn the_status_stays_within_its_size() {
        let mut ledger = Ledger::new(CodeLength::try_from(10).expect("a length"));
        let mut live = BTreeMap::new();
        for pod in 0..2_000_u128 {
            let uid = PodUid(format!("{pod:08x}-0000-4000-8000-000000000000"));
            let run = IdRange::new(ledger.code_length, 12_000_000_000_000, 16).ok();
            let worker = WorkerId::try_from(4095).expect("a worker ID");
            ledger.entries.insert(uid.clone(), Entry { boot_id: BootId(pod), worker, run, granted: 10_000_000 });
            let ip = Some(IpAddr::from([0xfd00, 0, 0, 0, 0xffff, 0xffff, 0xffff, 0xffff]));
            let name = format!("{}-7c9d8b6f5d-{pod:05x}", "n".repeat(30));
            live.insert(uid, LivePod { name, ip, created_at: None, has_ended: false });
        }
        let bytes = serde_json::to_vec(&AllocationStatus::of(&ledger, Some(KeyspaceId(1)), &live)).expect("JSON").len();
        assert!(bytes < 64 * 1024 + 300 * 2_000, "{bytes} bytes");
    }
}
