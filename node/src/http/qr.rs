//! `GET /api/v1/qr/{short_code}`: the QR code of a short URL, as PNG or SVG.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::App;
use super::envelope::ProblemBody;
use super::error::ApiError;
use super::extract::{Code, QueryOf, named_domain};
use crate::cache::{CacheKey, Kept};
use crate::invalid::Invalid;
use crate::qr::{self, ErrorCorrection, QrError};

/// How long an image is kept: a short URL never changes.
const TTL: Duration = Duration::from_hours(24);
const CACHE_CONTROL: &str = "public, max-age=86400";
/// Pixels unless asked otherwise.
const SIZE_DEFAULT: u32 = 256;
/// Modules of quiet zone unless asked otherwise: what the standard demands (ISO/IEC 18004).
const MARGIN_DEFAULT: u32 = 4;

/// The image's form.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Pixels.
    #[default]
    Png,
    /// Lines.
    Svg,
}

/// How much of the image may be damaged.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
pub enum Ec {
    /// 7 %.
    L,
    /// 15 %.
    #[default]
    M,
    /// 25 %.
    Q,
    /// 30 %.
    H,
}

/// How the image should be.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct QrParams {
    /// A domain of this service; by default that of its base URL.
    domain: Option<String>,
    /// `png` or `svg`.
    #[serde(default)]
    #[param(inline, required = false)]
    format: Format,
    /// Width and height, in pixels.
    #[param(minimum = 64, maximum = 2048, default = 256)]
    size: Option<u32>,
    /// Quiet zone, in modules.
    #[param(minimum = 0, maximum = 16, default = 4)]
    margin: Option<u32>,
    /// Error correction: `L`, `M`, `Q` or `H`.
    #[serde(default)]
    #[param(inline, required = false)]
    ec: Ec,
}

impl From<Ec> for ErrorCorrection {
    fn from(ec: Ec) -> Self {
        match ec {
            Ec::L => Self::Low,
            Ec::M => Self::Medium,
            Ec::Q => Self::Quartile,
            Ec::H => Self::High,
        }
    }
}

impl From<QrError> for ApiError {
    fn from(error: QrError) -> Self {
        match error {
            QrError::Size { .. } => Invalid::field("size", error).into(),
            QrError::Margin => Invalid::field("margin", error).into(),
            QrError::TextTooLong | QrError::Encode => Self::Internal(Arc::new(error)),
        }
    }
}

/// Draws the QR code of a short URL.
#[utoipa::path(get, path = "/api/v1/qr/{short_code}", tag = "qr",
    params(QrParams, ("short_code" = String, Path, description = "A code or an alias", pattern = "^[A-Za-z0-9_-]{3,64}$")),
    responses(
        (status = 200, description = "The image", content((String = "image/svg+xml"), (Vec<u8> = "image/png"))),
        (status = 404, description = "No such link", body = ProblemBody<'_>, content_type = "application/problem+json"),
        (status = 422, description = "A parameter is refused", body = ProblemBody<'_>, content_type = "application/problem+json"),
    ))]
pub async fn image(
    State(app): State<Arc<App>>,
    Code(code): Code,
    QueryOf(params): QueryOf<QrParams>,
) -> Result<Response, ApiError> {
    let domain = named_domain(&app, params.domain.as_deref())?;
    app.links.at(domain.as_str(), &code).await?.ok_or(ApiError::NotFound("There is no link with this code."))?;
    let url = app.config.public_urls.short_url(domain.as_str(), &code);
    let QrParams { format, size, margin, ec, .. } = params;
    let (size, margin) = (size.unwrap_or(SIZE_DEFAULT), margin.unwrap_or(MARGIN_DEFAULT));
    let variant = format!("{format:?}:{size}:{margin}:{ec:?}");
    let key = CacheKey { domain: domain.as_str(), code: &code, of: Kept::Qr(variant) };
    let image = match app.cache.get(&key).await {
        Some(image) => image,
        None => {
            let image = draw(format, &url, size, margin, ec.into())?;
            app.cache.put(&key, image.clone(), TTL).await;
            image
        }
    };
    let kind = match format {
        Format::Png => "image/png",
        Format::Svg => "image/svg+xml",
    };
    Ok(([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, CACHE_CONTROL)], image).into_response())
}

fn draw(format: Format, url: &str, size: u32, margin: u32, ec: ErrorCorrection) -> Result<Bytes, QrError> {
    match format {
        Format::Png => qr::qr_png(url, size, margin, ec).map(Bytes::from),
        Format::Svg => qr::qr_svg(url, size, margin, ec).map(Bytes::from),
    }
}
