//! Gives the nodes their Role.

use k8s_openapi::api::rbac::v1::{RoleBinding, RoleRef, Subject};

use crate::plan::validate::ValidatedCluster;

pub(super) fn build_role_binding(cluster: &ValidatedCluster) -> RoleBinding {
    let identity = &cluster.identity;
    RoleBinding {
        metadata: identity.owned(identity.node_name()),
        role_ref: RoleRef {
            api_group: "rbac.authorization.k8s.io".to_owned(),
            kind: "Role".to_owned(),
            name: identity.node_name(),
        },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".to_owned(),
            name: identity.node_name(),
            namespace: Some(identity.namespace.clone()),
            ..Subject::default()
        }]),
    }
}
