//! What the status says: counts, image, and each condition.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use shortener_crds::cluster::AutoscalingStatus;
use shortener_crds::conditions::{self, ConditionType, Reason, Verdict};
use shortener_crds::{ShortenerCluster, ShortenerClusterStatus};

use crate::kinds::Kind;
use crate::plan::allocate::{Allocated, NodeLease};
use crate::plan::autoscale::Decided;
use crate::plan::validate::{Invalid, Replicas, ValidatedCluster};
use crate::plan::{Event, Secrets};

/// What is known of the rollout.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rollout {
    /// How many nodes the Deployment is asked for.
    pub wanted: i32,
    /// How many are ready.
    pub ready: i32,
    /// Whether pods are being replaced.
    pub is_rolling: bool,
    /// Why it makes no progress, if it makes none.
    pub stuck: Option<String>,
}

impl Rollout {
    /// Reads the Deployment that is there; `wanted` is what it is going to be asked for, where we decide that.
    pub fn of(deployment: Option<&Deployment>, wanted: Option<i32>) -> Self {
        let spec = deployment.and_then(|deployment| deployment.spec.as_ref());
        let status = deployment.and_then(|deployment| deployment.status.as_ref());
        let generation = deployment.and_then(|deployment| deployment.metadata.generation);
        let asked = spec.and_then(|spec| spec.replicas).unwrap_or_default();
        let wanted = wanted.unwrap_or(asked);
        let has_seen = status.and_then(|status| status.observed_generation) >= generation;
        let of = |count: fn(&k8s_openapi::api::apps::v1::DeploymentStatus) -> Option<i32>| {
            status.and_then(count).unwrap_or_default()
        };
        let (updated, all) = (of(|status| status.updated_replicas), of(|status| status.replicas));
        let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let stuck = conditions
            .iter()
            .find(|condition| condition.type_ == "Progressing" && condition.status == "False")
            .map(|condition| condition.message.clone().unwrap_or_default());
        Self {
            wanted,
            ready: of(|status| status.ready_replicas),
            is_rolling: deployment.is_some() && (!has_seen || updated < asked || all > updated),
            stuck,
        }
    }
}

/// What a status is made of beside the resource.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The image of the nodes.
    pub image: &'a str,
    /// How the Deployment is.
    pub rollout: &'a Rollout,
    /// Which Secrets are there.
    pub secrets: &'a Secrets,
    /// What became of the ledger.
    pub allocated: &'a Allocated,
    /// What nodes report.
    pub leases: &'a [NodeLease],
    /// The kinds that the API server knows.
    pub kinds: &'a BTreeSet<Kind>,
    /// What was decided on the number of nodes, where the operator decides it and has measurements or misses them.
    pub decided: Option<&'a Decided>,
}

/// The status of a cluster that makes sense, from what was seen and decided.
pub fn status_of(
    resource: &ShortenerCluster,
    cluster: &ValidatedCluster,
    facts: Facts<'_>,
    now: &Time,
) -> ShortenerClusterStatus {
    let Facts { image, rollout, allocated, .. } = facts;
    let old = resource.status.clone().unwrap_or_default();
    let selector = cluster.identity.selector().into_iter().map(|(key, value)| format!("{key}={value}"));
    let mut verdicts = verdicts(cluster, facts);
    if matches!(cluster.replicas, Replicas::Builtin(_)) && facts.decided.is_none() {
        // An operator that has just begun knows nothing better than the one before it.
        verdicts.retain(|condition, _| !SCALING.contains(condition) || said(&old.conditions, *condition).is_none());
    }
    // What is measured changes all the time: for the same reason, of the same spec, the first message stays.
    for condition in &SCALING {
        if let (Some(verdict), Some(known)) = (verdicts.get_mut(condition), said(&old.conditions, *condition))
            && (known.status.as_str(), known.reason.as_str()) == (verdict.word(), verdict.reason.as_str())
            && known.observed_generation == resource.metadata.generation
        {
            verdict.message.clone_from(&known.message);
        }
    }
    let conditions = with_verdicts(old.conditions.clone(), verdicts, resource.metadata.generation, now);
    ShortenerClusterStatus {
        observed_generation: resource.metadata.generation,
        replicas: Some(rollout.wanted),
        ready_replicas: Some(rollout.ready),
        selector: Some(selector.collect::<Vec<_>>().join(",")),
        url: Some(cluster.base_url.text.clone()),
        image: Some(image.to_owned()),
        autoscaling: autoscaling(cluster, &old, &conditions, facts),
        conditions,
        allocation: Some(allocated.status.clone()),
    }
}

/// The status of a cluster that makes no sense: what was there, and why nothing is done.
pub fn status_of_invalid(resource: &ShortenerCluster, invalid: &Invalid, now: &Time) -> ShortenerClusterStatus {
    let old = resource.status.clone().unwrap_or_default();
    let known = |condition: ConditionType| old.conditions.iter().any(|known| known.type_ == condition.as_str());
    let pending = ConditionType::ALL.iter().filter(|condition| !known(**condition));
    let mut verdicts: BTreeMap<_, _> = pending
        .map(|condition| (*condition, Verdict::unknown(Reason::Pending, "the spec makes no sense yet")))
        .collect();
    let message = format!("{invalid}. Nodes that run go on as they are; correct the spec");
    verdicts.insert(ConditionType::Ready, Verdict::no(Reason::SpecInvalid, message));
    let generation = resource.metadata.generation;
    let conditions = with_verdicts(old.conditions.clone(), verdicts, generation, now);
    ShortenerClusterStatus { observed_generation: generation, conditions, ..old }
}

/// The conditions of a cluster that this release does not understand.
pub fn conditions_of_unreadable(old: &[Condition], why: &str, generation: Option<i64>, now: &Time) -> Vec<Condition> {
    let message = format!(
        "this release of the operator cannot read the resource: {why}. Nodes that run go on as they are, and get no new IDs; correct \
         the field, or install the release that knows it"
    );
    let verdicts = BTreeMap::from([(ConditionType::Ready, Verdict::no(Reason::Unreadable, message))]);
    with_verdicts(old.to_vec(), verdicts, generation, now)
}

fn with_verdicts(
    mut conditions: Vec<Condition>,
    verdicts: BTreeMap<ConditionType, Verdict>,
    generation: Option<i64>,
    now: &Time,
) -> Vec<Condition> {
    for (condition, verdict) in verdicts {
        conditions::set(&mut conditions, condition, verdict, generation, now);
    }
    conditions
}

/// Events for conditions that have changed: what somebody reads who asks why.
pub fn events(old: &[Condition], new: &[Condition]) -> Vec<Event> {
    let is_news = |condition: &&Condition| {
        let known = old.iter().find(|known| known.type_ == condition.type_);
        match known {
            Some(known) => known.status != condition.status || known.reason != condition.reason,
            // At the first visit only what is wrong is news.
            None => is_bad(condition),
        }
    };
    new.iter()
        .filter(is_news)
        .map(|condition| Event {
            is_warning: is_bad(condition),
            reason: condition.reason.clone(),
            message: format!("{} is {}: {}", condition.type_, condition.status, condition.message),
        })
        .collect()
}

fn is_bad(condition: &Condition) -> bool {
    let quiet = [Reason::NodesNotReady, Reason::ScaledToZero, Reason::NoReports, Reason::Disabled, Reason::External];
    let bad_when_true = [ConditionType::BackendBound, ConditionType::ScalingLimited];
    let is_true = condition.status == "True";
    let expected_false = condition.type_ == ConditionType::Progressing.as_str();
    match bad_when_true.iter().any(|bad| bad.as_str() == condition.type_) {
        true => is_true,
        false if condition.reason == Reason::KindUnknown.as_str() => true,
        false if expected_false => condition.reason == Reason::RolloutStuck.as_str(),
        false => condition.status == "False" && quiet.iter().all(|reason| reason.as_str() != condition.reason),
    }
}

fn verdicts(cluster: &ValidatedCluster, facts: Facts<'_>) -> BTreeMap<ConditionType, Verdict> {
    let Facts { rollout, secrets, allocated, leases, kinds, .. } = facts;
    let store = reachable("TiKV", "spec.storage.tikv.pdEndpoints", leases, |lease| Some(lease.report.store_reachable));
    let cache = match &cluster.redis {
        None => Verdict::unknown(Reason::NotConfigured, "spec.cache is not set: each node caches for itself"),
        Some(_) => {
            reachable("Redis", "spec.cache.redisCluster.seedNodes", leases, |lease| lease.report.cache_reachable)
        }
    };
    let [active, limited, bound] = scaling(cluster, facts.decided);
    BTreeMap::from([
        (
            ConditionType::Ready,
            but_for_unknown_kinds(ready(rollout, secrets, &allocated.verdict, &store), cluster, kinds),
        ),
        (ConditionType::Progressing, progressing(rollout)),
        (ConditionType::AllocationHealthy, allocated.verdict.clone()),
        (ConditionType::StoreReachable, store),
        (ConditionType::CacheReachable, cache),
        (ConditionType::ScalingActive, active),
        (ConditionType::ScalingLimited, limited),
        (ConditionType::BackendBound, bound),
    ])
}

/// The first thing that is wrong, in the order in which one would look.
fn ready(rollout: &Rollout, secrets: &Secrets, allocation: &Verdict, store: &Verdict) -> Verdict {
    let Rollout { wanted, ready, .. } = rollout;
    if !secrets.missing.is_empty() {
        let names = secrets.missing.join(", ");
        return Verdict::no(Reason::SecretMissing, format!("create the Secret {names}: the spec names it"));
    }
    if *wanted == 0 {
        return Verdict::no(Reason::ScaledToZero, "no node is wanted; raise spec.replicas");
    }
    if ready < wanted {
        let message =
            format!("{ready} of {wanted} nodes are ready; see `kubectl describe pods` for those that are not");
        return Verdict::no(Reason::NodesNotReady, message);
    }
    match [allocation, store].into_iter().find(|verdict| verdict.status == Some(false)) {
        Some(bad) => bad.clone(),
        None => Verdict::yes(Reason::AsWanted, format!("{ready} of {wanted} nodes are ready")),
    }
}

/// Tells who asks for a route that the cluster cannot have one. Monitoring is asked for by default and goes without saying.
fn but_for_unknown_kinds(ready: Verdict, cluster: &ValidatedCluster, kinds: &BTreeSet<Kind>) -> Verdict {
    if ready.status != Some(true) || cluster.http_route.is_none() || kinds.contains(&Kind::HttpRoute) {
        return ready;
    }
    let message = format!(
        "{}, but the HTTPRoute is not made: the cluster does not know its kind; install the Gateway API's {}",
        ready.message,
        Kind::HttpRoute.definition()
    );
    Verdict::yes(Reason::KindUnknown, message)
}

fn progressing(rollout: &Rollout) -> Verdict {
    match &rollout.stuck {
        Some(why) => Verdict::no(Reason::RolloutStuck, format!("{why} See `kubectl describe deployment` and its pods")),
        None if rollout.is_rolling => Verdict::yes(Reason::RollingOut, "pods are being replaced or added"),
        None => Verdict::no(Reason::Complete, "all pods are as they should be"),
    }
}

fn reachable(what: &str, field: &str, leases: &[NodeLease], of: impl Fn(&NodeLease) -> Option<bool>) -> Verdict {
    let answers: Vec<bool> = leases.iter().filter_map(of).collect();
    let (all, yes) = (answers.len(), answers.iter().filter(|reached| **reached).count());
    match (all, yes) {
        (0, _) => Verdict::unknown(Reason::NoReports, format!("no node has told yet whether it reaches {what}")),
        (all, yes) if yes == all => Verdict::yes(Reason::Reachable, format!("every node reaches {what}")),
        (_, 0) => Verdict::no(
            Reason::Unreachable,
            format!("no node reaches {what}; check {field}, {what} itself and the network between"),
        ),
        // Not the number: it changes with every node, and the status with it.
        _ => Verdict::no(Reason::PartlyReachable, format!("some nodes do not reach {what}; see the nodes' logs")),
    }
}

/// What a condition says now.
fn said(conditions: &[Condition], condition: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|known| known.type_ == condition.as_str())
}

/// What the autoscaler tells about.
const SCALING: [ConditionType; 3] =
    [ConditionType::ScalingActive, ConditionType::ScalingLimited, ConditionType::BackendBound];

/// In the order of [`SCALING`].
fn scaling(cluster: &ValidatedCluster, decided: Option<&Decided>) -> [Verdict; 3] {
    let unlimited = |message: &str| Verdict::no(Reason::WithinLimits, message);
    let (active, limited) = match (&cluster.replicas, decided) {
        (Replicas::Builtin(_), Some(Decided { decision, .. })) => {
            return [decision.active.clone(), decision.limited.clone(), decision.bound.clone()];
        }
        (Replicas::Builtin(_), None) => {
            let pending = || Verdict::unknown(Reason::Pending, "nothing is measured yet");
            return [pending(), pending(), pending()];
        }
        (Replicas::Fixed(_), _) => {
            (Verdict::unknown(Reason::Disabled, "spec.autoscaling is not set"), unlimited("nothing scales by itself"))
        }
        (Replicas::Hpa(..), _) => (
            Verdict::yes(Reason::External, "a HorizontalPodAutoscaler decides; see its own conditions"),
            unlimited("the HorizontalPodAutoscaler keeps to its limits"),
        ),
        (Replicas::External(..), _) => (
            Verdict::unknown(Reason::External, "spec.autoscaling.mode is none: somebody else decides"),
            unlimited("somebody else decides"),
        ),
    };
    [active, limited, Verdict::unknown(Reason::MetricsUnavailable, "latency is not measured")]
}

/// What the last decision saw that changed anything: the number of nodes, or what a condition says. A status that told of every
/// measurement would be written all the time.
fn autoscaling(
    cluster: &ValidatedCluster,
    old: &ShortenerClusterStatus,
    conditions: &[Condition],
    facts: Facts<'_>,
) -> Option<AutoscalingStatus> {
    let Replicas::Builtin(_) = &cluster.replicas else { return None };
    let Some(Decided { decision, .. }) = facts.decided else { return old.autoscaling.clone() };
    let is_said = |condition: &ConditionType| {
        let of = |all| said(all, *condition).map(|known| (&known.status, &known.reason));
        of(conditions) == of(&old.conditions)
    };
    let is_news = old.autoscaling.is_none() || old.replicas != Some(decision.replicas) || !SCALING.iter().all(is_said);
    if is_news { Some(decision.status.clone()) } else { old.autoscaling.clone() }
}
