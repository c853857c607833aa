//! The nodes. Read the warning in [`resources`](super) before you change anything here.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapEnvSource, Container, ContainerPort, EnvFromSource, EnvVar, EnvVarSource, HTTPGetAction,
    KeyToPath, Lifecycle, LifecycleHandler, LocalObjectReference, ObjectFieldSelector, PodSecurityContext, PodSpec,
    PodTemplateSpec, Probe, ProjectedVolumeSource, ResourceRequirements, SeccompProfile, SecretKeySelector,
    SecretProjection, SecretVolumeSource, SecurityContext, SleepAction, TopologySpreadConstraint, Volume, VolumeMount,
    VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::ObjectMeta;
use shortener_crds::cluster::ImagePullPolicy;

use super::{ADMIN_PORT, CONFIG_ANNOTATION, Inputs, PUBLIC_PORT};
use crate::plan::validate::ValidatedCluster;

/// The key of the generated Secret.
pub const GENERATED_KEY: &str = "secret-key";
pub(super) const SECRET_KEY_FILE: &str = "/etc/shortener/secrets/secret-key";
pub(super) const SECRET_KEY_PREVIOUS_FILE: &str = "/etc/shortener/secrets/secret-key-previous";
pub(super) const REDIS_PASSWORD_FILE: &str = "/etc/shortener/secrets/redis-password";
const SECRETS: &str = "/etc/shortener/secrets";
pub(super) const TIKV_TLS: &str = "/etc/shortener/tikv";
pub(super) const REDIS_TLS: &str = "/etc/shortener/redis";

/// The user of the image, and nobody's else.
const USER: i64 = 65_532;
/// How long endpoints and proxies have to forget a pod that ends before it stops taking connections, in seconds.
const PRE_STOP_SECONDS: i64 = 5;
/// How long a pod has to end unless the spec says otherwise, in seconds: the pause above, and the node's own 10.
const GRACE_SECONDS: i32 = 30;

pub(super) fn build_deployment(cluster: &ValidatedCluster, inputs: &Inputs<'_>, config_hash: &str) -> Deployment {
    let identity = &cluster.identity;
    Deployment {
        metadata: identity.owned(identity.main_name()),
        spec: Some(DeploymentSpec {
            replicas: inputs.replicas,
            selector: LabelSelector { match_labels: Some(identity.selector()), ..LabelSelector::default() },
            // A pod that is ready stays ready: a node needs no back end for it.
            progress_deadline_seconds: Some(600),
            revision_history_limit: Some(3),
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_unavailable: Some(IntOrString::Int(0)),
                    max_surge: Some(IntOrString::String("25%".to_owned())),
                }),
            }),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(pod_labels(cluster)),
                    annotations: Some(pod_annotations(cluster, config_hash)),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod_spec(cluster, inputs.image)),
            },
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    }
}

fn pod_labels(cluster: &ValidatedCluster) -> BTreeMap<String, String> {
    let mut labels = cluster.pod.labels.clone();
    labels.extend(cluster.identity.labels());
    labels
}

fn pod_annotations(cluster: &ValidatedCluster, config_hash: &str) -> BTreeMap<String, String> {
    let mut annotations = cluster.pod.annotations.clone();
    annotations.insert(CONFIG_ANNOTATION.to_owned(), config_hash.to_owned());
    annotations.insert("kubectl.kubernetes.io/default-container".to_owned(), "node".to_owned());
    annotations
}

fn pod_spec(cluster: &ValidatedCluster, image: &str) -> PodSpec {
    let pod = &cluster.pod;
    let some = |list: Vec<_>| (!list.is_empty()).then_some(list);
    PodSpec {
        service_account_name: Some(cluster.identity.node_name()),
        automount_service_account_token: Some(true),
        enable_service_links: Some(false),
        containers: vec![container(cluster, image)],
        volumes: Some(volumes(cluster)),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            // Secrets are mounted for the group to read.
            fs_group: Some(USER),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), ..SeccompProfile::default() }),
            ..PodSecurityContext::default()
        }),
        termination_grace_period_seconds: Some(pod.termination_grace_period_seconds.unwrap_or(GRACE_SECONDS).into()),
        image_pull_secrets: some(
            pod.image_pull_secrets.iter().map(|secret| LocalObjectReference { name: secret.name.clone() }).collect(),
        ),
        node_selector: (!pod.node_selector.is_empty()).then(|| pod.node_selector.clone()),
        tolerations: (!pod.tolerations.is_empty()).then(|| pod.tolerations.clone()),
        affinity: pod.affinity.clone(),
        priority_class_name: pod.priority_class_name.clone(),
        topology_spread_constraints: Some(match &pod.topology_spread_constraints[..] {
            [] => spread(cluster),
            given => given.to_vec(),
        }),
        ..PodSpec::default()
    }
}

/// Over zones and machines, as far as that is possible.
fn spread(cluster: &ValidatedCluster) -> Vec<TopologySpreadConstraint> {
    let over = |topology_key: &str| TopologySpreadConstraint {
        topology_key: topology_key.to_owned(),
        max_skew: 1,
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        label_selector: Some(LabelSelector {
            match_labels: Some(cluster.identity.selector()),
            ..LabelSelector::default()
        }),
        // Else the pods of the last rollout, which are about to go, would count.
        match_label_keys: Some(vec!["pod-template-hash".to_owned()]),
        ..TopologySpreadConstraint::default()
    };
    vec![over("topology.kubernetes.io/zone"), over("kubernetes.io/hostname")]
}

fn container(cluster: &ValidatedCluster, image: &str) -> Container {
    let port = |name: &str, container_port| ContainerPort {
        name: Some(name.to_owned()),
        container_port,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    };
    let pull_policy = match cluster.pod.image_pull_policy {
        Some(ImagePullPolicy::Always) => "Always",
        Some(ImagePullPolicy::Never) => "Never",
        Some(ImagePullPolicy::IfNotPresent) | None => "IfNotPresent",
    };
    Container {
        name: "node".to_owned(),
        image: Some(image.to_owned()),
        image_pull_policy: Some(pull_policy.to_owned()),
        env: Some(environment(cluster)),
        env_from: Some(vec![EnvFromSource {
            config_map_ref: Some(ConfigMapEnvSource { name: cluster.identity.config_name(), optional: Some(false) }),
            ..EnvFromSource::default()
        }]),
        ports: Some(vec![port("http", PUBLIC_PORT), port("admin", ADMIN_PORT)]),
        resources: Some(cluster.pod.resources.clone().unwrap_or_else(resources)),
        liveness_probe: Some(probe("/livez", 10, 3)),
        readiness_probe: Some(probe("/readyz", 5, 1)),
        startup_probe: Some(probe("/readyz", 1, 60)),
        lifecycle: Some(Lifecycle {
            pre_stop: Some(LifecycleHandler {
                sleep: Some(SleepAction { seconds: PRE_STOP_SECONDS }),
                ..LifecycleHandler::default()
            }),
            ..Lifecycle::default()
        }),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(mounts(cluster)),
        ..Container::default()
    }
}

fn resources() -> ResourceRequirements {
    let quantities = |pairs: &[(&str, &str)]| {
        Some(pairs.iter().map(|(name, amount)| ((*name).to_owned(), Quantity((*amount).to_owned()))).collect())
    };
    ResourceRequirements {
        requests: quantities(&[("cpu", "250m"), ("memory", "256Mi")]),
        limits: quantities(&[("memory", "512Mi")]),
        ..ResourceRequirements::default()
    }
}

fn probe(path: &str, period_seconds: i32, failure_threshold: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String("admin".to_owned()),
            scheme: Some("HTTP".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        timeout_seconds: Some(2),
        failure_threshold: Some(failure_threshold),
        ..Probe::default()
    }
}

/// What differs from pod to pod, and the one name that lies in a Secret.
fn environment(cluster: &ValidatedCluster) -> Vec<EnvVar> {
    let of_pod = |name: &str, field_path: &str| EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: Some("v1".to_owned()),
                field_path: field_path.to_owned(),
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    };
    let mut all = vec![
        of_pod("POD_NAME", "metadata.name"),
        of_pod("POD_UID", "metadata.uid"),
        of_pod("POD_NAMESPACE", "metadata.namespace"),
        of_pod("POD_IP", "status.podIP"),
    ];
    let credentials = cluster.redis.as_ref().and_then(|redis| redis.credentials.as_ref());
    if let Some((credentials, key)) = credentials.and_then(|found| Some((found, found.username_key.clone()?))) {
        all.push(EnvVar {
            name: "REDIS_USERNAME".to_owned(),
            value_from: Some(EnvVarSource {
                secret_key_ref: Some(SecretKeySelector {
                    name: credentials.secret_name.clone(),
                    key,
                    optional: Some(false),
                }),
                ..EnvVarSource::default()
            }),
            ..EnvVar::default()
        });
    }
    all
}

fn mounts(cluster: &ValidatedCluster) -> Vec<VolumeMount> {
    let mount = |name: &str, path: &str| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    };
    let mut all = vec![mount("secrets", SECRETS)];
    if cluster.tikv.tls_secret_name.is_some() {
        all.push(mount("tikv-tls", TIKV_TLS));
    }
    if cluster.redis_tls_secret().is_some() {
        all.push(mount("redis-tls", REDIS_TLS));
    }
    all
}

fn volumes(cluster: &ValidatedCluster) -> Vec<Volume> {
    let whole = |name: &str, secret: &str| Volume {
        name: name.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret.to_owned()),
            default_mode: Some(0o440),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    };
    let mut all = vec![Volume {
        name: "secrets".to_owned(),
        projected: Some(ProjectedVolumeSource { default_mode: Some(0o440), sources: Some(secrets(cluster)) }),
        ..Volume::default()
    }];
    all.extend(cluster.tikv.tls_secret_name.as_deref().map(|secret| whole("tikv-tls", secret)));
    all.extend(cluster.redis_tls_secret().map(|secret| whole("redis-tls", secret)));
    all
}

/// Single keys of Secrets, as the files that the settings name.
fn secrets(cluster: &ValidatedCluster) -> Vec<VolumeProjection> {
    let from = |secret: &str, items: Vec<(&str, &str)>| VolumeProjection {
        secret: Some(SecretProjection {
            name: secret.to_owned(),
            optional: Some(false),
            items: Some(
                items
                    .into_iter()
                    .map(|(key, path)| KeyToPath { key: key.to_owned(), path: path.to_owned(), mode: None })
                    .collect(),
            ),
        }),
        ..VolumeProjection::default()
    };
    let mut all = match &cluster.secret_key {
        None => vec![from(&cluster.identity.secret_name(), vec![(GENERATED_KEY, "secret-key")])],
        Some(given) => {
            let mut items = vec![(given.key.as_str(), "secret-key")];
            items.extend(given.previous_key.as_deref().map(|key| (key, "secret-key-previous")));
            vec![from(&given.name, items)]
        }
    };
    let credentials = cluster.redis.as_ref().and_then(|redis| redis.credentials.as_ref());
    all.extend(credentials.map(|found| from(&found.secret_name, vec![(&found.password_key, "redis-password")])));
    all
}
