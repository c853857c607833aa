//! What a node and the operator tell each other, through the `Lease` that each node keeps for itself.
//!
//! The Lease is named like the node's pod and held by the node's boot ID. Each side has one annotation that it alone writes: the node
//! its [`Report`], the operator its [`Grant`]. Both are levels and not events: whoever comes later reads what is so, and a message
//! that nobody saw is no loss. Nothing depends on a Lease being renewed.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::ids::allocate::{Entry, PodUid, Request};
use crate::ids::{BootId, IdRange, KeyspaceId, WorkerId};

/// The annotation that the node writes: a [`Report`] as JSON.
pub const REPORT_ANNOTATION: &str = "shortener.dev/report";

/// The annotation that the operator writes: a [`Grant`] as JSON.
pub const GRANT_ANNOTATION: &str = "shortener.dev/grant";

/// The label that names the `ShortenerCluster`, on everything that belongs to one: pods, and the nodes' Leases.
pub const CLUSTER_LABEL: &str = "shortener.dev/cluster";

/// The longest annotation that is read, in bytes. A report has about 400.
pub const ANNOTATION_BYTES_MAX: usize = 4096;

/// What a node says of itself. It is written again only when something in it has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// This process, also the Lease's holder.
    pub boot_id: BootId,
    /// The pod it runs in.
    pub pod: String,
    /// What tells that pod from an earlier one of the same name.
    pub pod_uid: PodUid,
    /// The pod's address, if it was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_ip: Option<IpAddr>,
    /// How many blocks it wants to have been granted in all since it booted.
    pub wanted: u64,
    /// The store's high-water mark of the code length that is minted, as it was seen last.
    pub mark: u64,
    /// Which keyspace the store holds; none until it was reached. Until then nothing is wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keyspace: Option<KeyspaceId>,
    /// The granted worker ID that the store did not let it take, or that it has lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused_worker: Option<WorkerId>,
    /// Which formats of rows it knows and writes. A node that does not say it knows the first alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub formats: Option<ReportedFormats>,
    /// Whether the store can be reached.
    pub store_reachable: bool,
    /// Whether the shared cache can be reached; none where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_reachable: Option<bool>,
}

/// Which formats of rows a node knows and writes. A format is a number that names the version of every kind of row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReportedFormats {
    /// The newest that its program can write.
    pub newest: u16,
    /// The one that it writes: the keyspace's, as it was seen last.
    pub written: u16,
}

/// What the operator has set aside for one boot: its entry in the resource's status, which was written before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Grant {
    /// To whom. A grant to another boot is none of ours.
    pub boot_id: BootId,
    /// The worker ID that may be taken, if the store lets it.
    pub worker_id: WorkerId,
    /// The newest run of blocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<IdRange>,
    /// How many blocks this boot was granted in all.
    pub granted: u64,
    /// The format that the keyspace may be raised to: every running node knows it. None while nothing is to be raised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<u16>,
}

/// An annotation that is not what its side writes.
#[derive(Debug, thiserror::Error)]
pub enum AnnotationError {
    /// It is too long to be read.
    #[error("the annotation {annotation} has {bytes} bytes; at most {ANNOTATION_BYTES_MAX} are read")]
    TooLong {
        /// Its name.
        annotation: &'static str,
        /// Its length.
        bytes: usize,
    },
    /// It is no such JSON.
    #[error("the annotation {annotation} cannot be read: {source}")]
    Malformed {
        /// Its name.
        annotation: &'static str,
        /// What is wrong.
        source: serde_json::Error,
    },
}

impl Report {
    /// Reads a Lease's report, if it has one.
    pub fn read(annotations: &BTreeMap<String, String>) -> Result<Option<Self>, AnnotationError> {
        read(annotations, REPORT_ANNOTATION)
    }

    /// What it asks of the operator; nothing before its store was reached.
    pub fn request(&self) -> Option<Request> {
        let Self { boot_id, pod_uid, wanted, mark, keyspace, refused_worker, .. } = self;
        keyspace.is_some().then(|| Request {
            boot_id: *boot_id,
            pod: pod_uid.clone(),
            wanted: *wanted,
            mark: *mark,
            refused_worker: *refused_worker,
        })
    }
}

impl Grant {
    /// Reads a Lease's grant, if it has one.
    pub fn read(annotations: &BTreeMap<String, String>) -> Result<Option<Self>, AnnotationError> {
        read(annotations, GRANT_ANNOTATION)
    }
}

impl From<&Entry> for Grant {
    fn from(entry: &Entry) -> Self {
        let Entry { boot_id, worker, run, granted } = entry;
        Self { boot_id: *boot_id, worker_id: *worker, run: *run, granted: *granted, format: None }
    }
}

impl From<Grant> for Entry {
    fn from(grant: Grant) -> Self {
        let Grant { boot_id, worker_id, run, granted, format: _ } = grant;
        Self { boot_id, worker: worker_id, run, granted }
    }
}

fn read<T: DeserializeOwned>(
    annotations: &BTreeMap<String, String>,
    annotation: &'static str,
) -> Result<Option<T>, AnnotationError> {
    let Some(json) = annotations.get(annotation) else { return Ok(None) };
    if json.len() > ANNOTATION_BYTES_MAX {
        return Err(AnnotationError::TooLong { annotation, bytes: json.len() });
    }
    serde_json::from_str(json).map(Some).map_err(|source| AnnotationError::Malformed { annotation, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::CodeLength;

    fn report() -> Report {
        Report {
            boot_id: BootId(1),
            pod: "main-7c9-x".into(),
            pod_uid: PodUid("5f0c".into()),
            pod_ip: Some(IpAddr::from([10, 0, 0, 7])),
            wanted: 3,
            mark: 17,
            keyspace: Some(KeyspaceId(2)),
            refused_worker: None,
            formats: Some(ReportedFormats { newest: 2, written: 1 }),
            store_reachable: true,
            cache_reachable: Some(false),
        }
    }

    #[test]
    fn what_one_side_writes_the_other_reads() {
        let grant = Grant {
            boot_id: BootId(1),
            worker_id: WorkerId::default(),
            run: IdRange::new(CodeLength::DEFAULT, 17, 2).ok(),
            granted: 3,
            format: None,
        };
        let annotations = BTreeMap::from([
            (REPORT_ANNOTATION.to_owned(), serde_json::to_string(&report()).expect("JSON")),
            (GRANT_ANNOTATION.to_owned(), serde_json::to_string(&grant).expect("JSON")),
        ]);
        assert_eq!(Report::read(&annotations).expect("a report"), Some(report()));
        assert_eq!(Grant::read(&annotations).expect("a grant"), Some(grant.clone()));
        assert_eq!(Grant::from(&Entry::from(grant.clone())), grant);
        assert_eq!(Grant::read(&BTreeMap::new()).expect("none"), None);
    }

    #[test]
    fn a_later_release_may_say_more_and_nonsense_is_named() {
        let read = |json: &str| Report::read(&BTreeMap::from([(REPORT_ANNOTATION.to_owned(), json.to_owned())]));
        let more = serde_json::to_string(&report()).expect("JSON").replacen('{', r#"{"mood":"fine","#, 1);
        assert_eq!(read(&more).expect("a report"), Some(report()));
        for (json, named) in [("{}", "bootId"), ("[", "cannot be read"), (&" ".repeat(5000), "5000 bytes")] {
            let error = read(json).expect_err(json).to_string();
            assert!(error.contains(named) && error.contains(REPORT_ANNOTATION), "{error}");
        }
    }

    #[test]
    fn nothing_is_asked_before_the_store_was_reached() {
        assert_eq!(report().request().map(|request| (request.wanted, request.mark)), Some((3, 17)));
        assert_eq!(Report { keyspace: None, ..report() }.request(), None);
    }
}
