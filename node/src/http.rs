//! THE route table and the order of layers.
//!
//! A request passes, from outside in: [`envelope`] (request ID, host, problems, security headers, metrics, log, in-flight limit),
//! panics turned into 500, the body limit, and, for the API, [`guard`] (client address, token, rate limit). Handlers
//! are thin: they turn a request into a call of one use-case and its result into an answer.

pub mod admin;
mod analytics;
mod auth;
pub mod client_addr;
mod docs;
pub mod drawing;
pub mod envelope;
pub mod error;
mod extract;
pub mod guard;
mod health;
mod host;
mod list;
mod meter;
pub mod metrics;
mod pages;
mod qr;
mod redirect;
mod schema;
pub mod serve;
mod short_form;
mod short_path;
mod trace;
mod unread;
mod urls;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::routing::{any, get};
use tokio::sync::Semaphore;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};
use utoipa_axum::routes;

use crate::accounts::Accounts;
use crate::ambient::Clock;
use crate::cache::Cache;
use crate::clicks::Clicks;
use crate::config::Config;
use crate::domains::Domains;
use crate::kv::Kv;
use crate::limits::Limits;
use crate::limits::unknown_codes::UnknownCodes;
use crate::links::hot::HotLinks;
use crate::links::takedowns::Takedowns;
use crate::links::{Links, Resolve};
use crate::minter::Minter;
use crate::store::format::Formats;
use drawing::Drawing;
use error::ApiError;
use metrics::HttpMetrics;
use serve::Backlog;

/// The largest request body, in bytes.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// Requests answered at once; more are refused at the door, so that those inside are answered in time.
pub const IN_FLIGHT_MAX: usize = 4_096;
/// The routes of redirects.
pub const REDIRECT_ROUTES: [&str; 2] = ["/{short_code}", "/shortener/url/{id}"];
/// The routes that links are made by, with POST.
pub const CREATE_ROUTES: [&str; 2] = ["/api/v1/urls", "/shortener/url/"];

/// What all handlers share.
pub struct App {
    /// The settings.
    pub config: Config,
    /// The clock.
    pub clock: Clock,
    /// The store, for health.
    pub kv: Kv,
    /// Shared answers that may be lost.
    pub cache: Cache,
    /// Where codes and IDs come from, for health.
    pub minter: Minter,
    /// Which formats of rows are known and written.
    pub formats: Formats,
    /// Which host means which domain.
    pub domains: Domains,
    /// Use-cases of links.
    pub links: Links,
    /// From codes to where they lead.
    pub resolve: Resolve,
    /// What is blocked.
    pub takedowns: Takedowns,
    /// Links that many follow, where nodes share a cache.
    pub hot: Option<Arc<HotLinks>>,
    /// Use-cases of accounts.
    pub accounts: Accounts,
    /// The click pipeline.
    pub clicks: Clicks,
    /// Rate limits.
    pub limits: Limits,
    /// Where images are drawn.
    pub drawing: Drawing,
    /// Slows down who guesses codes.
    pub unknown_codes: UnknownCodes,
    /// Places for API requests: [`guard::API_IN_FLIGHT_MAX`].
    pub api_places: Semaphore,
    /// What `/metrics` shows of HTTP.
    pub metrics: HttpMetrics,
    /// Answers that clients have yet to read.
    pub backlog: Arc<Backlog>,
}

/// The public listener's routes.
pub fn router(app: Arc<App>) -> Router {
    let (limited, mut openapi) = limited_api().split_for_parts();
    let (open, openapi_of_open) = open_api().split_for_parts();
    openapi.merge(openapi_of_open);
    docs::complete(&mut openapi, app.config.public_urls.base().as_str());
    let document = docs::Document::new(&openapi);
    let limited = limited.route_layer(from_fn_with_state(app.clone(), guard::guard));
    let router = Router::new()
        .merge(limited)
        .merge(open)
        .route("/", get(pages::index))
        .route("/assets/{name}", get(pages::asset))
        .route("/favicon.ico", get(pages::favicon))
        .route("/robots.txt", get(pages::robots))
        .route("/docs", get(docs::index))
        .route("/docs/", get(docs::index))
        .route("/docs/{*file}", get(docs::file))
        .route("/openapi.json", get(async move || docs::openapi(document)))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        // The panic itself is on standard error, with its place; the log says which request it was.
        .layer(CatchPanicLayer::custom(|_| {
            ApiError::Internal(Arc::new(std::io::Error::other("a handler panicked"))).into_response()
        }))
        .layer(from_fn_with_state(app.clone(), envelope::envelope))
        .with_state(app);
    let known = router.clone();
    router.fallback(move |request| short_path::without_slashes(known, request))
}

/// Every route that is rate-limited.
fn limited_api() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(docs::About::openapi())
        .routes(routes!(auth::register))
        .routes(routes!(auth::login))
        .routes(routes!(auth::refresh))
        .routes(routes!(auth::logout))
        .routes(routes!(auth::me))
        .routes(routes!(urls::create, urls::list))
        .routes(routes!(urls::read, urls::update, urls::delete))
        .routes(routes!(analytics::summary))
        .routes(routes!(qr::image))
        .routes(routes!(short_form::shorten))
}

/// Routes of the contract that are not limited.
fn open_api() -> OpenApiRouter<Arc<App>> {
    // The document tells of GET; which other methods a link redirects depends on the link.
    let (schemas, paths, _): UtoipaMethodRouter<Arc<App>> = routes!(redirect::redirect);
    OpenApiRouter::new().routes(routes!(health::health)).routes(routes!(short_form::follow)).routes((
        schemas,
        paths,
        any(redirect::redirect),
    ))
}
