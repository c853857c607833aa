//! Who may reach the nodes: everyone the public port, pods of the cluster the metrics. Probes come from the machine itself, which
//! policies let through.

use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{ADMIN_PORT, PUBLIC_PORT};
use crate::plan::validate::ValidatedCluster;

pub(super) fn build_network_policy(cluster: &ValidatedCluster) -> NetworkPolicy {
    let identity = &cluster.identity;
    let port = |port| {
        Some(vec![NetworkPolicyPort {
            port: Some(IntOrString::Int(port)),
            protocol: Some("TCP".to_owned()),
            ..NetworkPolicyPort::default()
        }])
    };
    let metrics_from = match &cluster.network_policy.metrics_from[..] {
        [] => vec![NetworkPolicyPeer {
            namespace_selector: Some(LabelSelector::default()),
            ..NetworkPolicyPeer::default()
        }],
        peers => peers.to_vec(),
    };
    NetworkPolicy {
        metadata: identity.owned(identity.main_name()),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(LabelSelector { match_labels: Some(identity.selector()), ..LabelSelector::default() }),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(vec![
                NetworkPolicyIngressRule { ports: port(PUBLIC_PORT), from: None },
                NetworkPolicyIngressRule { ports: port(ADMIN_PORT), from: Some(metrics_from) },
            ]),
            egress: None,
        }),
    }
}
