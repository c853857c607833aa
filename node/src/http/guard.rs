//! What stands before every limited route: whose address it is, whose token, and whether there were too many.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use super::App;
use super::client_addr::ClientAddr;
use super::error::ApiError;
use super::extract::Caller;
use crate::config::RateLimits;
use crate::limits::{Decision, LimitRule, Subject};

const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// The layer.
pub async fn guard(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let address = ClientAddr::of(request.extensions(), request.headers(), &app.config.trusted_proxies);
    let user = match bearer(request.headers()).map(|token| token.and_then(|token| verify(&app, token))).transpose() {
        Ok(user) => user,
        Err(error) => {
            // Guessing tokens is limited like anything else an address does without one.
            let (limited, decision) = decide(&app, &request, Subject::address(address.ip()), app.config.rate_limits.anonymous).await;
            let error = if limited { ApiError::RateLimited(decision.retry_after) } else { error };
            return with_headers(error.into_response(), &decision);
        }
    };
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let (by_address, rule) = rule_of(request.method(), route, user.is_some(), &app.config.rate_limits);
    let subject = match user {
        Some(user) if !by_address => Subject::user(user),
        _ => Subject::address(address.ip()),
    };
    let caller = Caller { user, subject: subject.to_string() };
    let (limited, decision) = decide(&app, &request, subject, rule).await;
    if limited {
        return with_headers(ApiError::RateLimited(decision.retry_after).into_response(), &decision);
    }
    request.extensions_mut().insert(caller);
    with_headers(next.run(request).await, &decision)
}

async fn decide(app: &App, request: &Request, subject: Subject, rule: LimitRule) -> (bool, Decision) {
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let endpoint = format!("{} {route}", request.method());
    let decision = app.limits.check(&subject, &endpoint, rule).await;
    (!decision.allowed, decision)
}

/// The rule of a route, and whether it counts by address even where there is a token.
fn rule_of(method: &Method, route: &str, has_token: bool, limits: &RateLimits) -> (bool, LimitRule) {
    match (method, route) {
        (&Method::POST, "/api/v1/auth/register") => (true, limits.register),
        (&Method::POST, "/api/v1/auth/login") => (true, limits.login),
        _ if has_token => (false, limits.user),
        _ => (true, limits.anonymous),
    }
}

/// The token of `Authorization: Bearer`, if that header is there at all.
fn bearer(headers: &HeaderMap) -> Option<Result<&str, ApiError>> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?;
    let token = value.to_str().ok().and_then(|text| {
        let (scheme, token) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token)
    });
    let single = values.next().is_none();
    Some(token.filter(|_| single).ok_or(ApiError::Unauthenticated("Authorization must be one Bearer token.")))
}

fn verify(app: &App, token: &str) -> Result<u64, ApiError> {
    let verified = app.accounts.verify_access(token);
    verified.map_err(|_| ApiError::Unauthenticated("The access token is not valid, or no longer."))
}

fn with_headers(mut response: Response, decision: &Decision) -> Response {
    let headers = response.headers_mut();
    headers.insert(LIMIT, HeaderValue::from(decision.limit));
    headers.insert(REMAINING, HeaderValue::from(decision.remaining));
    headers.insert(RESET, HeaderValue::from(decision.reset_s));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: &str, expected: Option<&str>) {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        assert_eq!(bearer(&headers).unwrap().ok(), expected, "{value:?}");
    }

    #[test]
    fn only_one_bearer_token_is_a_token() {
        check("Bearer abc", Some("abc"));
        check("bearer abc", Some("abc"));
        check("Basic abc", None);
        check("Bearer", None);
        check("abc", None);
        assert!(bearer(&HeaderMap::new()).is_none());
        let mut twice = HeaderMap::new();
        twice.append(header::AUTHORIZATION, HeaderValue::from_static("Bearer a"));
        twice.append(header::AUTHORIZATION, HeaderValue::from_static("Bearer b"));
        assert!(bearer(&twice).unwrap().is_err());
    }
}
