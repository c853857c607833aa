//! The rules of the operator suffice and none is spare; a node may write its own Lease and no other.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use shortener_crds::ShortenerCluster;
use shortener_crds::lease::CLUSTER_LABEL;
use shortener_operator::check::check;
use shortener_operator::config::Run;
use shortener_operator::kinds::Kind;
use shortener_operator::observe::Scope;
use shortener_operator::rbac::{in_own_namespace, in_watched_namespaces};
use shortener_tests::kubernetes::{AuditEvent, Kubernetes};
use shortener_tests::operator::{ACCOUNT, Operator, SimulatedNode, install, kind, operator_client, sample, settings};
use shortener_tests::server_process::wait_until;

use crate::objects::stand_in;
use crate::scene::{SOON, Scene};

/// A right: group, resource with subresource, verb.
type Right = (String, String, String);

/// Rights that no request of this test shows: another one does, or the API server looks at them while it decides on something else.
const UNSEEN: [(&str, &str, &str); 4] = [
    // `a_resource_that_cannot_be_read_is_told_so_and_costs_the_others_nothing`: it takes a definition of another release.
    ("shortener.dev", "shortenerclusters/status", "patch"),
    // The admission plugin OwnerReferencesPermissionEnforcement, where it is on.
    ("shortener.dev", "shortenerclusters/finalizers", "update"),
    // Who gives a Role must have what is in it: `a_role_with_more_than_its_giver_has_is_refused`.
    ("coordination.k8s.io", "leases", "create"),
    ("coordination.k8s.io", "leases", "get"),
];

fn granted() -> BTreeSet<Right> {
    let rules = in_watched_namespaces().into_iter().chain(in_own_namespace());
    rules
        .flat_map(|rule| {
            let (groups, resources) =
                (rule.rule.api_groups.unwrap_or_default(), rule.rule.resources.unwrap_or_default());
            let verbs = rule.rule.verbs;
            let all = groups.into_iter().flat_map(move |group| {
                let verbs = verbs.clone();
                resources.clone().into_iter().flat_map(move |resource| {
                    let group = group.clone();
                    verbs.clone().into_iter().map(move |verb| (group.clone(), resource.clone(), verb))
                })
            });
            all.collect::<Vec<_>>()
        })
        .collect()
}

/// What one request needs.
fn needed(event: &AuditEvent) -> Vec<Right> {
    let Some(object) = &event.object_ref else { return Vec::new() };
    let resource = match object.subresource.as_str() {
        "" => object.resource.clone(),
        subresource => format!("{}/{subresource}", object.resource),
    };
    let right = |verb: &str| (object.api_group.clone(), resource.clone(), verb.to_owned());
    // An apply that made the object was a create as well.
    let made = event.verb == "patch" && event.code() == Some(201);
    std::iter::once(right(&event.verb)).chain(made.then(|| right("create"))).collect()
}

/// A cluster of its own: its audit log is read.
#[tokio::test]
async fn every_request_is_granted_and_every_rule_is_used() -> Result<()> {
    let builder = Kubernetes::builder().with_controllers().with_audit_log();
    let Some(kubernetes) = builder.start().await? else { return Ok(()) };
    let client = kubernetes.client().await?;
    install(&client).await?;
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    for kind in [Kind::HttpRoute, Kind::PodMonitor, Kind::PrometheusRule] {
        definitions.create(&PostParams::default(), &serde_json::from_value(stand_in(kind))?).await?;
    }
    let namespace = kubernetes.namespace("rights").await?;
    let elect = Run { leader_election: true, ..settings(&namespace) };
    let operator = Operator::start_with(operator_client(&kubernetes, &namespace).await?, elect).await?;
    live_a_whole_life(&kubernetes, &namespace).await?;
    operator.stop().await?;

    let who = format!("system:serviceaccount:{namespace}:{ACCOUNT}");
    let log = kubernetes.audit_log()?;
    let ours: Vec<_> = log.iter().filter(|event| event.user.username == who).collect();
    let refused: Vec<_> = ours.iter().filter(|event| event.code() == Some(403)).collect();
    assert!(refused.is_empty(), "{refused:?}");
    let used: BTreeSet<Right> = ours.iter().flat_map(|event| needed(event)).collect();
    let (granted, unseen) =
        (granted(), UNSEEN.map(|(group, resource, verb)| (group.into(), resource.into(), verb.into())));
    let spare: Vec<_> = granted.difference(&used).filter(|right| !unseen.contains(right)).collect();
    assert!(spare.is_empty(), "rights that nothing needed: {spare:?}");
    let beyond: Vec<_> = used.difference(&granted).collect();
    assert!(beyond.is_empty(), "rights that others gave: {beyond:?}");
    Ok(())
}

/// Everything that a resource may have, then nothing of it, then its end.
async fn live_a_whole_life(kubernetes: &Kubernetes, namespace: &str) -> Result<()> {
    let client = kubernetes.client().await?;
    let clusters: Api<ShortenerCluster> = Api::namespaced(client.clone(), namespace);
    let all = json!({
        "metadata": {"namespace": namespace},
        "spec": {"deletionPolicy": "Delete", "autoscaling": {"mode": "hpa"}, "httpRoute": {"parentRefs": [{"name": "gateway"}]}},
    });
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &kind());
    api.create(&PostParams::default(), &serde_json::from_value(sample(&all)?)?).await?;
    let mut node = SimulatedNode::start(&client, namespace, "main", "main-a").await?;
    node.want(1).await?;
    wait_until("the node has what it wants", SOON, async || node.is_served().await).await?;
    let is_there = async |kind: Kind, name: &str| {
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &kind.api_resource());
        anyhow::Ok(api.get_opt(name).await?.is_some())
    };
    let change = async |patch: Value| clusters.patch("main", &PatchParams::default(), &Patch::Merge(patch)).await;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    wait_until("the dashboard is there", SOON, async || Ok(maps.get_opt("main-dashboard").await?.is_some())).await?;
    change(json!({"spec": {"httpRoute": null, "ingress": {}}})).await?;
    wait_until("the Ingress is there", SOON, async || is_there(Kind::Ingress, "main").await).await?;
    change(json!({"spec": {
        "ingress": null,
        "autoscaling": null,
        "networkPolicy": {"enabled": false},
        "monitoring": {"podMonitor": false, "prometheusRule": false, "dashboard": false},
    }}))
    .await?;
    let gone = [
        (Kind::Ingress, "main"),
        (Kind::HttpRoute, "main"),
        (Kind::HorizontalPodAutoscaler, "main"),
        (Kind::NetworkPolicy, "main"),
        (Kind::PodMonitor, "main"),
        (Kind::PrometheusRule, "main"),
        (Kind::ConfigMap, "main-dashboard"),
    ];
    wait_until("what is not wanted any more is gone", SOON, async || {
        for (kind, name) in gone {
            if is_there(kind, name).await? {
                return Ok(false);
            }
        }
        Ok(true)
    })
    .await?;
    // Whatever has changed by now is told of once more, which is an event that is patched.
    for image in [json!("bad image"), json!("shortener:1"), json!("bad image"), json!("shortener:1")] {
        // The first is refused; what is told is what changes with the second.
        let _ = change(json!({"spec": {"image": image}})).await;
    }
    flap(&mut node).await?;
    clusters.delete("main", &DeleteParams::default()).await?;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    wait_until("the resource and its Secret are gone", SOON, async || {
        Ok(clusters.get_opt("main").await?.is_none() && secrets.get_opt("main-secret").await?.is_none())
    })
    .await
}

/// The store comes and goes, and the same event is told again.
async fn flap(node: &mut SimulatedNode) -> Result<()> {
    for (reachable, wanted) in [(false, 2), (true, 3), (false, 4), (true, 5)] {
        node.report.store_reachable = reachable;
        node.want(wanted).await?;
        wait_until("the operator has seen it", SOON, async || node.is_served().await).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_node_writes_the_lease_of_its_own_pod_and_no_other() -> Result<()> {
    let Some(scene) = Scene::new("leases").await? else { return Ok(()) };
    let operator = scene.operator().await?;
    scene.create(&json!({})).await?;
    scene.until_there::<ConfigMap>("main-dashboard").await?;
    let account = "main-shortener-node";
    let pods: Api<Pod> = scene.api();
    let mut clients = Vec::new();
    for name in ["main-a", "main-b"] {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {CLUSTER_LABEL: "main"}},
            "spec": {"serviceAccountName": account, "schedulerName": "nobody", "containers": [{"name": "node", "image": "shortener"}]},
        }))?;
        let pod = pods.create(&PostParams::default(), &pod).await?;
        let token = scene.kubernetes.token(&scene.namespace, account, Some(&pod)).await?;
        clients.push(scene.kubernetes.client_with_token(&token).await?);
    }
    let leases = |node: usize| Api::<Lease>::namespaced(clients[node].clone(), &scene.namespace);
    let lease = |name: &str, labels: Value| {
        serde_json::from_value::<Lease>(json!({"metadata": {"name": name, "labels": labels}}))
    };
    let ours = json!({CLUSTER_LABEL: "main"});
    wait_until("the policy is enforced", SOON, async || {
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        Ok(leases(0).create(&dry, &lease("main-b", ours.clone())?).await.is_err())
    })
    .await?;
    leases(0).create(&PostParams::default(), &lease("main-a", ours.clone())?).await?;
    leases(1).create(&PostParams::default(), &lease("main-b", ours.clone())?).await?;
    let patch = Patch::Merge(json!({"metadata": {"annotations": {"shortener.dev/report": "{}"}}}));
    let params = PatchParams::default();
    leases(0).patch("main-a", &params, &patch).await?;
    let refused = |result: Result<Lease, kube::Error>| match result {
        Err(kube::Error::Api(status)) => anyhow::Ok((status.code, status.message)),
        other => anyhow::bail!("it was not refused: {other:?}"),
    };
    let (code, message) = refused(leases(0).patch("main-b", &params, &patch).await)?;
    assert!(code == 403 && message.contains("its own pod"), "{code} {message}");
    // A label left out is no way round, nor is a Lease that is nobody's.
    assert_eq!(refused(leases(0).create(&PostParams::default(), &lease("main-c", json!({}))?).await)?.0, 403);
    // A token that is bound to no pod is nobody's.
    let unbound = scene.kubernetes.token(&scene.namespace, account, None).await?;
    let unbound: Api<Lease> = Api::namespaced(scene.kubernetes.client_with_token(&unbound).await?, &scene.namespace);
    assert_eq!(refused(unbound.patch("main-a", &params, &patch).await)?.0, 403);
    // Nothing else is a node's to do.
    let secrets: Api<Secret> = Api::namespaced(clients[0].clone(), &scene.namespace);
    assert!(secrets.list(&ListParams::default()).await.is_err());
    assert!(leases(0).delete("main-a", &DeleteParams::default()).await.is_err());
    operator.stop().await
}

#[tokio::test]
async fn the_check_passes_with_the_operators_rights_and_names_what_is_missing_without_them() -> Result<()> {
    let Some(scene) = Scene::new("check").await? else { return Ok(()) };
    let scope = Scope::Namespace(scene.namespace.clone());
    let client = operator_client(scene.kubernetes, &scene.namespace).await?;
    let rights = check(&client, &scope, &scene.namespace).await?;
    assert!(rights > 50, "{rights}");
    let token = scene.kubernetes.token(&scene.namespace, "default", None).await?;
    let nobody = scene.kubernetes.client_with_token(&token).await?;
    let missing = check(&nobody, &scope, &scene.namespace).await.expect_err("it has no rights").to_string();
    for named in ["update shortenerclusters", "create secrets", "rbac"] {
        assert!(missing.contains(named), "{named}: {missing}");
    }
    Ok(())
}

#[tokio::test]
async fn a_role_with_more_than_its_giver_has_is_refused() -> Result<()> {
    let Some(scene) = Scene::new("escalation").await? else { return Ok(()) };
    let client = operator_client(scene.kubernetes, &scene.namespace).await?;
    let api: Api<DynamicObject> = Api::namespaced_with(client, &scene.namespace, &Kind::Role.api_resource());
    let give = async |verb: &str| {
        let role = json!({
            "apiVersion": Kind::Role.api_version(),
            "kind": "Role",
            "metadata": {"name": "node"},
            "rules": [{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": [verb]}],
        });
        api.patch("node", &PatchParams::apply("test").force(), &Patch::Apply(role)).await
    };
    give("create").await.context("what the operator has itself")?;
    let Err(kube::Error::Api(refused)) = give("deletecollection").await else { panic!("it was not refused") };
    assert_eq!(refused.code, 403, "{}", refused.message);
    Ok(())
}
