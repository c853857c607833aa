//! The API server's audit log: who asked it for what, and what it answered. Bodies are not in it.
use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::json;

use crate::server_process::ServerFolder;

const LOG: &str = "audit.jsonl";

/// A request, as the API server saw it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEvent {
    /// One for each request.
    #[serde(rename = "auditID")]
    pub audit_id: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; of a path, the method's name.
    pub verb: String,
    /// The path and query.
    #[serde(rename = "requestURI")]
    pub request_uri: String,
    /// Who asked.
    pub user: AuditUser,
    /// What the client calls itself.
    #[serde(default)]
    pub user_agent: String,
    /// What was asked for; none for a path that is no resource's, such as `/readyz`.
    pub object_ref: Option<ObjectReference>,
    /// What was answered. A watch is answered when it begins, and goes on.
    pub response_status: Option<AuditStatus>,
}

/// Who asked.
#[derive(Clone, Debug, Deserialize)]
pub struct AuditUser {
    /// `system:serviceaccount:NAMESPACE:NAME` for a service account.
    pub username: String,
}

/// What was answered.
#[derive(Clone, Debug, Deserialize)]
pub struct AuditStatus {
    /// The HTTP status.
    pub code: u16,
}

/// Which resource was asked for. Texts are empty where they do not apply.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct ObjectReference {
    /// Empty for the core group.
    pub api_group: String,
    /// Its plural.
    pub resource: String,
    /// `status`, `scale`, `token`.
    pub subresource: String,
    /// Empty for all of them and for what has none.
    pub namespace: String,
    /// Empty for lists, watches and creates whose name is in the body.
    pub name: String,
}

impl AuditEvent {
    /// Whether it changes something, had it been allowed.
    pub fn is_write(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch")
    }

    /// The HTTP status of the answer.
    pub fn code(&self) -> Option<u16> {
        self.response_status.as_ref().map(|status| status.code)
    }
}

/// What makes an API server write the log. Each event is written before the request goes on.
pub(super) fn arguments(folder: &ServerFolder) -> Result<Vec<String>> {
    let policy = json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [{ "level": "Metadata" }],
    });
    let policy = folder.write("audit-policy.json", &policy.to_string())?;
    let log = folder.path().join(LOG);
    Ok(vec![format!("--audit-policy-file={}", policy.display()), format!("--audit-log-path={}", log.display())])
}

/// Reads the log; one event for each request, in the order in which they were answered first.
pub(super) fn read(folder: &Path) -> Result<Vec<AuditEvent>> {
    let log = std::fs::read_to_string(folder.join(LOG)).context("reading the audit log, which must be asked for")?;
    parse(&log)
}

fn parse(log: &str) -> Result<Vec<AuditEvent>> {
    let mut events: Vec<AuditEvent> = Vec::new();
    let mut known = HashMap::new();
    // A line without its end is still being written.
    for line in log.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
        let event: AuditEvent = serde_json::from_str(line).with_context(|| format!("an audit event: {line}"))?;
        match known.get(&event.audit_id) {
            // A watch has an event when it begins and one when it ends.
            Some(&position) => events[position] = event,
            None => {
                known.insert(event.audit_id.clone(), events.len());
                events.push(event);
            }
        }
    }
    Ok(events)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_counts_once_and_half_a_line_not_at_all() {
        let line = |id: &str, verb: &str, code: u16| {
            let event = json!({
                "auditID": id, "verb": verb, "requestURI": "/api/v1/pods", "user": { "username": "admin" },
                "objectRef": { "resource": "pods" }, "responseStatus": { "code": code },
            });
            format!("{event}\n")
        };
        let mut log = [line("a", "watch", 200), line("b", "create", 201), line("a", "watch", 200)].concat();
        log.push_str("{\"auditID\":");
        let events = parse(&log).unwrap();
        assert_eq!(events.iter().map(|event| event.audit_id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!((events[0].is_write(), events[1].is_write(), events[1].code()), (false, true, Some(201)));
        assert_eq!(events[0].object_ref.as_ref().map(|object| object.resource.as_str()), Some("pods"));
    }
}
