//! Answers to requests whose head the HTTP library cannot read.
//!
//! The library has no service to ask then. It says a bare status, or nothing. Instead the node asks its own router for the answer: with
//! a request that carries a [`Refusal`]. So such an answer has an ID, is a problem, is counted and logged like all others.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Version, header};
use http_body_util::{BodyExt, Limited};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tower::ServiceExt;

use super::socket::{Asked, Ended};

/// How long a client may take to read a refusal, and to end its side of a connection after the last answer.
const LINGER: Duration = Duration::from_secs(2);
/// Bytes that are read and dropped meanwhile.
const LINGER_BYTES_MAX: usize = 1024 * 1024;
/// The longest refusal, in bytes.
const REFUSAL_BYTES_MAX: usize = 16 * 1024;
/// GOAWAY with `ENHANCE_YOUR_CALM` on stream 0, with no stream said to be the last one that was looked at.
const GOAWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0x0b];

/// Why the head of a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It has too many bytes or too many lines.
    TooLarge,
    /// It is no HTTP.
    Malformed,
    /// Its version is not spoken.
    Version,
    /// It did not come in time.
    TooSlow,
}

impl Refusal {
    /// What `error` of the HTTP library says of the head that `ended` a connection; `None` if it is about something else.
    pub(super) fn of(error: &hyper::Error, ended: &Ended) -> Option<Self> {
        if error.is_parse_too_large() {
            Some(Self::TooLarge)
        } else if error.is_parse_version_h2() || (error.is_parse() && ended.asked == Asked::OtherVersion) {
            Some(Self::Version)
        } else if error.is_parse() {
            Some(Self::Malformed)
        } else if error.is_timeout() {
            Some(Self::TooSlow)
        } else {
            None
        }
    }
}

/// Ends a connection of HTTP/1: says why the last head was refused, if it was, and waits for the client to end its side. A connection
/// that is closed upon bytes that nobody has read is reset, and the last answer may be lost with it (RFC 9112, section 9.6).
pub(super) async fn end(ended: Ended, refusal: Option<Refusal>, router: Router, extensions: http::Extensions) {
    let Ended { mut stream, is_whole, asked, .. } = ended;
    let ending = async {
        let says = refusal.filter(|refusal| is_whole && (asked != Asked::Nothing || *refusal != Refusal::TooSlow));
        if let Some(refusal) = says {
            stream.write_all(&answer(refusal, router, extensions).await).await?;
        }
        stream.shutdown().await?;
        drain(&mut stream).await
    };
    // A client that breaks off has no use for the rest.
    let _ = tokio::time::timeout(LINGER, ending).await;
}

/// Ends a connection of HTTP/2 whose client sends frames without end.
pub(super) async fn calm(ended: Ended) {
    let Ended { mut stream, is_whole, .. } = ended;
    if is_whole {
        // It is told at once or not at all.
        let _ = tokio::time::timeout(LINGER, stream.write_all(&GOAWAY)).await;
    }
    let _ = stream.shutdown().await;
}

async fn drain(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut dropped = 0;
    let mut buffer = [0; 4 * 1024];
    while dropped < LINGER_BYTES_MAX {
        match stream.read(&mut buffer).await? {
            0 => break,
            read => dropped += read,
        }
    }
    Ok(())
}

/// What the router answers, as HTTP/1.1 has it.
async fn answer(refusal: Refusal, router: Router, extensions: http::Extensions) -> Vec<u8> {
    let mut request = Request::new(Body::empty());
    *request.method_mut() = unread_method();
    *request.extensions_mut() = extensions;
    request.extensions_mut().insert(refusal);
    let (head, body) = match router.oneshot(request).await {
        Ok(answer) => answer.into_parts(),
        Err(never) => match never {},
    };
    let body = Limited::new(body, REFUSAL_BYTES_MAX).collect().await.map(http_body_util::Collected::to_bytes);
    written(Response::from_parts(head, body.unwrap_or_default()))
}

/// The method of a request whose own could not be read. It is in logs, and no route knows it.
fn unread_method() -> Method {
    Method::from_bytes(b"UNREAD").unwrap_or(Method::CONNECT)
}

fn written(answer: Response<bytes::Bytes>) -> Vec<u8> {
    let (mut head, body) = answer.into_parts();
    head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    head.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    let reason = head.status.canonical_reason().unwrap_or_default();
    let mut bytes = format!("{:?} {} {reason}\r\n", Version::HTTP_11, head.status.as_str()).into_bytes();
    write_headers(&mut bytes, &head.headers);
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(&body);
    bytes
}

fn write_headers(bytes: &mut Vec<u8>, headers: &HeaderMap) {
    for (name, value) in headers {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_a_message_of_http_1() {
        let mut answer = Response::new(bytes::Bytes::from_static(b"{}"));
        *answer.status_mut() = http::StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        answer.headers_mut().insert("x-request-id", HeaderValue::from_static("a"));
        let expected = "HTTP/1.1 431 Request Header Fields Too Large\r\nx-request-id: a\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
        assert_eq!(String::from_utf8(written(answer)).unwrap(), expected);
    }
}
