//! For `mode: hpa`: Kubernetes' own autoscaler, on CPU, writing the resource's scale.

use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscaler,
    HorizontalPodAutoscalerBehavior, HorizontalPodAutoscalerSpec, MetricSpec, MetricTarget, ResourceMetricSource,
};
use kube::Resource;
use shortener_crds::ShortenerCluster;

use crate::plan::validate::{Replicas, ValidatedCluster};

pub(super) fn build_horizontal_pod_autoscaler(cluster: &ValidatedCluster) -> Option<HorizontalPodAutoscaler> {
    let Replicas::Hpa(autoscaling, _) = &cluster.replicas else { return None };
    let identity = &cluster.identity;
    let rules = |percent: i32, nodes: i32, period_seconds: i32, window: Option<i32>| HPAScalingRules {
        policies: Some(
            [("Percent", percent), ("Pods", nodes)]
                .map(|(type_, value)| HPAScalingPolicy { type_: type_.to_owned(), value, period_seconds })
                .to_vec(),
        ),
        select_policy: Some("Max".to_owned()),
        stabilization_window_seconds: window,
        ..HPAScalingRules::default()
    };
    let (up, down) = (autoscaling.scale_up, autoscaling.scale_down);
    Some(HorizontalPodAutoscaler {
        metadata: identity.owned(identity.main_name()),
        spec: Some(HorizontalPodAutoscalerSpec {
            scale_target_ref: CrossVersionObjectReference {
                api_version: Some(ShortenerCluster::api_version(&()).into_owned()),
                kind: ShortenerCluster::kind(&()).into_owned(),
                name: identity.name.clone(),
            },
            min_replicas: Some(autoscaling.min_replicas),
            max_replicas: autoscaling.max_replicas,
            metrics: Some(vec![MetricSpec {
                type_: "Resource".to_owned(),
                resource: Some(ResourceMetricSource {
                    name: "cpu".to_owned(),
                    target: MetricTarget {
                        type_: "Utilization".to_owned(),
                        average_utilization: Some(autoscaling.target_utilization_percent),
                        ..MetricTarget::default()
                    },
                }),
                ..MetricSpec::default()
            }]),
            behavior: Some(HorizontalPodAutoscalerBehavior {
                scale_up: Some(rules(up.percent, up.nodes, up.period_seconds, None)),
                scale_down: Some(rules(
                    down.percent,
                    down.nodes,
                    down.period_seconds,
                    Some(down.stabilization_seconds),
                )),
            }),
        }),
        ..HorizontalPodAutoscaler::default()
    })
}
