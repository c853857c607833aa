//! What the operator may do: each rule with its reason. The chart's roles are generated from here, and a test compares them with what the
//! operator really asks of an API server.

use k8s_openapi::api::rbac::v1::PolicyRule;
use shortener_crds::ShortenerCluster;

use crate::kinds::Kind;

/// A rule and why it is there.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Why.
    pub reason: &'static str,
    /// What is allowed.
    pub rule: PolicyRule,
}

fn rule(reason: &'static str, group: &str, resources: &[&str], verbs: &[&str]) -> Rule {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    Rule {
        reason,
        rule: PolicyRule {
            api_groups: Some(vec![group.to_owned()]),
            resources: Some(owned(resources)),
            verbs: owned(verbs),
            ..PolicyRule::default()
        },
    }
}

/// What is needed in every namespace that is looked after.
pub fn in_watched_namespaces() -> Vec<Rule> {
    let ours = <ShortenerCluster as kube::Resource>::group(&()).into_owned();
    let mut rules = vec![
        rule(
            "follow the resources; put the finalizer there",
            &ours,
            &["shortenerclusters"],
            &["get", "list", "watch", "patch"],
        ),
        rule(
            "write the status and the ledger of IDs in it; patch the conditions alone where the rest is not understood",
            &ours,
            &["shortenerclusters/status"],
            &["update", "patch"],
        ),
        rule(
            "name the resource as the owner that blocks its own deletion (OwnerReferencesPermissionEnforcement)",
            &ours,
            &["shortenerclusters/finalizers"],
            &["update"],
        ),
        rule("know which pods are alive, and their addresses", "", &["pods"], &["list", "watch"]),
        rule(
            "see the versions of the Secrets that a resource names; generate the one that signs tokens, and delete it if asked to. \
             Not list or watch: nobody can find out which there are",
            "",
            &["secrets"],
            &["get", "create", "delete"],
        ),
        rule(
            "read what nodes report and deliver their grants. get and create are the nodes' own: who gives a Role must have what is in it",
            "coordination.k8s.io",
            &["leases"],
            &["get", "list", "watch", "create", "patch"],
        ),
        rule("tell what has happened", "events.k8s.io", &["events"], &["create", "patch"]),
    ];
    for kind in Kind::ALL {
        let mut verbs = vec!["list", "watch", "create", "patch"];
        verbs.extend(kind.may_be_unwanted().then_some("delete"));
        rules.push(rule(owning(*kind), kind.group(), &[kind.plural()], &verbs));
    }
    rules
}

fn owning(kind: Kind) -> &'static str {
    match kind {
        Kind::ServiceAccount => "own who the nodes are",
        Kind::Role => "own what the nodes may do",
        Kind::RoleBinding => "own that they may",
        Kind::ConfigMap => "own the nodes' settings, and the dashboard",
        Kind::Service => "own the one address of all nodes",
        Kind::Deployment => "own the nodes",
        Kind::PodDisruptionBudget => "own what keeps drains from taking more than one node at a time",
        Kind::NetworkPolicy => "own who may reach the nodes",
        Kind::HorizontalPodAutoscaler => "own the autoscaler of mode hpa",
        Kind::Ingress => "own the public hosts, through an ingress controller",
        Kind::HttpRoute => "own the public hosts, through a gateway",
        Kind::PodMonitor => "own what tells Prometheus where metrics are",
        Kind::PrometheusRule => "own the alerts",
    }
}

/// What is needed in the operator's own namespace.
pub fn in_own_namespace() -> Vec<Rule> {
    vec![rule(
        "take part in the election of the operator that works",
        "coordination.k8s.io",
        &["leases"],
        &["get", "create", "update"],
    )]
}
