//! From a request to what a handler takes: a JSON body, a query, an ID, a caller. Each refusal names the field.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use http::request::Parts;
use http::{HeaderMap, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::App;
use super::error::ApiError;
use crate::invalid::Invalid;
use crate::limits::Subject;
use crate::links::Manager;
use crate::links::alias::could_be_code;
use crate::store::accounts::UserId;

/// What is said of a link that is not there, and of one that is somebody else's.
pub const NO_LINK: &str = "There is no such link.";
/// The scheme of `Authorization` for the management token of a link without an owner.
pub const MANAGEMENT_SCHEME: &str = "Link";
/// The longest `Idempotency-Key`, in bytes.
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
/// The longest message about a field, in characters: it may quote what was sent.
const MESSAGE_CHARS_MAX: usize = 200;

/// A JSON body and its bytes.
#[derive(Debug)]
pub struct JsonBody<T> {
    /// The body.
    pub value: T,
    /// The body as it was sent.
    pub bytes: Bytes,
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        if !says_json(request.headers()) {
            return Err(ApiError::NotJson);
        }
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| {
            let too_large = rejection.status() == http::StatusCode::PAYLOAD_TOO_LARGE;
            if too_large { ApiError::TooLarge } else { ApiError::Malformed("The body broke off.".to_owned()) }
        })?;
        let value = parse_json(&bytes)?;
        Ok(Self { value, bytes })
    }
}

/// A text in a body that is a secret: wiped when it is dropped, never printed.
#[derive(Deserialize)]
#[serde(from = "String")]
pub struct SecretText(Zeroizing<String>);

impl SecretText {
    /// The text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for SecretText {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(redacted)")
    }
}

fn says_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
}

fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    // Serde takes an array for a struct, field by field in order; the contract knows objects only.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        let any: Result<serde::de::IgnoredAny, _> = serde_json::from_slice(bytes);
        return Err(
            any.map_or_else(|error| rejected("body", &error), |_| Invalid::field("body", "must be an object").into())
        );
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let field = field_of(&error.path().to_string(), &error.inner().to_string());
        rejected(&field, error.inner())
    })?;
    json.end().map_err(|error| rejected("body", &error))?;
    Ok(value)
}

fn rejected(field: &str, error: &serde_json::Error) -> ApiError {
    match error.classify() {
        serde_json::error::Category::Data => Invalid::field(field, message_of(&error.to_string())).into(),
        _ => ApiError::Malformed(format!("{error}.")),
    }
}

/// The field an error is about: the path to it, and at the top the name that serde puts between backticks.
fn field_of(path: &str, message: &str) -> String {
    let named = || message.split('`').nth(1).filter(|_| message.contains("field `"));
    match (path, named()) {
        ("." | "?", Some(name)) => name.chars().take(MESSAGE_CHARS_MAX).collect(),
        ("." | "?", None) => "body".to_owned(),
        (path, _) => path.chars().take(MESSAGE_CHARS_MAX).collect(),
    }
}

/// A parser's message without its position.
fn message_of(message: &str) -> String {
    message.split(" at line ").next().unwrap_or_default().chars().take(MESSAGE_CHARS_MAX).collect()
}

/// A query string.
#[derive(Debug)]
pub struct QueryOf<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for QueryOf<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let query = parts.uri.query().unwrap_or_default();
        let pairs = serde_urlencoded::Deserializer::new(url::form_urlencoded::parse(query.as_bytes()));
        serde_path_to_error::deserialize(pairs).map(Self).map_err(|error| {
            let field = field_of(&error.path().to_string(), &error.inner().to_string());
            Invalid::field(field, message_of(&error.inner().to_string())).into()
        })
    }
}

/// The link whose public ID stands at the end of a path. What is no ID names nothing: 404.
#[derive(Clone, Copy, Debug)]
pub struct Id(pub u64);

impl FromRequestParts<Arc<App>> for Id {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let path = Path::<String>::from_request_parts(parts, app).await;
        let text = path.map(|Path(text)| text).unwrap_or_default();
        app.links.keys()?.id_of(&text).map(Self).ok_or(ApiError::NotFound(NO_LINK))
    }
}

/// Whoever asks for the link of a path, if anybody may manage it: a user, or a client with the link's management token.
#[derive(Clone, Copy, Debug)]
pub struct Asking(pub Option<Manager>);

impl FromRequestParts<Arc<App>> for Asking {
    type Rejection = ApiError;

    /// A token that is not this link's is answered as a link that is not there.
    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        if let Some(user) = Caller::from_request_parts(parts, app).await?.user {
            return Ok(Self(Some(Manager::Owner(user))));
        }
        let Some(token) = management_token(&parts.headers).map(str::to_owned) else { return Ok(Self(None)) };
        let Id(id) = Id::from_request_parts(parts, app).await?;
        match app.links.keys()?.is_management_token(id, &token) {
            true => Ok(Self(Some(Manager::TokenHolder))),
            false => Err(ApiError::NotFound(NO_LINK)),
        }
    }
}

/// Whoever changes the link of a path: without a token, nobody.
#[derive(Clone, Copy, Debug)]
pub struct Managing(pub Manager);

impl FromRequestParts<Arc<App>> for Managing {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let Asking(manager) = Asking::from_request_parts(parts, app).await?;
        manager.map(Self).ok_or(ApiError::Unauthenticated(
            "Send an access token (Authorization: Bearer …) or the link's management token (Authorization: Link …).",
        ))
    }
}

/// The token of `Authorization: Link`, if there is one.
fn management_token(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case(MANAGEMENT_SCHEME).then(|| token.trim_matches(' '))
}

/// The code in a path. What cannot be one becomes the empty one, which no link has: whatever looks it up finds nothing.
/// So a slash that was sent as `%2F` never gets as far as the names that are put together with slashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Code(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Code {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let code = path.ok().map(|Path(code)| code).filter(|code| could_be_code(code));
        Ok(Self(code.unwrap_or_default()))
    }
}

/// Who sends a request, as [`super::guard`] found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The user whose token came with it.
    pub user: Option<UserId>,
    /// Who is counted: the user, or the client's address.
    pub subject: Subject,
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts.extensions.get::<Self>().copied().ok_or(ApiError::Unauthenticated("The route is not guarded."))
    }
}

/// The client's address, as [`super::guard`] found out. Never printed.
#[derive(Clone, Copy)]
pub struct Address(pub IpAddr);

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Address(…)")
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Address {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts.extensions.get::<Self>().copied().ok_or(ApiError::Unauthenticated("The route is not guarded."))
    }
}

/// A user who is signed in.
#[derive(Clone, Copy, Debug)]
pub struct User(pub UserId);

impl<S: Send + Sync> FromRequestParts<S> for User {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let user = Caller::from_request_parts(parts, state).await?.user;
        user.map(Self).ok_or(ApiError::Unauthenticated("Send an access token: Authorization: Bearer …"))
    }
}

/// The ID of the domain that a query names, be it answered or not: who has links there may look at them.
pub fn named_domain(app: &App, name: Option<&str>) -> Result<String, ApiError> {
    let served = app.domains.now()?;
    // Where the domain is not ours there is no link either.
    served.id_of(name.unwrap_or_default()).map(str::to_owned).ok_or(ApiError::NotFound(NO_LINK))
}

/// The `Idempotency-Key`, if there is one.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    let fits = |text: &&str| {
        (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
    };
    let text = value.to_str().ok().filter(fits).filter(|_| values.next().is_none());
    let wrong = || Invalid::field("Idempotency-Key", "must be one header of 1 to 255 visible ASCII characters");
    Ok(Some(text.ok_or_else(wrong)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_management_token_is_that_of_its_own_scheme() {
        let check = |value: &str, expected: Option<&str>| {
            let headers = [(header::AUTHORIZATION, value.parse().unwrap())].into_iter().collect();
            assert_eq!(management_token(&headers), expected, "{value:?}");
        };
        check("Link abc", Some("abc"));
        check("lINK   abc ", Some("abc"));
        check("Link ", Some(""));
        check("Link", None);
        check("Bearer abc", None);
        check("Linked abc", None);
        assert_eq!(management_token(&HeaderMap::new()), None);
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its shape matters")]
    struct Sample {
        name: String,
        #[serde(default)]
        tags: Vec<String>,
    }

    fn check(body: &str, field: &str, message: &str) {
        match parse_json::<Sample>(body.as_bytes()) {
            Err(ApiError::Invalid(Invalid(errors))) => {
                assert_eq!(errors[0].field, field, "{body}");
                assert!(errors[0].message.contains(message), "{body}: {}", errors[0].message);
            }
            other => panic!("{body}: {other:?}"),
        }
    }

    #[test]
    fn a_rejected_body_names_the_field() {
        check(r#"{"name": 1}"#, "name", "expected a string");
        check(r"{}", "name", "missing field");
        check(r#"{"name": "a", "colour": 1}"#, "colour", "unknown field");
        check(r#"{"name": "a", "tags": ["x", 2]}"#, "tags[1]", "expected a string");
        check(r#"{"name": "a", "name": "b"}"#, "name", "duplicate field");
        for no_object in ["[]", r#"["a", []]"#, "7", "null", "\"name\""] {
            check(no_object, "body", "must be an object");
        }
    }

    #[test]
    fn what_is_no_json_is_malformed() {
        for body in ["", "{", "[", "nonsense", "{\"name\": \"a\"} {}", "\u{0}"] {
            assert!(matches!(parse_json::<Sample>(body.as_bytes()), Err(ApiError::Malformed(_))), "{body:?}");
        }
    }
}
