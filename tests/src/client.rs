//! A client of a node as a stranger would write it: it knows the HTTP contract, shares no type with the node, follows no
//! redirect, and asserts nothing. Transport failures are errors; every answer, of whatever status, is an [`Answer`].
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use reqwest::header::HeaderMap;
use reqwest::redirect::Policy;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::server_process::wait_until;

/// Above every deadline of the node, so that a hang is the node's failure and not the client's impatience.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a connection is kept that is not in use. A node closes one after 30 s, and a request that is sent at that moment is lost.
pub const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a node may take to reach its servers, or to notice that it does not, on a busy machine.
const HEALTH_DEADLINE: Duration = Duration::from_mins(1);

/// What came back: status, headers, and the body as it was sent.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// A header as text; none when it is absent or not ASCII.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as text, with replacement characters where it is not UTF-8.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON of a given shape.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body).with_context(|| format!("reading {} as JSON: {}", self.status, self.text()))
    }

    /// This answer, if it has the wanted status; else an error that shows what came instead.
    pub fn expect_status(self, wanted: u16) -> Result<Self> {
        ensure!(self.status == wanted, "wanted {wanted}, got {}: {}", self.status, self.text());
        Ok(self)
    }
}

/// A client of one node, with or without a user's token, with headers that go with each request. Cheap to clone; clones share connections.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base_url: String,
    token: Option<String>,
    headers: Vec<(String, String)>,
}

impl Client {
    /// An anonymous client of the server at `base_url` (without a slash at the end).
    pub fn new(base_url: &str) -> Result<Self> {
        let http = reqwest::Client::builder()
            .redirect(Policy::none())
            .no_proxy()
            .timeout(REQUEST_TIMEOUT)
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .build()
            .context("building an HTTP client")?;
        Ok(Self { http, base_url: base_url.to_owned(), token: None, headers: Vec::new() })
    }

    /// The same client with this access token on each request.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    /// The same client with one more header on each request.
    #[must_use]
    pub fn with_header(&self, name: &str, value: &str) -> Self {
        let mut client = self.clone();
        client.headers.push((name.to_owned(), value.to_owned()));
        client
    }

    /// The access token, when there is one.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Sends what `build` makes of a request; for everything that the short forms below do not cover.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        build: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
    ) -> Result<Answer> {
        let mut request = self.http.request(method.clone(), format!("{}{path}", self.base_url));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let response = build(request).send().await.with_context(|| format!("{method} {path}"))?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.bytes().await.with_context(|| format!("reading the answer of {method} {path}"))?.to_vec();
        Ok(Answer { status, headers, body })
    }

    /// `GET`.
    pub async fn get(&self, path: &str) -> Result<Answer> {
        self.send(Method::GET, path, |request| request).await
    }

    /// `POST` of a JSON body.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        self.send(Method::POST, path, |request| request.json(body)).await
    }

    /// `PATCH` with a JSON body.
    pub async fn patch(&self, path: &str, body: &Value) -> Result<Answer> {
        self.send(Method::PATCH, path, |request| request.json(body)).await
    }

    /// `DELETE`.
    pub async fn delete(&self, path: &str) -> Result<Answer> {
        self.send(Method::DELETE, path, |request| request).await
    }

    /// Creates a link and returns it; any other answer than 201 is an error.
    pub async fn create(&self, original_url: &str) -> Result<Value> {
        self.post("/api/v1/urls", &json!({ "original_url": original_url })).await?.expect_status(201)?.json()
    }

    /// How the node says that it is, by itself and with what it depends on.
    pub async fn health(&self) -> Result<Value> {
        self.get("/api/v1/health").await?.json()
    }

    /// Waits until the node says that it is `ok`, `degraded` or `unavailable`.
    pub async fn until_health_is(&self, status: &str) -> Result<()> {
        let condition = async || Ok(self.health().await.is_ok_and(|health| health["status"] == status));
        wait_until(&format!("the node's health is {status}"), HEALTH_DEADLINE, condition).await
    }

    /// Registers a user and logs in; the returned client acts as that user.
    pub async fn register_and_login(&self, email: &str, password: &str) -> Result<Self> {
        let credentials = json!({ "email": email, "password": password });
        self.post("/api/v1/auth/register", &credentials).await?.expect_status(201)?;
        let tokens: Value = self.post("/api/v1/auth/login", &credentials).await?.expect_status(200)?.json()?;
        let token = tokens["access_token"].as_str().context("the login answers with an access token")?;
        Ok(self.with_token(token))
    }
}
