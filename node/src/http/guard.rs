//! What stands before every limited route: whose address it is, whose token, and whether there were too many.

use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body as _;
use zeroize::{Zeroize, Zeroizing};

use super::client_addr;
use super::envelope::RETRY_WHEN_FULL;
use super::error::ApiError;
use super::extract::{Address, Caller};
use super::meter::{Meter, REQUEST_UNITS};
use super::{App, BODY_BYTES_MAX};
use crate::kv::WRITE_DEADLINE;
use crate::limits::{Decision, Subject};
use crate::store::accounts::UserId;

/// How long a body may take to arrive: who sends a byte a minute must not hold a place for an hour.
const BODY_DEADLINE: Duration = Duration::from_secs(10);
/// How long an answer may take once its request is here, with all that is read and written for it: the deadline of each
/// call to the store alone would let a use-case of many calls take many of them.
const ANSWER_DEADLINE: Duration = WRITE_DEADLINE;
/// The same where a password is hashed: the last in the queue for that waits for two seconds, longer on a busy machine.
const PASSWORD_DEADLINE: Duration = Duration::from_secs(8);

/// What all logins of an address are counted as, right ones and others.
const ALL_LOGINS: &str = "login.all";
/// How many times more right logins than wrong ones an address may try.
const ALL_LOGINS_FACTOR: u32 = 8;
/// Answers up to this size, in bytes, are given even while clients leave many unread.
const ANSWER_BYTES_SMALL: u64 = 16 * 1024;

/// API requests in flight at once. The rest of the node's places are for redirects, whatever the API is made to wait for.
pub const API_IN_FLIGHT_MAX: usize = super::IN_FLIGHT_MAX / 4;

const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// The layer.
pub async fn guard(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let address = client_addr::of(request.extensions(), request.headers(), &app.config.trusted_proxies);
    let by_address = Subject::of_address(address);
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let Endpoint { name, rule } = Endpoint::of(request.method(), route);
    let user = bearer(request.headers()).map(|token| token.and_then(|token| verify(&app, token))).transpose();
    // Where the body says who it is, a token that is no good is nobody's: clients send their expired one along to renew it.
    let user = if rule.is_for_users() { user } else { Ok(user.ok().flatten()) };
    // Guessing tokens is limited like anything else that an address does without one.
    let limits = &app.config.rate_limits;
    let (subject, usual) = match &user {
        Ok(Some(user)) => (Subject::User(*user), limits.user),
        Ok(None) | Err(_) => (by_address, limits.anonymous),
    };
    let (subject, decision) = match rule {
        Rule::Register => (by_address, app.limits.take_nested(address, name, limits.register).await),
        Rule::Login => (by_address, take_login(&app, address, name).await),
        Rule::Session | Rule::Usual => (subject, app.limits.take(subject, name, usual).await),
        Rule::Image => {
            let meter = Meter::start(&app, subject, name, usual).await;
            request.extensions_mut().insert(meter);
            (subject, meter.decision())
        }
    };
    let response = match user {
        _ if !decision.allowed => ApiError::RateLimited(Duration::from_secs(decision.retry_after_s)).into_response(),
        Err(error) => match request.extensions().get::<Meter>().copied() {
            None => error.into_response(),
            Some(mut meter) => {
                // Guessing tokens costs a whole request, as everywhere.
                let _ = meter.charge(&app, REQUEST_UNITS - 1).await;
                meter.onto(error.into_response())
            }
        },
        Ok(user) => {
            request.extensions_mut().insert(Caller { user, subject });
            request.extensions_mut().insert(Address(address));
            answer(&app, request, next, rule.deadline()).await
        }
    };
    let status = response.status();
    if matches!(rule, Rule::Login) && (status.is_success() || status.is_server_error()) {
        app.limits.give_back(by_address, name, limits.login).await;
    }
    let decision = response.extensions().get::<Meter>().map_or(decision, Meter::decision);
    with_headers(response, &decision)
}

/// Counts a login. One that is right, or that nobody had time for, is given back: a whole office signs in from its one
/// address. But each costs something, and so all of them are bounded too.
async fn take_login(app: &App, address: IpAddr, name: &'static str) -> Decision {
    let rule = app.config.rate_limits.login;
    let all = app.limits.take(Subject::of_address(address), ALL_LOGINS, rule.times(ALL_LOGINS_FACTOR)).await;
    if all.allowed { app.limits.take_nested(address, name, rule).await } else { all }
}

async fn answer(app: &App, request: Request, next: Next, deadline: Duration) -> Response {
    let Ok(_place) = app.api_places.try_acquire() else {
        return ApiError::Unavailable("This node is full.", RETRY_WHEN_FULL, None).into_response();
    };
    let request = match tokio::time::timeout(BODY_DEADLINE, arrived(request)).await {
        Ok(Ok(request)) => request,
        Ok(Err(error)) => return error.into_response(),
        Err(_) => return ApiError::TooSlow.into_response(),
    };
    let answered = tokio::time::timeout(deadline, next.run(request)).await;
    let response = answered.unwrap_or_else(|_| ApiError::too_late().into_response());
    match app.backlog.is_full() && response.body().size_hint().lower() > ANSWER_BYTES_SMALL {
        true => ApiError::Unavailable("This node is full.", RETRY_WHEN_FULL, None).into_response(),
        false => response,
    }
}

/// The request with its body whole: from here on nothing waits for the client. The body is wiped when it has been used,
/// because a password or a token may be in it.
async fn arrived(request: Request) -> Result<Request, ApiError> {
    let (parts, body) = request.into_parts();
    let mut body = pin!(Limited::new(body, BODY_BYTES_MAX));
    let mut pieces = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| match error.is::<LengthLimitError>() {
            true => ApiError::TooLarge,
            false => ApiError::Malformed("The body broke off.".to_owned()),
        })?;
        pieces.extend(frame.into_data());
    }
    Ok(Request::from_parts(parts, Body::from(Bytes::from_owner(whole(pieces)))))
}

/// One body of its pieces, in one piece of memory that is wiped when it is dropped. The pieces are wiped where nobody shares
/// them; else they lie in the connection's buffer, which the next request overwrites.
fn whole(pieces: Vec<Bytes>) -> Zeroizing<Vec<u8>> {
    // As large as it gets: growing would leave copies behind.
    let mut whole = Zeroizing::new(Vec::with_capacity(pieces.iter().map(Bytes::len).sum()));
    for piece in pieces {
        whole.extend_from_slice(&piece);
        if let Ok(mut piece) = piece.try_into_mut() {
            piece.as_mut().zeroize();
        }
    }
    whole
}

/// What a route is counted as, and by which rule.
#[derive(Clone, Copy, Debug)]
struct Endpoint {
    name: &'static str,
    rule: Rule,
}

#[derive(Clone, Copy, Debug)]
enum Rule {
    /// Registrations by an address, with a token or without.
    Register,
    /// Logins by an address.
    Login,
    /// As usual, but the body says who it is, and a token is only looked at for whom to count.
    Session,
    /// A user's requests, or an address's without a token.
    Usual,
    /// The same, at a price that the handler knows.
    Image,
}

impl Rule {
    fn deadline(self) -> Duration {
        match self {
            Self::Register | Self::Login => PASSWORD_DEADLINE,
            Self::Session | Self::Usual | Self::Image => ANSWER_DEADLINE,
        }
    }

    /// Whether a token says who asks.
    fn is_for_users(self) -> bool {
        matches!(self, Self::Usual | Self::Image)
    }
}

impl Endpoint {
    fn of(method: &Method, route: &str) -> Self {
        let (name, rule) = match (method.as_str(), route) {
            ("POST", "/api/v1/auth/register") => ("register", Rule::Register),
            ("POST", "/api/v1/auth/login") => ("login", Rule::Login),
            ("POST", "/api/v1/auth/refresh") => ("refresh", Rule::Session),
            ("POST", "/api/v1/auth/logout") => ("logout", Rule::Session),
            ("GET" | "HEAD", "/api/v1/auth/me") => ("me", Rule::Usual),
            // Two ways to the same thing share one count.
            ("POST", "/api/v1/urls" | "/shortener/url/") => ("urls.create", Rule::Usual),
            ("GET" | "HEAD", "/api/v1/urls") => ("urls.list", Rule::Usual),
            ("GET" | "HEAD", "/api/v1/urls/{id}") => ("urls.read", Rule::Usual),
            ("PATCH", "/api/v1/urls/{id}") => ("urls.update", Rule::Usual),
            ("DELETE", "/api/v1/urls/{id}") => ("urls.delete", Rule::Usual),
            ("GET" | "HEAD", "/api/v1/analytics/{short_code}/summary") => ("analytics", Rule::Usual),
            ("GET" | "HEAD", "/api/v1/qr/{short_code}") => ("qr", Rule::Image),
            _ => ("other", Rule::Usual),
        };
        Self { name, rule }
    }
}

/// The token of `Authorization: Bearer`, if there is one. Another scheme is for somebody else, such as a proxy that passed it on.
fn bearer(headers: &HeaderMap) -> Option<Result<&str, ApiError>> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?;
    let is_single = values.next().is_none();
    match value.to_str().ok().and_then(scheme_and_token) {
        Some((scheme, token)) if is_single && scheme.eq_ignore_ascii_case("bearer") && is_one_word(token) => {
            Some(Ok(token))
        }
        Some((scheme, _)) if is_single && !scheme.eq_ignore_ascii_case("bearer") => None,
        _ => Some(Err(ApiError::Unauthenticated("Authorization must be one Bearer token."))),
    }
}

/// What may stand between a scheme and its token, and around both (RFC 9110 §11.4: one space or more).
const SPACES: [char; 2] = [' ', '\t'];

/// The two parts of an `Authorization`, however many spaces separate them.
fn scheme_and_token(text: &str) -> Option<(&str, &str)> {
    let (scheme, token) = text.trim_matches(SPACES).split_once(SPACES)?;
    Some((scheme, token.trim_start_matches(SPACES)))
}

fn is_one_word(token: &str) -> bool {
    !token.is_empty() && !token.contains(SPACES)
}

fn verify(app: &App, token: &str) -> Result<UserId, ApiError> {
    let verified = app.accounts.verify_access(token);
    verified.map_err(|_| {
        // Whose it says it is cannot be believed.
        tracing::info!("an access token was refused");
        ApiError::Unauthenticated("The access token is not valid, or no longer.")
    })
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
    use axum::extract::FromRequest;
    use bytes::BytesMut;

    use super::*;

    fn check(value: &str, expected: Option<Result<&str, ()>>) {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        assert_eq!(bearer(&headers).map(|token| token.map_err(drop)), expected, "{value:?}");
    }

    #[tokio::test]
    async fn a_body_is_one_piece_that_is_wiped_when_nobody_uses_it() {
        // As the HTTP library gives it: a piece that shares its memory, and one that does not.
        let mut buffer = BytesMut::from(&b"{\"password\": and what the next request"[..]);
        let shared = buffer.split_to(12).freeze();
        let whole: Zeroizing<Vec<u8>> = whole(vec![shared.clone(), Bytes::from(b" \"correct horse\"}".to_vec())]);
        assert_eq!(&whole[..], b"{\"password\": \"correct horse\"}");
        assert_eq!(&shared[..], b"{\"password\":", "what others use is left alone");
        // What a handler takes is that piece: a copy would not be wiped.
        let at = whole.as_ptr();
        let request = Request::new(Body::from(Bytes::from_owner(whole)));
        let taken = Bytes::from_request(request, &()).await.unwrap();
        assert_eq!(taken.as_ptr(), at);
    }

    #[test]
    fn only_one_bearer_token_is_a_token_and_other_schemes_are_not_for_us() {
        for one_token in ["Bearer abc", "bearer abc", "BEARER   abc", "Bearer abc  ", "  Bearer  abc", "Bearer \tabc\t"]
        {
            check(one_token, Some(Ok("abc")));
        }
        for other_scheme in ["Basic abc", "Basic  abc", "Digest a=b, c=d"] {
            check(other_scheme, None);
        }
        for refused in
            ["Bearer", "Bearer ", "Bearer    ", "abc", " abc", "", "Bearer a b", "Bearer  a\tb", "Bearer a, b"]
        {
            check(refused, Some(Err(())));
        }
        assert!(bearer(&HeaderMap::new()).is_none());
        let mut twice = HeaderMap::new();
        twice.append(header::AUTHORIZATION, HeaderValue::from_static("Bearer a"));
        twice.append(header::AUTHORIZATION, HeaderValue::from_static("Bearer b"));
        assert!(bearer(&twice).unwrap().is_err());
    }
}
