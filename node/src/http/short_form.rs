//! The short form of the same service: `POST /shortener/url/` and `GET /shortener/url/{id}`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use axum::{Extension, Json};
use http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::envelope::ProblemBody;
use super::error::ApiError;
use super::extract::{Caller, JsonBody, idempotency_key};
use super::{App, redirect, schema};
use crate::domains::Domain;
use crate::invalid::Invalid;
use crate::links::request::LinkRequest;
use crate::links::{Idempotency, LinkError, RedirectStatus};

/// A URL to shorten.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ShortenUrl {
    /// Where it should lead: http or https, a public host, at most 8,192 bytes.
    #[schema(schema_with = schema::target_url)]
    url: String,
}

/// A shortened URL.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ShortenedUrl {
    /// Its code: what `GET /shortener/url/{id}` takes.
    #[schema(example = "q3XfZ0a")]
    id: String,
    /// The whole short URL.
    #[schema(example = "https://sho.rt/q3XfZ0a")]
    short_url: String,
}

/// Shortens a URL, on the domain that the request's host names.
#[utoipa::path(post, path = "/shortener/url/", tag = "short form", request_body = ShortenUrl, security((), ("token" = [])),
    params(("Idempotency-Key" = Option<String>, Header, description = "A repeated create with the same key gets the first answer.", min_length = 1, max_length = 255, pattern = "^[!-~]+$")),
    responses(
        (status = 201, description = "The short URL", body = ShortenedUrl),
        (status = 422, description = "The URL is refused", body = ProblemBody<'_>, content_type = "application/problem+json"),
    ))]
pub async fn shorten(
    State(app): State<Arc<App>>,
    caller: Caller,
    Extension(domain): Extension<Domain>,
    headers: HeaderMap,
    body: JsonBody<ShortenUrl>,
) -> Result<(StatusCode, [(header::HeaderName, String); 1], Json<ShortenedUrl>), ApiError> {
    let idempotency =
        idempotency_key(&headers)?.map(|key| Idempotency::new(&caller.subject.to_string(), key, &body.bytes));
    // It can be followed on the domain that it was made on, and its answer points there.
    let domain = domain.host().to_owned();
    let request = LinkRequest { original_url: body.value.url, domain: Some(domain), ..LinkRequest::default() };
    let (at, _) = app.links.shorten(caller.user, request, idempotency).await.map_err(in_words_of_the_short_form)?;
    let short_url = app.domains.now()?.short_url(&at.domain, &at.code);
    let location = format!("/shortener/url/{}", at.code);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(ShortenedUrl { id: at.code, short_url })))
}

/// The only field that can be wrong is called `url` here.
fn in_words_of_the_short_form(error: LinkError) -> LinkError {
    match error {
        LinkError::Invalid(Invalid(mut errors)) => {
            for error in &mut errors {
                "url".clone_into(&mut error.field);
            }
            LinkError::Invalid(Invalid(errors))
        }
        other => other,
    }
}

/// Follows a short link, always with 301, which may be kept as long as the link's own redirect.
#[utoipa::path(get, path = "/shortener/url/{id}", tag = "short form",
    params(("id" = String, Path, description = "A code or an alias", pattern = "^[A-Za-z0-9_-]{3,64}$")),
    responses(
        (status = 301, description = "Follow `Location`", headers(("Location" = String))),
        (status = 404, description = "Unknown or not active", content((ProblemBody<'_> = "application/problem+json"), (String = "text/html"))),
        (status = 410, description = "Expired, or it leads back to this service", content((ProblemBody<'_> = "application/problem+json"), (String = "text/html"))),
        (status = 451, description = "Blocked", content((ProblemBody<'_> = "application/problem+json"), (String = "text/html"))),
        (status = 503, description = "The store cannot be reached", body = ProblemBody<'_>, content_type = "application/problem+json"),
    ))]
pub async fn follow(State(app): State<Arc<App>>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    redirect::follow(&app, &parts, RedirectStatus::new(301)).await
}
