//! What `/metrics` shows of HTTP. Names and buckets are those that autoscaling relies on.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Method, StatusCode};
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::IN_FLIGHT_MAX;
use super::envelope::InFlight;
use crate::links::Waited;

/// The redirect latency that a fleet is sized for unless told otherwise, in seconds: buckets are finest around it.
const TARGET_LATENCY_S: f64 = 0.1;

/// The metrics of the public listener.
#[derive(Debug)]
pub struct HttpMetrics {
    pub(super) in_flight: AtomicUsize,
    in_flight_gauge: IntGauge,
    requests: IntCounterVec,
    /// Links that were not followed because they lead back to this service.
    pub(super) loops: IntCounter,
    total: Histogram,
    local: Histogram,
    cache: Histogram,
    store: Histogram,
}

/// Upper bounds in seconds: steps of 2 from 50 µs, of 1.2 from a quarter of the target to four times it, of 2 up to 12 s.
fn buckets() -> Vec<f64> {
    let steps = std::iter::successors(Some(0.000_05), |bound: &f64| {
        let fine = (TARGET_LATENCY_S / 4.0..TARGET_LATENCY_S * 4.0).contains(bound);
        Some(bound * if fine { 1.2 } else { 2.0 })
    });
    steps.take_while(|bound| *bound < 12.0).collect()
}

impl HttpMetrics {
    /// Registers all of them.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let opts = HistogramOpts::new(
            "shortener_redirect_duration_seconds",
            "Time that redirects took, by stage: total; local is what is neither cache nor store; cache; store.",
        );
        let redirects = HistogramVec::new(opts.buckets(buckets()), &["stage"])?;
        registry.register(Box::new(redirects.clone()))?;
        let in_flight_gauge = IntGauge::new("shortener_in_flight_requests", "Requests being answered.")?;
        registry.register(Box::new(in_flight_gauge.clone()))?;
        let limit = IntGauge::new("shortener_in_flight_limit", "Requests beyond which new ones are refused.")?;
        limit.set(i64::try_from(IN_FLIGHT_MAX).unwrap_or(i64::MAX));
        registry.register(Box::new(limit))?;
        let opts = Opts::new("shortener_http_requests_total", "Requests answered, by method, route and status.");
        let requests = IntCounterVec::new(opts, &["method", "route", "status"])?;
        registry.register(Box::new(requests.clone()))?;
        let loops = IntCounter::new(
            "shortener_redirect_loops_total",
            "Requests for links that are not followed, because they lead to a host of this service.",
        )?;
        registry.register(Box::new(loops.clone()))?;
        let [total, local, cache, store] =
            ["total", "local", "cache", "store"].map(|stage| redirects.with_label_values(&[stage]));
        Ok(Self { in_flight: AtomicUsize::new(0), in_flight_gauge, requests, loops, total, local, cache, store })
    }

    /// Counts a request in until the guard is dropped.
    pub fn enter(&self) -> InFlight<'_> {
        InFlight(self, self.in_flight.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Counts an answer.
    pub fn answered(&self, method: &Method, route: &str, status: StatusCode) {
        // Extension methods are the caller's to invent: one label for all of them.
        let method = match *method {
            Method::GET | Method::HEAD | Method::POST | Method::PATCH | Method::DELETE => method.as_str(),
            _ => "other",
        };
        self.requests.with_label_values(&[method, route, status.as_str()]).inc();
    }

    /// Counts a redirect, with what of its `total` time was spent waiting.
    pub fn redirected(&self, total: Duration, Waited { cache, store }: Waited) {
        self.total.observe(total.as_secs_f64());
        self.local.observe(total.saturating_sub(cache).saturating_sub(store).as_secs_f64());
        for (histogram, waited) in [(&self.cache, cache), (&self.store, store)] {
            if !waited.is_zero() {
                histogram.observe(waited.as_secs_f64());
            }
        }
    }

    /// Brings the gauges up to date before they are read.
    pub fn refresh(&self) {
        let count = self.in_flight.load(Ordering::Relaxed);
        self.in_flight_gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_finer_than_a_quarter_around_the_target() {
        let bounds = buckets();
        let around =
            bounds.windows(2).filter(|pair| pair[0] >= TARGET_LATENCY_S / 3.0 && pair[1] <= TARGET_LATENCY_S * 3.0);
        assert!(around.clone().count() > 8);
        assert!(around.into_iter().all(|pair| pair[1] / pair[0] < 1.25));
        assert!(bounds.len() < 64, "every bucket is a series: {}", bounds.len());
    }
}
