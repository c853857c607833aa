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
use super::drawing::DrawingError;
use super::envelope::ProblemBody;
use super::error::{ApiError, RETRY_SOON};
use super::extract::{Code, QueryOf, named_domain};
use super::meter::{Meter, REQUEST_UNITS};
use crate::cache::{CacheKey, Kept};
use crate::invalid::Invalid;
use crate::qr::{self, ErrorCorrection, QR_SIZE_PX_MAX, QrError};

/// How long an image is kept: a short URL never changes.
const TTL: Duration = Duration::from_hours(24);
const CACHE_CONTROL: &str = "public, max-age=86400";
/// Pixels unless asked otherwise.
const SIZE_DEFAULT: u32 = 256;
/// Modules of quiet zone unless asked otherwise: what the standard demands (ISO/IEC 18004).
const MARGIN_DEFAULT: u32 = 4;

/// What an image costs that is kept already: the guard has taken it.
const FOUND_UNITS: u32 = 1;
/// What the largest image costs.
const LARGEST_UNITS: u32 = 2 * REQUEST_UNITS;

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

impl From<DrawingError> for ApiError {
    fn from(error: DrawingError) -> Self {
        match error {
            DrawingError::Busy => Self::Unavailable("Too many images are being drawn.", RETRY_SOON, None),
            DrawingError::Failed => Self::Internal(Arc::new(error)),
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
    mut meter: Meter,
    Code(code): Code,
    params: Result<QueryOf<QrParams>, ApiError>,
) -> Response {
    let image = match params {
        Ok(QueryOf(params)) => found_or_drawn(&app, &mut meter, &code, params).await,
        Err(error) => Err(error),
    };
    if image.is_err() && meter.decision().allowed {
        // Whoever asks for what is not there pays for a whole request, as everywhere.
        let _ = meter.charge(&app, REQUEST_UNITS - 1).await;
    }
    meter.onto(image.into_response())
}

async fn found_or_drawn(app: &Arc<App>, meter: &mut Meter, code: &str, params: QrParams) -> Result<Response, ApiError> {
    let domain = named_domain(app, params.domain.as_deref())?;
    app.links.at(&domain, code).await?.ok_or(ApiError::NotFound("There is no link with this code."))?;
    let url = app.domains.now()?.short_url(&domain, code);
    let QrParams { format, size, margin, ec, .. } = params;
    let (size, margin) = (size.unwrap_or(SIZE_DEFAULT), margin.unwrap_or(MARGIN_DEFAULT));
    // An image that was drawn before the domain had its host shows another one.
    let variant = format!("{format:?}:{size}:{margin}:{ec:?}:{url}");
    let key = CacheKey { domain: &domain, code, of: Kept::Qr(variant) };
    let image = match app.cache.get(&key).await {
        Some(image) => image,
        None => {
            meter.charge(app, price_units(format, size) - FOUND_UNITS).await?;
            let image = app.drawing.run(move || draw(format, &url, size, margin, ec.into())).await??;
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

/// What drawing an image costs. A page of 40 usual images costs as much as five requests, a poster as much as two.
fn price_units(format: Format, size_px: u32) -> u32 {
    let size_px = size_px.min(QR_SIZE_PX_MAX);
    match format {
        Format::Svg => FOUND_UNITS,
        Format::Png => {
            FOUND_UNITS + (LARGEST_UNITS - FOUND_UNITS) * (size_px * size_px) / (QR_SIZE_PX_MAX * QR_SIZE_PX_MAX)
        }
    }
}

fn draw(format: Format, url: &str, size: u32, margin: u32, ec: ErrorCorrection) -> Result<Bytes, QrError> {
    match format {
        Format::Png => qr::qr_png(url, size, margin, ec).map(Bytes::from),
        Format::Svg => qr::qr_svg(url, size, margin, ec).map(Bytes::from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_costs_by_its_size() {
        for (format, size, units) in [
            (Format::Png, 64, 1),
            (Format::Png, 256, 1),
            (Format::Png, 512, 1),
            (Format::Png, 1024, 4),
            (Format::Png, 2048, 16),
            (Format::Png, u32::MAX, 16),
            (Format::Svg, 2048, 1),
        ] {
            assert_eq!(price_units(format, size), units, "{format:?} {size}");
        }
    }
}
