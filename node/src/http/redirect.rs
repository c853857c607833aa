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
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};

use super::App;
use super::client_addr;
use super::envelope::ProblemBody;
use super::error::ApiError;
use super::extract::Code;
use super::{list, pages};
use crate::clicks::ClickEvent;
use crate::limits::Subject;
use crate::links::link::Destination;
use crate::links::{RedirectStatus, ResolveError, Resolved, Waited};
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
    let domain = app.config.public_urls.by_host(host(&request.headers, &request.uri));
    let address = client_addr::of(&request.extensions, &request.headers, &app.config.trusted_proxies);
    let (resolved, waited) = match app.resolve.known(domain, code) {
        Some(resolved) => (resolved, Waited::default()),
        None => match ask(app, domain, code, address).await {
            Ok(asked) => asked,
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
    app.metrics.redirected(app.clock.monotonic().saturating_sub(begun), waited);
    response
}

/// Asks the shared cache and the store, unless this address has asked for too many codes that are none. Gives also the time that
/// it waited for either. One that the store fails counts as a redirect of that time; one that is turned away took none, and
/// would only hide the others.
async fn ask(app: &App, domain: &Domain, code: &str, address: IpAddr) -> Result<(Resolved, Waited), ApiError> {
    let slowed = app.unknown_codes.check(Subject::of_address(address));
    slowed.map_err(|after_s| ApiError::RateLimited(Duration::from_secs(after_s)))?;
    let (resolved, waited) = app.resolve.resolve(domain, code).await;
    if let Err(ResolveError::Deadline | ResolveError::Store(_)) = resolved {
        app.metrics.redirected(waited.total(), waited);
    }
    Ok((resolved?, waited))
}

/// The host a request names: HTTP/1 says it in a header, HTTP/2 in the URI.
pub fn host<'a>(headers: &'a HeaderMap, uri: &'a Uri) -> Option<&'a str> {
    let header = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    header.or_else(|| uri.authority().map(http::uri::Authority::as_str))
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
    if let Some(hot) = &app.hot {
        hot.count(&hop.clicked);
    }
    let status = status.unwrap_or(hop.status);
    let mut response = status.code().into_response();
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, hop.location.clone());
    headers.insert(header::CACHE_CONTROL, app.resolve.cache_control(hop, status));
    response
}

const UNKNOWN: &str = "There is no link with this code, or it is not active.";

/// Whether a client names HTML among what it takes. `*/*` names nothing: that is what programs send.
fn wants_page(headers: &HeaderMap) -> bool {
    list::elements(headers, header::ACCEPT).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let is_html = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("text/html"));
        let refused = |part: &str| {
            part.split_once('=').is_some_and(|(name, q)| name.eq_ignore_ascii_case("q") && q.parse() == Ok(0.0))
        };
        is_html && !parts.any(refused)
    })
}

/// A page for who asks for one, a problem for everybody else.
fn not_there(headers: &HeaderMap, error: ApiError) -> Response {
    let mut response = match (wants_page(headers), &error) {
        (true, ApiError::Expired) => (StatusCode::GONE, pages::gone()).into_response(),
        (true, _) => (StatusCode::NOT_FOUND, pages::not_found()).into_response(),
        (false, _) => error.into_response(),
    };
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("private, max-age=0"));
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_names_html_gets_a_page() {
        let check = |lines: &[&str], expected: bool| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::ACCEPT, HeaderValue::from_str(line).unwrap());
            }
            assert_eq!(wants_page(&headers), expected, "{lines:?}");
        };
        check(&["text/html,application/xhtml+xml,*/*;q=0.8"], true);
        check(&["application/json, Text/HTML;q=0.5"], true);
        check(&["application/json", "text/html"], true);
        check(&["", ",application/json, ,text/html,"], true);
        check(&["text/html;Q=0,"], false);
        check(&["", ","], false);
        check(&["text/html;q=0, application/json"], false);
        check(&["text/html; q=0.000"], false);
        check(&["text/htmlx"], false);
        check(&["*/*"], false);
        check(&[], false);
    }
}
