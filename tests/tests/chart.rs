//! The chart: what it renders stays as it is unless somebody means it, wrong values are refused by name, and a real Helm installs it on
//! a real API server, upgrades it and takes it away.

use std::path::PathBuf;

use anyhow::{Context, Result};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::Api;
use shortener_operator::config::Manifest;
use shortener_operator::manifest::manifest;
use shortener_tests::kubernetes::Kubernetes;
use shortener_tests::sizes::workspace_root;

fn chart() -> Result<String> {
    let path: PathBuf = workspace_root()?.join("charts/shortener-operator");
    path.into_os_string().into_string().ok().context("a path is text")
}

/// The templates that are ours to shape; the definition and the rules have their own tests.
const SHAPED: [&str; 7] = [
    "templates/deployment.yaml",
    "templates/rbac.yaml",
    "templates/serviceaccount.yaml",
    "templates/poddisruptionbudget.yaml",
    "templates/metrics.yaml",
    "templates/tests/check.yaml",
    "templates/networkpolicy.yaml",
];

#[tokio::test]
async fn what_it_renders_stays_as_it_is() -> Result<()> {
    let Some(kubernetes) = Kubernetes::shared().await? else { return Ok(()) };
    let chart = chart()?;
    let everything = [
        "--set=watchNamespace=links,nodeImage=registry.example/node:1,priorityClassName=high",
        "--set=metrics.podMonitor.enabled=true,metrics.dashboard.enabled=true",
        "--set=nodeSelector.disk=fast,podLabels.team=links,imagePullSecrets[0].name=pull",
        "--set=networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.team=monitoring",
    ];
    for (name, values) in [("default", &[][..]), ("everything", &everything[..])] {
        let mut arguments =
            vec!["template", "shortener", &chart, "--namespace=shortener-system", "--kube-version=1.34.0"];
        let shown: Vec<_> = SHAPED.iter().map(|template| format!("--show-only={template}")).collect();
        arguments.extend(shown.iter().map(String::as_str));
        arguments.extend(values);
        insta::assert_snapshot!(name, kubernetes.helm(&arguments).await?);
    }
    Ok(())
}

#[tokio::test]
async fn values_that_make_no_sense_are_refused_by_name() -> Result<()> {
    let Some(kubernetes) = Kubernetes::shared().await? else { return Ok(()) };
    let chart = chart()?;
    let wrong = [
        ("--set=replicas=3", "replicas"),
        ("--set=replicaCount=many", "replicaCount"),
        ("--set=image.tags=1", "tags"),
        ("--set=logLevel=loud", "logLevel"),
        ("--set=watchNamespace=Not_A_Name", "watchNamespace"),
        ("--set=metrics.podMonitor.interval=often", "interval"),
        ("--set=crds.keep=perhaps", "keep"),
        ("--set=networkPolicy.metricsFrom=everybody", "metricsFrom"),
    ];
    for (value, named) in wrong {
        let error =
            kubernetes.helm(&["template", "shortener", &chart, "--kube-version=1.34.0", value]).await.expect_err(value);
        assert!(format!("{error:#}").contains(named), "{value}: {error:#}");
    }
    kubernetes.helm(&["lint", "--strict", &chart]).await?;
    Ok(())
}

/// A cluster of its own: the chart has objects that belong to no namespace.
#[tokio::test]
async fn helm_installs_upgrades_and_removes_it_and_the_definition_stays() -> Result<()> {
    let Some(kubernetes) = Kubernetes::builder().with_controllers().start().await? else { return Ok(()) };
    let client = kubernetes.client().await?;
    let chart = chart()?;
    let namespace = "--namespace=shortener-system";
    kubernetes.helm(&["install", "shortener", &chart, namespace, "--create-namespace"]).await?;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "shortener-system");
    let replicas =
        async || anyhow::Ok(deployments.get("shortener-shortener-operator").await?.spec.and_then(|spec| spec.replicas));
    assert_eq!(replicas().await?, Some(2));
    let restricted = "pod-security.kubernetes.io/enforce=restricted";
    kubernetes.kubectl(&["label", "namespace", "shortener-system", restricted]).await?;
    let account = "system:serviceaccount:shortener-system:shortener-shortener-operator";
    let may = kubernetes
        .kubectl(&[
            "auth",
            "can-i",
            "update",
            "shortenerclusters.shortener.dev",
            "--subresource=status",
            "--as",
            account,
        ])
        .await?;
    assert_eq!(may.trim(), "yes");
    kubernetes.helm(&["upgrade", "shortener", &chart, namespace, "--set=replicaCount=1"]).await?;
    assert_eq!(replicas().await?, Some(1));
    kubernetes.helm(&["uninstall", "shortener", namespace, "--wait"]).await?;
    let definitions: Api<CustomResourceDefinition> = Api::all(client);
    assert!(definitions.get_opt("shortenerclusters.shortener.dev").await?.is_some(), "crds.keep");
    assert!(deployments.get_opt("shortener-shortener-operator").await?.is_none());

    // And without Helm.
    let settings = Manifest { namespace: "plain".into(), image: "shortener:test".into() };
    kubernetes.kubectl_with_input(&["apply", "--server-side", "-f", "-"], &manifest(&settings)?).await?;
    kubernetes.kubectl(&["get", "deployment", "shortener-operator", "-n", "plain"]).await?;
    Ok(())
}
