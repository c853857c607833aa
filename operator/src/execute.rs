//! Carries out a plan, in the plan's order. No choice is left: what fails ends the visit, and the next one plans anew.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, DynamicObject, ObjectMeta, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::events::{Event as ApiEvent, EventType, Recorder};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;
use shortener_crds::causes::Causes;
use shortener_crds::lease::{CLUSTER_LABEL, GRANT_ANNOTATION};

use crate::ambient;
use crate::kinds::{Kind, shortener_clusters};
use crate::plan::allocate::Delivery;
use crate::plan::resources::{Desired, FIELD_MANAGER, GENERATED_KEY, HAND_OVER_MANAGER, MANAGED_BY_LABEL};
use crate::plan::{Event, FINALIZER, Finalizer, NewStatus, Plan, Unwanted};
use crate::settled::Settled;

/// How many grants are delivered at once.
const DELIVERIES_AT_ONCE: usize = 32;
/// Random bytes in the generated key.
const KEY_BYTES: usize = 48;

/// What could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {what}")]
pub struct ExecuteError {
    /// What we were doing.
    pub doing: &'static str,
    /// To what.
    pub what: String,
    /// Why not.
    #[source]
    pub source: WriteError,
}

/// Why something could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The API server refused, or was not reached.
    #[error(transparent)]
    Api(#[from] kube::Error),
    /// There is no randomness.
    #[error("the system gives no random bytes: {0}")]
    Random(getrandom::Error),
    /// Something could not be written as JSON.
    #[error(transparent)]
    Encode(#[from] serde_json::Error),
}

impl ExecuteError {
    /// Whether somebody else was quicker: to look again is all there is to do.
    pub fn is_conflict(&self) -> bool {
        matches!(&self.source, WriteError::Api(kube::Error::Api(status)) if status.code == 409)
    }
}

/// Carries out plans.
#[derive(Clone)]
pub struct Executor {
    client: Client,
    recorder: Recorder,
}

impl Executor {
    /// One that writes through `client` and tells through `recorder`.
    pub fn new(client: Client, recorder: Recorder) -> Self {
        Self { client, recorder }
    }

    /// Does everything that the plan says, in its order.
    pub async fn execute(&self, resource: &DynamicObject, plan: &Plan, settled: &Settled) -> Result<(), ExecuteError> {
        let Plan {
            finalizer,
            status,
            deliveries,
            generate_secret,
            hand_over,
            apply,
            delete,
            delete_secret,
            scale,
            events,
            decided: _,
            look_again: _,
        } = plan;
        let namespace = resource.namespace().unwrap_or_default();
        if *finalizer == Some(Finalizer::Add) {
            self.set_finalizers(resource, true).await?;
        }
        // The ledger first: nothing is delivered that is not written down.
        if let Some(status) = status {
            self.write_status(resource, status).await?;
        }
        // From here on the status has the news: they are told whatever becomes of the rest, or would never be.
        let done = async {
            self.deliver(&namespace, deliveries).await?;
            if let Some(name) = generate_secret {
                self.generate_secret(&namespace, name, &resource.name_any()).await?;
            }
            for desired in apply {
                if let (Kind::Deployment, Some(size)) = (desired.kind, *hand_over) {
                    self.hand_over(&namespace, &desired.name, size).await?;
                }
                let applied = self.apply(&namespace, desired).await?;
                settled.note(desired.kind, &applied);
            }
            for unwanted in delete {
                self.delete(&namespace, unwanted).await?;
            }
            if let Some(name) = delete_secret {
                let api: Api<Secret> = Api::namespaced(self.client.clone(), &namespace);
                gone(api.delete(name, &DeleteParams::default()).await.map(|_| ()))
                    .map_err(failed("delete the Secret", name))?;
            }
            if let Some(size) = scale {
                self.set_scale(resource, *size).await?;
            }
            if *finalizer == Some(Finalizer::Remove) {
                self.set_finalizers(resource, false).await?;
            }
            Ok(())
        };
        let done = done.await;
        self.tell(resource, events).await;
        done
    }

    /// Written only if the resource is as it was read.
    async fn write_status(&self, resource: &DynamicObject, status: &NewStatus) -> Result<(), ExecuteError> {
        let (api, name, doing) = (self.clusters(resource), resource.name_any(), "write the status of");
        let written = match status {
            NewStatus::Whole(status) => {
                let mut written = resource.clone();
                written.data["status"] = serde_json::to_value(status).map_err(failed(doing, &name))?;
                api.replace_status(&name, &PostParams::default(), &written).await
            }
            NewStatus::Conditions(conditions, generation) => {
                let patch = json!({
                    "metadata": {"uid": resource.uid(), "resourceVersion": resource.resource_version()},
                    "status": {"conditions": conditions, "observedGeneration": generation},
                });
                api.patch_status(&name, &PatchParams::default(), &Patch::Merge(patch)).await
            }
        };
        written.map(|_| ()).map_err(failed(doing, &name))
    }

    /// The resources beside this one.
    fn clusters(&self, resource: &DynamicObject) -> Api<DynamicObject> {
        let namespace = resource.namespace().unwrap_or_default();
        Api::namespaced_with(self.client.clone(), &namespace, &shortener_clusters())
    }

    /// Lets a field stay that only we have set and no longer want to: the API server would put it back to its default, one node.
    /// Without force: who has changed it meanwhile is right.
    async fn hand_over(&self, namespace: &str, name: &str, size: i32) -> Result<(), ExecuteError> {
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), namespace);
        let stays = json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": size}});
        let patched = api.patch(name, &PatchParams::apply(HAND_OVER_MANAGER), &Patch::Apply(&stays)).await;
        patched.map(|_| ()).map_err(failed("hand over the size of the Deployment", name))
    }

    async fn set_scale(&self, resource: &DynamicObject, size: i32) -> Result<(), ExecuteError> {
        let (api, name) = (self.clusters(resource), resource.name_any());
        let patch = json!({"metadata": {"uid": resource.uid()}, "spec": {"replicas": size}});
        let patched = api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.map(|_| ()).map_err(failed("set the scale of", &name))
    }

    async fn set_finalizers(&self, resource: &DynamicObject, with_ours: bool) -> Result<(), ExecuteError> {
        let others = resource.finalizers().iter().filter(|finalizer| *finalizer != FINALIZER).cloned();
        let finalizers: Vec<_> = others.chain(with_ours.then(|| FINALIZER.to_owned())).collect();
        let patch = json!({"metadata": {
            "finalizers": finalizers,
            "uid": resource.uid(),
            "resourceVersion": resource.resource_version(),
        }});
        let (api, name) = (self.clusters(resource), resource.name_any());
        let patched = api.patch_metadata(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
        gone(patched.map(|_| ())).map_err(failed("set the finalizer of", &name))
    }

    /// Tells nodes what they were granted. A Lease that has changed since is told at the next visit.
    async fn deliver(&self, namespace: &str, deliveries: &[Delivery]) -> Result<(), ExecuteError> {
        let api: Api<Lease> = Api::namespaced(self.client.clone(), namespace);
        let deliver = |delivery: &Delivery| {
            let (api, delivery) = (api.clone(), delivery.clone());
            async move {
                let Delivery { lease, resource_version, grant } = delivery;
                let doing = "deliver a grant to the Lease";
                let grant = serde_json::to_string(&grant).map_err(failed(doing, &lease))?;
                let patch = json!({"metadata": {
                    "resourceVersion": resource_version,
                    "annotations": {GRANT_ANNOTATION: grant},
                }});
                let patched = api.patch_metadata(&lease, &PatchParams::default(), &Patch::Merge(patch)).await;
                match patched {
                    Err(kube::Error::Api(status)) if status.code == 409 || status.code == 404 => Ok(()),
                    patched => patched.map(|_| ()).map_err(failed(doing, &lease)),
                }
            }
        };
        let all: Vec<_> = deliveries.iter().map(deliver).collect();
        futures::stream::iter(all).buffer_unordered(DELIVERIES_AT_ONCE).try_collect::<Vec<()>>().await.map(|_| ())
    }

    /// Makes the key that signs tokens. One that is there already stays.
    async fn generate_secret(&self, namespace: &str, name: &str, cluster: &str) -> Result<(), ExecuteError> {
        let failed =
            |error: WriteError| ExecuteError { doing: "generate the Secret", what: name.to_owned(), source: error };
        let key: [u8; KEY_BYTES] = ambient::random().map_err(|error| failed(WriteError::Random(error)))?;
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                labels: Some(
                    [(CLUSTER_LABEL, cluster), (MANAGED_BY_LABEL, FIELD_MANAGER)]
                        .map(|(key, value)| (key.to_owned(), value.to_owned()))
                        .into(),
                ),
                ..ObjectMeta::default()
            },
            type_: Some("Opaque".to_owned()),
            data: Some([(GENERATED_KEY.to_owned(), ByteString(STANDARD.encode(key).into_bytes()))].into()),
            ..Secret::default()
        };
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        match api.create(&PostParams::default(), &secret).await {
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            created => created.map(|_| ()).map_err(|error| failed(error.into())),
        }
    }

    async fn apply(&self, namespace: &str, desired: &Desired) -> Result<DynamicObject, ExecuteError> {
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), namespace, &desired.kind.api_resource());
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let applied = api.patch(&desired.name, &params, &Patch::Apply(&desired.object)).await;
        applied.map_err(failed("apply the", &format!("{} {}", desired.kind.kind(), desired.name)))
    }

    async fn delete(&self, namespace: &str, unwanted: &Unwanted) -> Result<(), ExecuteError> {
        let Unwanted { kind, name, uid } = unwanted;
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &kind.api_resource());
        let only_this = Preconditions { uid: Some(uid.clone()), resource_version: None };
        let params = DeleteParams { preconditions: Some(only_this), ..DeleteParams::default() };
        gone(api.delete(name, &params).await.map(|_| ()))
            .map_err(failed("delete the", &format!("{} {name}", kind.kind())))
    }

    /// Events are news for people: one that cannot be told is logged and is no reason to do anything again.
    async fn tell(&self, resource: &DynamicObject, events: &[Event]) {
        let about = resource.object_ref(&shortener_clusters());
        for Event { is_warning, reason, message } in events {
            let event = ApiEvent {
                type_: if *is_warning { EventType::Warning } else { EventType::Normal },
                reason: reason.clone(),
                note: Some(message.clone()),
                action: "Reconcile".to_owned(),
                secondary: None,
            };
            if let Err(error) = self.recorder.publish(&event, &about).await {
                tracing::warn!(error = %Causes(&error), reason, "cannot publish an event");
            }
        }
    }
}

fn failed<E: Into<WriteError>>(doing: &'static str, what: &str) -> impl Fn(E) -> ExecuteError + use<E> {
    let what = what.to_owned();
    move |error| ExecuteError { doing, what: what.clone(), source: error.into() }
}

/// What is gone need not go.
fn gone(deleted: Result<(), kube::Error>) -> Result<(), kube::Error> {
    match deleted {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other,
    }
}
