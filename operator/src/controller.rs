//! One visit of one cluster: observe → plan → execute; and when to come again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use kube::api::DynamicObject;
use kube::runtime::controller::{self, Action, Controller};
use kube::{Client, ResourceExt};
use shortener_crds::ShortenerClusterStatus;
use shortener_crds::causes::Causes;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::ambient;
use crate::execute::{ExecuteError, Executor};
use crate::metrics::{Metrics, Outcome};
use crate::observe::{ObserveError, Trigger, WatchedCluster, Watches, observe, read, resource};
use crate::plan::{Defaults, NewStatus, Plan, PlanError, plan, plan_unreadable};
use crate::scaling::Scaling;
use crate::settled::Settled;

/// How long requests for IDs are gathered at least before some are granted.
const BATCH_WINDOW: Duration = Duration::from_millis(250);
/// How much longer for each that waits: a thousand nodes that start together are one write and not a hundred.
const BATCH_WINDOW_EACH: Duration = Duration::from_millis(1);
/// How long they are gathered at most: a node has its block within 5 s.
const BATCH_WINDOW_MAX: Duration = Duration::from_secs(2);
/// The longest visit. What is not done by then failed: an API server that hangs must not hold up a cluster for ever.
const VISIT_TIMEOUT: Duration = Duration::from_secs(30);
/// Visits at once.
const VISITS_AT_ONCE: u16 = 8;
/// How soon after somebody else was quicker.
const RETRY_CONFLICT: Duration = Duration::from_millis(50);
/// How soon after the first failure; doubled with each that follows.
const RETRY_FIRST: Duration = Duration::from_millis(500);
/// How soon at the latest.
const RETRY_MAX: Duration = Duration::from_mins(1);

/// Why a visit failed.
#[derive(Debug, thiserror::Error)]
pub enum VisitError {
    /// Something could not be read.
    #[error(transparent)]
    Observe(#[from] ObserveError),
    /// Nothing could be decided.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Something could not be written.
    #[error(transparent)]
    Execute(#[from] ExecuteError),
    /// It took too long.
    #[error("the API server did not answer everything within {VISIT_TIMEOUT:?}")]
    TimedOut,
}

impl VisitError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Execute(error) if error.is_conflict() => Outcome::Conflict,
            _ => Outcome::Error,
        }
    }
}

/// When to come again after visits that ended so: the one policy for all failures.
pub fn retry_after(outcome: Outcome, failures: u32) -> Duration {
    match outcome {
        Outcome::Done => Duration::ZERO,
        Outcome::Conflict => RETRY_CONFLICT,
        Outcome::Error => RETRY_FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(RETRY_MAX),
    }
}

/// How long requests are gathered when so many wait.
pub fn batch_window(waiting: usize) -> Duration {
    let each = BATCH_WINDOW_EACH.saturating_mul(u32::try_from(waiting).unwrap_or(u32::MAX));
    (BATCH_WINDOW + each).min(BATCH_WINDOW_MAX)
}

/// What every visit needs.
pub struct Context {
    /// To the API server.
    pub client: Client,
    /// What is watched.
    pub watches: Watches,
    /// What carries out plans.
    pub executor: Executor,
    /// What was applied.
    pub settled: Settled,
    /// What is measured, and was decided on it.
    pub scaling: Arc<Scaling>,
    /// What is told.
    pub metrics: Metrics,
    /// What holds for resources that say nothing else.
    pub defaults: Defaults,
    /// Whether this operator works.
    pub leads: watch::Receiver<bool>,
    /// Failures in a row, by cluster.
    pub failures: Mutex<BTreeMap<(String, String), u32>>,
}

/// Visits clusters as they change, until `shutdown`.
pub async fn run(context: Arc<Context>, visits: mpsc::Receiver<Trigger>, shutdown: CancellationToken) {
    let triggers = futures::stream::unfold(visits, async |mut visits| Some((visits.recv().await?, visits)));
    // Whoever begins to lead visits all.
    let leads = context.leads.clone();
    let begins = futures::stream::unfold(leads, async |mut leads| {
        leads.changed().await.ok()?;
        Some(((), leads))
    });
    let config = controller::Config::default().concurrency(VISITS_AT_ONCE);
    // Clusters are watched where everything else is, so that all watches begin anew in one way.
    let visiting = Controller::for_stream(futures::stream::pending(), context.watches.clusters().clone())
        .with_config(config)
        .reconcile_on(triggers)
        .reconcile_all_on(begins)
        .graceful_shutdown_on(async move { shutdown.cancelled().await })
        .run(visit, after_failure, context.clone());
    let ended = async |visit: Result<_, controller::Error<VisitError, _>>| {
        // Failures were logged where they were counted. Of a resource that went this is the last that is heard.
        if let Err(controller::Error::ObjectNotFound(gone)) = visit {
            let (namespace, name) = (gone.namespace.unwrap_or_default(), gone.name);
            context.metrics.forget(&namespace, &name);
            context.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(&(namespace, name));
        }
    };
    visiting.for_each(ended).await;
}

async fn visit(cluster: Arc<WatchedCluster>, context: Arc<Context>) -> Result<Action, VisitError> {
    if !*context.leads.borrow() {
        return Ok(Action::await_change());
    }
    let (namespace, name) = (cluster.namespace().unwrap_or_default(), cluster.name_any());
    let mut gathered = Duration::ZERO;
    let started = ambient::monotonic();
    let visited = tokio::time::timeout(VISIT_TIMEOUT, visit_in_time(&context, &namespace, &name, &mut gathered)).await;
    let visited = visited.unwrap_or(Err(VisitError::TimedOut));
    let outcome = visited.as_ref().map_or_else(VisitError::outcome, |_| Outcome::Done);
    let took = ambient::monotonic().saturating_duration_since(started).saturating_sub(gathered);
    context.metrics.visited(outcome, took);
    if outcome == Outcome::Done {
        context.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(&(namespace, name));
    }
    visited.map(Action::requeue)
}

async fn visit_in_time(
    context: &Context,
    namespace: &str,
    name: &str,
    gathered: &mut Duration,
) -> Result<Duration, VisitError> {
    let Some(mut looked) = look(context, namespace, name).await? else { return Ok(VISIT_TIMEOUT) };
    // Deliveries of grants that are written down already do not wait.
    let waiting = looked.plan.deliveries.len();
    if waiting > 0 && looked.plan.status.is_some() {
        *gathered = batch_window(waiting);
        tokio::time::sleep(*gathered).await;
        let Some(later) = look(context, namespace, name).await? else { return Ok(VISIT_TIMEOUT) };
        looked = later;
    }
    let Looked { object, known_status, plan: planned } = looked;
    let executed = context.executor.execute(&object, &planned, &context.settled).await;
    // Whatever became of it: the next decision has to know what was seen, and reads from the Deployment what came of this one.
    if let Some(decided) = &planned.decided {
        context.scaling.decided(namespace, name, decided.clone());
    }
    executed?;
    context.metrics.unreadable(namespace, name, known_status.is_none());
    match (&planned.status, &known_status) {
        (Some(NewStatus::Whole(status)), _) => context.metrics.wrote(namespace, name, status),
        (_, Some(known)) => context.metrics.show(namespace, name, known),
        (_, None) => {}
    }
    if !planned.is_empty() {
        tracing::debug!(
            namespace,
            name,
            deliveries = planned.deliveries.len(),
            applied = planned.apply.len(),
            "visited"
        );
    }
    Ok(planned.look_again)
}

/// What was read and decided.
struct Looked {
    /// The resource as it was read.
    object: DynamicObject,
    /// Its status; none where the resource is not understood.
    known_status: Option<ShortenerClusterStatus>,
    plan: Plan,
}

/// Reads and thinks.
async fn look(context: &Context, namespace: &str, name: &str) -> Result<Option<Looked>, VisitError> {
    let Some(object) = resource(&context.client, namespace, name).await? else { return Ok(None) };
    let resource = match read(&object) {
        Ok(resource) => resource,
        Err(why) => {
            let plan = plan_unreadable(&object, &why, &ambient::now());
            return Ok(Some(Looked { object, known_status: None, plan }));
        }
    };
    let observed =
        observe(&context.client, &context.watches, &context.settled, &context.scaling, &context.defaults, &resource)
            .await?;
    let plan = plan(&resource, &observed, &ambient::now())?;
    Ok(Some(Looked { object, known_status: Some(resource.status.unwrap_or_default()), plan }))
}

#[expect(clippy::needless_pass_by_value, reason = "the controller hands it over so")]
fn after_failure(cluster: Arc<WatchedCluster>, error: &VisitError, context: Arc<Context>) -> Action {
    let (namespace, name) = (cluster.namespace().unwrap_or_default(), cluster.name_any());
    let outcome = error.outcome();
    let failures = {
        let mut failures = context.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let failures = failures.entry((namespace.clone(), name.clone())).or_default();
        *failures += u32::from(outcome == Outcome::Error);
        *failures
    };
    let again = retry_after(outcome, failures);
    match outcome {
        Outcome::Conflict => tracing::debug!(namespace, name, "somebody else was quicker; looking again"),
        _ => tracing::error!(
            error = %Causes(error),
            namespace,
            name,
            again_s = again.as_secs_f64(),
            "a visit of the ShortenerCluster failed"
        ),
    }
    Action::requeue(again)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_repeated_ever_more_slowly_and_conflicts_at_once() {
        let after = |failures| retry_after(Outcome::Error, failures);
        assert_eq!((after(1), after(2), after(3)), (RETRY_FIRST, RETRY_FIRST * 2, RETRY_FIRST * 4));
        assert_eq!((after(8), after(1000)), (RETRY_MAX, RETRY_MAX));
        assert!(retry_after(Outcome::Conflict, 1000) < Duration::from_millis(100));
    }

    #[test]
    fn the_batch_window_grows_with_what_waits_up_to_its_bound() {
        assert!(batch_window(1) < Duration::from_millis(300));
        assert!(batch_window(1000) > batch_window(100));
        assert_eq!(batch_window(1_000_000), BATCH_WINDOW_MAX);
    }
}
