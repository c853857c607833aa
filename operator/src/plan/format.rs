//! Pods and their Leases → the format that the keyspace's rows may be raised to.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use shortener_crds::cluster::LivePod;
use shortener_crds::ids::allocate::PodUid;
use shortener_crds::lease::ReportedFormats;

use super::allocate::NodeLease;

/// What a node knows that says nothing of formats.
const FIRST: ReportedFormats = ReportedFormats { newest: 1, written: 1 };

/// The format that nodes may raise the keyspace to; none while there is nothing to raise.
///
/// Every pod that runs must know the format: one that has not reported yet may be of an older program, and so may one that is about to
/// end. Some pod must have run for `raise_after`, so that a release which turns out bad can be taken back until then.
pub fn format_to_raise_to(
    pods: &BTreeMap<PodUid, LivePod>,
    leases: &[NodeLease],
    now: Timestamp,
    raise_after: Duration,
) -> Option<u16> {
    let formats_of = |uid: &PodUid| {
        let lease = leases.iter().find(|lease| lease.report.pod_uid == *uid)?;
        Some(lease.report.formats.unwrap_or(FIRST))
    };
    let running = || pods.iter().filter(|(_, pod)| !pod.has_ended);
    let known: Vec<_> = running().map(|(uid, _)| formats_of(uid)).collect::<Option<_>>()?;
    let newest = known.iter().map(|formats| formats.newest).min()?;
    let written = known.iter().map(|formats| formats.written).max()?;
    let oldest = running().filter_map(|(_, pod)| pod.created_at).min()?;
    let is_proven = now.duration_since(oldest) >= SignedDuration::try_from(raise_after).unwrap_or(SignedDuration::MAX);
    (newest > written && is_proven).then_some(newest)
}

#[cfg(test)]
mod tests {
    use shortener_crds::ids::BootId;
    use shortener_crds::lease::Report;

    use super::*;

    /// A pod: how many seconds ago it was made, whether it has ended, and what its node reports of formats, if it has a Lease.
    type Case = (i64, bool, Option<Option<(u16, u16)>>);

    fn to_raise_to(cases: &[Case]) -> Option<u16> {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let (mut pods, mut leases) = (BTreeMap::new(), Vec::new());
        for (number, (age, has_ended, formats)) in cases.iter().enumerate() {
            let (name, uid) = (format!("main-{number}"), PodUid(format!("uid-{number}")));
            let created_at = Timestamp::from_second(1_000_000 - age).ok();
            pods.insert(uid.clone(), LivePod { name: name.clone(), ip: None, created_at, has_ended: *has_ended });
            let Some(formats) = formats else { continue };
            let report = Report {
                boot_id: BootId(1),
                pod: name.clone(),
                pod_uid: uid,
                pod_ip: None,
                wanted: 0,
                mark: 0,
                keyspace: None,
                refused_worker: None,
                formats: formats.map(|(newest, written)| ReportedFormats { newest, written }),
                store_reachable: true,
                cache_reachable: None,
            };
            leases.push(NodeLease { name, resource_version: String::new(), report, grant: None });
        }
        format_to_raise_to(&pods, &leases, now, Duration::from_mins(10))
    }

    #[test]
    fn the_format_is_raised_once_every_running_node_has_known_it_for_a_while() {
        let (old, silent) = (Some(None), None);
        let says = |newest, written| Some(Some((newest, written)));
        for (why, pods, raised) in [
            ("there is no pod", vec![], None),
            ("all know it, and one has for long", vec![(600, false, says(2, 1)), (1, false, says(2, 1))], Some(2)),
            ("all know it, none for long", vec![(599, false, says(2, 1)), (1, false, says(2, 1))], None),
            ("it is written already", vec![(9_000, false, says(2, 2)), (9_000, false, says(2, 2))], None),
            ("one has not seen yet that it is written", vec![(9_000, false, says(2, 2)), (9, false, says(2, 1))], None),
            ("an older program runs, too", vec![(9_000, false, says(3, 1)), (9_000, false, says(2, 1))], Some(2)),
            ("a program without formats runs, too", vec![(9_000, false, says(2, 1)), (9_000, false, old)], None),
            ("a pod has not reported", vec![(9_000, false, says(2, 1)), (1, false, silent)], None),
            ("a pod that has ended counts no more", vec![(9_000, false, says(2, 1)), (9_000, true, silent)], Some(2)),
            ("only pods that have ended", vec![(9_000, true, says(2, 1))], None),
            ("two formats at once", vec![(9_000, false, says(3, 1)), (9_000, false, says(3, 1))], Some(3)),
        ] {
            assert_eq!(to_raise_to(&pods), raised, "{why}");
        }
    }
}
