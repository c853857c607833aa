//! What the node's Lease is to be, and whether it is so already.

use std::collections::BTreeMap;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use k8s_openapi::jiff;
use shortener_crds::lease::{CLUSTER_LABEL, REPORT_ANNOTATION, Report};

use super::LeaseSettings;
use crate::ambient::UnixMs;

/// The Lease as the node writes it, whole when it creates it and as a merge patch else: it names only what is the node's, and leaves the
/// operator's annotation alone.
pub(super) fn lease_of(settings: &LeaseSettings, report: &Report, now: UnixMs) -> Result<Lease, serde_json::Error> {
    let pod = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        name: settings.pod.clone(),
        uid: settings.pod_uid.0.clone(),
        ..OwnerReference::default()
    };
    Ok(Lease {
        metadata: ObjectMeta {
            name: Some(settings.pod.clone()),
            namespace: Some(settings.namespace.clone()),
            labels: Some(BTreeMap::from([(CLUSTER_LABEL.to_owned(), settings.cluster.clone())])),
            annotations: Some(BTreeMap::from([(REPORT_ANNOTATION.to_owned(), serde_json::to_string(report)?)])),
            owner_references: Some(vec![pod]),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(report.boot_id.to_string()),
            renew_time: moment(now).map(MicroTime),
            ..LeaseSpec::default()
        }),
    })
}

fn moment(now: UnixMs) -> Option<jiff::Timestamp> {
    jiff::Timestamp::from_millisecond(i64::try_from(now.0).ok()?).ok()
}

/// Whether the Lease says all that `wanted` says, whenever it was written.
pub(super) fn is_written(found: &Lease, wanted: &Lease) -> bool {
    fn holder(lease: &Lease) -> Option<&String> {
        lease.spec.as_ref()?.holder_identity.as_ref()
    }
    type Map = Option<BTreeMap<String, String>>;
    let says = |found: &Map, wanted: &Map| {
        let found = |name| found.as_ref().and_then(|found| found.get(name));
        wanted.iter().flatten().all(|(name, value)| found(name) == Some(value))
    };
    holder(found) == holder(wanted)
        && says(&found.metadata.annotations, &wanted.metadata.annotations)
        && says(&found.metadata.labels, &wanted.metadata.labels)
        && found.metadata.owner_references == wanted.metadata.owner_references
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use serde_json::json;
    use shortener_crds::ids::BootId;
    use shortener_crds::ids::allocate::PodUid;
    use shortener_crds::lease::GRANT_ANNOTATION;

    use super::*;

    const NOW: UnixMs = UnixMs(1_790_000_000_007);

    fn settings() -> LeaseSettings {
        LeaseSettings {
            cluster: "main".into(),
            namespace: "links".into(),
            pod: "main-7c9-x".into(),
            pod_uid: PodUid("5f0c".into()),
            pod_ip: IpAddr::from([10, 0, 0, 7]),
        }
    }

    fn report(boot: u128, wanted: u64) -> Report {
        Report {
            boot_id: BootId(boot),
            pod: settings().pod,
            pod_uid: settings().pod_uid,
            pod_ip: Some(settings().pod_ip),
            wanted,
            mark: 0,
            keyspace: None,
            refused_worker: None,
            formats: None,
            store_reachable: true,
            cache_reachable: None,
        }
    }

    #[test]
    fn it_is_named_like_its_pod_owned_by_it_and_held_by_this_boot() {
        let lease = lease_of(&settings(), &report(1, 2), NOW).unwrap();
        let written = serde_json::to_value(&lease).unwrap();
        assert_eq!(
            written,
            json!({
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {
                    "name": "main-7c9-x",
                    "namespace": "links",
                    "labels": { "shortener.dev/cluster": "main" },
                    "annotations": { "shortener.dev/report": serde_json::to_string(&report(1, 2)).unwrap() },
                    "ownerReferences": [{ "apiVersion": "v1", "kind": "Pod", "name": "main-7c9-x", "uid": "5f0c" }],
                },
                "spec": {
                    "holderIdentity": "00000000000000000000000000000001",
                    "renewTime": written["spec"]["renewTime"],
                },
            })
        );
        assert!(written["spec"]["renewTime"].as_str().unwrap().starts_with("2026-09-21T14:13:20.007"), "{written}");
    }

    #[test]
    fn what_is_written_is_left_alone_whatever_the_operator_added() {
        let mut found = lease_of(&settings(), &report(1, 2), NOW).unwrap();
        found.metadata.annotations.as_mut().unwrap().insert(GRANT_ANNOTATION.to_owned(), "{}".to_owned());
        found.metadata.resource_version = Some("7".to_owned());
        let later = UnixMs(NOW.0 + 60_000);
        let check = |found: &Lease, report: &Report| is_written(found, &lease_of(&settings(), report, later).unwrap());
        assert!(check(&found, &report(1, 2)), "time alone is no reason to write");
        assert!(!check(&found, &report(1, 3)), "it wants more");
        assert!(!check(&found, &report(2, 2)), "an earlier boot of the pod left it");
        let unlabelled = Lease { metadata: ObjectMeta { labels: None, ..found.metadata.clone() }, ..found.clone() };
        assert!(!check(&unlabelled, &report(1, 2)), "the operator would not see it");
        let owned_by_an_earlier_pod = ObjectMeta { owner_references: None, ..found.metadata.clone() };
        assert!(!check(&Lease { metadata: owned_by_an_earlier_pod, ..found.clone() }, &report(1, 2)));
    }
}
