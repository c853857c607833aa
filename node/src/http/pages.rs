//! What browsers see: the web page, its files, and the headers that keep it safe. All of it is in the binary.

use axum::extract::Path;
use axum::response::{Html, IntoResponse, Response};
use http::header;

use super::error::ApiError;

/// Only our own files, no script or style inside the page, nobody may frame it.
const POLICY: &str = "default-src 'none'; object-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
/// How long a browser keeps a file before it asks again whether it changed: files have no version in their names.
const ASSET_CACHE: &str = "public, max-age=300";

const FAVICON: &str = include_str!("../../web/favicon.svg");

fn html(text: &'static str) -> Response {
    ([(header::CONTENT_SECURITY_POLICY, POLICY), (header::CACHE_CONTROL, "no-cache")], Html(text)).into_response()
}

/// A page that says why a link is not followed: its title, and the file with what it says.
macro_rules! notice {
    ($title:literal, $says:literal) => {
        concat!(
            include_str!("../../web/notice_head.html"),
            $title,
            include_str!("../../web/notice_body.html"),
            include_str!($says),
            include_str!("../../web/notice_end.html")
        )
    };
}

/// The page at `/`.
pub async fn index() -> Response {
    html(include_str!("../../web/index.html"))
}

/// What a browser is shown for a code that is not known.
pub fn not_found() -> Response {
    html(notice!("Link not found", "../../web/not_found.html"))
}

/// What a browser is shown for a link that has expired.
pub fn gone() -> Response {
    html(notice!("Link expired", "../../web/gone.html"))
}

/// What a browser is shown for a link that is blocked.
pub fn blocked() -> Response {
    html(notice!("Link blocked", "../../web/blocked.html"))
}

/// What a browser is shown for a link that leads back to this service.
pub fn loops() -> Response {
    html(notice!("Link leads back here", "../../web/loop.html"))
}

/// A file of the page.
pub async fn asset(Path(name): Path<String>) -> Result<Response, ApiError> {
    let (kind, text) = match name.as_str() {
        "app.js" => ("text/javascript; charset=utf-8", include_str!("../../web/app.js")),
        "style.css" => ("text/css; charset=utf-8", include_str!("../../web/style.css")),
        "favicon.svg" => ("image/svg+xml", FAVICON),
        _ => return Err(ApiError::NotFound("There is no such file.")),
    };
    Ok(([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, ASSET_CACHE)], text).into_response())
}

/// What browsers ask for by themselves.
pub async fn favicon() -> Response {
    ([(header::CONTENT_TYPE, "image/svg+xml"), (header::CACHE_CONTROL, ASSET_CACHE)], FAVICON).into_response()
}

/// Crawlers are welcome to follow short links and to read the page, not to wander through the API.
pub async fn robots() -> &'static str {
    "User-agent: *\nDisallow: /api/\nDisallow: /docs\n"
}
