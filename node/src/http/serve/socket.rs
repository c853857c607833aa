//! A connection's socket as the HTTP library sees it, and what the node has to know of what passes through.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::frames::{Flood, Frames, PREFACE};
use super::traffic::Traffic;

/// The longest answer that the HTTP library writes by itself, in bytes.
const BARE_BYTES_MAX: usize = 256;

/// As much of a request's first line as its version takes.
const LINE_END_BYTES: usize = b" HTTP/1.1".len();

/// The socket. When it is dropped it gives back what the node needs to end the connection.
pub(super) struct Socket {
    /// `Some` until it is given back.
    stream: Option<TcpStream>,
    give_back: Option<oneshot::Sender<Ended>>,
    traffic: Arc<Traffic>,
    protocol: Protocol,
    /// Whether the kernel took all of the last write. Otherwise the client waits for the rest of something.
    is_whole: bool,
    /// The request of which a part has come since the last answer.
    request: Option<RequestLine>,
    refuses: bool,
    is_flooded: bool,
}

/// What remains of a connection that the HTTP library is done with.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) stream: TcpStream,
    pub(super) is_http2: bool,
    /// Whether a message of ours may follow: nothing before it was cut short.
    pub(super) is_whole: bool,
    /// What is unanswered.
    pub(super) asked: Asked,
    /// Whether the client sent frames that ask for nothing, without end.
    pub(super) is_flooded: bool,
}

/// What a client has asked since the last answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Nothing,
    /// A part of a request has come.
    Request,
    /// And it is of another version of HTTP.
    OtherVersion,
}

/// Which HTTP is spoken, as far as it is known.
enum Protocol {
    /// So many bytes of the preface of HTTP/2 have come.
    Unknown(usize),
    Http1,
    Http2(Frames),
}

impl Socket {
    pub(super) fn new(stream: TcpStream, traffic: Arc<Traffic>) -> (Self, oneshot::Receiver<Ended>) {
        let (give_back, ended) = oneshot::channel();
        let socket = Self {
            stream: Some(stream),
            give_back: Some(give_back),
            traffic,
            protocol: Protocol::Unknown(0),
            is_whole: true,
            request: None,
            refuses: false,
            is_flooded: false,
        };
        (socket, ended)
    }

    fn stream(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        self.stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn see(&mut self, bytes: &[u8]) -> Result<(), Flood> {
        // Empty lines ask for nothing.
        if self.request.is_some() || bytes.iter().any(|byte| !matches!(byte, b'\r' | b'\n')) {
            self.request.get_or_insert_default().see(bytes);
        }
        if let Protocol::Unknown(seen) = self.protocol {
            let left = PREFACE.get(seen..).unwrap_or_default();
            let compared = left.len().min(bytes.len());
            self.protocol = match bytes.starts_with(left.get(..compared).unwrap_or_default()) {
                false => Protocol::Http1,
                true if compared < left.len() => Protocol::Unknown(seen + compared),
                true => Protocol::Http2(Frames::after_preface(seen)),
            };
        }
        match &mut self.protocol {
            Protocol::Http2(frames) => frames.see(bytes, self.traffic.ticks(), self.traffic.written()),
            Protocol::Unknown(_) | Protocol::Http1 => Ok(()),
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let (Some(stream), Some(give_back)) = (self.stream.take(), self.give_back.take()) {
            // Nobody waits for it where the connection was given up.
            let _ = give_back.send(Ended {
                stream,
                is_http2: matches!(self.protocol, Protocol::Http2(_)),
                is_whole: self.is_whole,
                asked: match &self.request {
                    None => Asked::Nothing,
                    Some(line) if line.names_other_version() => Asked::OtherVersion,
                    Some(_) => Asked::Request,
                },
                is_flooded: self.is_flooded,
            });
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(self.stream()?.poll_read(context, buffer))?;
        let read = buffer.filled().get(before..).unwrap_or_default();
        Poll::Ready(self.see(read).map_err(|flood| {
            self.is_flooded = true;
            io::Error::other(flood)
        }))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = parts.iter().find(|part| !part.is_empty()).map_or(&b""[..], |part| &**part);
        let total: usize = parts.iter().map(|part| part.len()).sum();
        let bare = match self.protocol {
            Protocol::Http1 => bare_answer(first, self.is_whole),
            Protocol::Unknown(_) | Protocol::Http2(_) => None,
        };
        let (written, total) = match bare {
            // The node says it better once the HTTP library has said why.
            Some(0) => {
                self.refuses = true;
                return Poll::Ready(Ok(first.len()));
            }
            Some(before) => (self.stream()?.poll_write(context, first.get(..before).unwrap_or_default()), before),
            None => (self.stream()?.poll_write_vectored(context, parts), total),
        };
        let Poll::Ready(written) = written else {
            self.is_whole = false;
            self.traffic.blocked();
            return Poll::Pending;
        };
        let written = written?;
        self.traffic.wrote(written);
        self.is_whole = written == total;
        self.request = None;
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.refuses {
            return Poll::Ready(Ok(()));
        }
        self.stream()?.poll_shutdown(context)
    }
}

/// The end of the first line of a request, as far as it has come.
#[derive(Debug, Default)]
struct RequestLine {
    end: [u8; LINE_END_BYTES],
    is_complete: bool,
}

impl RequestLine {
    fn see(&mut self, mut bytes: &[u8]) {
        while !self.is_complete && !bytes.is_empty() {
            let length = bytes.iter().position(|byte| *byte == b'\n');
            let (line, rest) = bytes.split_at(length.map_or(bytes.len(), |at| at + 1));
            bytes = rest;
            for byte in line.iter().rev().take(LINE_END_BYTES + 2).rev().filter(|byte| !matches!(byte, b'\r' | b'\n')) {
                self.end.rotate_left(1);
                self.end[LINE_END_BYTES - 1] = *byte;
            }
            // Empty lines may come before a request.
            self.is_complete = length.is_some() && self.end != [0; LINE_END_BYTES];
        }
    }

    /// Whether it names a version of HTTP that is not 1.0 or 1.1. The HTTP library does not tell such a line from one that ends with
    /// anything else.
    fn names_other_version(&self) -> bool {
        match self.end.strip_prefix(b" HTTP/") {
            Some([major @ b'0'..=b'9', b'.', minor @ b'0'..=b'9']) => {
                self.is_complete && !matches!([*major, *minor], [b'1', b'0' | b'1'])
            }
            _ => false,
        }
    }
}

/// Where in `bytes` the HTTP library answers by itself a head that it cannot read: it says a status and nothing else. Every answer of
/// the node has an `X-Request-ID`. An earlier answer may stand before it if a write did not take all of one.
fn bare_answer(bytes: &[u8], is_whole: bool) -> Option<usize> {
    let end_of_head = b"\r\n\r\n";
    if !bytes.ends_with(end_of_head) {
        return None;
    }
    let start = if is_whole {
        0
    } else {
        let body = bytes.get(..bytes.len() - end_of_head.len()).unwrap_or_default();
        body.windows(end_of_head.len()).rposition(|four| four == end_of_head).map_or(0, |at| at + end_of_head.len())
    };
    let head = bytes.get(start..).filter(|head| head.len() <= BARE_BYTES_MAX)?;
    let is_failure = head.starts_with(b"HTTP/1.") && head.get(8..10) == Some(b" 4");
    let is_ours = || head.windows(14).any(|part| part.eq_ignore_ascii_case(b"\r\nx-request-id"));
    (is_failure && !is_ours()).then_some(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_is_told_from_what_is_none() {
        let check = |request: &str, expected| {
            for size in [1, 2, 5, 24, 1_000] {
                let mut line = RequestLine::default();
                request.as_bytes().chunks(size).for_each(|part| line.see(part));
                assert_eq!(line.names_other_version(), expected, "{request:?} {size}");
            }
        };
        for other in ["9.9", "2.0", "1.2", "0.9", "3.0"] {
            check(&format!("GET / HTTP/{other}\r\nHost: a\r\n\r\n"), true);
            check(&format!("\r\n\r\nGET / HTTP/{other}\n"), true);
        }
        for none in ["1.1", "1.0", "1", "", "x.y", "10.1", "1.10"] {
            check(&format!("GET / HTTP/{none}\r\nHost: a\r\nX: HTTP/9.9\r\n\r\n"), false);
        }
        for line in ["", "\r\n", "GET\n", "GET / x\n", "GET / HTTPS/9.9\n", "GET /HTTP/9.9\n", "GET / HTTP/9.9"] {
            check(line, false);
        }
    }

    #[test]
    fn what_the_http_library_answers_by_itself_is_told_from_answers() {
        let bare = "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\ndate: Mon, 30 Nov 2026 13:00:00 GMT\r\n\r\n";
        let ours = "HTTP/1.1 302 Found\r\nlocation: https://example.com/\r\nx-request-id: 1\r\n\r\n";
        let failed = "HTTP/1.1 404 Not Found\r\nx-request-id: 1\r\ncontent-length: 0\r\n\r\n";
        let long = format!("HTTP/1.1 400 Bad Request\r\nx: {}\r\n\r\n", "x".repeat(300));
        let check = |bytes: &str, is_whole: bool, expected| {
            assert_eq!(bare_answer(bytes.as_bytes(), is_whole), expected, "{is_whole} {bytes}");
        };
        check(bare, true, Some(0));
        check(bare, false, Some(0));
        check(&bare.replace("1.1 431", "1.0 400"), true, Some(0));
        for answer in [ours, failed, &long, "", "\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\n"] {
            check(answer, true, None);
            check(answer, false, None);
        }
        // Behind what a write did not take.
        check(&format!("{ours}{bare}"), false, Some(ours.len()));
        check(&format!("/\r\nx-request-id: 1\r\n\r\n{bare}"), false, Some(22));
        check(&format!("{bare}{ours}"), false, None);
    }
}
