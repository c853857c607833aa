//! What every request goes through on its way in, and its answer on its way out: host, request ID, problem body, metrics, trace, log
//! line, in-flight limit.
//!
//! Nothing is logged at `info` for a redirect, and never a URL's query, a token, a password or a whole address for anything.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use serde::Serialize;
use shortener_crds::causes::Causes;
use tracing::Instrument;

use super::error::{ApiError, Problem};
use super::serve::Refusal;
use super::{App, IN_FLIGHT_MAX, host, trace};
use crate::ambient::{self, UnixMs};
use crate::domains::Domain;
use crate::invalid::FieldError;

/// `X-Request-ID`.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// `Content-Type` of a problem.
pub const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");
/// A service that is reached by https is never to be reached otherwise: two years, as browsers' lists ask for.
const HSTS: HeaderValue = HeaderValue::from_static("max-age=63072000");
/// Of an answer that is not for looking at: nothing is loaded, sent or framed. What is not said of bases and forms is allowed.
const POLICY: &str =
    "default-src 'none'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// The one path that is answered whatever host is named.
const HEALTH_PATH: &str = "/api/v1/health";
/// The longest request ID that is taken from a caller, in bytes.
const REQUEST_ID_BYTES_MAX: usize = 128;
/// When to come back after being turned away at the door.
pub(super) const RETRY_WHEN_FULL: Duration = Duration::from_secs(1);

/// RFC 9457, as it is sent.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody<'a> {
    /// A URN that names the kind of problem.
    #[schema(example = "urn:shortener:problem:invalid")]
    r#type: String,
    /// The kind of problem, for people.
    title: &'a str,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What happened this time and what would be right.
    detail: &'a str,
    /// The request's ID, as in `X-Request-ID`.
    request_id: &'a str,
    /// The fields that are wrong, where a body or query was rejected.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
}

/// The layer around all routes of the public listener.
pub async fn envelope(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let request_id = request_id(request.headers());
    let method = request.method().clone();
    let was_refused = request.extensions().get::<Refusal>().is_some();
    let route = request.extensions().get::<MatchedPath>().filter(|_| !was_refused).cloned();
    let begun = app.clock.monotonic();
    let in_flight = app.metrics.enter();
    let admitted = match in_flight.count() > IN_FLIGHT_MAX {
        true => Err(ApiError::Unavailable("This node is full.", RETRY_WHEN_FULL, None)),
        false => admit(&app, &request),
    };
    let (span, mut response) = match admitted {
        Ok(domain) => {
            let span = domain.as_ref().map_or_else(tracing::Span::none, |domain| trace::begin(&app, &request, domain));
            if let Some(domain) = domain {
                request.extensions_mut().insert(domain);
            }
            (span.clone(), next.run(request).instrument(span).await)
        }
        Err(error) => (tracing::Span::none(), error.into_response()),
    };
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    let took = app.clock.monotonic().saturating_sub(begun);
    finish(&mut response, &request_id);
    if app.config.public_urls.base().is_https() {
        response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, HSTS);
    }
    if was_refused {
        complete_refusal(&mut response, app.clock.now());
    }
    app.metrics.answered(&method, route, response.status());
    trace::end(&span, response.status());
    log(&method, route, response.status(), took, &request_id);
    drop(in_flight);
    response
}

/// The domain that a request is for, unless it is refused before anybody looks at its path. Health needs none.
fn admit(app: &App, request: &Request) -> Result<Option<Domain>, ApiError> {
    if let Some(refusal) = request.extensions().get::<Refusal>() {
        return Err((*refusal).into());
    }
    let named = host::named(request.version(), request.uri(), request.headers())?;
    let domain = app.domains.now().map(|served| served.by_host(named.map(|authority| authority.as_str())).cloned());
    match domain {
        Ok(Some(domain)) => Ok(Some(domain)),
        // Load balancers and probes ask by address, and whatever the store does.
        _ if request.uri().path() == HEALTH_PATH => Ok(None),
        Ok(None) => Err(ApiError::NotFound("This host is not served here.")),
        Err(unsettled) => Err(unsettled.into()),
    }
}

/// The layer around the admin listener's routes: each answer has an ID, and a request that cannot be read is answered as on the public
/// listener.
pub async fn admin_envelope(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let request_id = request_id(request.headers());
    let (method, refusal) = (request.method().clone(), request.extensions().get::<Refusal>().copied());
    let mut response = match refusal {
        Some(refusal) => ApiError::from(refusal).into_response(),
        None => next.run(request).await,
    };
    finish(&mut response, &request_id);
    if refusal.is_some() {
        complete_refusal(&mut response, app.clock.now());
        app.metrics.answered(&method, "none", response.status());
        log(&method, "none", response.status(), Duration::ZERO, &request_id);
    }
    response
}

/// Says when a refusal was made, where the HTTP library does not, and nothing of a path that was not looked at.
fn complete_refusal(response: &mut Response, now: UnixMs) {
    response.headers_mut().remove(header::ALLOW);
    let at = i64::try_from(now.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    let text = at.map(|at| at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string());
    let value = text.and_then(|text| HeaderValue::try_from(text).ok());
    response.headers_mut().extend(value.map(|value| (header::DATE, value)));
}

/// The caller's ID if it is one, else a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let fine = |id: &&HeaderValue| {
        (1..=REQUEST_ID_BYTES_MAX).contains(&id.len())
            && id.as_bytes().iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    };
    let own = headers.get(REQUEST_ID).filter(fine);
    own.cloned().unwrap_or_else(|| {
        let id = hex::encode(ambient::random::<16>());
        HeaderValue::try_from(id).unwrap_or(HeaderValue::from_static("0"))
    })
}

fn finish(response: &mut Response, request_id: &HeaderValue) {
    let problem = response.extensions_mut().remove::<Problem>();
    let problem = problem.or_else(|| bare(response).and_then(ApiError::of_status).map(ApiError::into_problem));
    if let Some(problem) = problem {
        write_problem(response, &problem, request_id);
    }
    let is_redirect = response.status().is_redirection();
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, request_id.clone());
    if !is_redirect {
        secure(headers);
    }
}

/// Headers that keep browsers from taking an answer for what it is not, where no handler set them otherwise. A redirect has
/// nothing to show, and its target is told where its visitor came from only as browsers do by default.
fn secure(headers: &mut HeaderMap) {
    let defaults = [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-site"),
    ];
    for (name, value) in defaults {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}

/// The status of a failed answer that nobody wrote a body for: the router's own 404 and 405, a layer's 413.
fn bare(response: &Response) -> Option<StatusCode> {
    let status = response.status();
    let content_type = response.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let written = content_type.is_some_and(|kind| !kind.starts_with(b"text/plain"));
    ((status.is_client_error() || status.is_server_error()) && !written).then_some(status)
}

fn write_problem(response: &mut Response, problem: &Problem, request_id: &HeaderValue) {
    let status = response.status();
    let request_id = request_id.to_str().unwrap_or_default();
    if let Some(source) = &problem.source {
        tracing::error!(request_id, status = status.as_u16(), error = %Causes(source.as_ref()), "request failed");
    }
    let body = ProblemBody {
        r#type: format!("urn:shortener:problem:{}", problem.slug),
        title: problem.title,
        status: status.as_u16(),
        detail: &problem.detail,
        request_id,
        errors: &problem.errors,
    };
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_TYPE, PROBLEM_JSON);
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    *response.body_mut() = Body::from(serde_json::to_vec(&body).unwrap_or_default());
}

fn log(method: &Method, route: &str, status: StatusCode, took: Duration, request_id: &HeaderValue) {
    let request_id = request_id.to_str().unwrap_or_default();
    let (status, duration_ms) = (status.as_u16(), took.as_secs_f64() * 1_000.0);
    if super::REDIRECT_ROUTES.contains(&route) {
        tracing::debug!(%method, route, status, duration_ms, request_id, "request");
    } else {
        tracing::info!(%method, route, status, duration_ms, request_id, "request");
    }
}

/// Requests in flight; counts itself out when dropped.
#[derive(Debug)]
pub struct InFlight<'a>(pub(super) &'a super::metrics::HttpMetrics, pub(super) usize);

impl InFlight<'_> {
    fn count(&self) -> usize {
        self.1
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sent: &str, kept: bool) {
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID, HeaderValue::from_bytes(sent.as_bytes()).unwrap());
        assert_eq!(request_id(&headers) == sent, kept, "{sent:?}");
    }

    #[test]
    fn a_callers_request_id_is_kept_if_it_is_harmless() {
        check("a", true);
        check("018f.A_b-9", true);
        check(&"x".repeat(128), true);
        check(&"x".repeat(129), false);
        check("", false);
        check("a b", false);
        check("a\"b", false);
        check("ä", false);
    }

    #[test]
    fn a_new_request_id_is_random() {
        assert_ne!(request_id(&HeaderMap::new()), request_id(&HeaderMap::new()));
        assert_eq!(request_id(&HeaderMap::new()).len(), 32);
    }
}
