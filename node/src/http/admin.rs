//! The admin listener: `/livez`, `/readyz`, `/metrics`. Not for the public.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{StatusCode, header};
use prometheus::{Registry, TextEncoder};
use tokio::sync::Semaphore;

use super::App;

/// Scrapes that are answered at once; the others wait in line. Each takes a core for milliseconds.
const SCRAPES_MAX: usize = 1;

/// What the admin listener tells of.
#[derive(Clone)]
pub struct Admin {
    /// The metrics.
    pub registry: Registry,
    /// Whether the node may take traffic: its configuration is read and it listens, and it is not shutting down. Never
    /// whether something shared works: all nodes would be taken out at once.
    pub ready: Arc<AtomicBool>,
    /// The public listener's state, whose gauges are brought up to date.
    pub app: Arc<App>,
}

/// The admin listener's routes.
pub fn router(admin: Admin) -> Router {
    let scrapes = Arc::new(Semaphore::new(SCRAPES_MAX));
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(move |State(admin): State<Admin>| metrics(admin, scrapes.clone())))
        .with_state(admin)
}

async fn readyz(State(admin): State<Admin>) -> (StatusCode, &'static str) {
    match admin.ready.load(Ordering::SeqCst) {
        true => (StatusCode::OK, "ready\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
    }
}

/// Gathered on a thread of its own: many scrapes must not hold up probes, nor the public.
async fn metrics(admin: Admin, scrapes: Arc<Semaphore>) -> Response {
    let Ok(place) = scrapes.acquire_owned().await else { return StatusCode::SERVICE_UNAVAILABLE.into_response() };
    let gathered = tokio::task::spawn_blocking(move || {
        let _place = place;
        admin.app.metrics.refresh();
        admin.app.minter.refresh_metrics();
        TextEncoder::new().encode_to_string(&admin.registry.gather())
    });
    match gathered.await {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Ok(Err(error)) => {
            tracing::error!(%error, "cannot encode the metrics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
        // The panic itself is on standard error, with its place.
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
