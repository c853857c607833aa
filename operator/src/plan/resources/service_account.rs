//! Who the nodes are to the API server.

use k8s_openapi::api::core::v1::ServiceAccount;

use crate::plan::validate::ValidatedCluster;

pub(super) fn build_service_account(cluster: &ValidatedCluster) -> ServiceAccount {
    let identity = &cluster.identity;
    ServiceAccount {
        metadata: identity.owned(identity.node_name()),
        // Pods mount a token where they say so.
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}
