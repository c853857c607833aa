//! Every way a request can fail, and the one `match` that turns each into an answer.
//!
//! The answer is RFC 9457 `application/problem+json`. A handler does not know the request's ID, so a failed response only
//! carries its [`Problem`]; [`super::envelope`] writes the body. What is internal is logged once there and never sent.

use std::sync::Arc;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

use super::host::HostError;
use super::serve::{ConnectionLimits, Refusal};
use crate::accounts::AccountError;
use crate::accounts::password_pool::PasswordPoolError;
use crate::domains::Unsettled;
use crate::invalid::{FieldError, Invalid};
use crate::kv::KvError;
use crate::links::{LinkError, ResolveError};
use crate::minter::MintError;
use crate::store::StoreError;

/// When to come back after a 503 that may be over in a moment.
pub(super) const RETRY_SOON: Duration = Duration::from_secs(1);
/// When to come back when nothing can be minted or checked: a grant arrives within 5 s.
const RETRY_LATER: Duration = Duration::from_secs(5);

/// Why a request failed.
#[derive(Clone, Debug)]
pub enum ApiError {
    /// Fields are wrong.
    Invalid(Invalid),
    /// The request, or its body as JSON, cannot be read.
    Malformed(String),
    /// The body is not said to be JSON.
    NotJson,
    /// The body is over the limit.
    TooLarge,
    /// The route needs a token, or the token is no good.
    Unauthenticated(&'static str),
    /// Wrong e-mail or password: not said which.
    WrongCredentials,
    /// No such thing, or somebody else's.
    NotFound(&'static str),
    /// The link has expired.
    Expired,
    /// The link, or the host that it leads to, is blocked.
    Blocked,
    /// The link leads back to this service.
    Loop,
    /// The request's head is over the limits.
    HeadTooLarge,
    /// The request's version of HTTP is not spoken.
    Version,
    /// The path is there, the method is not.
    MethodNotAllowed,
    /// The request did not arrive in time.
    TooSlow,
    /// Somebody has the alias.
    AliasTaken,
    /// A deleted link had the alias.
    AliasUsed,
    /// Somebody has the e-mail address.
    EmailTaken,
    /// The idempotency key was used with another request.
    KeyReused,
    /// Too many requests; come back after this time.
    RateLimited(Duration),
    /// It cannot be done now; come back after this time.
    Unavailable(&'static str, Duration, Option<Arc<dyn std::error::Error + Send + Sync>>),
    /// Our own fault.
    Internal(Arc<dyn std::error::Error + Send + Sync>),
}

/// A failed answer, before its body is written.
#[derive(Clone, Debug)]
pub struct Problem {
    /// The end of its `type`; says which problem it is, whatever the language.
    pub slug: &'static str,
    /// What kind of problem it is.
    pub title: &'static str,
    /// What happened this time and what would be right.
    pub detail: String,
    /// Fields that are wrong.
    pub errors: Vec<FieldError>,
    /// What is logged and not sent.
    pub source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let unauthenticated = matches!(self, Self::Unauthenticated(_) | Self::WrongCredentials);
        let (status, retry_after, problem) = self.describe();
        let mut response = status.into_response();
        let headers = response.headers_mut();
        if let Some(after) = retry_after {
            // Rounded up: who comes back a moment early is refused again.
            headers.insert(
                header::RETRY_AFTER,
                after.as_millis().div_ceil(1_000).max(1).to_string().parse().unwrap_or(HeaderValue::from_static("1")),
            );
        }
        if unauthenticated {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response.extensions_mut().insert(problem);
        response
    }
}

impl ApiError {
    #[expect(clippy::too_many_lines, reason = "a table: one kind of problem after another")]
    fn describe(self) -> (StatusCode, Option<Duration>, Problem) {
        let mut errors = Vec::new();
        let mut retry_after = None;
        let mut source = None;
        let (status, slug, title, detail) = match self {
            Self::Invalid(Invalid(fields)) => {
                errors = fields;
                let names: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
                let detail = format!("Not accepted: {}.", names.join(", "));
                (StatusCode::UNPROCESSABLE_ENTITY, "invalid", "The request is not valid", detail)
            }
            Self::Malformed(detail) => (StatusCode::BAD_REQUEST, "malformed", "The request is malformed", detail),
            Self::NotJson => {
                let detail = "Send the body with Content-Type: application/json.".to_owned();
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "not-json", "The body is not said to be JSON", detail)
            }
            Self::TooLarge => {
                let detail = format!("A body may have {} bytes.", super::BODY_BYTES_MAX);
                (StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The body is too large", detail)
            }
            Self::Unauthenticated(detail) => {
                (StatusCode::UNAUTHORIZED, "unauthenticated", "Not signed in", detail.to_owned())
            }
            Self::WrongCredentials => {
                let detail = "The e-mail address or the password is wrong.".to_owned();
                (StatusCode::UNAUTHORIZED, "wrong-credentials", "Not signed in", detail)
            }
            Self::NotFound(detail) => (StatusCode::NOT_FOUND, "not-found", "Not found", detail.to_owned()),
            Self::Expired => (StatusCode::GONE, "expired", "Expired", "This link has expired.".to_owned()),
            Self::Blocked => {
                let detail = "This link has been blocked by whoever runs this service.".to_owned();
                (StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS, "blocked", "Blocked", detail)
            }
            Self::Loop => {
                let detail =
                    "This link leads to an address of this service, where redirects might never end.".to_owned();
                (StatusCode::GONE, "loop", "Leads back here", detail)
            }
            Self::HeadTooLarge => {
                let detail = format!(
                    "A request's head may have {} bytes and {} headers.",
                    ConnectionLimits::PUBLIC.header_bytes_max,
                    ConnectionLimits::PUBLIC.headers_max
                );
                (
                    StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                    "head-too-large",
                    "The request's head is too large",
                    detail,
                )
            }
            Self::Version => {
                let detail = "HTTP/1.1 and HTTP/2 are spoken here.".to_owned();
                (StatusCode::HTTP_VERSION_NOT_SUPPORTED, "version", "The version of HTTP is not spoken", detail)
            }
            Self::MethodNotAllowed => {
                let detail = "This path knows other methods; Allow lists them.".to_owned();
                (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "Method not allowed", detail)
            }
            Self::TooSlow => {
                let detail = "The request did not arrive in time; send it again.".to_owned();
                (StatusCode::REQUEST_TIMEOUT, "too-slow", "Too slow", detail)
            }
            Self::AliasTaken => {
                let detail = "Somebody has this alias; choose another.".to_owned();
                (StatusCode::CONFLICT, "alias-taken", "The alias is taken", detail)
            }
            Self::AliasUsed => {
                let detail = "This alias was used before, by a link that was deleted; choose another.".to_owned();
                (StatusCode::CONFLICT, "alias-used", "The alias was used before", detail)
            }
            Self::EmailTaken => {
                let detail = "There is an account with this e-mail address.".to_owned();
                (StatusCode::CONFLICT, "email-taken", "The e-mail address is taken", detail)
            }
            Self::KeyReused => {
                let detail = "This Idempotency-Key came with another request before; use a new one.".to_owned();
                (StatusCode::UNPROCESSABLE_ENTITY, "key-reused", "The idempotency key is used", detail)
            }
            Self::RateLimited(after) => {
                retry_after = Some(after);
                let detail = "Too many requests; Retry-After says when to come back.".to_owned();
                (StatusCode::TOO_MANY_REQUESTS, "rate-limited", "Too many requests", detail)
            }
            Self::Unavailable(detail, after, cause) => {
                (retry_after, source) = (Some(after), cause);
                (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Not available at the moment", detail.to_owned())
            }
            Self::Internal(cause) => {
                source = Some(cause);
                let detail = "The request ID tells us where to look.".to_owned();
                (StatusCode::INTERNAL_SERVER_ERROR, "internal", "Something is broken", detail)
            }
        };
        (status, retry_after, Problem { slug, title, detail, errors, source })
    }

    /// The problem that a bare status stands for, where the router or a layer gave one.
    pub fn of_status(status: StatusCode) -> Option<Self> {
        Some(match status {
            StatusCode::NOT_FOUND => Self::NotFound("There is nothing at this path."),
            StatusCode::METHOD_NOT_ALLOWED => Self::MethodNotAllowed,
            StatusCode::PAYLOAD_TOO_LARGE => Self::TooLarge,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Self::NotJson,
            StatusCode::BAD_REQUEST => Self::Malformed("The request cannot be read.".to_owned()),
            _ => return None,
        })
    }

    /// The answer was not ready in time.
    pub fn too_late() -> Self {
        Self::Unavailable("This took too long; a change may have been made all the same.", RETRY_SOON, None)
    }

    /// The problem itself, for one who answers in another form.
    pub fn into_problem(self) -> Problem {
        self.describe().2
    }

    fn no_store(cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Unavailable("The store cannot be reached.", RETRY_SOON, Some(Arc::new(cause)))
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::TooLarge => Self::HeadTooLarge,
            Refusal::Malformed => Self::Malformed("The request's head cannot be read.".to_owned()),
            Refusal::Version => Self::Version,
            Refusal::TooSlow => Self::TooSlow,
        }
    }
}

/// What a node says of rows that it does not know.
const OLD_RELEASE: &str = "This node is of an older release than others on the same store.";

impl From<HostError> for ApiError {
    fn from(error: HostError) -> Self {
        Self::Malformed(error.to_string())
    }
}

impl From<Unsettled> for ApiError {
    fn from(error: Unsettled) -> Self {
        Self::no_store(error)
    }
}

impl From<Invalid> for ApiError {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Kv(error) => error.into(),
            // Another node knows the row, and this one is about to stop.
            StoreError::NewerFormat(_) | StoreError::NewerRow { .. } => {
                Self::Unavailable(OLD_RELEASE, RETRY_SOON, Some(Arc::new(error)))
            }
            StoreError::Decode { .. } | StoreError::HalfRestored => Self::Internal(Arc::new(error)),
        }
    }
}

impl From<KvError> for ApiError {
    fn from(error: KvError) -> Self {
        match error {
            KvError::Unavailable { .. } | KvError::Undetermined => Self::no_store(error),
            KvError::Conflict => Self::Unavailable("Too many changes at once.", RETRY_SOON, Some(Arc::new(error))),
            KvError::AlreadyExists { .. } | KvError::TooLarge { .. } => Self::Internal(Arc::new(error)),
        }
    }
}

impl From<LinkError> for ApiError {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Invalid(invalid) => Self::Invalid(invalid),
            LinkError::AliasTaken => Self::AliasTaken,
            LinkError::AliasUsed => Self::AliasUsed,
            LinkError::NotFound => Self::NotFound("There is no such link."),
            LinkError::KeyReused => Self::KeyReused,
            LinkError::Mint(error @ MintError::NoKeyspace) => Self::no_store(error),
            LinkError::Mint(error) => {
                Self::Unavailable("No code can be minted at the moment.", RETRY_LATER, Some(Arc::new(error)))
            }
            LinkError::MintClashes => Self::Internal(Arc::new(error)),
            LinkError::Store(error) => error.into(),
            LinkError::Unsettled(error) => error.into(),
        }
    }
}

impl From<ResolveError> for ApiError {
    fn from(error: ResolveError) -> Self {
        match error {
            ResolveError::Overloaded => Self::Unavailable("The store is busy.", RETRY_SOON, None),
            ResolveError::Deadline => Self::no_store(error),
            ResolveError::Unsettled(error) => error.into(),
            ResolveError::Store(cause) => match &*cause {
                StoreError::Kv(_) => Self::Unavailable("The store cannot be reached.", RETRY_SOON, Some(cause)),
                StoreError::NewerFormat(_) | StoreError::NewerRow { .. } => {
                    Self::Unavailable(OLD_RELEASE, RETRY_SOON, Some(cause))
                }
                StoreError::Decode { .. } | StoreError::HalfRestored => Self::Internal(cause),
            },
        }
    }
}

impl From<AccountError> for ApiError {
    fn from(error: AccountError) -> Self {
        match error {
            AccountError::Email(error) => Invalid::field("email", error).into(),
            AccountError::Password(error) => Invalid::field("password", error).into(),
            AccountError::FullName => Invalid::field("full_name", error).into(),
            AccountError::EmailTaken => Self::EmailTaken,
            AccountError::Credentials => Self::WrongCredentials,
            AccountError::TooManyGuesses(wait) => Self::RateLimited(wait),
            AccountError::RefreshToken => Self::Unauthenticated("The refresh token is not valid: sign in again."),
            AccountError::UnknownUser => Self::Unauthenticated("The user of this token does not exist."),
            AccountError::PasswordPool(PasswordPoolError::Busy) => {
                Self::Unavailable("Too many passwords are being checked.", RETRY_SOON, None)
            }
            AccountError::NoIds => Self::Unavailable("No ID can be minted at the moment.", RETRY_LATER, None),
            AccountError::PasswordPool(_) | AccountError::Signing(_) => Self::Internal(Arc::new(error)),
            AccountError::Store(error) => error.into(),
        }
    }
}
