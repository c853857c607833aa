//! One request to the collector, by the HTTP client and the TLS that the node has anyway.
//!
//! The thread that sends batches has no runtime of its own: each request runs on the node's.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry_http::{HttpClient, HttpError};
use rustls::{ClientConfig, RootCertStore};
use shortener_crds::causes::Causes;
use tokio::runtime::Handle;

use super::OtlpEndpoint;
use crate::ambient::Clock;

/// How long a batch has to be sent. No repetition begins after it; one that began has as long again. The queue behind it holds what a
/// busy node sends in that time.
pub(super) const EXPORT_DEADLINE: Duration = Duration::from_secs(3);
/// How much of an answer is read, in bytes: it says how many spans were refused and why.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// How often it is said that traces cannot be sent.
const COMPLAIN_EVERY: Duration = Duration::from_mins(1);

/// Sends batches.
#[derive(Debug)]
pub(super) struct Exporter {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    runtime: Handle,
    clock: Clock,
    /// When something was last complained of (monotonic).
    complained: Mutex<Option<Duration>>,
}

impl Exporter {
    /// Fails when certificates are needed and this machine trusts none.
    pub(super) fn new(endpoint: &OtlpEndpoint, runtime: Handle, clock: Clock) -> std::io::Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let tls = tls.map_err(std::io::Error::other)?;
        let tls = match endpoint.url().scheme() {
            "https" => tls.with_native_roots()?,
            _ => tls.with_root_certificates(RootCertStore::empty()),
        };
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls.with_no_client_auth());
        let connector = connector.https_or_http().enable_http1().build();
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            runtime,
            clock,
            complained: Mutex::default(),
        })
    }

    /// Says that traces cannot be sent, unless that was said a moment ago.
    fn complain(&self, problem: &str) {
        let now = self.clock.monotonic();
        let mut complained = self.complained.lock().unwrap_or_else(PoisonError::into_inner);
        if complained.is_none_or(|last| now.saturating_sub(last) >= COMPLAIN_EVERY) {
            *complained = Some(now);
            drop(complained);
            tracing::warn!(
                problem,
                "cannot send traces to OTLP_ENDPOINT: they are dropped, and nothing else is affected"
            );
        }
    }
}

#[async_trait]
impl HttpClient for Exporter {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let sent = post(self.client.clone(), request.map(Full::new));
        let sent = self.runtime.spawn(async {
            let sent = tokio::time::timeout(EXPORT_DEADLINE, sent).await;
            sent.unwrap_or_else(|_| Err("the collector does not answer in time".into()))
        });
        let answer = sent.await.map_err(HttpError::from).flatten();
        match &answer {
            Err(error) => self.complain(&Causes(error.as_ref()).to_string()),
            Ok(answer) if !answer.status().is_success() => {
                self.complain(&format!("the collector answers {}", answer.status()));
            }
            Ok(_) => {}
        }
        answer
    }
}

async fn post(
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<Response<Bytes>, HttpError> {
    let (parts, body) = client.request(request).await?.into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await?.to_bytes();
    Ok(Response::from_parts(parts, body))
}
