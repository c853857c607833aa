//! `/api/v1/auth`: accounts and tokens.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::{HeaderName, StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::App;
use super::envelope::ProblemBody;
use super::error::ApiError;
use super::extract::{Address, JsonBody, SecretText, User};
use super::schema;
use crate::accounts::password::Password;
use crate::accounts::{self, TokenPair};

/// A new account.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// E-mail address; compared without case.
    #[schema(schema_with = schema::email)]
    email: String,
    /// 8 characters to 256 bytes; none of those that are commonly tried.
    #[schema(value_type = String, format = Password, min_length = 8, max_length = 256)]
    password: Password,
    /// Name.
    #[schema(max_length = 200)]
    full_name: Option<String>,
}

/// Who signs in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// E-mail address.
    #[schema(example = "ada@example.com")]
    email: String,
    /// Password.
    #[schema(value_type = String, format = Password)]
    password: Password,
}

/// A refresh token, to be spent or revoked.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RefreshRequest {
    /// What the last login or refresh gave.
    #[schema(value_type = String)]
    refresh_token: SecretText,
}

/// A user.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = User)]
pub struct UserBody {
    /// ID: 64 bits in decimal.
    #[schema(example = "7350249120423936")]
    id: String,
    /// E-mail address as it was given.
    #[schema(example = "ada@example.com")]
    email: String,
    /// Name.
    full_name: Option<String>,
    /// When the account was made: RFC 3339.
    #[schema(format = DateTime)]
    created_at: String,
}

/// Tokens.
#[derive(Serialize, ToSchema)]
#[schema(as = Tokens)]
pub struct TokensBody {
    /// For `Authorization: Bearer`.
    access_token: String,
    /// For the next pair; good once.
    refresh_token: String,
    /// `bearer`.
    #[schema(example = "bearer")]
    token_type: &'static str,
    /// Life of the access token, in seconds.
    #[schema(example = 1800)]
    expires_in: u64,
}

/// Tokens are for nobody's cache (RFC 6749 §5.1).
type Tokens = ([(HeaderName, &'static str); 1], Json<TokensBody>);

impl From<accounts::User> for UserBody {
    fn from(user: accounts::User) -> Self {
        let accounts::User { id, email, full_name, created_at } = user;
        Self { id: id.to_string(), email, full_name, created_at: created_at.to_string() }
    }
}

fn tokens(pair: &TokenPair) -> Tokens {
    let TokenPair { access_token, refresh_token, expires_in } = pair;
    let body = TokensBody {
        access_token: access_token.expose().to_owned(),
        refresh_token: refresh_token.expose().to_owned(),
        token_type: "bearer",
        expires_in: expires_in.as_secs(),
    };
    ([(header::CACHE_CONTROL, "no-store")], Json(body))
}

/// Makes an account.
#[utoipa::path(post, path = "/api/v1/auth/register", tag = "auth", request_body = Registration,
    responses(
        (status = 201, description = "The user", body = UserBody),
        (status = 409, description = "The e-mail address is taken", body = ProblemBody<'_>, content_type = "application/problem+json"),
        (status = 422, description = "A field is refused; `errors` names it", body = ProblemBody<'_>, content_type = "application/problem+json"),
    ))]
pub async fn register(
    State(app): State<Arc<App>>,
    Address(address): Address,
    body: JsonBody<Registration>,
) -> Result<(StatusCode, Json<UserBody>), ApiError> {
    let Registration { email, password, full_name } = body.value;
    let user = app.accounts.register(&email, password, full_name.as_deref(), address).await?;
    Ok((StatusCode::CREATED, Json(user.into())))
}

/// Signs in.
#[utoipa::path(post, path = "/api/v1/auth/login", tag = "auth", request_body = Credentials,
    responses(
        (status = 200, description = "Tokens", body = TokensBody),
        (status = 401, description = "Wrong e-mail address or password; not said which", body = ProblemBody<'_>, content_type = "application/problem+json"),
    ))]
pub async fn login(
    State(app): State<Arc<App>>,
    Address(address): Address,
    body: JsonBody<Credentials>,
) -> Result<Tokens, ApiError> {
    let Credentials { email, password } = body.value;
    Ok(tokens(&app.accounts.login(&email, password, address).await?))
}

/// Gives a new pair for a refresh token, which is spent. Presented again within 30 s, while its successor is unused, a spent
/// one gives the same successor; after that it revokes all that came from its login.
#[utoipa::path(post, path = "/api/v1/auth/refresh", tag = "auth", request_body = RefreshRequest,
    responses(
        (status = 200, description = "Tokens", body = TokensBody),
        (status = 401, description = "The token is unknown, spent, revoked or too old", body = ProblemBody<'_>, content_type = "application/problem+json"),
    ))]
pub async fn refresh(State(app): State<Arc<App>>, body: JsonBody<RefreshRequest>) -> Result<Tokens, ApiError> {
    Ok(tokens(&app.accounts.refresh(body.value.refresh_token.expose()).await?))
}

/// Signs out: the refresh token and all that came from its login are revoked. Repeating it changes nothing.
#[utoipa::path(post, path = "/api/v1/auth/logout", tag = "auth", request_body = RefreshRequest,
    responses((status = 204, description = "Signed out")))]
pub async fn logout(State(app): State<Arc<App>>, body: JsonBody<RefreshRequest>) -> Result<StatusCode, ApiError> {
    app.accounts.logout(body.value.refresh_token.expose()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Tells who one is.
#[utoipa::path(get, path = "/api/v1/auth/me", tag = "auth", security(("token" = [])),
    responses(
        (status = 200, description = "The user", body = UserBody),
        (status = 401, description = "Not signed in", body = ProblemBody<'_>, content_type = "application/problem+json"),
    ))]
pub async fn me(State(app): State<Arc<App>>, User(user): User) -> Result<Json<UserBody>, ApiError> {
    Ok(Json(app.accounts.me(user).await?.into()))
}
