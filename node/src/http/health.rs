//! `GET /api/v1/health`: whether the node and what it depends on work.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;

use super::App;
use crate::resilience::Condition;

/// How long health waits for the store.
const STORE_DEADLINE: Duration = Duration::from_secs(1);

/// How the node is.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Health {
    /// `ok`; `degraded`: the cache is down, or links cannot be made, as with a full disk; `unavailable`: the store is down.
    #[schema(example = "ok")]
    status: &'static str,
    /// Where links are kept.
    store: BackEnd,
    /// Where answers are kept to be faster.
    cache: BackEnd,
    /// What codes are minted from.
    ids: Ids,
}

/// Something the node depends on.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct BackEnd {
    /// `embedded` or `tikv`; `memory` or `redis-cluster`.
    engine: &'static str,
    /// `ok` or `unavailable`; of a store also `read_only`: its disk is full, and what is there is read.
    status: &'static str,
    /// How long it took to answer.
    latency_ms: f64,
}

impl BackEnd {
    fn of(engine: &'static str, Condition { is_up, latency }: Condition) -> Self {
        Self { engine, status: word(is_up), latency_ms: latency.as_secs_f64() * 1_000.0 }
    }
}

/// How something is, in a word.
fn word(works: bool) -> &'static str {
    if works { "ok" } else { "unavailable" }
}

/// What codes are minted from.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Ids {
    /// `ok`; `unavailable`: no code can be minted now, so links cannot be made.
    status: &'static str,
    /// The worker ID in use; null while the node has none.
    worker_id: Option<u16>,
    /// Codes that can be minted without asking for more.
    remaining: u64,
    /// Whether the operator has yet to grant what was asked for; what is held is minted from meanwhile.
    waiting: bool,
}

/// Tells how the node is.
#[utoipa::path(get, path = "/api/v1/health", tag = "system",
    responses(
        (status = 200, description = "It works", body = Health),
        (status = 503, description = "The store cannot be reached", body = Health),
    ))]
pub async fn health(State(app): State<Arc<App>>) -> Response {
    let Condition { is_up, latency } = store(&app).await;
    // Until the registry of domains was read, nothing else is answered.
    let reached = is_up && app.domains.now().is_ok();
    let (cache, can_mint) = (app.cache.condition(), app.minter.can_mint());
    let is_full = app.kv.is_full();
    let (code, status) = match (reached, cache.is_up && can_mint && !is_full) {
        (true, true) => (StatusCode::OK, "ok"),
        (true, false) => (StatusCode::OK, "degraded"),
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
    };
    let mut store = BackEnd::of(app.kv.engine(), Condition { is_up: reached, latency });
    if reached && is_full {
        store.status = "read_only";
    }
    let body = Health {
        status,
        store,
        cache: BackEnd::of(app.cache.engine(), cache),
        ids: Ids {
            status: word(can_mint),
            worker_id: app.minter.worker_id().map(u16::from),
            remaining: app.minter.remaining(),
            waiting: app.minter.is_waiting(),
        },
    };
    let mut response = (code, [(header::CACHE_CONTROL, "no-store")], Json(body)).into_response();
    if !reached {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// How the store is: as it was found within the last second where it is watched, else as it is found now.
async fn store(app: &App) -> Condition {
    if let Some(condition) = app.kv.condition() {
        return condition;
    }
    let begun = app.clock.monotonic();
    let is_up = matches!(tokio::time::timeout(STORE_DEADLINE, app.kv.ping()).await, Ok(Ok(())));
    Condition { is_up, latency: app.clock.monotonic().saturating_sub(begun) }
}
