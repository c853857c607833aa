//! The admin listener: `/livez`, `/readyz`, `/metrics`. Not for the public.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{StatusCode, header};
use prometheus::{Registry, TextEncoder};

use super::App;

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
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(admin)
}

async fn readyz(State(admin): State<Admin>) -> (StatusCode, &'static str) {
    match admin.ready.load(Ordering::SeqCst) {
        true => (StatusCode::OK, "ready\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
    }
}

async fn metrics(State(admin): State<Admin>) -> Response {
    admin.app.metrics.refresh();
    admin.app.minter.refresh_metrics();
    match TextEncoder::new().encode_to_string(&admin.registry.gather()) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "cannot encode the metrics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
