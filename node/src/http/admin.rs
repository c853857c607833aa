//! The admin listener: `/livez`, `/readyz`, `/metrics`. Not for the public.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use http::{StatusCode, header};
use prometheus::{Registry, TextEncoder};
use tokio::sync::Semaphore;

use super::{App, envelope};

/// How long an answer to `/metrics` may be given again.
const METRICS_SHARED: Duration = Duration::from_secs(1);

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
    /// The last answer to `/metrics`.
    pub last_metrics: Arc<Mutex<LastMetrics>>,
}

/// The last answer to `/metrics`, and when it was made.
#[derive(Debug, Default)]
pub struct LastMetrics {
    text: Bytes,
    made_at: Duration,
}

impl LastMetrics {
    /// The last answer, if it is young and somebody has yet to read it. Who asks often and reads nothing gets the same bytes, so that
    /// they take no more memory. For all others the metrics are of now.
    fn shared(&self, now: Duration) -> Option<Bytes> {
        let is_unread = !self.text.is_empty() && !self.text.is_unique();
        (is_unread && now.saturating_sub(self.made_at) < METRICS_SHARED).then(|| self.text.clone())
    }
}

impl Admin {
    /// The metrics as text. Takes milliseconds.
    fn gather(&self) -> prometheus::Result<Bytes> {
        let now = self.app.clock.monotonic();
        let mut last = self.last_metrics.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(text) = last.shared(now) {
            return Ok(text);
        }
        self.app.metrics.refresh();
        self.app.minter.refresh_metrics();
        let text = Bytes::from(TextEncoder::new().encode_to_string(&self.registry.gather())?);
        *last = LastMetrics { text: text.clone(), made_at: now };
        Ok(text)
    }
}

/// The admin listener's routes.
pub fn router(admin: Admin) -> Router {
    let scrapes = Arc::new(Semaphore::new(SCRAPES_MAX));
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(move |State(admin): State<Admin>| metrics(admin, scrapes.clone())))
        .layer(from_fn_with_state(admin.app.clone(), envelope::admin_envelope))
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
        admin.gather()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_that_nobody_has_read_are_given_again_for_a_moment_and_others_are_of_now() {
        let made_at = Duration::from_secs(10);
        let last = LastMetrics { text: Bytes::from(vec![b'x'; 10]), made_at };
        assert_eq!(last.shared(made_at), None, "they were read");
        let unread = last.text.clone();
        assert_eq!(last.shared(made_at), Some(unread.clone()));
        assert_eq!(last.shared(made_at + METRICS_SHARED), None, "they are old");
        drop(unread);
        assert_eq!(last.shared(made_at), None);
        assert_eq!(LastMetrics::default().shared(Duration::ZERO), None);
    }
}
