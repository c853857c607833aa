//! What a client still sends when its answer is already known: a body that is too long, or that of a request which is refused.
//!
//! A connection that is closed upon bytes that nobody has read is reset, and the answer may be lost with it (RFC 9112, section 9.6).
//! So the rest of a body is read and dropped before the answer goes out, within limits.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::oneshot;

/// Bytes of a rest that are read: some times the largest body that is taken. Who sends more has no use for an answer.
const REST_BYTES_MAX: usize = 16 * super::BODY_BYTES_MAX;
/// How long the rest of a body may take to arrive.
const REST_DEADLINE: Duration = Duration::from_secs(2);

/// The same request, and what will be left of its body when it has been answered.
pub fn watch(request: Request<Incoming>) -> (Request<axum::body::Body>, Rest) {
    if request.body().is_end_stream() {
        return (request.map(axum::body::Body::new), Rest(None));
    }
    // Who asked whether to send is told so by the first read, and sends nothing before.
    let is_sent = !request.headers().contains_key(header::EXPECT);
    let (give_back, rest) = oneshot::channel();
    let watched = |body| axum::body::Body::new(Watched { body: Some(body), is_sent, give_back: Some(give_back) });
    (request.map(watched), Rest(Some(rest)))
}

/// What is left of a request's body.
pub struct Rest(Option<oneshot::Receiver<Incoming>>);

impl Rest {
    /// Reads what is left, until nothing is or a limit is reached. Called when the handler is done with the body.
    pub async fn discard(self) {
        let Some(rest) = self.0 else { return };
        let discarded = async {
            let Ok(body) = rest.await else { return };
            let mut body = Limited::new(body, REST_BYTES_MAX);
            while let Some(Ok(_)) = body.frame().await {}
        };
        let _ = tokio::time::timeout(REST_DEADLINE, discarded).await;
    }
}

/// A body that is given back, if anything is left of it, when nobody wants it any more.
struct Watched {
    /// `None` once it has ended or failed.
    body: Option<Incoming>,
    /// Whether the client sends it.
    is_sent: bool,
    give_back: Option<oneshot::Sender<Incoming>>,
}

impl Body for Watched {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        self.is_sent = true;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = Pin::new(body).poll_frame(context);
        if matches!(frame, Poll::Ready(None | Some(Err(_)))) {
            self.body = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let (Some(body), true, Some(give_back)) = (self.body.take(), self.is_sent, self.give_back.take())
            && !body.is_end_stream()
        {
            // Nobody waits for it where the connection has broken off.
            let _ = give_back.send(body);
        }
    }
}
