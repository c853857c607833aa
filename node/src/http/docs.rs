//! `/openapi.json`, generated from the handlers, and `/docs`, Swagger UI on it, without any outside asset.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Bytes;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use http::header;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{OpenApi as Document31, Ref, ResponseBuilder, Server};
use utoipa::{Modify, OpenApi};

use super::envelope::ProblemBody;
use super::error::ApiError;
use crate::invalid::FieldError;

/// Swagger UI styles itself with inline styles and data images; scripts are its own files.
const POLICY: &str = "default-src 'none'; object-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What the document says beside the routes.
#[derive(Debug, OpenApi)]
#[openapi(
    info(title = "Shortener", description = "Shortens URLs, redirects, and counts clicks."),
    components(schemas(ProblemBody<'_>, FieldError)),
    modifiers(&Token),
    tags(
        (name = "links", description = "Making and keeping links"),
        (name = "auth", description = "Accounts and tokens"),
        (name = "analytics", description = "Clicks"),
        (name = "qr", description = "QR codes"),
        (name = "redirect", description = "Following links"),
        (name = "short form", description = "The same service in two routes"),
        (name = "system", description = "Health"),
    )
)]
pub struct About;

struct Token;

impl Modify for Token {
    fn modify(&self, openapi: &mut Document31) {
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
        // OpenAPI names the schemes that IANA knows; any other is told as the header that it is.
        let management = ApiKeyValue::with_description(
            "Authorization",
            "`Link <management_token>`: the token that the creation of a link without an owner has answered.",
        );
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(bearer));
        components.add_security_scheme("management_token", SecurityScheme::ApiKey(ApiKey::Header(management)));
    }
}

/// Adds what holds for every route: where the service is, and that any other answer is a problem.
pub fn complete(openapi: &mut Document31, base_url: &str) {
    openapi.servers = Some(vec![Server::new(base_url)]);
    let schema = Ref::from_schema_name("Problem");
    let problem = ContentBuilder::new().schema(Some(schema)).build();
    let any = ResponseBuilder::new()
        .description("Anything else is a problem: 400, 413, 415, 429 with Retry-After, 503 with Retry-After")
        .content("application/problem+json", problem)
        .build();
    for item in openapi.paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.post, &mut item.patch, &mut item.delete];
        for operation in operations.into_iter().flatten() {
            operation.responses.responses.insert("default".to_owned(), any.clone().into());
        }
    }
}

/// The document, written once.
#[derive(Clone, Debug)]
pub struct Document(Bytes);

impl Document {
    /// Writes the document.
    pub fn new(openapi: &Document31) -> Self {
        Self(openapi.to_json().unwrap_or_default().into())
    }
}

/// `GET /openapi.json`.
pub fn openapi(Document(json): Document) -> Response {
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-cache")], json).into_response()
}

/// `GET /docs`.
pub async fn index() -> Result<Response, ApiError> {
    swagger_file("index.html")
}

/// Files of Swagger UI.
pub async fn file(Path(name): Path<String>) -> Result<Response, ApiError> {
    swagger_file(&name)
}

fn swagger_file(name: &str) -> Result<Response, ApiError> {
    let file = kept_file(name).ok_or(ApiError::NotFound("There is no such file."))?;
    let headers = [
        (header::CONTENT_TYPE, file.content_type.as_str()),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, "public, max-age=300"),
    ];
    Ok((headers, file.bytes).into_response())
}

/// A file of Swagger UI as it is sent. All answers share its bytes: a copy for each would be megabytes for each client that does not read.
#[derive(Clone)]
struct File {
    content_type: String,
    bytes: Bytes,
}

/// The file of this name. Only those that exist are kept, and they are few.
fn kept_file(name: &str) -> Option<File> {
    static FILES: Mutex<BTreeMap<String, File>> = Mutex::new(BTreeMap::new());
    let mut files = FILES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(file) = files.get(name) {
        return Some(file.clone());
    }
    let file = found_file(name)?;
    files.insert(name.to_owned(), file.clone());
    Some(file)
}

fn found_file(name: &str) -> Option<File> {
    let config = Arc::new(utoipa_swagger_ui::Config::from("/openapi.json"));
    let file = utoipa_swagger_ui::serve(name, config).ok().flatten()?;
    let bytes = match name {
        // The page is at /docs without a slash at its end, so its relative links would miss.
        "index.html" => Bytes::from(
            String::from_utf8_lossy(&file.bytes)
                .replace("\"./", "\"/docs/")
                .replace("\"index.css", "\"/docs/index.css"),
        ),
        _ => match file.bytes {
            Cow::Borrowed(bytes) => Bytes::from_static(bytes),
            Cow::Owned(bytes) => bytes.into(),
        },
    };
    Some(File { content_type: file.content_type, bytes })
}
