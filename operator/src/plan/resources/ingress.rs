//! The Service under the public hosts, through an ingress controller.

use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, HTTPIngressRuleValue, Ingress, IngressBackend, IngressRule, IngressServiceBackend, IngressSpec,
    IngressTLS, ServiceBackendPort,
};

use crate::plan::validate::ValidatedCluster;

pub(super) fn build_ingress(cluster: &ValidatedCluster, wanted: &shortener_crds::cluster::Ingress) -> Ingress {
    let identity = &cluster.identity;
    let hosts = cluster.hosts();
    let mut metadata = identity.owned(identity.main_name());
    if !wanted.annotations.is_empty() {
        metadata.annotations = Some(wanted.annotations.clone());
    }
    let backend = IngressBackend {
        service: Some(IngressServiceBackend {
            name: identity.main_name(),
            port: Some(ServiceBackendPort { name: Some("http".to_owned()), number: None }),
        }),
        ..IngressBackend::default()
    };
    let rule = |host: &String| IngressRule {
        host: Some(host.clone()),
        http: Some(HTTPIngressRuleValue {
            paths: vec![HTTPIngressPath {
                path: Some("/".to_owned()),
                path_type: "Prefix".to_owned(),
                backend: backend.clone(),
            }],
        }),
    };
    Ingress {
        metadata,
        spec: Some(IngressSpec {
            ingress_class_name: wanted.class_name.clone(),
            rules: Some(hosts.iter().map(rule).collect()),
            tls: wanted
                .tls_secret_name
                .clone()
                .map(|secret_name| vec![IngressTLS { hosts: Some(hosts.clone()), secret_name: Some(secret_name) }]),
            ..IngressSpec::default()
        }),
        ..Ingress::default()
    }
}
