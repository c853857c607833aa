//! What is relied on in Kubernetes, and the clusters of the tests themselves: rules and rights are enforced with messages
//! that say why, parts fail as they are told to and come back, and snapshots bring back what was.
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams,
};
use kube::core::Status;
use kube::{Client, Error};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use shortener_tests::kubernetes::{Kubernetes, Part};
use shortener_tests::server_process::{fresh_name, wait_until};
use tokio::time::timeout;

/// What controllers do takes a second or two on an idle machine.
const DEADLINE: Duration = Duration::from_mins(1);
/// Far longer than an answer takes, and short enough to wait for.
const HANGS: Duration = Duration::from_secs(2);

#[tokio::test]
async fn a_resource_that_breaks_a_rule_is_refused_with_the_rules_message() -> Result<()> {
    let Some(kubernetes) = Kubernetes::shared().await? else { return Ok(()) };
    let client = kubernetes.client().await?;
    let namespace = kubernetes.namespace("cel").await?;
    let group = format!("{}.example.com", fresh_name("cel"));
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let definition = create(&definitions, definition_of_things(&group)).await?;
    let kind = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(&group, "v1", "Thing"), "things");
    let things: Api<DynamicObject> = Api::namespaced_with(client, &namespace, &kind);
    wait_until("the new resource is served", DEADLINE, async || Ok(things.list(&ListParams::default()).await.is_ok()))
        .await?;

    let thing = |spec: Value| json!({ "apiVersion": format!("{group}/v1"), "kind": "Thing", "metadata": { "name": "a" }, "spec": spec });
    let refused = status(create(&things, thing(json!({ "least": 5, "most": 4 }))).await)?;
    assert_eq!(refused.code, 422);
    assert_says(&refused, "spec: Invalid value");
    assert_says(&refused, "least is above most");
    let refused = status(create(&things, thing(json!({ "least": "five", "most": 4 }))).await)?;
    assert_says(&refused, "spec.least");
    create(&things, thing(json!({ "least": 4, "most": 5 }))).await?;
    definitions.delete(&definition.metadata.name.context("it has a name")?, &DeleteParams::default()).await?;
    Ok(())
}

#[tokio::test]
async fn two_managers_of_one_field_conflict_and_of_two_fields_do_not() -> Result<()> {
    let Some(kubernetes) = Kubernetes::shared().await? else { return Ok(()) };
    let namespace = kubernetes.namespace("apply").await?;
    let maps: Api<ConfigMap> = Api::namespaced(kubernetes.client().await?, &namespace);
    let apply = async |manager: &str, data: Value| {
        let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a" }, "data": data });
        maps.patch("a", &PatchParams::apply(manager), &Patch::Apply(map)).await
    };
    apply("one", json!({ "x": "1" })).await?;
    apply("two", json!({ "y": "2" })).await?;
    let refused = status(apply("two", json!({ "x": "2", "y": "2" })).await)?;
    assert!(refused.is_conflict());
    assert_says(&refused, "conflict with \"one\"");
    let map = apply("one", json!({ "x": "1" })).await?;
    assert_eq!(map.data.context("both have written")?.len(), 2);
    Ok(())
}

#[tokio::test]
async fn of_two_who_replace_the_lease_that_they_read_one_wins() -> Result<()> {
    let Some(kubernetes) = Kubernetes::shared().await? else { return Ok(()) };
    let namespace = kubernetes.namespace("lease").await?;
    let leases: Api<Lease> = Api::namespaced(kubernetes.client().await?, &namespace);
    let read = create(&leases, json!({ "metadata": { "name": "a" }, "spec": { "holderIdentity": "nobody" } })).await?;
    let hold = async |holder: &str| {
        let mut lease = read.clone();
        lease.spec.get_or_insert_default().holder_identity = Some(holder.to_owned());
        leases.replace("a", &PostParams::default(), &lease).await
    };
    hold("one").await?;
    assert!(status(hold("two").await)?.is_conflict());
    let holder = leases.get("a").await?.spec.and_then(|spec| spec.holder_identity);
    assert_eq!(holder.as_deref(), Some("one"));
    Ok(())
}

#[tokio::test]
async fn a_service_account_may_do_what_its_role_says_and_nothing_else() -> Result<()> {
    let Some(kubernetes) = Kubernetes::shared().await? else { return Ok(()) };
    let namespace = kubernetes.namespace("rbac").await?;
    make_account_with_leases(&kubernetes.client().await?, &namespace).await?;
    let token = kubernetes.token(&namespace, "keeper", None).await?;
    let client = kubernetes.client_with_token(&token).await?;
    let leases: Api<Lease> = Api::namespaced(client.clone(), &namespace);
    create(&leases, json!({ "metadata": { "name": "a" } })).await?;
    let refused = status(leases.delete("a", &DeleteParams::default()).await)?;
    assert!(refused.is_forbidden());
    assert_says(&refused, "cannot delete resource \"leases\" in API group \"coordination.k8s.io\"");
    let elsewhere: Api<Lease> = Api::namespaced(client, "default");
    assert!(status(elsewhere.get("a").await)?.is_forbidden());

    let kubeconfig = kubernetes.kubeconfig_with_token(&token)?;
    let kubeconfig = kubeconfig.to_str().context("a path is text")?;
    let identity = kubernetes.kubectl(&["--kubeconfig", kubeconfig, "auth", "whoami"]).await?;
    assert!(identity.contains(&format!("system:serviceaccount:{namespace}:keeper")), "{identity}");
    Ok(())
}

#[tokio::test]
async fn an_admission_policy_ties_a_lease_to_the_pod_whose_token_writes_it() -> Result<()> {
    let Some(kubernetes) = Kubernetes::shared().await? else { return Ok(()) };
    let client = kubernetes.client().await?;
    let namespace = kubernetes.namespace("policy").await?;
    make_account_with_leases(&client, &namespace).await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let mut leases: Vec<Api<Lease>> = Vec::new();
    for name in ["one", "two"] {
        let pod = create(&pods, pod(name, "keeper")).await?;
        let token = kubernetes.token(&namespace, "keeper", Some(&pod)).await?;
        leases.push(Api::namespaced(kubernetes.client_with_token(&token).await?, &namespace));
    }
    let (policies, bindings) = (Api::all(client.clone()), Api::all(client.clone()));
    create::<ValidatingAdmissionPolicy>(&policies, policy(&namespace)).await?;
    let binding = json!({
        "metadata": { "name": namespace },
        "spec": {
            "policyName": namespace,
            "validationActions": ["Deny"],
            "matchResources": { "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": namespace } } },
        },
    });
    create::<ValidatingAdmissionPolicyBinding>(&bindings, binding).await?;

    let lease = |name: &str| json!({ "metadata": { "name": name } });
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    let strange: Lease = serde_json::from_value(lease("two"))?;
    wait_until("the policy is in force", DEADLINE, async || Ok(leases[0].create(&dry_run, &strange).await.is_err()))
        .await?;
    assert_says(&status(create(&leases[0], lease("two")).await)?, "a pod writes the lease of its own name alone");
    create(&leases[0], lease("one")).await?;
    create(&leases[1], lease("two")).await?;
    let patch = Patch::Merge(json!({ "spec": { "holderIdentity": "one" } }));
    assert_says(&status(leases[0].patch("two", &PatchParams::default(), &patch).await)?, "of its own name alone");
    policies.delete(&namespace, &DeleteParams::default()).await?;
    bindings.delete(&namespace, &DeleteParams::default()).await?;
    Ok(())
}

#[tokio::test]
async fn controllers_make_the_pods_of_a_deployment_and_take_them_away_with_it() -> Result<()> {
    let Some(kubernetes) = Kubernetes::shared().await? else { return Ok(()) };
    let client = kubernetes.client().await?;
    let namespace = kubernetes.namespace("deployment").await?;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &namespace);
    let pods: Api<Pod> = Api::namespaced(client, &namespace);
    let count = async || Ok::<_, anyhow::Error>(pods.list(&ListParams::default()).await?.items.len());
    let labels = json!({ "app": "a" });
    let deployment = json!({
        "metadata": { "name": "a" },
        "spec": {
            "replicas": 3,
            "selector": { "matchLabels": labels },
            "template": { "metadata": { "labels": labels }, "spec": pod("a", "default")["spec"] },
        },
    });
    create(&deployments, deployment).await?;
    wait_until("there are three pods", DEADLINE, async || Ok(count().await? == 3)).await?;
    deployments.delete("a", &DeleteParams::background()).await?;
    wait_until("no pod is left", DEADLINE, async || Ok(count().await? == 0)).await
}

#[tokio::test]
async fn the_audit_log_says_who_asked_for_what_and_what_was_answered() -> Result<()> {
    let Some(kubernetes) = Kubernetes::builder().with_audit_log().start().await? else { return Ok(()) };
    let client = kubernetes.client().await?;
    make_account_with_leases(&client, "default").await?;
    let token = kubernetes.token("default", "keeper", None).await?;
    let mut config = kubernetes.config_with_token(&token).await?;
    config.headers.push((http::header::USER_AGENT, "keeper/1".parse()?));
    let leases: Api<Lease> = Api::namespaced(Client::try_from(config)?, "default");
    create(&leases, json!({ "metadata": { "name": "a" } })).await?;
    assert!(leases.delete("a", &DeleteParams::default()).await.is_err());

    let keeper = "system:serviceaccount:default:keeper";
    let seen = async || {
        let events = kubernetes.audit_log()?.into_iter().filter(|event| event.user.username == keeper);
        let seen = events.filter_map(|event| {
            let (object, code) = (event.object_ref.clone()?, event.code()?);
            Some((event.user_agent, event.verb, object.api_group, object.resource, object.name, code))
        });
        Ok::<_, anyhow::Error>(seen.collect::<Vec<_>>())
    };
    // An event is written once its answer has left.
    wait_until("both requests are in the log", DEADLINE, async || Ok(seen().await?.len() == 2)).await?;
    let event = |verb: &str, code| {
        let [agent, verb, group, resource, name] =
            ["keeper/1", verb, "coordination.k8s.io", "leases", "a"].map(str::to_owned);
        (agent, verb, group, resource, name, code)
    };
    assert_eq!(seen().await?, [event("create", 201), event("delete", 403)]);
    Ok(())
}

#[tokio::test]
async fn a_snapshot_brings_back_what_was_and_forgets_what_was_made_since() -> Result<()> {
    let Some(kubernetes) = Kubernetes::builder().with_controllers().start().await? else { return Ok(()) };
    let maps: Api<ConfigMap> = Api::namespaced(kubernetes.client().await?, "default");
    let map = |name: &str, value: &str| json!({ "metadata": { "name": name }, "data": { "value": value } });
    let old = create(&maps, map("old", "old")).await?;
    create(&maps, map("deleted", "")).await?;
    let snapshot = kubernetes.snapshot().await?;

    let changed: ConfigMap = serde_json::from_value(map("old", "new"))?;
    maps.replace("old", &PostParams::default(), &changed).await?;
    maps.delete("deleted", &DeleteParams::default()).await?;
    create(&maps, map("young", "")).await?;
    kubernetes.restore(&snapshot).await?;

    let maps: Api<ConfigMap> = Api::namespaced(kubernetes.client().await?, "default");
    assert_eq!(maps.get("old").await?, old, "with the version that it had");
    assert!(maps.get_opt("deleted").await?.is_some());
    assert!(maps.get_opt("young").await?.is_none());
    // The controllers are at work again: they give this its ServiceAccount.
    kubernetes.namespace("after").await?;
    Ok(())
}

#[tokio::test]
async fn killed_parts_come_back_with_what_was_acknowledged_and_paused_ones_hang() -> Result<()> {
    let Some(kubernetes) = Kubernetes::builder().start().await? else { return Ok(()) };
    let maps: Api<ConfigMap> = Api::namespaced(kubernetes.client().await?, "default");
    for part in [Part::ApiServer, Part::Etcd] {
        let name = format!("{part:?}").to_lowercase();
        create(&maps, json!({ "metadata": { "name": name } })).await?;
        kubernetes.kill(part)?;
        assert!(timeout(HANGS, maps.get(&name)).await.map_or(true, |answer| answer.is_err()), "{part:?}");
        kubernetes.restart(part).await?;
        maps.get(&name).await?;
        kubernetes.pause(part)?;
        assert!(timeout(HANGS, create(&maps, json!({ "metadata": { "name": "late" } }))).await.is_err(), "{part:?}");
        kubernetes.resume(part)?;
        kubernetes.wait_until_serving().await?;
        maps.get(&name).await?;
    }
    assert!(kubernetes.kill(Part::Scheduler).is_err(), "there is none");
    Ok(())
}

#[tokio::test]
async fn two_clusters_side_by_side_know_nothing_of_each_other() -> Result<()> {
    let (one, two) = tokio::try_join!(Kubernetes::builder().start(), Kubernetes::builder().start())?;
    let (Some(one), Some(two)) = (one, two) else { return Ok(()) };
    let map = json!({ "metadata": { "name": "a" } });
    create::<ConfigMap>(&Api::namespaced(one.client().await?, "default"), map).await?;
    let maps: Api<ConfigMap> = Api::namespaced(two.client().await?, "default");
    assert!(maps.get_opt("a").await?.is_none());
    Ok(())
}

#[tokio::test]
async fn helm_installs_upgrades_and_removes_a_chart() -> Result<()> {
    let Some(kubernetes) = Kubernetes::shared().await? else { return Ok(()) };
    let namespace = kubernetes.namespace("helm").await?;
    let chart = tempfile::tempdir()?;
    std::fs::create_dir(chart.path().join("templates"))?;
    let files = [
        ("Chart.yaml", "{apiVersion: v2, name: chart, version: 0.1.0}"),
        ("values.yaml", "greeting: hello"),
        (
            "templates/map.yaml",
            "{apiVersion: v1, kind: ConfigMap, metadata: {name: {{ .Release.Name }}}, data: {greeting: {{ .Values.greeting }}}}",
        ),
    ];
    for (name, contents) in files {
        std::fs::write(chart.path().join(name), contents)?;
    }
    let path = chart.path().to_str().context("a path is text")?;
    let greeting = ["get", "configmap", "first", "-n", &namespace, "-o", "jsonpath={.data.greeting}"];
    kubernetes.helm(&["install", "first", path, "-n", &namespace]).await?;
    assert_eq!(kubernetes.kubectl(&greeting).await?, "hello");
    kubernetes.helm(&["upgrade", "first", path, "-n", &namespace, "--set", "greeting=bye"]).await?;
    assert_eq!(kubernetes.kubectl(&greeting).await?, "bye");
    kubernetes.helm(&["uninstall", "first", "-n", &namespace]).await?;
    let gone = kubernetes.kubectl(&greeting).await.err().context("the chart's resource is gone")?;
    assert!(gone.to_string().contains("NotFound"), "{gone:#}");
    Ok(())
}

/// Makes the service account `keeper`, that may read and write Leases but not delete them.
async fn make_account_with_leases(client: &Client, namespace: &str) -> Result<()> {
    let metadata = json!({ "name": "keeper" });
    create::<ServiceAccount>(&Api::namespaced(client.clone(), namespace), json!({ "metadata": metadata })).await?;
    let rule = json!({
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "verbs": ["get", "create", "update", "patch"],
    });
    let role = json!({ "metadata": metadata, "rules": [rule] });
    create::<Role>(&Api::namespaced(client.clone(), namespace), role).await?;
    let binding = json!({
        "metadata": metadata,
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "keeper" },
        "subjects": [{ "kind": "ServiceAccount", "name": "keeper", "namespace": namespace }],
    });
    create::<RoleBinding>(&Api::namespaced(client.clone(), namespace), binding).await?;
    Ok(())
}

/// A pod that would run as this account, if anything ran it.
fn pod(name: &str, account: &str) -> Value {
    json!({
        "metadata": { "name": name },
        "spec": { "serviceAccountName": account, "containers": [{ "name": "a", "image": "localhost/a:1" }] },
    })
}

/// A policy by which a pod's token writes the Lease of the pod's name alone.
fn policy(name: &str) -> Value {
    let pod = "request.userInfo.extra[?'authentication.kubernetes.io/pod-name'].orValue([])";
    json!({
        "metadata": { "name": name },
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": { "resourceRules": [{
                "apiGroups": ["coordination.k8s.io"],
                "apiVersions": ["v1"],
                "operations": ["CREATE", "UPDATE"],
                "resources": ["leases"],
            }] },
            "validations": [{
                "expression": format!("{pod} == [object.metadata.name]"),
                "message": "a pod writes the lease of its own name alone",
            }],
        },
    })
}

/// A resource with a rule over two of its fields.
fn definition_of_things(group: &str) -> Value {
    let spec = json!({
        "type": "object",
        "properties": { "least": { "type": "integer" }, "most": { "type": "integer" } },
        "required": ["least", "most"],
        "x-kubernetes-validations": [{ "rule": "self.least <= self.most", "message": "least is above most" }],
    });
    json!({
        "metadata": { "name": format!("things.{group}") },
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": { "kind": "Thing", "plural": "things", "singular": "thing", "listKind": "ThingList" },
            "versions": [{
                "name": "v1",
                "served": true,
                "storage": true,
                "schema": { "openAPIV3Schema": { "type": "object", "properties": { "spec": spec } } },
            }],
        },
    })
}

async fn create<K>(api: &Api<K>, resource: Value) -> Result<K, Error>
where
    K: Clone + std::fmt::Debug + DeserializeOwned + Serialize,
{
    let resource = serde_json::from_value(resource).map_err(Error::SerdeError)?;
    api.create(&PostParams::default(), &resource).await
}

/// The refusal that a request was to meet with.
fn status<T>(answer: Result<T, Error>) -> Result<Status> {
    match answer.err().context("it was not refused")? {
        Error::Api(status) => Ok(*status),
        error => Err(error).context("there was no answer"),
    }
}

fn assert_says(refused: &Status, what: &str) {
    assert!(refused.message.contains(what), "{}", refused.message);
}
