//! A client whose process dies after so many writes: what it wrote stays, and nothing else ever reaches the API server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use futures::future::{Either, Pending};
use http::Request;
use kube::client::{Body, ClientBuilder};
use kube::{Client, Config};
use tokio::sync::watch;
use tower::{Layer, Service};

/// Lets so many writes through, and then nothing.
#[derive(Clone, Debug)]
pub struct StopAfter {
    writes_max: u64,
    writes: Arc<AtomicU64>,
    stopped: watch::Sender<bool>,
}

impl StopAfter {
    /// One that stops when a write beyond so many is tried.
    pub fn writes(writes_max: u64) -> Self {
        Self { writes_max, writes: Arc::default(), stopped: watch::Sender::new(false) }
    }

    /// Ends when a write was tried that was not let through.
    pub async fn stopped(&self) {
        // The sender is ours: it is not gone.
        let _ = self.stopped.subscribe().wait_for(|stopped| *stopped).await;
    }

    fn lets_through<B>(&self, request: &Request<B>) -> bool {
        if *self.stopped.borrow() {
            return false;
        }
        // Events are news for people, published last; a death among them is a death after the plan.
        let is_write = request.method() != http::Method::GET && !request.uri().path().contains("/events");
        let may = !is_write || self.writes.fetch_add(1, Ordering::SeqCst) < self.writes_max;
        if !may {
            self.stopped.send_replace(true);
        }
        may
    }
}

/// A client that such a fault befalls.
pub fn client_that_stops(config: Config, fault: &StopAfter) -> Result<Client> {
    let builder = ClientBuilder::try_from(config).context("making a client")?;
    Ok(builder.with_layer(fault).build())
}

impl<S> Layer<S> for StopAfter {
    type Service = Stopping<S>;

    fn layer(&self, inner: S) -> Stopping<S> {
        Stopping { inner, fault: self.clone() }
    }
}

/// A service that such a fault befalls.
#[derive(Clone, Debug)]
pub struct Stopping<S> {
    inner: S,
    fault: StopAfter,
}

impl<S: Service<Request<Body>>> Service<Request<Body>> for Stopping<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, Pending<Result<S::Response, S::Error>>>;

    fn poll_ready(&mut self, context: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match self.fault.lets_through(&request) {
            true => Either::Left(self.inner.call(request)),
            // A process that is dead waits for nothing, and gets nothing.
            false => Either::Right(futures::future::pending()),
        }
    }
}
