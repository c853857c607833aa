//! `shortener-operator check`: whether an operator can work here. What `helm test` runs.

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::Client;
use kube::api::{Api, ListParams, PostParams};
use shortener_crds::ShortenerCluster;

use crate::observe::Scope;
use crate::rbac::{Rule, in_own_namespace, in_watched_namespaces};

/// Why an operator cannot work here.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The API server did not answer.
    #[error("cannot ask the API server what is allowed")]
    Ask(#[source] kube::Error),
    /// The resource is not known.
    #[error(
        "the API server does not serve ShortenerClusters; install the chart with crds.enabled=true, or apply `shortener-operator crd`"
    )]
    NoDefinition(#[source] kube::Error),
    /// Something is not allowed.
    #[error("not allowed, but needed: {}; install the chart with rbac.create=true, or give what `shortener-operator rbac` prints", .0.join(", "))]
    NotAllowed(Vec<String>),
}

/// Asks for everything that the operator needs; answers how many rights that are.
pub async fn check(client: &Client, scope: &Scope, own_namespace: &str) -> Result<usize, CheckError> {
    let watched = match scope {
        Scope::Cluster => None,
        Scope::Namespace(namespace) => Some(namespace.as_str()),
    };
    let all = attributes(&in_watched_namespaces(), watched).into_iter();
    let all: Vec<_> = all.chain(attributes(&in_own_namespace(), Some(own_namespace))).collect();
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let mut refused = Vec::new();
    for attributes in &all {
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(attributes.clone()),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        };
        let answer = reviews.create(&PostParams::default(), &review).await.map_err(CheckError::Ask)?;
        if !answer.status.is_some_and(|status| status.allowed) {
            let text = |part: &Option<String>| part.clone().unwrap_or_default();
            refused.push(format!("{} {}", text(&attributes.verb), text(&attributes.resource)));
        }
    }
    if !refused.is_empty() {
        return Err(CheckError::NotAllowed(refused));
    }
    let clusters = scope.api::<ShortenerCluster>(client);
    clusters.list(&ListParams::default().limit(1)).await.map_err(CheckError::NoDefinition)?;
    Ok(all.len())
}

/// Each right of the rules by itself.
fn attributes(rules: &[Rule], namespace: Option<&str>) -> Vec<ResourceAttributes> {
    let mut all = Vec::new();
    for Rule { rule, reason: _ } in rules {
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                let (resource, subresource) = match resource.split_once('/') {
                    Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
                    None => (resource.as_str(), None),
                };
                all.extend(rule.verbs.iter().map(|verb| ResourceAttributes {
                    group: Some(group.clone()),
                    resource: Some(resource.to_owned()),
                    subresource: subresource.clone(),
                    verb: Some(verb.clone()),
                    namespace: namespace.map(str::to_owned),
                    ..ResourceAttributes::default()
                }));
            }
        }
    }
    all
}
