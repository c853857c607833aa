//! `GET|HEAD /{short_code}`, and any other method on a link whose redirect keeps it: what the whole service is for.
//!
//! The answer waits for nothing but the store, and for that only when the process does not know the code. Recording the
//! click is a push into a bounded channel that never blocks.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use super::App;
use super::client_addr;
use super::envelope::ProblemBody;
use super::error::ApiError;
use super::short_path::code_of;
use super::{list, pages};
use crate::clicks::ClickEvent;
use crate::domains::Domain;
use crate::limits::Subject;
use crate::links::link::{Destination, Hop};
use crate::links::target_url::host_of;
use crate::links::{RedirectStatus, ResolveError, Resolved, Waited};
use crate::public_url::{UnknownHosts, without_port};

/// Follows a short link. `HEAD` gives the same without counting as a person's click. A link with 307 or 308 redirects every other
/// method too. What no code can hold at the end of the path is ignored.
#[utoipa::path(get, path = "/{short_code}", tag = "redirect",
    params(("short_code" = String, Path, description = "A code or an alias", pattern = "^[A-Za-z0-9_-]{3,64}$")),
    responses(
        (status = 302, description = "Follow `Location`; a link may have 301, 307 or 308 instead", headers(("Location" = String), ("Cache-Control" = String))),
        (status = 301, description = "Permanent", headers(("Location" = String))),
        (status = 307, description = "Temporary, same method", headers(("Location" = String))),
        (status = 308, description = "Permanent, same method", headers(("Location" = String))),
        (status = 404, description = "Unknown or not active: a page for browsers, a problem for others", content((ProblemBody<'_> = "application/problem+json"), (String = "text/html"))),
        (status = 410, description = "Expired, or it leads back to this service: a page for browsers, a problem for others", content((ProblemBody<'_> = "application/problem+json"), (String = "text/html"))),
        (status = 451, description = "The link or its target's host is blocked: a page for browsers, a problem for others", content((ProblemBody<'_> = "application/problem+json"), (String = "text/html"))),
        (status = 503, description = "The store cannot be reached", body = ProblemBody<'_>, content_type = "application/problem+json"),
    ))]
pub async fn redirect(State(app): State<Arc<App>>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    follow(&app, &parts, None).await
}

/// Follows the code of the request's path on the domain that its host means; with `status` instead of the link's own, if given.
pub async fn follow(app: &App, request: &Parts, status: Option<RedirectStatus>) -> Response {
    let begun = app.clock.monotonic();
    let Some(code) = code_of(&request.uri) else { return not_there(request, None, ApiError::NotFound(UNKNOWN)) };
    let Some(domain) = request.extensions.get::<Domain>() else {
        return not_there(request, None, ApiError::NotFound(UNKNOWN));
    };
    let address = client_addr::of(&request.extensions, &request.headers, &app.config.trusted_proxies);
    let (resolved, waited) = match app.resolve.known(domain, &code) {
        Some(resolved) => (resolved, Waited::default()),
        None => match ask(app, domain, &code, address).await {
            Ok(asked) => asked,
            Err(error) => return error.into_response(),
        },
    };
    let response = match resolved {
        Resolved::Hop(destination) => hop(app, &destination, request, address, status),
        Resolved::Expired(status) => not_there(request, Some(status), ApiError::Expired),
        Resolved::Loop(status) => {
            app.metrics.loops.inc();
            not_there(request, Some(status), ApiError::Loop)
        }
        Resolved::Unknown => {
            app.unknown_codes.count(Subject::of_address(address));
            not_there(request, None, ApiError::NotFound(UNKNOWN))
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

fn hop(
    app: &App,
    destination: &Destination,
    request: &Parts,
    address: IpAddr,
    status: Option<RedirectStatus>,
) -> Response {
    let Destination::Hop(hop) = destination else {
        return not_there(request, None, ApiError::NotFound(UNKNOWN));
    };
    if !is_followed(&request.method, Some(hop.status)) {
        return other_method();
    }
    if app.takedowns.block(hop) {
        return not_there(request, Some(hop.status), ApiError::Blocked);
    }
    if app.config.public_urls.unknown_hosts() == UnknownHosts::Default && leads_back(request, hop) {
        app.metrics.loops.inc();
        return not_there(request, Some(hop.status), ApiError::Loop);
    }
    let click = ClickEvent::new(app.clock.now(), hop.clicked.clone(), address, &request.method, &request.headers);
    app.clicks.record(click);
    if let Some(hot) = &app.hot {
        hot.count(&hop.clicked);
    }
    let status = status.unwrap_or(hop.status);
    let mut response = status.code().into_response();
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, hop.location.clone());
    headers.insert(header::CACHE_CONTROL, app.resolve.cache_control(hop));
    response
}

/// Whether a link leads to the host that it was asked for at. That of our own hosts none does was seen to when it was read; but where any
/// host means the default domain, any host is ours.
fn leads_back(request: &Parts, hop: &Hop) -> bool {
    let named = request.uri.authority().map(Authority::as_str);
    let named = named.or_else(|| request.headers.get(header::HOST)?.to_str().ok());
    let (Some(named), Ok(target)) = (named, hop.location.to_str()) else { return false };
    let [host, target] = [without_port(named), host_of(target)].map(|host| host.strip_suffix('.').unwrap_or(host));
    host.eq_ignore_ascii_case(target)
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

/// Whether a link with this status, or one that is not there, is followed with `method`: the others would turn it into GET.
fn is_followed(method: &Method, status: Option<RedirectStatus>) -> bool {
    matches!(*method, Method::GET | Method::HEAD) || status.is_some_and(RedirectStatus::keeps_method)
}

fn other_method() -> Response {
    ([(header::ALLOW, "GET,HEAD")], ApiError::MethodNotAllowed).into_response()
}

/// A page for a client that asks for one, a problem for every other; of the link's status, if there was one, depends which methods
/// are answered at all.
fn not_there(request: &Parts, status: Option<RedirectStatus>, error: ApiError) -> Response {
    if !is_followed(&request.method, status) {
        return other_method();
    }
    let mut response = match (wants_page(&request.headers), &error) {
        (true, ApiError::Expired) => (StatusCode::GONE, pages::gone()).into_response(),
        (true, ApiError::Loop) => (StatusCode::GONE, pages::loops()).into_response(),
        (true, ApiError::Blocked) => (StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS, pages::blocked()).into_response(),
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
    fn other_methods_follow_links_whose_redirect_keeps_the_method() {
        let other = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS, Method::TRACE];
        for (status, keeps) in
            [(None, false), (Some(301), false), (Some(302), false), (Some(307), true), (Some(308), true)]
        {
            let status = status.and_then(RedirectStatus::new);
            assert!(is_followed(&Method::GET, status) && is_followed(&Method::HEAD, status));
            for method in &other {
                assert_eq!(is_followed(method, status), keeps, "{method} {status:?}");
            }
        }
    }

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
