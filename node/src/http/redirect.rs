//! `GET|HEAD /{short_code}`: what the whole service is for.
//!
//! The answer waits for nothing but the store, and for that only when the process does not know the code. Recording the
//! click is a push into a bounded channel that never blocks.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::App;
use super::client_addr;
use super::envelope::ProblemBody;
use super::error::ApiError;
use super::extract::Code;
use super::pages;
use crate::clicks::ClickEvent;
use crate::limits::Subject;
use crate::links::link::Destination;
use crate::links::resolve::Spent;
use crate::links::{RedirectStatus, Resolved};
use crate::public_url::Domain;

/// Follows a short link. `HEAD` gives the same without counting as a person's click.
#[utoipa::path(get, path = "/{short_code}", tag = "redirect",
    params(("short_code" = String, Path, description = "A code or an alias", pattern = "^[A-Za-z0-9_-]{3,64}$")),
    responses(
        (status = 302, description = "Follow `Location`; a link may have 301, 307 or 308 instead", headers(("Location" = String), ("Cache-Control" = String))),
        (status = 301, description = "Permanent", headers(("Location" = String))),
        (status = 307, description = "Temporary, same method", headers(("Location" = String))),
        (status = 308, description = "Permanent, same method", headers(("Location" = String))),
        (status = 404, description = "Unknown or not active: a page for browsers, a problem for others", content((ProblemBody<'_> = "application/problem+json"), (String = "text/html"))),
        (status = 410, description = "Expired: a page for browsers, a problem for others", content((ProblemBody<'_> = "application/problem+json"), (String = "text/html"))),
        (status = 503, description = "The store cannot be reached", body = ProblemBody<'_>, content_type = "application/problem+json"),
    ))]
pub async fn redirect(State(app): State<Arc<App>>, Code(code): Code, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    follow(&app, &code, &parts, None).await
}

/// Follows `code` on the domain that the request's host means; with `status` instead of the link's own, if given.
pub async fn follow(app: &App, code: &str, request: &Parts, status: Option<RedirectStatus>) -> Response {
    let begun = app.clock.monotonic();
    let domain = app.config.public_urls.by_host(host(request));
    let address = client_addr::of(&request.extensions, &request.headers, &app.config.trusted_proxies);
    let (resolved, store) = match app.resolve.known(domain, code) {
        Some(resolved) => (resolved, Duration::ZERO),
        None => match ask(app, domain, code, address).await {
            Ok((resolved, spent)) => (resolved, spent.store),
            Err(error) => return error.into_response(),
        },
    };
    let response = match resolved {
        Resolved::Hop(destination) => hop(app, &destination, request, address, status),
        Resolved::Expired => not_there(&request.headers, ApiError::Expired),
        Resolved::Unknown => {
            app.unknown_codes.count(Subject::of_address(address));
            not_there(&request.headers, ApiError::NotFound(UNKNOWN))
        }
    };
    app.metrics.redirected(app.clock.monotonic().saturating_sub(begun), store);
    response
}

/// Asks the store, unless this address has asked for too many codes that are none.
async fn ask(app: &App, domain: &Domain, code: &str, address: IpAddr) -> Result<(Resolved, Spent), ApiError> {
    let slowed = app.unknown_codes.check(Subject::of_address(address));
    slowed.map_err(|after_s| ApiError::RateLimited(Duration::from_secs(after_s)))?;
    Ok(app.resolve.resolve(domain, code).await?)
}

/// The host a request names: HTTP/1 says it in a header, HTTP/2 in the URI.
fn host(request: &Parts) -> Option<&str> {
    let header = request.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    header.or_else(|| request.uri.authority().map(http::uri::Authority::as_str))
}

fn hop(
    app: &App,
    destination: &Destination,
    request: &Parts,
    address: IpAddr,
    status: Option<RedirectStatus>,
) -> Response {
    let Destination::Hop(hop) = destination else {
        return not_there(&request.headers, ApiError::NotFound(UNKNOWN));
    };
    let click = ClickEvent::new(app.clock.now(), hop.clicked.clone(), address, &request.method, &request.headers);
    app.clicks.record(click);
    let mut response = status.unwrap_or(hop.status).code().into_response();
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, hop.location.clone());
    headers.insert(header::CACHE_CONTROL, app.resolve.cache_control(hop));
    response
}

const UNKNOWN: &str = "There is no link with this code, or it is not active.";

/// A page for who asks for one, a problem for everybody else.
fn not_there(headers: &HeaderMap, error: ApiError) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let mut response = match (accept.contains("text/html"), &error) {
        (true, ApiError::Expired) => (StatusCode::GONE, pages::gone()).into_response(),
        (true, _) => (StatusCode::NOT_FOUND, pages::not_found()).into_response(),
        (false, _) => error.into_response(),
    };
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("private, max-age=0"));
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    response
}
