//! `/api/v1/urls`: making, listing, reading, changing and deleting links.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::App;
use super::envelope::ProblemBody;
use super::error::ApiError;
use super::extract::{Asking, Caller, Id, JsonBody, Managing, NO_LINK, QueryOf, User, idempotency_key};
use super::schema;
use crate::clicks::click_counts;
use crate::domains::Served;
use crate::invalid::Invalid;
use crate::links::Idempotency;
use crate::links::link_keys::LinkKeys;
use crate::links::list::{ListQuery, PAGE_MAX, decode_cursor, encode_cursor};
use crate::links::request::{Change, LinkChangeRequest, LinkRequest, tidy_tag};
use crate::links::target_url::encoded;
use crate::store::links::{LinkAddress, LinkRow};

/// Links in a page unless asked otherwise.
const PAGE_DEFAULT: usize = 20;
/// The longest filter, in characters.
const FILTER_CHARS_MAX: usize = 200;

/// A link.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Link)]
pub struct LinkBody {
    /// Its ID: 64 bits in decimal, which tell nothing.
    #[schema(example = "17350249120423936042")]
    id: String,
    /// The host of the domain it is on, or the last one that it had; empty for the default domain.
    domain: String,
    /// Its code or alias.
    #[schema(example = "q3XfZ0a")]
    short_code: String,
    /// The whole short URL.
    #[schema(example = "https://sho.rt/q3XfZ0a")]
    short_url: String,
    /// Where it leads.
    #[schema(example = "https://example.com/page")]
    original_url: String,
    /// The status of its redirect.
    #[schema(example = 302)]
    redirect_status: u16,
    /// Free text for its owner.
    title: Option<String>,
    /// Free words for its owner.
    tags: Vec<String>,
    /// Whether it redirects.
    is_active: bool,
    /// From when on it is gone: RFC 3339.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    /// Clicks of people, all time.
    click_count: u64,
    /// When it was made: RFC 3339.
    #[schema(format = DateTime)]
    created_at: String,
    /// When it was last changed: RFC 3339.
    #[schema(format = DateTime)]
    updated_at: String,
}

/// A link that was just made.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CreatedLink {
    #[serde(flatten)]
    link: LinkBody,
    /// Of a link without an owner: `Authorization: Link <management_token>` reads, changes and deletes it. It is answered
    /// this once; there is no other way to manage the link.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "3q2-7w3q2-7w3q2-7w3q2-7w3q2-7w3q2-7w3q2-7w0")]
    management_token: Option<String>,
}

/// A link to make.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateLink {
    /// Where it should lead: http or https, a public host, at most 8,192 bytes.
    #[schema(schema_with = schema::target_url)]
    original_url: String,
    /// The code it should have; reserved words are refused.
    #[schema(example = "launch-2026", min_length = 3, max_length = 64, pattern = "^[A-Za-z0-9_-]{3,64}$")]
    custom_alias: Option<String>,
    /// From when on it is gone: RFC 3339, in the future. Not together with `expires_in`.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    /// In how many seconds it is gone. Not together with `expires_at`.
    #[schema(minimum = 1, maximum = 315_360_000)]
    expires_in: Option<u64>,
    /// 301, 302, 307 or 308; by default the node's own default, 302.
    #[schema(schema_with = schema::redirect_status)]
    redirect_status: Option<u16>,
    /// Free text.
    #[schema(max_length = 200)]
    title: Option<String>,
    /// Free words.
    #[schema(schema_with = schema::tags)]
    tags: Option<Vec<String>>,
    /// A domain of this service; by default that of its base URL.
    domain: Option<String>,
}

/// A change of a link; a field that is absent stays, one that is null is cleared.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ChangeLink {
    /// Where it should lead; cannot be null.
    #[serde(deserialize_with = "set")]
    #[schema(schema_with = schema::target_url, required = false)]
    original_url: Change<String>,
    /// Whether it redirects; null means true.
    #[serde(deserialize_with = "set")]
    #[schema(value_type = Option<bool>)]
    is_active: Change<bool>,
    /// RFC 3339, in the future; null: never.
    #[serde(deserialize_with = "set")]
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Change<String>,
    /// 301, 302, 307 or 308; null: the node's default.
    #[serde(deserialize_with = "set")]
    #[schema(schema_with = schema::redirect_status)]
    redirect_status: Change<u16>,
    /// Free text; null: none.
    #[serde(deserialize_with = "set")]
    #[schema(value_type = Option<String>, max_length = 200)]
    title: Change<String>,
    /// Free words; null: none.
    #[serde(deserialize_with = "set")]
    #[schema(schema_with = schema::tags)]
    tags: Change<Vec<String>>,
}

/// A field that is there, be it null: serde alone takes an absent one and a null one for the same.
fn set<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Change<T>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// Which links to list.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListParams {
    /// Links in the page at most.
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: Option<usize>,
    /// `next_cursor` of the page before.
    #[param(pattern = "^[A-Za-z0-9_-]{10}[AEIMQUYcgkosw048]$")]
    cursor: Option<String>,
    /// Only links with this in their code, URL or title.
    #[param(max_length = 200)]
    q: Option<String>,
    /// Only links with this tag.
    #[param(max_length = 200)]
    tag: Option<String>,
}

/// A page of links.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct LinkPage {
    /// The links, newest first.
    items: Vec<LinkBody>,
    /// Gives the next page; null at the end.
    next_cursor: Option<String>,
}

impl From<CreateLink> for LinkRequest {
    fn from(body: CreateLink) -> Self {
        let CreateLink { original_url, custom_alias, expires_at, expires_in, redirect_status, title, tags, domain } =
            body;
        Self { original_url, custom_alias, expires_at, expires_in, redirect_status, title, tags, domain }
    }
}

impl From<ChangeLink> for LinkChangeRequest {
    fn from(body: ChangeLink) -> Self {
        let ChangeLink { original_url, is_active, expires_at, redirect_status, title, tags } = body;
        Self { original_url, is_active, expires_at, redirect_status, title, tags }
    }
}

impl ListParams {
    fn check(self, keys: &LinkKeys) -> Result<ListQuery, Invalid> {
        let Self { limit, cursor, q, tag } = self;
        let mut invalid = Invalid::default();
        let limit = limit.unwrap_or(PAGE_DEFAULT);
        if !(1..=PAGE_MAX).contains(&limit) {
            invalid.add("limit", format!("must be from 1 to {PAGE_MAX}"));
        }
        for (field, text) in [("q", &q), ("tag", &tag)] {
            if text.as_ref().is_some_and(|text| text.chars().count() > FILTER_CHARS_MAX) {
                invalid.add(field, format!("must have at most {FILTER_CHARS_MAX} characters"));
            }
        }
        invalid.into_result()?;
        let after = cursor.map(|cursor| decode_cursor(&cursor)).transpose()?.map(|cursor| keys.id_before(cursor));
        let tag = tag.map(|tag| tidy_tag(&tag)).filter(|tag| !tag.is_empty());
        Ok(ListQuery { limit, after, contains: q.filter(|q| !q.is_empty()), tag })
    }
}

fn body_of(served: &Served, keys: &LinkKeys, at: LinkAddress, row: LinkRow, click_count: u64) -> LinkBody {
    let LinkAddress { domain, code: short_code } = at;
    LinkBody {
        id: keys.public_id(row.id),
        short_url: served.short_url(&domain, &short_code),
        domain: served.name_of(&domain).to_owned(),
        short_code,
        // As it is sent to those who follow it: rows of earlier releases hold what only browsers understand.
        original_url: encoded(&row.target).into_owned(),
        redirect_status: row.status,
        title: row.title,
        tags: row.tags,
        is_active: row.is_active,
        expires_at: row.expires_at.map(|at| at.to_string()),
        click_count,
        created_at: row.created_at.to_string(),
        updated_at: row.updated_at.to_string(),
    }
}

async fn with_clicks(app: &App, links: Vec<(LinkAddress, LinkRow)>) -> Result<Vec<LinkBody>, ApiError> {
    let addresses: Vec<(&str, &str)> = links.iter().map(|(at, _)| (at.domain.as_str(), at.code.as_str())).collect();
    let counts = click_counts(&app.kv, &addresses).await?;
    let (keys, served) = (app.links.keys()?, app.domains.now()?);
    Ok(links.into_iter().zip(counts).map(|((at, row), clicks)| body_of(&served, keys, at, row, clicks)).collect())
}

async fn one_with_clicks(app: &App, link: (LinkAddress, LinkRow)) -> Result<Json<LinkBody>, ApiError> {
    let body = with_clicks(app, vec![link]).await?.pop();
    body.map(Json).ok_or(ApiError::NotFound(NO_LINK))
}

/// Makes a link. Anyone may; with a token, it belongs to the user. Without one, the answer has the token that manages the link.
#[utoipa::path(post, path = "/api/v1/urls", tag = "links", request_body = CreateLink,
    security((), ("token" = [])),
    params(("Idempotency-Key" = Option<String>, Header, description = "A repeated create with the same key gets the first answer.", min_length = 1, max_length = 255, pattern = "^[!-~]+$")),
    responses(
        (status = 201, description = "The link", body = CreatedLink, headers(("Location" = String, description = "Path of the link"))),
        (status = 409, description = "Somebody has the alias (`alias-taken`), or a deleted link had it (`alias-used`)", body = ProblemBody<'_>, content_type = "application/problem+json"),
        (status = 422, description = "A field is refused; `errors` names it", body = ProblemBody<'_>, content_type = "application/problem+json"),
    ))]
pub async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    headers: HeaderMap,
    body: JsonBody<CreateLink>,
) -> Result<(StatusCode, [(header::HeaderName, String); 1], Json<CreatedLink>), ApiError> {
    let key = idempotency_key(&headers)?;
    let idempotency = key.map(|key| Idempotency::new(&caller.subject.to_string(), key, &body.bytes));
    let (at, row) = app.links.shorten(caller.user, body.value.into(), idempotency).await?;
    let keys = app.links.keys()?;
    let management_token = row.owner.is_none().then(|| keys.management_token(row.id));
    let served = app.domains.now()?;
    let link = body_of(&served, keys, at, row, 0);
    let location = format!("/api/v1/urls/{}", link.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(CreatedLink { link, management_token })))
}

/// Lists the user's own links, newest first.
#[utoipa::path(get, path = "/api/v1/urls", tag = "links", params(ListParams), security(("token" = [])),
    responses(
        (status = 200, description = "A page of links", body = LinkPage),
        (status = 401, description = "Not signed in", body = ProblemBody<'_>, content_type = "application/problem+json"),
        (status = 422, description = "A parameter is refused", body = ProblemBody<'_>, content_type = "application/problem+json"),
    ))]
pub async fn list(
    State(app): State<Arc<App>>,
    User(owner): User,
    QueryOf(params): QueryOf<ListParams>,
) -> Result<Json<LinkPage>, ApiError> {
    let keys = app.links.keys()?;
    let page = app.links.list(owner, &params.check(keys)?).await?;
    let items = with_clicks(&app, page.items).await?;
    Ok(Json(LinkPage { items, next_cursor: page.next.map(|id| encode_cursor(keys.cursor_after(id))) }))
}

/// Reads a link: one's own, or with its management token one that belongs to nobody.
#[utoipa::path(get, path = "/api/v1/urls/{id}", tag = "links", security((), ("token" = []), ("management_token" = [])),
    params(("id" = String, Path, description = "The link's ID", pattern = "^[0-9]{1,20}$")),
    responses(
        (status = 200, description = "The link", body = LinkBody),
        (status = 404, description = "No such link, or somebody else's", body = ProblemBody<'_>, content_type = "application/problem+json"),
    ))]
pub async fn read(
    State(app): State<Arc<App>>,
    Asking(manager): Asking,
    Id(id): Id,
) -> Result<Json<LinkBody>, ApiError> {
    let manager = manager.ok_or(ApiError::NotFound(NO_LINK))?;
    let link = app.links.get(manager, id).await?;
    one_with_clicks(&app, link).await
}

/// Changes a link: one's own, or with its management token one that belongs to nobody.
#[utoipa::path(patch, path = "/api/v1/urls/{id}", tag = "links", request_body = ChangeLink, security(("token" = []), ("management_token" = [])),
    params(("id" = String, Path, description = "The link's ID", pattern = "^[0-9]{1,20}$")),
    responses(
        (status = 200, description = "The link", body = LinkBody),
        (status = 401, description = "Not signed in", body = ProblemBody<'_>, content_type = "application/problem+json"),
        (status = 404, description = "No such link, or somebody else's", body = ProblemBody<'_>, content_type = "application/problem+json"),
        (status = 422, description = "A field is refused; `errors` names it", body = ProblemBody<'_>, content_type = "application/problem+json"),
    ))]
pub async fn update(
    State(app): State<Arc<App>>,
    Managing(manager): Managing,
    Id(id): Id,
    body: JsonBody<ChangeLink>,
) -> Result<Json<LinkBody>, ApiError> {
    let link = app.links.update(manager, id, body.value.into()).await?;
    one_with_clicks(&app, link).await
}

/// Deletes a link, as it is changed; its code is never given out again.
#[utoipa::path(delete, path = "/api/v1/urls/{id}", tag = "links", security(("token" = []), ("management_token" = [])),
    params(("id" = String, Path, description = "The link's ID", pattern = "^[0-9]{1,20}$")),
    responses(
        (status = 204, description = "It is gone"),
        (status = 401, description = "Not signed in", body = ProblemBody<'_>, content_type = "application/problem+json"),
        (status = 404, description = "No such link, or somebody else's", body = ProblemBody<'_>, content_type = "application/problem+json"),
    ))]
pub async fn delete(
    State(app): State<Arc<App>>,
    Managing(manager): Managing,
    Id(id): Id,
) -> Result<StatusCode, ApiError> {
    app.links.delete(manager, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
