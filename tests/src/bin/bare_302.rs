//! The floor that the redirect is measured against: hyper alone, answering every request with the same 302.
use std::convert::Infallible;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Response, StatusCode, header};
use http_body_util::Empty;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use shortener_tests::bench::redirect::TARGET;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<()> {
    let address = std::env::args().nth(1).context("usage: bare_302 ADDRESS")?;
    let listener = TcpListener::bind(&address).await.with_context(|| format!("listening on {address}"))?;
    loop {
        let (stream, _) = listener.accept().await.context("accepting a connection")?;
        stream.set_nodelay(true).context("setting TCP_NODELAY")?;
        tokio::spawn(async {
            let answer = service_fn(async |_| Ok::<_, Infallible>(redirect()));
            // A client that hangs up is no failure of this server.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

fn redirect() -> Response<Empty<Bytes>> {
    let mut response = Response::new(Empty::new());
    *response.status_mut() = StatusCode::FOUND;
    response.headers_mut().insert(header::LOCATION, header::HeaderValue::from_static(TARGET));
    let cache_control = header::HeaderValue::from_static("private, max-age=0");
    response.headers_mut().insert(header::CACHE_CONTROL, cache_control);
    response
}
