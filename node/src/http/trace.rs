//! Which requests are followed in traces, and the span that each of them is.
//!
//! Redirects and creates are; the rest of the API is not. Who begins a trace decides whether it is followed, and every service that is
//! called within it does the same. A caller's word (`traceparent`, W3C Trace Context) is taken as that of `X-Forwarded-For` is: from
//! [trusted proxies](crate::config::Config::trusted_proxies) alone. Any other caller could have each of its requests written down at our cost, or into
//! somebody else's trace: for those the node begins a trace itself, of every create and of one in [`REDIRECTS_PER_TRACE`] redirects.
//!
//! `url.path` and the client's address are left out, which the conventions of OpenTelemetry ask for: a path is a code.

use axum::extract::{MatchedPath, Request};
use http::{Method, StatusCode, Version};
use opentelemetry::Context;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::TraceContextExt;
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::{Span, field};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::{App, CREATE_ROUTES, REDIRECT_ROUTES, client_addr};
use crate::ambient;
use crate::domains::Domain;
use crate::traces::{self, ROOT};

/// Of so many redirects one begins a trace: enough to see where time goes, and a busy fleet's collector keeps up. All creates do: they
/// are few, and limited.
const REDIRECTS_PER_TRACE: u32 = 100;

/// What kinds of requests are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Redirect,
    Create,
}

impl Kind {
    fn of(method: &Method, route: &str) -> Option<Self> {
        match *method {
            Method::GET | Method::HEAD if REDIRECT_ROUTES.contains(&route) => Some(Self::Redirect),
            Method::POST if CREATE_ROUTES.contains(&route) => Some(Self::Create),
            _ => None,
        }
    }
}

/// Whether a request is followed: as the trace that it belongs to is, else by chance.
fn is_followed(kind: Kind, parent_is: Option<bool>, random: u32) -> bool {
    parent_is.unwrap_or(match kind {
        Kind::Create => true,
        Kind::Redirect => random.is_multiple_of(REDIRECTS_PER_TRACE),
    })
}

/// The span of a request; none if it is not followed.
pub(super) fn begin(app: &App, request: &Request, domain: &Domain) -> Span {
    if !traces::are_on() {
        return Span::none();
    }
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let Some(kind) = Kind::of(request.method(), route) else { return Span::none() };
    let parent = client_addr::is_from_trusted(request.extensions(), &app.config.trusted_proxies)
        .then(|| {
            TraceContextPropagator::new().extract_with_context(&Context::new(), &HeaderExtractor(request.headers()))
        })
        .filter(|parent| parent.span().span_context().is_valid());
    let parent_is = parent.as_ref().map(|parent| parent.span().span_context().is_sampled());
    if !is_followed(kind, parent_is, u32::from_be_bytes(ambient::random())) {
        return Span::none();
    }
    let (host, port) = domain.host_and_port();
    let method = request.method().as_str();
    let span = tracing::info_span!(
        target: ROOT,
        "request",
        otel.name = format!("{method} {route}"),
        otel.kind = "server",
        otel.status_code = field::Empty,
        http.request.method = method,
        http.route = route,
        http.response.status_code = field::Empty,
        url.scheme = app.config.public_urls.base().scheme(),
        server.address = host,
        server.port = port,
        network.protocol.version = version(request.version()),
        "error.type" = field::Empty,
    );
    if let Some(parent) = parent {
        // It fails only if the span is none, or has begun.
        let _ = span.set_parent(parent);
    }
    span
}

/// Writes down how a request was answered. Whose request was wrong is told by the status; only what we failed at counts as an error.
pub(super) fn end(span: &Span, status: StatusCode) {
    span.record("http.response.status_code", i64::from(status.as_u16()));
    if status.is_server_error() {
        traces::failed(span, status.as_str());
    }
}

fn version(version: Version) -> Option<&'static str> {
    match version {
        Version::HTTP_10 => Some("1.0"),
        Version::HTTP_11 => Some("1.1"),
        Version::HTTP_2 => Some("2"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_and_creates_are_followed_and_nothing_else() {
        let check =
            |method: Method, route: &str, expected| assert_eq!(Kind::of(&method, route), expected, "{method} {route}");
        check(Method::GET, "/{short_code}", Some(Kind::Redirect));
        check(Method::HEAD, "/{short_code}", Some(Kind::Redirect));
        check(Method::GET, "/shortener/url/{id}", Some(Kind::Redirect));
        check(Method::POST, "/api/v1/urls", Some(Kind::Create));
        check(Method::POST, "/shortener/url/", Some(Kind::Create));
        check(Method::POST, "/{short_code}", None);
        check(Method::GET, "/api/v1/urls", None);
        check(Method::POST, "/api/v1/auth/login", None);
        check(Method::GET, "", None);
    }

    #[test]
    fn a_request_is_followed_as_its_trace_is_and_else_by_chance() {
        for kind in [Kind::Redirect, Kind::Create] {
            assert!(is_followed(kind, Some(true), 1), "{kind:?}");
            assert!(!is_followed(kind, Some(false), 0), "{kind:?}");
        }
        assert!((0..1_000).all(|random| is_followed(Kind::Create, None, random)));
        assert_eq!((0..1_000).filter(|random| is_followed(Kind::Redirect, None, *random)).count(), 10);
    }
}
