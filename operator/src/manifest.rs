//! What is printed: the resource definition, the roles, and everything together for a plain `kubectl apply -f -`.

use std::fmt::Write;

use k8s_openapi::api::rbac::v1::PolicyRule;
use kube::CustomResourceExt;
use serde::Serialize;
use serde_json::{Value, json};
use shortener_crds::ShortenerCluster;

use crate::config::{Manifest, Rbac};
use crate::plan::resources::{FIELD_MANAGER, NODE_ACCOUNT_SUFFIX};
use crate::rbac::{Rule, in_own_namespace, in_watched_namespaces};

/// Why nothing was printed.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It could not be written as YAML.
    #[error("cannot write YAML")]
    Yaml(#[from] serde_saphyr::ser::Error),
}

/// The CustomResourceDefinition.
pub fn definition() -> Result<String, ManifestError> {
    document(&ShortenerCluster::crd())
}

/// The rules, each with its reason as a comment.
pub fn rbac(settings: &Rbac) -> Result<String, ManifestError> {
    let kind = if settings.namespaced { "Role" } else { "ClusterRole" };
    let mut yaml =
        format!("apiVersion: rbac.authorization.k8s.io/v1\nkind: {kind}\nmetadata:\n  name: {FIELD_MANAGER}\nrules:\n");
    yaml.push_str(&rules(&in_watched_namespaces())?);
    Ok(yaml)
}

/// Rules as items of a YAML list, each under its reason.
pub fn rules(rules: &[Rule]) -> Result<String, ManifestError> {
    let mut yaml = String::new();
    for Rule { reason, rule } in rules {
        let PolicyRule { api_groups, resources, verbs, .. } = rule;
        let line = |values: &[String]| serde_json::to_string(values).unwrap_or_default();
        let groups = line(api_groups.as_deref().unwrap_or_default());
        let resources = line(resources.as_deref().unwrap_or_default());
        // Writing to a text cannot fail.
        let _ = write!(yaml, "# {reason}\n- apiGroups: {groups}\n  resources: {resources}\n  verbs: {}\n", line(verbs));
    }
    Ok(yaml)
}

/// The admission policy that ties a node's Lease to its pod: RBAC cannot say "its own".
///
/// A node's token names its pod. What it creates or changes among Leases must be named like that pod.
pub fn lease_policy() -> [Value; 2] {
    let pod = "request.userInfo.extra['authentication.kubernetes.io/pod-name'][0]";
    [
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": "shortener-node-leases"},
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {"resourceRules": [{
                    "apiGroups": ["coordination.k8s.io"],
                    "apiVersions": ["v1"],
                    "operations": ["CREATE", "UPDATE"],
                    "resources": ["leases"],
                }]},
                // No label of the object counts: a node could leave it out.
                "matchConditions": [{
                    "name": "is-a-node-of-a-shortener-cluster",
                    "expression": format!("request.userInfo.username.matches('^system:serviceaccount:[^:]+:[a-z][-a-z0-9]*{NODE_ACCOUNT_SUFFIX}$')"),
                }],
                "validations": [{
                    "expression": format!(
                        "has(request.userInfo.extra) && 'authentication.kubernetes.io/pod-name' in request.userInfo.extra && \
                         object.metadata.name == {pod}"
                    ),
                    "messageExpression": "'a node may write the Lease of its own pod only, not ' + object.metadata.name",
                    "reason": "Forbidden",
                }],
            },
        }),
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": "shortener-node-leases"},
            "spec": {"policyName": "shortener-node-leases", "validationActions": ["Deny"]},
        }),
    ]
}

/// The admission policy and its binding, as YAML.
pub fn lease_policy_yaml() -> Result<String, ManifestError> {
    let [policy, binding] = lease_policy();
    Ok(format!("{}---\n{}", document(&policy)?, document(&binding)?))
}

/// Everything, for clusters without Helm.
pub fn manifest(settings: &Manifest) -> Result<String, ManifestError> {
    let Manifest { namespace, image } = settings;
    let labels = json!({"app.kubernetes.io/name": FIELD_MANAGER, "app.kubernetes.io/instance": FIELD_MANAGER});
    let metadata = |namespaced: bool| {
        let mut metadata = json!({"name": FIELD_MANAGER, "labels": labels});
        if namespaced {
            metadata["namespace"] = json!(namespace);
        }
        metadata
    };
    let rules_of = |rules: Vec<Rule>| rules.into_iter().map(|rule| rule.rule).collect::<Vec<_>>();
    let subject = json!([{"kind": "ServiceAccount", "name": FIELD_MANAGER, "namespace": namespace}]);
    let role = |kind: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": FIELD_MANAGER});
    let rbac = "rbac.authorization.k8s.io/v1";
    let [policy, binding] = lease_policy();
    let documents = [
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {
            "name": namespace, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}),
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata(true)}),
        json!({"apiVersion": rbac, "kind": "ClusterRole", "metadata": metadata(false), "rules": rules_of(in_watched_namespaces())}),
        json!({"apiVersion": rbac, "kind": "ClusterRoleBinding", "metadata": metadata(false), "roleRef": role("ClusterRole"), "subjects": subject}),
        json!({"apiVersion": rbac, "kind": "Role", "metadata": metadata(true), "rules": rules_of(in_own_namespace())}),
        json!({"apiVersion": rbac, "kind": "RoleBinding", "metadata": metadata(true), "roleRef": role("Role"), "subjects": subject}),
        policy,
        binding,
        deployment(&metadata(true), &labels, image),
        network_policy(&metadata(true), &labels),
    ];
    let mut yaml = definition()?;
    for one in &documents {
        yaml.push_str("---\n");
        yaml.push_str(&document(one)?);
    }
    Ok(yaml)
}

/// Two operators, of which one works.
fn deployment(metadata: &Value, labels: &Value, image: &str) -> Value {
    let probe = |path: &str| json!({"httpGet": {"path": path, "port": "metrics"}});
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "serviceAccountName": FIELD_MANAGER,
                    "securityContext": {
                        "runAsNonRoot": true,
                        "runAsUser": 65_532,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [{
                        "name": "operator",
                        "image": image,
                        "command": ["/usr/local/bin/shortener-operator"],
                        "args": ["run"],
                        "env": [
                            {"name": "NODE_IMAGE", "value": image},
                            {"name": "METRICS_ADDR", "value": "0.0.0.0:9090"},
                            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                            {"name": "OPERATOR_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
                        ],
                        "ports": [{"name": "metrics", "containerPort": 9090}],
                        "livenessProbe": probe("/livez"),
                        "readinessProbe": probe("/readyz"),
                        "resources": {
                            "requests": {"cpu": "50m", "memory": "64Mi"},
                            "limits": {"memory": "256Mi"},
                        },
                        "securityContext": {
                            "allowPrivilegeEscalation": false,
                            "readOnlyRootFilesystem": true,
                            "capabilities": {"drop": ["ALL"]},
                        },
                    }],
                },
            },
        },
    })
}

/// Nobody reaches the operators but the kubelet, which needs no rule. Whoever reads their metrics adds one.
fn network_policy(metadata: &Value, labels: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata,
        "spec": {"podSelector": {"matchLabels": labels}, "policyTypes": ["Ingress"], "ingress": []},
    })
}

fn document(object: &impl Serialize) -> Result<String, ManifestError> {
    let mut yaml = serde_saphyr::to_string(object)?;
    if !yaml.ends_with('\n') {
        yaml.push('\n');
    }
    Ok(yaml)
}
