//! What a request costs, where some cost more than others: counted in eighths of a request.
//!
//! The guard takes one eighth before the handler runs. The handler charges the rest once it knows what is to be done, and
//! the headers of the answer say what is left after that.

use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::response::Response;
use http::request::Parts;

use super::App;
use super::error::ApiError;
use crate::limits::{Decision, LimitRule, Subject};

/// Units in one request.
pub const REQUEST_UNITS: u32 = 8;

/// Who pays for a request, and what was decided on it last.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    subject: Subject,
    endpoint: &'static str,
    /// In units.
    rule: LimitRule,
    decision: Decision,
}

impl Meter {
    /// Takes the first unit. `rule` is in requests.
    pub async fn start(app: &App, subject: Subject, endpoint: &'static str, rule: LimitRule) -> Self {
        let rule = rule.times(REQUEST_UNITS);
        let decision = app.limits.take(subject, endpoint, rule).await;
        Self { subject, endpoint, rule, decision }
    }

    /// Takes `units` more, if they are left.
    pub async fn charge(&mut self, app: &App, units: u32) -> Result<(), ApiError> {
        if units == 0 {
            return Ok(());
        }
        self.decision = app.limits.take_units(self.subject, self.endpoint, self.rule, units).await;
        match self.decision.allowed {
            true => Ok(()),
            false => Err(ApiError::RateLimited(Duration::from_secs(self.decision.retry_after_s))),
        }
    }

    /// What was decided last, in requests.
    pub fn decision(&self) -> Decision {
        let Decision { limit, remaining, .. } = self.decision;
        Decision { limit: limit / REQUEST_UNITS, remaining: remaining / REQUEST_UNITS, ..self.decision }
    }

    /// The answer, with what was decided last for the guard.
    pub fn onto(self, mut response: Response) -> Response {
        response.extensions_mut().insert(self);
        response
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Meter {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts.extensions.get::<Self>().copied().ok_or(ApiError::Unauthenticated("The route is not metered."))
    }
}
