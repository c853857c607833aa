//! What the nodes may do: keep their Leases. Each may write only its own, which RBAC cannot say; the chart's admission policy does.

use k8s_openapi::api::rbac::v1::{PolicyRule, Role};

use crate::plan::validate::ValidatedCluster;

/// What a node does with its Lease: see it and follow it, make it, report in it.
const NODE_LEASE_VERBS: [&str; 4] = ["get", "watch", "create", "patch"];

pub(super) fn build_role(cluster: &ValidatedCluster) -> Role {
    let identity = &cluster.identity;
    Role {
        metadata: identity.owned(identity.node_name()),
        rules: Some(vec![PolicyRule {
            api_groups: Some(vec!["coordination.k8s.io".to_owned()]),
            resources: Some(vec!["leases".to_owned()]),
            verbs: NODE_LEASE_VERBS.map(str::to_owned).to_vec(),
            ..PolicyRule::default()
        }]),
    }
}
