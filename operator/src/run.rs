//! Puts the operator together, works until it is told to stop, and gives up leadership.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use kube::Client;
use kube::runtime::events::{Recorder, Reporter};
use prometheus::{Registry, TextEncoder};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::ambient;
use crate::config::Run;
use crate::controller::{self, Context};
use crate::execute::Executor;
use crate::leader;
use crate::metrics::Metrics;
use crate::observe::Watches;
use crate::plan::Defaults;
use crate::plan::resources::FIELD_MANAGER;
use crate::scaling::Scaling;
use crate::settled::Settled;

/// Scrapes that are answered at once; the others wait in line. Each takes a core for milliseconds.
const SCRAPES_MAX: usize = 1;

/// Why the operator did not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A metric was registered twice.
    #[error("cannot register a metric")]
    Metrics(#[from] prometheus::Error),
    /// There is no client for Prometheus.
    #[error("cannot make a client for Prometheus")]
    Http(#[source] reqwest::Error),
    /// There is no randomness for a name.
    #[error("the system gives no random bytes: {0}")]
    Random(getrandom::Error),
}

/// Works until `shutdown`.
pub async fn run(
    settings: &Run,
    client: Client,
    metrics_listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let registry = Registry::new();
    let metrics = Metrics::register(&registry)?;
    let (ready, is_ready) = watch::channel(false);
    // Nothing of this outlives it, also when it is dropped.
    let serving = shortener_probes::serve(metrics_listener, admin_router(registry, is_ready), shutdown.clone());
    let _serving = AbortOnDropHandle::new(tokio::spawn(serving));
    let me = match &settings.pod_name {
        Some(name) => name.clone(),
        None => hex::encode(ambient::random::<8>().map_err(RunError::Random)?),
    };
    let reporter = Reporter { controller: FIELD_MANAGER.to_owned(), instance: Some(me.clone()) };
    let recorder = Recorder::new(client.clone(), reporter);
    let (leads, is_leader) = watch::channel(!settings.leader_election);
    let scope = settings.scope();
    let started = tokio::select! {
        started = Watches::start(&client, &scope) => started,
        () = shutdown.cancelled() => return Ok(()),
    };
    let (watches, visits) = started;
    ready.send_replace(true);
    tracing::info!(identity = me, scope = ?scope, "watching");
    let electing = settings.leader_election.then(|| {
        let namespace = settings.operator_namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned());
        let part = leader::take_part(client.clone(), namespace, me, leads.clone(), shutdown.clone());
        AbortOnDropHandle::new(tokio::spawn(part))
    });
    let _showing = AbortOnDropHandle::new(tokio::spawn(show_leadership(is_leader.clone(), metrics.clone())));
    let scaling = Arc::new(Scaling::new().map_err(RunError::Http)?);
    let measuring = scaling.clone().keep(
        watches.clusters().clone(),
        watches.pods().clone(),
        watches.triggers(),
        is_leader.clone(),
        shutdown.clone(),
    );
    let _measuring = AbortOnDropHandle::new(tokio::spawn(measuring));
    let context = Arc::new(Context {
        executor: Executor::new(client.clone(), recorder),
        client,
        watches,
        settled: Settled::default(),
        scaling,
        metrics,
        defaults: Defaults {
            image: settings.node_image.clone(),
            format_raise_after: Duration::from_secs(settings.format_raise_after_seconds),
        },
        leads: is_leader,
        failures: Mutex::new(BTreeMap::new()),
    });
    controller::run(context, visits, shutdown).await;
    if let Some(electing) = electing {
        // A panic there was reported where it happened.
        let _ = electing.await;
    }
    Ok(())
}

async fn show_leadership(mut leads: watch::Receiver<bool>, metrics: Metrics) {
    loop {
        let leading = *leads.borrow_and_update();
        metrics.leads(leading);
        if !leading {
            metrics.forget_all();
        }
        if leads.changed().await.is_err() {
            return;
        }
    }
}

#[derive(Clone)]
struct Admin {
    registry: Registry,
    ready: watch::Receiver<bool>,
    scrapes: Arc<Semaphore>,
}

/// `/livez`, `/readyz` and `/metrics`.
fn admin_router(registry: Registry, ready: watch::Receiver<bool>) -> Router {
    let scrapes = Arc::new(Semaphore::new(SCRAPES_MAX));
    Router::new()
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(render))
        .with_state(Admin { registry, ready, scrapes })
}

async fn readyz(State(admin): State<Admin>) -> (StatusCode, &'static str) {
    match *admin.ready.borrow() {
        true => (StatusCode::OK, "ready\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "the API server has not told yet what there is\n"),
    }
}

/// Gathered on a thread of its own: many scrapes must not hold up probes, nor the work.
async fn render(State(Admin { registry, scrapes, .. }): State<Admin>) -> Result<String, StatusCode> {
    let place = scrapes.acquire_owned().await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    let gathered = tokio::task::spawn_blocking(move || {
        let _place = place;
        TextEncoder::new().encode_to_string(&registry.gather())
    });
    gathered.await.ok().and_then(Result::ok).ok_or(StatusCode::INTERNAL_SERVER_ERROR)
}
