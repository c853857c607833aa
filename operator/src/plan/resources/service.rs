//! One address for all nodes.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use shortener_crds::cluster::ServiceType;

use crate::plan::validate::ValidatedCluster;

pub(super) fn build_service(cluster: &ValidatedCluster) -> Service {
    let identity = &cluster.identity;
    let service = &cluster.service;
    let mut metadata = identity.owned(identity.main_name());
    if !service.annotations.is_empty() {
        metadata.annotations = Some(service.annotations.clone());
    }
    let service_type = match service.service_type {
        ServiceType::ClusterIP => "ClusterIP",
        ServiceType::NodePort => "NodePort",
        ServiceType::LoadBalancer => "LoadBalancer",
    };
    Service {
        metadata,
        spec: Some(ServiceSpec {
            type_: Some(service_type.to_owned()),
            selector: Some(identity.selector()),
            ports: Some(vec![ServicePort {
                name: Some("http".to_owned()),
                app_protocol: Some("http".to_owned()),
                port: service.port,
                node_port: service.node_port,
                protocol: Some("TCP".to_owned()),
                target_port: Some(IntOrString::String("http".to_owned())),
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}
