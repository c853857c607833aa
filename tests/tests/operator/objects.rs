//! What a cluster owns: all of it is built, repaired, left alone when it is as it should be, and gone with the resource.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::{Ingress, NetworkPolicy};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use shortener_operator::kinds::Kind;
use shortener_tests::operator::{IMAGE, Operator, operator_client, settings};
use shortener_tests::server_process::wait_until;
use shortener_tests::sizes::sized;

use crate::scene::{SOON, Scene, version};

/// How soon what was altered is as it was.
const REPAIRED_WITHIN: Duration = Duration::from_secs(10);
/// Kubernetes' autoscaler looks every 15 s.
const KUBERNETES_LOOKS: Duration = Duration::from_mins(1);

#[tokio::test]
async fn the_smallest_resource_becomes_everything_that_it_owns() -> Result<()> {
    let Some(scene) = Scene::new("built").await? else { return Ok(()) };
    let operator = scene.operator().await?;
    scene.create(&json!({})).await?;
    let deployment: Deployment = scene.until_there("main").await?;
    let spec = deployment.spec.context("a spec")?;
    assert_eq!(spec.replicas, Some(3));
    let container = &spec.template.spec.context("a pod")?.containers[0];
    assert_eq!(container.image.as_deref(), Some(IMAGE));
    scene.until_there::<ServiceAccount>("main-shortener-node").await?;
    scene.until_there::<Role>("main-shortener-node").await?;
    scene.until_there::<RoleBinding>("main-shortener-node").await?;
    scene.until_there::<Service>("main").await?;
    scene.until_there::<NetworkPolicy>("main").await?;
    scene.until_there::<PodDisruptionBudget>("main").await?;
    let settings: ConfigMap = scene.until_there("main-config").await?;
    let settings = settings.data.context("settings")?;
    assert_eq!(settings["DATABASE_URL"], format!("tikv://pd-0.pd:2379,pd-1.pd:2379/{}_main", scene.namespace));
    assert_eq!((settings["ALLOCATION"].as_str(), settings["BASE_URL"].as_str()), ("lease", "https://sho.rt"));
    let secret: Secret = scene.until_there("main-secret").await?;
    assert!(secret.owner_references().is_empty(), "it stays when the resource goes");
    assert!(secret.data.context("a key")?["secret-key"].0.len() >= 32);
    scene.until_there::<ConfigMap>("main-dashboard").await?;

    scene.until_condition("main", "Ready", "False", "NodesNotReady").await?;
    let status = scene.clusters().get("main").await?.status.context("a status")?;
    assert_eq!((status.url.as_deref(), status.image.as_deref()), (Some("https://sho.rt"), Some(IMAGE)));
    let conditions: Vec<_> = status.conditions.iter().map(|condition| condition.type_.as_str()).collect();
    assert_eq!(conditions.len(), 8, "all of them from the first visit on: {conditions:?}");
    let columns = scene.kubernetes.kubectl(&["get", "shc", "-n", &scene.namespace]).await?;
    for column in ["READY", "NODES", "DESIRED", "P99", "NEXT-BLOCK", "URL", "AGE", "https://sho.rt"] {
        assert!(columns.contains(column), "{column}: {columns}");
    }
    operator.stop().await
}

#[tokio::test]
async fn what_is_altered_or_deleted_is_repaired_within_ten_seconds() -> Result<()> {
    let Some(scene) = Scene::new("repaired").await? else { return Ok(()) };
    let operator = scene.operator().await?;
    scene.create(&json!({})).await?;
    scene.until_there::<ConfigMap>("main-dashboard").await?; // the last that is applied
    let merge = |patch: Value| Patch::Merge(patch);
    let params = PatchParams::default();

    let deployments = scene.api::<Deployment>();
    let altered = json!({"spec": {"replicas": 1, "template": {"spec": {"terminationGracePeriodSeconds": 12}}}});
    deployments.patch("main", &params, &merge(altered)).await?;
    wait_until("the Deployment is repaired", REPAIRED_WITHIN, async || {
        let spec = deployments.get("main").await?.spec.context("a spec")?;
        let grace = spec.template.spec.and_then(|pod| pod.termination_grace_period_seconds);
        Ok((spec.replicas, grace) == (Some(3), Some(30)))
    })
    .await?;

    let services = scene.api::<Service>();
    let label = "app.kubernetes.io/managed-by";
    services.patch("main", &params, &merge(json!({"metadata": {"labels": {label: null}}}))).await?;
    wait_until("the Service has its label again", REPAIRED_WITHIN, async || {
        Ok(services.get("main").await?.labels().contains_key(label))
    })
    .await?;

    let others = json!({"metadata": {"annotations": {"somebody": "else"}}});
    services.patch("main", &params, &merge(others)).await?;
    scene.api::<ConfigMap>().delete("main-config", &DeleteParams::default()).await?;
    scene.api::<PodDisruptionBudget>().delete("main", &DeleteParams::default()).await?;
    scene.api::<Role>().delete("main-shortener-node", &DeleteParams::default()).await?;
    services.delete("main", &DeleteParams::default()).await?;
    wait_until("what was deleted is there again", REPAIRED_WITHIN, async || {
        Ok(scene.api::<ConfigMap>().get_opt("main-config").await?.is_some()
            && scene.api::<PodDisruptionBudget>().get_opt("main").await?.is_some()
            && scene.api::<Role>().get_opt("main-shortener-node").await?.is_some()
            && services.get_opt("main").await?.is_some())
    })
    .await?;
    operator.stop().await
}

/// Versions of everything in a namespace that an operator may write.
async fn versions(scene: &Scene) -> Result<BTreeMap<String, String>> {
    let mut versions = BTreeMap::new();
    for kind in Kind::ALL.iter().filter(|kind| kind.is_everywhere()) {
        let api: Api<DynamicObject> =
            Api::namespaced_with(scene.client.clone(), &scene.namespace, &kind.api_resource());
        for object in api.list(&kube::api::ListParams::default()).await? {
            versions.insert(format!("{} {}", kind.kind(), object.name_any()), version(&object));
        }
    }
    for cluster in scene.clusters().list(&kube::api::ListParams::default()).await? {
        versions.insert(format!("ShortenerCluster {}", cluster.name_any()), version(&cluster));
    }
    Ok(versions)
}

#[tokio::test]
async fn an_unchanged_resource_is_left_alone_also_by_another_release() -> Result<()> {
    let Some(scene) = Scene::new("quiet").await? else { return Ok(()) };
    let client = operator_client(scene.kubernetes, &scene.namespace).await?;
    let operator = Operator::start(client.clone(), &scene.namespace).await?;
    // Quantities that the server writes in its own way, and a node that has all it wants.
    let resources = json!({"requests": {"cpu": "0.5", "memory": "1024Mi"}});
    scene.create(&json!({"spec": {"pod": {"resources": resources}}})).await?;
    let mut node = scene.node("main", "main-a").await?;
    node.want(1).await?;
    crate::scene::until_served(std::slice::from_ref(&node), SOON).await?;
    scene.until_condition("main", "AllocationHealthy", "True", "Granted").await?;
    scene.until_condition("main", "StoreReachable", "True", "Reachable").await?;
    scene.until_there::<ConfigMap>("main-dashboard").await?;
    // A rollout that makes no progress is told of after ten minutes.
    let of_nodes = kube::api::ListParams::default().labels("app.kubernetes.io/instance=main");
    let mut pods = Vec::new();
    wait_until("there are as many pods as are wanted", SOON, async || {
        pods = scene.api::<Pod>().list(&of_nodes).await?.items;
        Ok(pods.len() == 3)
    })
    .await?;
    for pod in pods {
        scene.make_ready(&pod.name_any()).await?;
    }
    scene.until_condition("main", "Ready", "True", "AsWanted").await?;
    settled(&scene).await?;
    let before = versions(&scene).await?;
    let visits = operator.metric("shortener_operator_reconciles_total").await?;
    let span = Duration::from_secs(sized(25, 600));
    tokio::time::sleep(span).await; // a span in which nothing may be written
    assert_eq!(versions(&scene).await?, before);
    assert!(operator.metric("shortener_operator_reconciles_total").await? > visits, "it did look");
    operator.stop().await?;

    let later = shortener_operator::config::Run { node_image: "shortener:later".into(), ..settings(&scene.namespace) };
    let upgraded = Operator::start_with(client, later).await?;
    wait_until("the upgraded operator has looked", SOON, async || {
        Ok(upgraded.metric("shortener_operator_reconciles_total").await? >= 2.0)
    })
    .await?;
    assert_eq!(versions(&scene).await?, before, "an upgrade of the operator alone changes nothing");
    upgraded.stop().await
}

/// Waits until controllers and operator have written all they had to.
async fn settled(scene: &Scene) -> Result<()> {
    let mut last = versions(scene).await?;
    wait_until("nothing changes any more", SOON, async || {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let now = versions(scene).await?;
        let same = now == last;
        last = now;
        Ok(same)
    })
    .await
}

#[tokio::test]
async fn a_change_of_settings_or_of_a_secret_replaces_the_pods() -> Result<()> {
    let Some(scene) = Scene::new("rolled").await? else { return Ok(()) };
    let operator = scene.operator().await?;
    scene.create(&json!({"spec": {"secretKeyRef": {"name": "keys"}}})).await?;
    let message = scene.until_condition("main", "Ready", "False", "SecretMissing").await?;
    assert!(message.contains("keys"), "{message}");
    let secrets = scene.api::<Secret>();
    let secret = |key: &str| {
        serde_json::from_value::<Secret>(json!({"metadata": {"name": "keys"}, "stringData": {"secret-key": key}}))
    };
    secrets.create(&PostParams::default(), &secret(&"a".repeat(32))?).await?;
    let template = async || {
        let deployment: Deployment = scene.until_there("main").await?;
        let template = deployment.spec.context("a spec")?.template.metadata.context("metadata")?;
        template.annotations.and_then(|all| all.get("shortener.dev/config-hash").cloned()).context("a hash")
    };
    let first = template().await?;
    let changed = async |last: &String| {
        wait_until("the pods are another kind", SOON, async || Ok(template().await? != *last)).await?;
        template().await
    };
    scene.change("main", &json!({"spec": {"config": {"rateLimitRequests": 500}}})).await?;
    let second = changed(&first).await?;
    let rotated = json!({"stringData": {"secret-key": "b".repeat(32)}});
    secrets.patch("keys", &PatchParams::default(), &Patch::Merge(rotated)).await?;
    changed(&second).await?;
    operator.stop().await
}

#[tokio::test]
async fn the_resource_can_be_scaled_and_what_is_not_wanted_any_more_goes() -> Result<()> {
    let Some(scene) = Scene::new("scaled").await? else { return Ok(()) };
    let operator = scene.operator().await?;
    let ingress = json!({"className": "nginx", "tlsSecretName": "tls"});
    scene.create(&json!({"spec": {"autoscaling": null, "ingress": ingress}})).await?;
    let deployments = scene.api::<Deployment>();
    let replicas = async |wanted| {
        wait_until(&format!("{wanted} nodes are wanted"), SOON, async || {
            let found = deployments.get_opt("main").await?;
            Ok(found.and_then(|found| found.spec?.replicas) == Some(wanted))
        })
        .await
    };
    replicas(2).await?;
    let ingress: Ingress = scene.until_there("main").await?;
    let hosts: Vec<_> =
        ingress.spec.context("a spec")?.rules.unwrap_or_default().into_iter().map(|rule| rule.host).collect();
    assert_eq!(hosts, [Some("sho.rt".to_owned())]);
    scene.kubernetes.kubectl(&["scale", "shc/main", "--replicas=5", "-n", &scene.namespace]).await?;
    replicas(5).await?;
    scene.change("main", &json!({"spec": {"ingress": null, "networkPolicy": {"enabled": false}}})).await?;
    wait_until("the Ingress and the NetworkPolicy are gone", SOON, async || {
        Ok(scene.api::<Ingress>().get_opt("main").await?.is_none()
            && scene.api::<NetworkPolicy>().get_opt("main").await?.is_none())
    })
    .await?;
    operator.stop().await
}

#[tokio::test]
async fn a_resource_that_goes_takes_all_along_but_the_secret_unless_asked_to() -> Result<()> {
    let Some(scene) = Scene::new("deleted").await? else { return Ok(()) };
    let operator = scene.operator().await?;
    for (name, policy, stays) in [("kept", "Retain", true), ("gone", "Delete", false)] {
        scene.create(&json!({"metadata": {"name": name}, "spec": {"deletionPolicy": policy}})).await?;
        scene.until_there::<Deployment>(name).await?;
        let before: Secret = scene.until_there(&format!("{name}-secret")).await?;
        scene.clusters().delete(name, &DeleteParams::default()).await?;
        wait_until("the resource and what it owned are gone", SOON, async || {
            Ok(scene.clusters().get_opt(name).await?.is_none()
                && scene.api::<Deployment>().get_opt(name).await?.is_none()
                && scene.api::<Service>().get_opt(name).await?.is_none())
        })
        .await?;
        let secret = scene.api::<Secret>().get_opt(&format!("{name}-secret")).await?;
        assert_eq!(secret.is_some(), stays, "{policy}");
        if let Some(secret) = secret {
            scene.create(&json!({"metadata": {"name": name}})).await?;
            scene.until_there::<Deployment>(name).await?;
            let again = scene.api::<Secret>().get(&format!("{name}-secret")).await?;
            assert_eq!((again.data, secret.data), (before.data.clone(), before.data), "the same key as before");
        }
    }
    operator.stop().await
}

#[tokio::test]
async fn kinds_that_the_cluster_learns_later_are_picked_up() -> Result<()> {
    let Some(scene) = Scene::new("kinds").await? else { return Ok(()) };
    let operator = scene.operator().await?;
    scene.create(&json!({"spec": {"httpRoute": {"parentRefs": [{"name": "gateway"}]}}})).await?;
    scene.until_there::<Deployment>("main").await?;
    let later = [Kind::HttpRoute, Kind::PodMonitor, Kind::PrometheusRule];
    for kind in later {
        let definition: CustomResourceDefinition = serde_json::from_value(stand_in(kind))?;
        let definitions: Api<CustomResourceDefinition> = Api::all(scene.client.clone());
        let params = PatchParams::apply("shortener-tests").force();
        definitions.patch(&kind.definition(), &params, &Patch::Apply(&definition)).await?;
    }
    for kind in later {
        let api: Api<DynamicObject> =
            Api::namespaced_with(scene.client.clone(), &scene.namespace, &kind.api_resource());
        // Until the definition is served every answer is an error.
        wait_until(&format!("there is a {}", kind.kind()), SOON, async || {
            Ok(api.get_opt("main").await.is_ok_and(|found| found.is_some()))
        })
        .await?;
    }
    operator.stop().await
}

#[tokio::test]
async fn with_the_mode_hpa_kubernetes_own_autoscaler_finds_the_scale_and_its_bounds() -> Result<()> {
    let Some(scene) = Scene::new("hpa").await? else { return Ok(()) };
    let operator = scene.operator().await?;
    let autoscaling = json!({
        "mode": "hpa", "minReplicas": 2, "maxReplicas": 9, "targetUtilizationPercent": 70,
        "scaleDown": {"percent": 20, "nodes": 2, "periodSeconds": 90, "stabilizationSeconds": 240},
    });
    // It has no scale of its own: the operator gives it the first.
    scene.create(&json!({"spec": {"replicas": null, "autoscaling": autoscaling}})).await?;
    let written: HorizontalPodAutoscaler = scene.until_there("main").await?;
    let spec = serde_json::to_value(written.spec.context("a spec")?)?;
    let target = json!({"apiVersion": "shortener.dev/v1alpha1", "kind": "ShortenerCluster", "name": "main"});
    assert_eq!(spec["scaleTargetRef"], target);
    assert_eq!((&spec["minReplicas"], &spec["maxReplicas"]), (&json!(2), &json!(9)));
    let cpu = json!({"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}});
    assert_eq!(spec["metrics"], json!([{"type": "Resource", "resource": cpu}]));
    let down = json!([
        {"type": "Percent", "value": 20, "periodSeconds": 90},
        {"type": "Pods", "value": 2, "periodSeconds": 90},
    ]);
    assert_eq!(spec["behavior"]["scaleDown"]["policies"], down);
    assert_eq!(spec["behavior"]["scaleDown"]["stabilizationWindowSeconds"], 240);
    // Its controller reads the resource's scale; what it would write there becomes the size of the fleet.
    wait_until("Kubernetes can scale the resource", KUBERNETES_LOOKS, async || {
        let conditions =
            scene.api::<HorizontalPodAutoscaler>().get("main").await?.status.and_then(|status| status.conditions);
        let able = |condition: &HorizontalPodAutoscalerCondition| {
            condition.type_ == "AbleToScale" && condition.status == "True"
        };
        Ok(conditions.is_some_and(|conditions| conditions.iter().any(able)))
    })
    .await?;
    scene.kubernetes.kubectl(&["scale", "shc", "main", "--replicas=5", "-n", &scene.namespace]).await?;
    wait_until("the fleet has the size", SOON, async || {
        Ok(scene.api::<Deployment>().get("main").await?.spec.and_then(|spec| spec.replicas) == Some(5))
    })
    .await?;
    operator.stop().await
}

#[tokio::test]
async fn who_is_to_decide_on_the_size_finds_the_fleet_as_it_was() -> Result<()> {
    let Some(scene) = Scene::new("handover").await? else { return Ok(()) };
    let operator = scene.operator().await?;
    // Nothing answers there: it begins with its minimum.
    let autoscaling = json!({"minReplicas": 5, "maxReplicas": 9, "prometheus": {"url": "http://127.0.0.1:9"}});
    scene.create(&json!({"spec": {"replicas": null, "autoscaling": autoscaling}})).await?;
    let size = async || {
        let deployment = scene.api::<Deployment>().get_opt("main").await?;
        Ok::<_, anyhow::Error>(deployment.and_then(|it| it.spec).and_then(|spec| spec.replicas))
    };
    wait_until("the fleet has its size", SOON, async || Ok(size().await? == Some(5))).await?;
    // That its image is another one shows when it has been applied anew.
    let becomes = async |image: &str, patch: Value| {
        let mut patch = patch;
        json_patch::merge(&mut patch, &json!({"spec": {"image": image}}));
        scene.change("main", &patch).await?;
        wait_until(&format!("the fleet is of {image}"), SOON, async || {
            let deployment = scene.api::<Deployment>().get("main").await?;
            let spec = deployment.spec.and_then(|spec| spec.template.spec).context("a template")?;
            Ok(spec.containers[0].image.as_deref() == Some(image))
        })
        .await
    };
    becomes("shortener:a", json!({"spec": {"autoscaling": {"mode": "none"}}})).await?;
    assert_eq!(size().await?, Some(5), "handed over");
    scene.kubernetes.kubectl(&["scale", "deployment", "main", "--replicas=7", "-n", &scene.namespace]).await?;
    becomes("shortener:b", json!({})).await?;
    assert_eq!(size().await?, Some(7), "somebody else's");
    becomes("shortener:c", json!({"spec": {"autoscaling": {"mode": "hpa"}}})).await?;
    assert_eq!(size().await?, Some(7), "handed to Kubernetes' own autoscaler");
    wait_until("the resource has a scale", SOON, async || {
        Ok(scene.clusters().get("main").await?.spec.replicas == Some(7))
    })
    .await?;
    operator.stop().await
}

/// A definition of this kind that takes anything: the real ones lie elsewhere.
pub fn stand_in(kind: Kind) -> Value {
    let name = kind.kind().to_lowercase();
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": kind.definition(),
            "annotations": {"api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/gateway-api"},
        },
        "spec": {
            "group": kind.group(),
            "scope": "Namespaced",
            "names": {"kind": kind.kind(), "plural": kind.plural(), "singular": name, "listKind": format!("{}List", kind.kind())},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            }],
        },
    })
}
