//! Who may reach the nodes: everyone the public port, and those whom the resource names the admin port. Probes come from the
//! kubelet on the pod's own machine: Kubernetes has network plugins let that through, whatever a policy says.

use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPort, NetworkPolicySpec};
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
    let metrics_from = &cluster.network_policy.metrics_from;
    let mut ingress = vec![NetworkPolicyIngressRule { ports: port(PUBLIC_PORT), from: None }];
    // A rule that names nobody would let in everybody.
    if !metrics_from.is_empty() {
        ingress.push(NetworkPolicyIngressRule { ports: port(ADMIN_PORT), from: Some(metrics_from.clone()) });
    }
    NetworkPolicy {
        metadata: identity.owned(identity.main_name()),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(LabelSelector { match_labels: Some(identity.selector()), ..LabelSelector::default() }),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(ingress),
            egress: None,
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use shortener_crds::ShortenerCluster;

    use super::*;
    use crate::plan::validate::validate;

    /// The rules of a cluster whose `spec.networkPolicy` is this.
    fn ingress(network_policy: &Value) -> Value {
        let spec = json!({
            "baseUrl": "https://sho.rt",
            "storage": {"tikv": {"pdEndpoints": ["pd-0:2379"]}},
            "networkPolicy": network_policy,
        });
        let mut cluster = ShortenerCluster::new("main", serde_json::from_value(spec).unwrap());
        (cluster.metadata.namespace, cluster.metadata.uid) = (Some("links".to_owned()), Some("uid".to_owned()));
        let policy = build_network_policy(&validate(&cluster).unwrap());
        serde_json::to_value(policy.spec.unwrap().ingress).unwrap()
    }

    #[test]
    fn the_admin_port_lets_in_whom_the_resource_names_and_nobody_by_default() {
        let public = json!({"ports": [{"port": PUBLIC_PORT, "protocol": "TCP"}]});
        for nobody in [json!({}), json!({"metricsFrom": []})] {
            assert_eq!(ingress(&nobody), json!([public]), "{nobody}");
        }
        let monitoring = json!([{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]);
        let admin = json!({"ports": [{"port": ADMIN_PORT, "protocol": "TCP"}], "from": monitoring});
        assert_eq!(ingress(&json!({"metricsFrom": monitoring})), json!([public, admin]));
    }
}
