//! Lets machines be drained, one node of ours at a time.

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::plan::validate::ValidatedCluster;

pub(super) fn build_pod_disruption_budget(cluster: &ValidatedCluster) -> PodDisruptionBudget {
    let identity = &cluster.identity;
    PodDisruptionBudget {
        metadata: identity.owned(identity.main_name()),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(LabelSelector { match_labels: Some(identity.selector()), ..LabelSelector::default() }),
            // A pod that does not serve must not hold up a drain.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    }
}
