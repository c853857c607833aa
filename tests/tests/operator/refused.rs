//! What makes no sense is refused: by the API server, in words that name the field; and, where it got past it, by the operator.

use anyhow::{Context, Result};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, CustomResourceExt, ResourceExt};
use serde_json::{Value, json};
use shortener_crds::ShortenerCluster;
use shortener_tests::kubernetes::Kubernetes;
use shortener_tests::operator::{Operator, kind, operator_client, sample};
use shortener_tests::server_process::wait_until;

use crate::scene::{SOON, Scene};

#[tokio::test]
async fn every_wrong_resource_is_refused_with_a_message_that_names_the_field() -> Result<()> {
    let Some(scene) = Scene::new("refused").await? else { return Ok(()) };
    let api: Api<DynamicObject> = Api::namespaced_with(scene.client.clone(), &scene.namespace, &kind());
    let samples: Vec<Value> = serde_saphyr::from_str(include_str!("../../samples/invalid_clusters.yaml"))?;
    assert!(samples.len() >= 60, "{} samples", samples.len());
    let strict = PostParams { dry_run: true, field_manager: None };
    let ours = json!({"metadata": {"namespace": scene.namespace}});
    let create = async |patch: &Value| {
        let mut resource = sample(patch)?;
        json_patch::merge(&mut resource, &ours);
        anyhow::Ok(api.create(&strict, &serde_json::from_value(resource)?).await)
    };
    create(&json!({})).await?.context("the sample itself is right")?;
    let mut wrong = Vec::new();
    for sample in &samples {
        let field = sample["field"].as_str().context("a field")?;
        match create(&sample["patch"]).await? {
            Ok(_) => wrong.push(format!("taken: {sample}")),
            Err(kube::Error::Api(refused)) if refused.message.contains(field) => {}
            Err(error) => wrong.push(format!("{field} is not named: {error}")),
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), samples.len(), wrong.join("\n"));
    Ok(())
}

#[tokio::test]
async fn what_may_not_change_is_refused_to_change() -> Result<()> {
    let Some(scene) = Scene::new("immutable").await? else { return Ok(()) };
    let changes: Vec<Value> = serde_saphyr::from_str(include_str!("../../samples/changes_refused.yaml"))?;
    for (change, index) in changes.iter().zip(0..) {
        let name = format!("main-{index}");
        let mut before = change["before"].clone();
        json_patch::merge(&mut before, &json!({"metadata": {"name": name}}));
        scene.create(&before).await?;
        let field = change["field"].as_str().context("a field")?;
        let error = scene.change(&name, &change["patch"]).await.expect_err(&change.to_string());
        assert!(format!("{error:#}").contains(field), "{change}: {error:#}");
        scene.change(&name, &json!({"spec": {"domains": ["go.example"]}})).await.context("all else may change")?;
    }
    Ok(())
}

/// A cluster of its own, with a definition that has no rules; none where there is no Kubernetes.
async fn without_admission() -> Result<Option<(Kubernetes, Client)>> {
    let Some(kubernetes) = Kubernetes::builder().with_controllers().start().await? else { return Ok(None) };
    let client = kubernetes.client().await?;
    let mut definition = serde_json::to_value(ShortenerCluster::crd())?;
    without_rules(&mut definition);
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    definitions.create(&PostParams::default(), &serde_json::from_value(definition)?).await?;
    let clusters: Api<DynamicObject> = Api::namespaced_with(client.clone(), "default", &kind());
    wait_until("ShortenerClusters are served", SOON, async || Ok(clusters.list(&ListParams::default()).await.is_ok()))
        .await?;
    Ok(Some((kubernetes, client)))
}

/// What no release of the operator can read, or only a later one can: what the API server took, and the field that is named.
const UNREADABLE: [(&str, &str, &str); 6] = [
    (
        "beyond-32-bits",
        r#"{"pod": {"topologySpreadConstraints": [{"maxSkew": 3000000000, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]}}"#,
        "spec.pod.topologySpreadConstraints[0].maxSkew",
    ),
    ("below-32-bits", r#"{"service": {"port": -3000000000}}"#, "spec.service.port"),
    ("a-later-mode", r#"{"autoscaling": {"mode": "predictive"}}"#, "spec.autoscaling.mode"),
    ("a-later-policy", r#"{"deletionPolicy": "Archive"}"#, "spec.deletionPolicy"),
    (
        "seconds-beyond",
        r#"{"pod": {"tolerations": [{"key": "a", "tolerationSeconds": 1}], "terminationGracePeriodSeconds": 9000000000}}"#,
        "spec.pod.terminationGracePeriodSeconds",
    ),
    ("a-later-type", r#"{"service": {"type": "ExternalName"}}"#, "spec.service.type"),
];

#[tokio::test]
async fn a_resource_that_cannot_be_read_is_told_so_and_costs_the_others_nothing() -> Result<()> {
    let Some((kubernetes, client)) = without_admission().await? else { return Ok(()) };
    let its_own_rights = operator_client(&kubernetes, "default").await?;
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), "default", &kind());
    let create = async |name: &str, spec: Value| {
        let resource = sample(&json!({"metadata": {"name": name}, "spec": spec}))?;
        api.create(&PostParams::default(), &serde_json::from_value(resource)?).await.context("taken")
    };
    let ready = async |name: &str| {
        let resource = api.get(name).await?;
        let conditions = resource.data.pointer("/status/conditions").and_then(Value::as_array).cloned();
        anyhow::Ok(conditions.unwrap_or_default().into_iter().find(|condition| condition["type"] == "Ready"))
    };
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "default");
    let is_built = async |name: &str| anyhow::Ok(deployments.get_opt(name).await?.is_some());

    // One comes while the operator watches, the others are there when it begins to.
    let operator = Operator::start(its_own_rights.clone(), "default").await?;
    create("before", json!({})).await?;
    wait_until("the first is built", SOON, async || is_built("before").await).await?;
    for (name, spec, _) in UNREADABLE {
        create(name, serde_json::from_str(spec)?).await?;
    }
    create("meanwhile", json!({})).await?;
    wait_until("the next is built", SOON, async || is_built("meanwhile").await).await?;
    operator.stop().await?;
    let operator = Operator::start(its_own_rights, "default").await?;
    create("afterwards", json!({})).await?;
    wait_until("another operator builds on", SOON, async || is_built("afterwards").await).await?;

    for (name, _, field) in UNREADABLE {
        wait_until(&format!("{name} is told"), SOON, async || {
            let condition = ready(name).await?.unwrap_or_default();
            let is_told = condition["status"] == "False" && condition["reason"] == "Unreadable";
            Ok(is_told && condition["message"].as_str().is_some_and(|message| message.contains(field)))
        })
        .await
        .with_context(|| format!("{name}: {field}"))?;
    }
    let all = f64::from(u32::try_from(UNREADABLE.len())?);
    let are_known = async |expected: f64| {
        anyhow::Ok((operator.metric("shortener_operator_unreadable").await? - expected).abs() < 0.5)
    };
    wait_until("the metric counts all of them", SOON, async || are_known(all).await).await?;
    let events: Api<Event> = Api::namespaced(client.clone(), "default");
    wait_until("an event tells of each", SOON, async || {
        let told = events.list(&ListParams::default()).await?;
        let told = told.iter().filter(|event| event.reason.as_deref() == Some("Unreadable")).count();
        Ok(told >= UNREADABLE.len())
    })
    .await?;
    // It can be corrected, and it can go.
    let right = Patch::Merge(json!({"spec": {"service": {"port": 80}}}));
    api.patch("below-32-bits", &PatchParams::default(), &right).await?;
    wait_until("what was corrected is built", SOON, async || is_built("below-32-bits").await).await?;
    api.delete("a-later-mode", &DeleteParams::default()).await?;
    wait_until("what is deleted goes", SOON, async || Ok(api.get_opt("a-later-mode").await?.is_none())).await?;
    wait_until("the metric forgets both", SOON, async || are_known(all - 2.0).await).await?;
    operator.stop().await
}

#[tokio::test]
async fn what_got_past_the_api_server_is_told_in_a_condition_and_an_event_and_not_tried_again_and_again() -> Result<()>
{
    let Some((_kubernetes, client)) = without_admission().await? else { return Ok(()) };
    let clusters: Api<ShortenerCluster> = Api::namespaced(client.clone(), "default");
    let operator = Operator::start(client.clone(), "default").await?;
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), "default", &kind());
    let wrong = sample(&json!({"spec": {"baseUrl": "nonsense"}}))?;
    api.create(&PostParams::default(), &serde_json::from_value(wrong)?).await?;
    wait_until("the condition says why", SOON, async || {
        let conditions = clusters.get("main").await?.status.unwrap_or_default().conditions;
        let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
        Ok(ready.is_some_and(|ready| ready.reason == "SpecInvalid" && ready.message.contains("spec.baseUrl")))
    })
    .await?;
    let events: Api<Event> = Api::namespaced(client.clone(), "default");
    wait_until("an event says why", SOON, async || {
        let all = events.list(&ListParams::default()).await?;
        Ok(all.iter().any(|event| event.reason.as_deref() == Some("SpecInvalid")))
    })
    .await?;
    // The first visit puts the finalizer there, the second tells; what it told is there before it is counted.
    let visits = async || operator.metric("shortener_operator_reconciles_total").await;
    wait_until("both visits are over", SOON, async || Ok(visits().await? >= 2.0)).await?;
    let (before, version) = (visits().await?, clusters.get("main").await?.resource_version());
    tokio::time::sleep(std::time::Duration::from_secs(5)).await; // a span in which nothing may happen
    let visits = visits().await? - before;
    assert!(visits <= 1.0, "{visits} visits in 5 s");
    assert_eq!(clusters.get("main").await?.resource_version(), version);
    let right = Patch::Merge(json!({"spec": {"baseUrl": "https://sho.rt"}}));
    clusters.patch("main", &PatchParams::default(), &right).await?;
    wait_until("it goes on once it is corrected", SOON, async || {
        Ok(clusters.get("main").await?.status.unwrap_or_default().url.is_some())
    })
    .await?;
    operator.stop().await
}

/// Takes out of a schema everything that refuses a value of the right type.
fn without_rules(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            let rules = [
                "x-kubernetes-validations",
                "pattern",
                "minLength",
                "maxLength",
                "minimum",
                "maximum",
                "enum",
                "format",
            ];
            // A property of that name would be an object.
            map.retain(|key, value| !rules.contains(&key.as_str()) || value.is_object());
            map.values_mut().for_each(without_rules);
        }
        Value::Array(values) => values.iter_mut().for_each(without_rules),
        _ => {}
    }
}
