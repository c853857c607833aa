//! Leases and pods → the new ledger, and what is to be delivered once it is written. The rules are `shortener_crds::ids::allocate`.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt;
use shortener_crds::cluster::{AllocationStatus, GRANTS_MAX, LivePod};
use shortener_crds::conditions::{Reason, Verdict};
use shortener_crds::ids::allocate::{Allocation, ForeignKeyspace, Ledger, PodUid, allocate, keyspace};
use shortener_crds::lease::{Grant, Report};

use crate::plan::validate::ValidatedCluster;

/// A node's Lease, read.
#[derive(Clone, Debug)]
pub struct NodeLease {
    /// Its name, which is the pod's.
    pub name: String,
    /// The version that was read: what is delivered is delivered to this one, or not at all.
    pub resource_version: String,
    /// What the node says.
    pub report: Report,
    /// What the operator has delivered last.
    pub grant: Option<Grant>,
}

/// A grant for one Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The Lease.
    pub lease: String,
    /// The version it must still have.
    pub resource_version: String,
    /// What it is to say.
    pub grant: Grant,
}

/// What became of the ledger.
#[derive(Clone, Debug)]
pub struct Allocated {
    /// To be written, if it differs, before anything of it is delivered.
    pub status: AllocationStatus,
    /// What Leases do not say yet.
    pub deliveries: Vec<Delivery>,
    /// How it went.
    pub verdict: Verdict,
}

/// Reads the Leases of nodes. One that says nonsense, or is not of the pod that it is named after, asks for nothing.
pub fn node_leases(leases: &[Lease], pods: &BTreeMap<PodUid, LivePod>) -> Vec<NodeLease> {
    let read = |lease: &Lease| {
        let report = Report::read(lease.annotations()).ok()??;
        let pod = pods.get(&report.pod_uid)?;
        let is_of_its_pod = pod.name == lease.name_any() && report.pod == pod.name;
        let is_held = lease.spec.as_ref()?.holder_identity.as_deref() == Some(report.boot_id.to_string().as_str());
        (is_of_its_pod && is_held).then(|| NodeLease {
            name: lease.name_any(),
            resource_version: lease.resource_version().unwrap_or_default(),
            report,
            // What cannot be read is written again.
            grant: Grant::read(lease.annotations()).ok().flatten(),
        })
    };
    let mut read: Vec<_> = leases.iter().filter_map(read).collect();
    read.sort_by(|one, other| one.name.cmp(&other.name));
    read
}

/// Grants what is asked for, from the ledger in the status, and lets nodes raise the keyspace to `format` if there is one.
pub fn allocate_from(
    cluster: &ValidatedCluster,
    recorded: Option<&AllocationStatus>,
    leases: &[NodeLease],
    pods: &BTreeMap<PodUid, LivePod>,
    format: Option<u16>,
) -> Allocated {
    let old = recorded.map_or_else(|| Ledger::new(cluster.code_length), |status| status.ledger(cluster.code_length));
    let recorded_keyspace = recorded.and_then(AllocationStatus::keyspace);
    let reported = leases.iter().filter_map(|lease| lease.report.keyspace);
    let keyspace = match keyspace(recorded_keyspace, reported, cluster.adopt_keyspace) {
        Ok(keyspace) => keyspace,
        Err(foreign @ ForeignKeyspace { .. }) => {
            let status = AllocationStatus::of(&old, recorded_keyspace, pods);
            let verdict = Verdict::no(Reason::KeyspaceChanged, foreign.to_string());
            return Allocated { status, deliveries: Vec::new(), verdict };
        }
    };
    let live: BTreeSet<_> = pods.keys().cloned().collect();
    let known = old.entries.keys().filter(|pod| live.contains(*pod)).count();
    let mut room = GRANTS_MAX.saturating_sub(known);
    let mut left_out = 0_usize;
    let requests: Vec<_> = leases
        .iter()
        .filter_map(|lease| lease.report.request())
        .filter(|request| {
            let fits = old.entries.contains_key(&request.pod) || room > 0;
            if !old.entries.contains_key(&request.pod) {
                room = room.saturating_sub(1);
                left_out += usize::from(!fits);
            }
            fits
        })
        .collect();
    let allocation = allocate(&old, &requests, &live, cluster.floor_block);
    let verdict = verdict(&allocation, left_out);
    let status = AllocationStatus::of(&allocation.ledger, keyspace, pods);
    let deliveries = leases.iter().filter_map(|lease| delivery(&allocation.ledger, lease, format)).collect();
    Allocated { status, deliveries, verdict }
}

/// The Lease says what the ledger says, for the boot that holds it; else this does.
fn delivery(ledger: &Ledger, lease: &NodeLease, format: Option<u16>) -> Option<Delivery> {
    let entry = ledger.entries.get(&lease.report.pod_uid)?;
    // What a boot was told of formats it may keep: to take it back would only be one more write.
    let told = lease.grant.as_ref().filter(|grant| grant.boot_id == entry.boot_id).and_then(|grant| grant.format);
    let grant = Grant { format: format.max(told), ..Grant::from(entry) };
    let is_due = entry.boot_id == lease.report.boot_id && lease.grant.as_ref() != Some(&grant);
    is_due.then(|| Delivery { lease: lease.name.clone(), resource_version: lease.resource_version.clone(), grant })
}

fn verdict(allocation: &Allocation, left_out: usize) -> Verdict {
    let Allocation { ledger, refused_mark, out_of_blocks, out_of_workers } = allocation;
    if left_out > 0 {
        let message =
            format!("{left_out} pods get no IDs: at most {GRANTS_MAX} can hold some; lower the number of nodes");
        return Verdict::no(Reason::TooManyPods, message);
    }
    if let Some(mark) = refused_mark {
        let message = format!(
            "a node reports the mark {mark}, too far above the next block, {}, to be believed; if the status was lost, set \
             spec.ids.floorBlock to {mark}",
            ledger.next_block
        );
        return Verdict::no(Reason::MarkTooHigh, message);
    }
    if *out_of_blocks {
        let length = ledger.code_length;
        let message =
            format!("all codes of {length} characters are given out; make a cluster with a longer shortCodeLength");
        return Verdict::no(Reason::OutOfBlocks, message);
    }
    if *out_of_workers {
        return Verdict::no(Reason::OutOfWorkers, "every worker ID is held by a live pod; lower the number of nodes");
    }
    Verdict::yes(Reason::Granted, "every node that has asked was granted what it wants")
}

#[cfg(test)]
mod tests {
    use shortener_crds::ids::{BootId, IdRange, KeyspaceId, WorkerId};
    use shortener_crds::lease::REPORT_ANNOTATION;

    use super::*;
    use crate::plan::validate::tests::smallest;

    fn live(name: &str) -> LivePod {
        LivePod { name: name.into(), ip: None, created_at: None, has_ended: false }
    }

    fn pods(names: &[&str]) -> BTreeMap<PodUid, LivePod> {
        names.iter().map(|name| (PodUid(format!("uid-{name}")), live(name))).collect()
    }

    fn report(pod: &str, boot: u128, wanted: u64) -> Report {
        Report {
            boot_id: BootId(boot),
            pod: pod.into(),
            pod_uid: PodUid(format!("uid-{pod}")),
            pod_ip: None,
            wanted,
            mark: 0,
            keyspace: Some(KeyspaceId(1)),
            refused_worker: None,
            formats: None,
            store_reachable: true,
            cache_reachable: None,
        }
    }

    fn lease(report: Report) -> NodeLease {
        NodeLease { name: report.pod.clone(), resource_version: "1".into(), report, grant: None }
    }

    #[test]
    fn a_lease_that_is_not_of_its_pod_or_is_held_by_another_asks_for_nothing() {
        let written = |name: &str, holder: &str, report: &Report| {
            let json = serde_json::json!({
                "metadata": {"name": name, "annotations": {REPORT_ANNOTATION: serde_json::to_string(report).unwrap()}},
                "spec": {"holderIdentity": holder},
            });
            serde_json::from_value::<Lease>(json).unwrap()
        };
        let ours = report("main-a", 7, 1);
        let boot = ours.boot_id.to_string();
        let read = |lease: Lease| node_leases(&[lease], &pods(&["main-a", "main-b"])).len();
        assert_eq!(read(written("main-a", &boot, &ours)), 1);
        assert_eq!(read(written("main-b", &boot, &ours)), 0, "another pod's Lease");
        assert_eq!(read(written("main-a", "somebody", &ours)), 0, "held by another boot");
        assert_eq!(read(written("main-c", &boot, &report("main-c", 7, 1))), 0, "no such pod");
        let claims_another = Report { pod_uid: PodUid("uid-main-b".into()), ..ours };
        assert_eq!(read(written("main-a", &boot, &claims_another)), 0, "another pod's UID");
    }

    #[test]
    fn what_is_granted_is_delivered_until_the_lease_says_it() {
        let (cluster, pods) = (smallest(), pods(&["main-a"]));
        let mut asking = lease(report("main-a", 7, 2));
        let first = allocate_from(&cluster, None, std::slice::from_ref(&asking), &pods, None);
        let [delivery] = &first.deliveries[..] else { panic!("one delivery: {first:?}") };
        assert_eq!((delivery.grant.boot_id, delivery.grant.granted), (BootId(7), 2));
        assert_eq!((first.status.next_block, first.status.grants.len()), (2, 1));
        let again = allocate_from(&cluster, Some(&first.status), std::slice::from_ref(&asking), &pods, None);
        assert_eq!(
            (&again.status, &again.deliveries),
            (&first.status, &first.deliveries),
            "an operator restarted in between"
        );
        asking.grant = Some(delivery.grant.clone());
        let quiet = allocate_from(&cluster, Some(&first.status), &[asking], &pods, None);
        assert_eq!((quiet.status, quiet.deliveries), (first.status, Vec::new()));
    }

    #[test]
    fn a_foreign_keyspace_stops_every_grant_and_says_what_to_do() {
        let (cluster, pods) = (smallest(), pods(&["main-a", "main-b"]));
        let first = allocate_from(&cluster, None, &[lease(report("main-a", 7, 1))], &pods, None);
        let foreign = Report { keyspace: Some(KeyspaceId(2)), ..report("main-b", 8, 1) };
        let stopped = allocate_from(&cluster, Some(&first.status), &[lease(foreign.clone())], &pods, None);
        assert_eq!((stopped.status.next_block, stopped.deliveries.len()), (1, 0));
        assert_eq!(stopped.verdict.reason, Reason::KeyspaceChanged);
        assert!(stopped.verdict.message.contains("adoptKeyspace"), "{}", stopped.verdict.message);
        let adopting = ValidatedCluster { adopt_keyspace: Some(KeyspaceId(2)), ..cluster };
        let adopted = allocate_from(&adopting, Some(&first.status), &[lease(foreign)], &pods, None);
        assert_eq!((adopted.status.keyspace(), adopted.status.next_block), (Some(KeyspaceId(2)), 2));
    }

    #[test]
    fn beyond_the_list_of_grants_nobody_is_served_and_those_in_it_still_are() {
        let names: Vec<_> = (0..GRANTS_MAX + 3).map(|pod| format!("main-{pod:05}")).collect();
        let pods = pods(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let leases =
            |wanted| (0_u128..).zip(&names).map(|(boot, name)| lease(report(name, boot, wanted))).collect::<Vec<_>>();
        let cluster = smallest();
        let full = allocate_from(&cluster, None, &leases(1), &pods, None);
        assert_eq!((full.status.grants.len(), full.verdict.reason), (GRANTS_MAX, Reason::TooManyPods));
        let more = allocate_from(&cluster, Some(&full.status), &leases(2), &pods, None);
        assert_eq!(more.status.grants.iter().filter(|grant| grant.granted == 2).count(), GRANTS_MAX);
    }

    #[test]
    fn a_status_that_was_lost_is_repaired_from_what_nodes_report() {
        let (cluster, pods) = (smallest(), pods(&["main-a"]));
        let marked = |mark| lease(Report { mark, ..report("main-a", 7, 1) });
        let repaired = allocate_from(&cluster, None, &[marked(900)], &pods, None);
        assert_eq!(repaired.deliveries[0].grant.run.map(IdRange::first_block), Some(900));
        let refused = allocate_from(&cluster, None, &[marked(1 << 20)], &pods, None);
        assert_eq!(refused.verdict.reason, Reason::MarkTooHigh);
        assert!(refused.verdict.message.contains("floorBlock"));
        let by_hand = ValidatedCluster { floor_block: 1 << 20, ..cluster };
        let raised = allocate_from(&by_hand, None, &[marked(1 << 20)], &pods, None);
        assert_eq!(raised.deliveries[0].grant.run.map(IdRange::first_block), Some(1 << 20));
        assert_eq!(raised.deliveries[0].grant.worker_id, WorkerId::default());
    }
}
