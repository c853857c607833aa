//! `GET /api/v1/analytics/{short_code}/summary`: the clicks of one's own link.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, header};
use serde::Deserialize;
use utoipa::IntoParams;

use super::App;
use super::envelope::ProblemBody;
use super::error::ApiError;
use super::extract::{Code, QueryOf, User, named_domain};
use super::list;
use crate::cache::{CacheKey, Kept};
use crate::clicks::{self, Summary};

/// How old a summary may be.
const SUMMARY_TTL: Duration = Duration::from_mins(5);

/// Which domain a code is on.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SummaryParams {
    /// A domain of this service; by default that of its base URL.
    domain: Option<String>,
}

/// Summarises the clicks of the last 30 days on one's own link.
#[utoipa::path(get, path = "/api/v1/analytics/{short_code}/summary", tag = "analytics", security(("token" = [])),
    params(SummaryParams, ("short_code" = String, Path, description = "A code or an alias", pattern = "^[A-Za-z0-9_-]{3,64}$"),
        ("Cache-Control" = Option<String>, Header, description = "`no-cache` gives a fresh summary instead of one up to 5 minutes old")),
    responses(
        (status = 200, description = "The summary", body = Summary),
        (status = 401, description = "Not signed in", body = ProblemBody<'_>, content_type = "application/problem+json"),
        (status = 404, description = "No such link, or somebody else's", body = ProblemBody<'_>, content_type = "application/problem+json"),
        (status = 422, description = "A parameter is refused", body = ProblemBody<'_>, content_type = "application/problem+json"),
    ))]
pub async fn summary(
    State(app): State<Arc<App>>,
    User(owner): User,
    Code(code): Code,
    QueryOf(params): QueryOf<SummaryParams>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let domain = named_domain(&app, params.domain.as_deref())?;
    app.links.owned_at(owner, &domain, &code).await?;
    let key = CacheKey { domain: &domain, code: &code, of: Kept::Summary };
    let kept = if wants_fresh(&headers) { None } else { app.cache.get(&key).await };
    let json = match kept {
        Some(json) => json,
        None => {
            let summary = clicks::summary(&app.kv, &domain, &code, app.clock.now()).await?;
            let json = Bytes::from(serde_json::to_vec(&summary).map_err(|error| ApiError::Internal(Arc::new(error)))?);
            app.cache.put(&key, json.clone(), SUMMARY_TTL).await;
            json
        }
    };
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "private, max-age=0")];
    Ok((headers, json).into_response())
}

fn wants_fresh(headers: &HeaderMap) -> bool {
    list::elements(headers, header::CACHE_CONTROL).any(|directive| directive.eq_ignore_ascii_case("no-cache"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cache_in_any_line_asks_for_fresh_figures() {
        let check = |lines: &[&str], expected: bool| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::CACHE_CONTROL, line.parse().unwrap());
            }
            assert_eq!(wants_fresh(&headers), expected, "{lines:?}");
        };
        check(&["no-cache"], true);
        check(&["max-age=0, No-Cache"], true);
        check(&["max-age=0", "", ", no-cache ,"], true);
        check(&["", ","], false);
        check(&["max-age=0"], false);
        check(&["x-no-cache-here"], false);
        check(&[], false);
    }
}
