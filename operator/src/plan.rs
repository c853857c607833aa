//! What is → what is to be done. `plan` decides everything; nothing of it is left to the execution.

pub mod allocate;
pub mod autoscale;
pub mod format;
pub mod resources;
pub mod status;
pub mod validate;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::DynamicObject;
use kube::{Resource, ResourceExt};
use serde_json::Value;
use shortener_crds::cluster::{Autoscaling, DeletionPolicy, LivePod, NODES_MAX};
use shortener_crds::conditions::Reason;
use shortener_crds::ids::allocate::PodUid;
use shortener_crds::{ShortenerCluster, ShortenerClusterStatus};

use crate::kinds::Kind;
use allocate::{Allocated, Delivery, NodeLease, allocate_from};
use autoscale::{Decided, Decision, Fleet, Seen};
use format::format_to_raise_to;
use resources::{Desired, HASH_ANNOTATION, Inputs, build_all, is_as_wanted};
use status::{Facts, Rollout, conditions_of_unreadable, events, status_of, status_of_invalid};
use validate::{Replicas, ValidatedCluster, validate};

/// Keeps a resource until the operator has seen its deletion.
pub const FINALIZER: &str = "shortener.dev/cleanup";

/// How soon to look again when nothing happens: Secrets are not watched, so that nobody need be allowed to list them.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// The same where only a change of the spec can help.
const LOOK_AGAIN_INVALID: Duration = Duration::from_mins(5);

/// Everything that was read.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The objects that belong to the resource.
    pub owned: Vec<Owned>,
    /// Its pods.
    pub pods: BTreeMap<PodUid, LivePod>,
    /// The Leases of its nodes.
    pub leases: Vec<NodeLease>,
    /// The versions of Secrets that exist, of those that it uses.
    pub secret_versions: BTreeMap<String, String>,
    /// The kinds that the API server knows.
    pub kinds: BTreeSet<Kind>,
    /// What is known of its load.
    pub load: Seen,
    /// What holds where the resource says nothing.
    pub defaults: Defaults,
}

/// What this operator does unless a resource says something else.
#[derive(Clone, Debug)]
pub struct Defaults {
    /// The image of nodes.
    pub image: String,
    /// How long a program must have run before what it writes may keep earlier ones from coming back.
    pub format_raise_after: Duration,
}

/// An object that belongs to the resource.
#[derive(Clone, Debug)]
pub struct Owned {
    /// Its kind.
    pub kind: Kind,
    /// All of it.
    pub object: DynamicObject,
    /// Whether it was applied as it is wanted and has not been changed since, although it looks different: the server
    /// writes some values in its own way.
    pub is_settled: bool,
}

/// Something worth telling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Whether somebody should look.
    pub is_warning: bool,
    /// One word.
    pub reason: String,
    /// What, and what to do.
    pub message: String,
}

/// What becomes of our finalizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finalizer {
    /// It is put there before anything else.
    Add,
    /// It is taken away after everything else.
    Remove,
}

/// An object that is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unwanted {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// What tells it from a later one of that name.
    pub uid: String,
}

/// What becomes of the status.
#[derive(Clone, Debug, PartialEq)]
pub enum NewStatus {
    /// It is replaced.
    Whole(Box<ShortenerClusterStatus>),
    /// Only the conditions are, and the generation that they are of: the rest is of a release that this one does not understand.
    Conditions(Vec<Condition>, Option<i64>),
}

/// What is to be done, in this order.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Whether the finalizer is to be put there; then nothing else is done before the next visit.
    pub finalizer: Option<Finalizer>,
    /// The new status, written only if the resource is as it was read.
    pub status: Option<NewStatus>,
    /// What Leases are to say, once the status is written.
    pub deliveries: Vec<Delivery>,
    /// The Secret to generate, if it is not there.
    pub generate_secret: Option<String>,
    /// How many nodes there are, when the Deployment is about to be applied without our saying so any more.
    pub hand_over: Option<i32>,
    /// What is to be applied.
    pub apply: Vec<Desired>,
    /// What is to go.
    pub delete: Vec<Unwanted>,
    /// The generated Secret, when it is to go.
    pub delete_secret: Option<String>,
    /// The scale that the resource is to have: it has none, and Kubernetes' own autoscaler can only change one that is there.
    pub scale: Option<i32>,
    /// What is to be told.
    pub events: Vec<Event>,
    /// What was decided on the number of nodes, to be remembered.
    pub decided: Option<Decided>,
    /// How soon to look again.
    pub look_again: Duration,
}

/// Why there is no plan: a defect, never the user's doing.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// An object could not be written as JSON.
    #[error("cannot encode an object")]
    Encode(#[source] serde_json::Error),
    /// An object has no metadata.
    #[error("an object was built without metadata")]
    NoMetadata,
}

/// The Secrets that pods use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Secrets {
    /// Those that are there, and their versions.
    pub versions: BTreeMap<String, String>,
    /// Those that a person has to make.
    pub missing: Vec<String>,
    /// The one that is generated, if it is not there.
    pub to_generate: Option<String>,
}

/// Decides.
pub fn plan(resource: &ShortenerCluster, observed: &Observed, now: &Time) -> Result<Plan, PlanError> {
    let has_finalizer = resource.finalizers().iter().any(|finalizer| finalizer == FINALIZER);
    if resource.meta().deletion_timestamp.is_some() {
        let deletes = resource.spec.deletion_policy == DeletionPolicy::Delete && resource.spec.secret_key_ref.is_none();
        return Ok(farewell(&resource.name_any(), has_finalizer, deletes));
    }
    if !has_finalizer {
        return Ok(Plan { finalizer: Some(Finalizer::Add), look_again: LOOK_AGAIN, ..Plan::default() });
    }
    match validate(resource) {
        Ok(cluster) => plan_valid(resource, &cluster, observed, now),
        Err(invalid) => {
            let status = status_of_invalid(resource, &invalid, now);
            let plan = Plan { look_again: LOOK_AGAIN_INVALID, ..Plan::default() };
            Ok(plan.with_status(resource, status))
        }
    }
}

/// Decides on a resource that this release does not understand: `why` names the field. Its nodes go on as they are, and nothing but its
/// conditions is written.
pub fn plan_unreadable(object: &DynamicObject, why: &str, now: &Time) -> Plan {
    let has_finalizer = object.finalizers().iter().any(|finalizer| finalizer == FINALIZER);
    if object.metadata.deletion_timestamp.is_some() {
        let says = |pointer: &str, value: &str| object.data.pointer(pointer).and_then(Value::as_str) == Some(value);
        let deletes = says("/spec/deletionPolicy", "Delete") && object.data.pointer("/spec/secretKeyRef").is_none();
        return farewell(&object.name_any(), has_finalizer, deletes);
    }
    let conditions = object.data.pointer("/status/conditions").cloned().unwrap_or_default();
    // What is no list of conditions is told anew.
    let old: Vec<Condition> = serde_json::from_value(conditions).unwrap_or_default();
    let generation = object.metadata.generation;
    let new = conditions_of_unreadable(&old, why, generation, now);
    let mut plan = Plan { look_again: LOOK_AGAIN_INVALID, ..Plan::default() };
    if new != old {
        plan.events = events(&old, &new);
        plan.status = Some(NewStatus::Conditions(new, generation));
    }
    plan
}

/// What is owned goes by its owner references. The generated Secret has none, so that it can stay.
fn farewell(name: &str, has_finalizer: bool, deletes_secret: bool) -> Plan {
    Plan {
        finalizer: has_finalizer.then_some(Finalizer::Remove),
        delete_secret: (has_finalizer && deletes_secret).then(|| format!("{name}-secret")),
        look_again: LOOK_AGAIN_INVALID,
        ..Plan::default()
    }
}

fn plan_valid(
    resource: &ShortenerCluster,
    cluster: &ValidatedCluster,
    observed: &Observed,
    now: &Time,
) -> Result<Plan, PlanError> {
    let old = resource.status.as_ref();
    let image = cluster.image.clone().or_else(|| old.and_then(|status| status.image.clone()));
    let image = image.unwrap_or_else(|| observed.defaults.image.clone());
    let secrets = secrets(cluster, &observed.secret_versions);
    let deployment = deployment(&observed.owned);
    let recorded = old.and_then(|status| status.allocation.as_ref());
    let raise_after = observed.defaults.format_raise_after;
    let format = format_to_raise_to(&observed.pods, &observed.leases, now.0, raise_after);
    let allocated = allocate_from(cluster, recorded, &observed.leases, &observed.pods, format);
    let size = size(deployment.as_ref());
    let decided = decide(resource, cluster, size, &allocated, &observed.load);
    let replicas = replicas(cluster, size, decided.as_ref());
    let rollout = Rollout::of(deployment.as_ref(), replicas);
    let facts = Facts {
        image: &image,
        rollout: &rollout,
        secrets: &secrets,
        allocated: &allocated,
        leases: &observed.leases,
        kinds: &observed.kinds,
        decided: decided.as_ref(),
    };
    let status = status_of(resource, cluster, facts, now);
    let mut plan = Plan {
        deliveries: allocated.deliveries,
        generate_secret: secrets.to_generate.clone(),
        look_again: LOOK_AGAIN,
        ..Plan::default()
    }
    .with_status(resource, status);
    if let (Some(name), Some(_)) = (&secrets.to_generate, &deployment) {
        plan.events.push(Event {
            is_warning: true,
            reason: "SecretRegenerated".to_owned(),
            message: format!("the Secret {name} was gone and is generated anew: everyone has to sign in again"),
        });
    }
    // Pods would start without what they need, or with one key today and another tomorrow. The next visit has both.
    if secrets.missing.is_empty() && secrets.to_generate.is_none() {
        let inputs = Inputs { image: &image, replicas, secret_versions: secrets.versions, kinds: &observed.kinds };
        let desired = build_all(cluster, &inputs)?;
        plan.delete = unwanted(cluster, &observed.owned, &desired);
        plan.apply = desired.into_iter().filter(|desired| !is_there(desired, &observed.owned)).collect();
        let is_applied = plan.apply.iter().any(|desired| desired.kind == Kind::Deployment);
        plan.hand_over = size.filter(|_| is_applied && replicas.is_none());
        plan.scale = replicas.filter(|_| matches!(cluster.replicas, Replicas::Hpa(_, None)));
        plan.events.extend(decided.as_ref().and_then(|decided| scaled(size, decided)));
        plan.decided = decided;
    } else if secrets.to_generate.is_some() {
        plan.look_again = Duration::ZERO;
    }
    Ok(plan)
}

impl Plan {
    /// Has the status written if it is another one, and its news told.
    fn with_status(mut self, resource: &ShortenerCluster, status: ShortenerClusterStatus) -> Self {
        let old = resource.status.clone().unwrap_or_default();
        if status != old {
            self.events.extend(events(&old.conditions, &status.conditions));
            self.status = Some(NewStatus::Whole(Box::new(status)));
        }
        self
    }

    /// Whether nothing is to be written.
    pub fn is_empty(&self) -> bool {
        let Self {
            finalizer,
            status,
            deliveries,
            generate_secret,
            hand_over: _, // goes with what is applied
            apply,
            delete,
            delete_secret,
            scale,
            events,
            decided: _,
            look_again: _,
        } = self;
        finalizer.is_none()
            && status.is_none()
            && deliveries.is_empty()
            && generate_secret.is_none()
            && apply.is_empty()
            && delete.is_empty()
            && delete_secret.is_none()
            && scale.is_none()
            && events.is_empty()
    }
}

fn secrets(cluster: &ValidatedCluster, existing: &BTreeMap<String, String>) -> Secrets {
    let generated = cluster.secret_key.is_none().then(|| cluster.identity.secret_name());
    let mut secrets = Secrets::default();
    for name in cluster.secrets() {
        match existing.get(&name) {
            Some(version) => {
                secrets.versions.insert(name, version.clone());
            }
            None if Some(&name) == generated.as_ref() => secrets.to_generate = Some(name),
            None => secrets.missing.push(name),
        }
    }
    secrets
}

fn deployment(owned: &[Owned]) -> Option<Deployment> {
    let found = owned.iter().find(|owned| owned.kind == Kind::Deployment)?;
    // What the server sends as a Deployment is one.
    found.object.clone().try_parse().ok()
}

/// How many nodes the Deployment that is there is asked for.
fn size(deployment: Option<&Deployment>) -> Option<i32> {
    deployment.and_then(|deployment| deployment.spec.as_ref()).and_then(|spec| spec.replicas)
}

/// What the operator decides on the number of nodes, where that is its to decide and anything was measured.
fn decide(
    resource: &ShortenerCluster,
    cluster: &ValidatedCluster,
    size: Option<i32>,
    allocated: &Allocated,
    load: &Seen,
) -> Option<Decided> {
    let Replicas::Builtin(autoscaling) = &cluster.replicas else { return None };
    // Each node that is added needs a block of its own.
    let by_blocks = i64::from(size.unwrap_or_default()).saturating_add(allocated.status.blocks_remaining);
    let by_blocks = i32::try_from(by_blocks).unwrap_or(i32::MAX);
    let scarce = if by_blocks < NODES_MAX { Reason::OutOfBlocks } else { Reason::OutOfWorkers };
    let fleet = Fleet { size, warm: load.warm, capacity: by_blocks.min(NODES_MAX), scarce };
    load.decide(autoscaling, resource.metadata.generation, fleet)
}

/// The news of another size.
fn scaled(size: Option<i32>, decided: &Decided) -> Option<Event> {
    let (size, Decision { replicas, why, .. }) = (size?, &decided.decision);
    let message = format!("from {size} to {replicas} nodes: {why}");
    (size != *replicas).then(|| Event { is_warning: false, reason: "Scaled".to_owned(), message })
}

/// How many nodes the Deployment is to be asked for; `None` leaves the number to whoever decides.
fn replicas(cluster: &ValidatedCluster, size: Option<i32>, decided: Option<&Decided>) -> Option<i32> {
    match &cluster.replicas {
        Replicas::Fixed(replicas) => Some(*replicas),
        // Before anything is measured the fleet stays as it is, or begins with what is to be there without measurements.
        Replicas::Builtin(autoscaling) => Some(decided.map_or_else(
            || undecided(autoscaling, size, autoscaling.fallback_replicas.unwrap_or(autoscaling.min_replicas)),
            |decided| decided.decision.replicas,
        )),
        Replicas::Hpa(autoscaling, replicas) => {
            Some(replicas.unwrap_or_else(|| undecided(autoscaling, size, autoscaling.min_replicas)))
        }
        Replicas::External(_, replicas) => *replicas,
    }
}

/// The size as it is, or the first one, within the limits.
fn undecided(autoscaling: &Autoscaling, size: Option<i32>, first: i32) -> i32 {
    size.unwrap_or(first).clamp(autoscaling.min_replicas, autoscaling.max_replicas)
}

/// Whether an object is there as it is wanted.
fn is_there(desired: &Desired, owned: &[Owned]) -> bool {
    let found = owned.iter().find(|owned| owned.kind == desired.kind && owned.object.name_any() == desired.name);
    let Some(Owned { object, is_settled, .. }) = found else { return false };
    let hash = |annotations: Option<&Value>| annotations.and_then(Value::as_str).map(str::to_owned);
    let wanted_hash = hash(desired.object.pointer("/metadata/annotations").and_then(|all| all.get(HASH_ANNOTATION)));
    let is_of_this_wish = object.annotations().get(HASH_ANNOTATION) == wanted_hash.as_ref();
    let actual = serde_json::to_value(object).unwrap_or_default();
    is_of_this_wish && (*is_settled || is_as_wanted(&desired.object, &actual))
}

/// What we have made and is no longer wanted. What somebody else made is not ours to delete.
fn unwanted(cluster: &ValidatedCluster, owned: &[Owned], desired: &[Desired]) -> Vec<Unwanted> {
    let is_wanted =
        |owned: &Owned| desired.iter().any(|it| it.kind == owned.kind && it.name == owned.object.name_any());
    let is_ours = |owned: &&Owned| {
        owned.object.owner_references().iter().any(|owner| owner.uid == cluster.identity.uid)
            && owned.object.annotations().contains_key(HASH_ANNOTATION)
            && owned.object.metadata.deletion_timestamp.is_none()
    };
    owned
        .iter()
        .filter(is_ours)
        .filter(|owned| !is_wanted(owned))
        .map(|owned| Unwanted {
            kind: owned.kind,
            name: owned.object.name_any(),
            uid: owned.object.uid().unwrap_or_default(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::plan::validate::tests::resource;

    fn now() -> Time {
        Time(Timestamp::from_second(1).unwrap())
    }

    fn observed(secrets: &[&str]) -> Observed {
        Observed {
            owned: Vec::new(),
            pods: BTreeMap::new(),
            leases: Vec::new(),
            secret_versions: secrets.iter().map(|name| ((*name).to_owned(), "1".to_owned())).collect(),
            kinds: Kind::ALL.iter().copied().filter(|kind| kind.is_everywhere()).collect(),
            load: Seen::default(),
            defaults: Defaults { image: "shortener:1".to_owned(), format_raise_after: Duration::from_mins(10) },
        }
    }

    /// A resource that was visited before, with what `patch` changes in it.
    fn visited(patch: &Value) -> ShortenerCluster {
        let mut all = json!({"metadata": {"finalizers": [FINALIZER]}});
        json_patch::merge(&mut all, patch);
        resource(&all).unwrap()
    }

    #[test]
    fn the_finalizer_comes_first_and_goes_last() {
        let first = plan(&resource(&json!({})).unwrap(), &observed(&[]), &now()).unwrap();
        assert_eq!(first.finalizer, Some(Finalizer::Add));
        assert!(first.status.is_none() && first.apply.is_empty() && first.generate_secret.is_none());
        let deleted = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
        let farewell = plan(&visited(&deleted), &observed(&["main-secret"]), &now()).unwrap();
        assert_eq!((farewell.finalizer, farewell.delete_secret), (Some(Finalizer::Remove), None), "it is retained");
        let mut all = deleted;
        json_patch::merge(&mut all, &json!({"spec": {"deletionPolicy": "Delete"}}));
        let farewell = plan(&visited(&all), &observed(&["main-secret"]), &now()).unwrap();
        assert_eq!(farewell.delete_secret.as_deref(), Some("main-secret"));
    }

    #[test]
    fn of_a_resource_that_is_not_understood_only_the_conditions_are_written_and_it_can_go() {
        let object = |patch: &Value| {
            let mut object = json!({
                "apiVersion": "shortener.dev/v1alpha1", "kind": "ShortenerCluster",
                "metadata": {"name": "main", "generation": 3, "finalizers": [FINALIZER]},
                "spec": {"deletionPolicy": "Delete", "autoscaling": {"mode": "a later one"}},
                "status": {"url": "https://sho.rt", "conditions": [
                    {"type": "Ready", "status": "True", "reason": "AsWanted", "message": "2 of 2 nodes are ready",
                     "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 2},
                ]},
            });
            json_patch::merge(&mut object, patch);
            serde_json::from_value::<DynamicObject>(object).unwrap()
        };
        let told = plan_unreadable(&object(&json!({})), "spec.autoscaling.mode: unknown variant", &now());
        let Some(NewStatus::Conditions(conditions, Some(3))) = &told.status else { panic!("conditions: {told:?}") };
        let [ready] = &conditions[..] else { panic!("one condition: {conditions:?}") };
        assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "Unreadable"));
        assert!(ready.message.contains("spec.autoscaling.mode"), "{}", ready.message);
        assert_eq!(told.events.iter().map(|event| event.reason.as_str()).collect::<Vec<_>>(), ["Unreadable"]);
        assert!(told.apply.is_empty() && told.delete.is_empty() && told.finalizer.is_none());
        let known = object(&json!({"status": {"conditions": conditions}}));
        let again = plan_unreadable(&known, "spec.autoscaling.mode: unknown variant", &now());
        assert!(again.is_empty(), "it is told once: {again:?}");
        let going = object(&json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
        let going = plan_unreadable(&going, "spec.autoscaling.mode: unknown variant", &now());
        assert_eq!(going.finalizer, Some(Finalizer::Remove));
        assert_eq!(going.delete_secret.as_deref(), Some("main-secret"));
    }

    #[test]
    fn nothing_is_built_before_every_secret_is_there() {
        let generating = plan(&visited(&json!({})), &observed(&[]), &now()).unwrap();
        assert_eq!(generating.generate_secret.as_deref(), Some("main-secret"));
        assert!(generating.apply.is_empty());
        let given = json!({"spec": {"secretKeyRef": {"name": "keys"}}});
        let waiting = plan(&visited(&given), &observed(&[]), &now()).unwrap();
        assert!(waiting.apply.is_empty() && waiting.generate_secret.is_none(), "a person has to make it");
        let built = plan(&visited(&given), &observed(&["keys"]), &now()).unwrap();
        assert!(built.apply.iter().any(|desired| desired.kind == Kind::Deployment), "{built:?}");
    }

    #[test]
    fn what_is_there_as_wanted_is_not_applied_and_what_was_altered_is() {
        let cluster = visited(&json!({}));
        let mut seen = observed(&["main-secret"]);
        let wanted = plan(&cluster, &seen, &now()).unwrap().apply;
        let kinds = wanted.iter().map(|desired| desired.kind).collect::<Vec<_>>();
        assert!(kinds.len() >= 9, "{kinds:?}");
        seen.owned = wanted
            .iter()
            .map(|desired| Owned {
                kind: desired.kind,
                object: serde_json::from_value(desired.object.clone()).unwrap(),
                is_settled: false,
            })
            .collect();
        assert!(plan(&cluster, &seen, &now()).unwrap().apply.is_empty());
        let deployment = seen.owned.iter_mut().find(|owned| owned.kind == Kind::Deployment).unwrap();
        deployment.object.data["spec"]["template"]["spec"]["containers"][0]["image"] = json!("another");
        let repaired = plan(&cluster, &seen, &now()).unwrap().apply;
        assert_eq!(repaired.iter().map(|desired| desired.kind).collect::<Vec<_>>(), [Kind::Deployment]);
    }

    #[test]
    fn before_anything_is_measured_a_fleet_stays_as_it_is_within_its_limits() {
        let of = |running: Option<i32>, patch: Value| {
            let cluster = validate(&visited(&json!({"spec": {"autoscaling": patch}}))).unwrap();
            replicas(&cluster, running, None)
        };
        assert_eq!(of(None, json!({})), Some(3), "minReplicas");
        assert_eq!(of(None, json!({"fallbackReplicas": 5})), Some(5));
        assert_eq!(of(Some(9), json!({})), Some(9));
        assert_eq!(of(Some(99), json!({})), Some(30), "maxReplicas");
        assert_eq!(of(Some(9), json!({"mode": "none"})), None, "somebody else decides");
        assert_eq!(of(Some(9), json!({"mode": "hpa"})), Some(9), "until that has decided");
        assert_eq!(of(None, json!({"mode": "hpa"})), Some(3), "minReplicas");
    }

    #[test]
    fn who_asks_for_a_route_that_the_cluster_cannot_have_is_told() {
        let ready_of = |patch: Value, knows: bool| {
            let mut seen = observed(&["main-secret"]);
            if knows {
                seen.kinds.insert(Kind::HttpRoute);
            }
            let deployment = json!({
                "metadata": {"name": "main", "generation": 1},
                "spec": {"replicas": 3, "selector": {}, "template": {}},
                "status": {"observedGeneration": 1, "replicas": 3, "updatedReplicas": 3, "readyReplicas": 3},
            });
            let object = serde_json::from_value(deployment).unwrap();
            seen.owned.push(Owned { kind: Kind::Deployment, object, is_settled: true });
            let status = plan(&visited(&patch), &seen, &now()).unwrap().status.unwrap();
            let NewStatus::Whole(status) = status else { panic!("the whole status: {status:?}") };
            let ready = status.conditions.into_iter().find(|condition| condition.type_ == "Ready").unwrap();
            (ready.status, ready.reason, ready.message)
        };
        let asks = json!({"spec": {"httpRoute": {"parentRefs": [{"name": "gateway"}]}}});
        let (status, reason, message) = ready_of(asks.clone(), false);
        assert_eq!((status.as_str(), reason.as_str()), ("True", "KindUnknown"), "{message}");
        assert!(message.contains("httproutes.gateway.networking.k8s.io"), "{message}");
        assert_eq!(ready_of(asks, true).1, "AsWanted");
        assert_eq!(ready_of(json!({}), false).1, "AsWanted");
    }
}
