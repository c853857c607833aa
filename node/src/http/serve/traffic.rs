//! What goes on in a connection, and when the node gives it up.
//!
//! The HTTP library times the head of a request. It does not time the silence before it is known which HTTP is spoken, a client that
//! only answers pings, or one that does not read its answers.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as _, Frame, SizeHint};
use prometheus::{IntCounterVec, Opts, Registry};

use super::ConnectionLimits;

/// Bytes of answers that may wait for clients to read them, in all. More than that are kept, but not for long.
pub const UNSENT_BYTES_MAX: usize = 32 * 1024 * 1024;
/// How often it is looked what goes on.
const TICK: Duration = Duration::from_secs(5);
/// Bytes that count as a sign of life when a client reads them. What a client reads of pings is less.
const READ_BYTES_MIN: u64 = 4 * 1024;

/// What all listeners of the process count together.
#[derive(Debug)]
pub struct Backlog {
    unsent_bytes: AtomicUsize,
    cut: IntCounterVec,
}

impl Backlog {
    /// Registers its metric.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let opts = Opts::new("shortener_connections_cut_total", "Connections that the node gave up, by reason.");
        let cut = IntCounterVec::new(opts, &["reason"])?;
        registry.register(Box::new(cut.clone()))?;
        for why in [Cut::Unread, Cut::Idle, Cut::Flood] {
            cut.with_label_values(&[why.as_str()]);
        }
        Ok(Self { unsent_bytes: AtomicUsize::new(0), cut })
    }

    /// Whether answers that nobody reads take so much memory that no large one should be added.
    pub fn is_full(&self) -> bool {
        self.unsent_bytes.load(Ordering::Relaxed) > UNSENT_BYTES_MAX
    }

    /// Counts a connection that was given up.
    pub(super) fn count(&self, why: Cut) {
        self.cut.with_label_values(&[why.as_str()]).inc();
    }
}

/// Why a connection was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// An answer was not read.
    Unread,
    /// Nothing was asked.
    Idle,
    /// Frames that ask for nothing, without end.
    Flood,
}

impl Cut {
    fn as_str(self) -> &'static str {
        match self {
            Self::Unread => "unread",
            Self::Idle => "idle",
            Self::Flood => "flood",
        }
    }
}

/// What goes on in a connection.
#[derive(Debug)]
pub(super) struct Traffic {
    begun: AtomicUsize,
    in_flight: AtomicUsize,
    /// Parts of answers that the HTTP library holds.
    unsent: AtomicUsize,
    /// Whether the kernel took no more the last time.
    is_blocked: AtomicBool,
    /// Bytes that the kernel took.
    written: AtomicU64,
    ticks: AtomicU32,
    backlog: Arc<Backlog>,
}

impl Traffic {
    pub(super) fn new(backlog: Arc<Backlog>) -> Arc<Self> {
        Arc::new(Self {
            begun: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            unsent: AtomicUsize::new(0),
            is_blocked: AtomicBool::new(false),
            written: AtomicU64::new(0),
            ticks: AtomicU32::new(0),
            backlog,
        })
    }

    /// Counts a request in flight until what it gives is dropped.
    pub(super) fn begin(self: Arc<Self>) -> InFlight {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(self)
    }

    /// Takes note of `bytes` that the kernel took.
    pub(super) fn wrote(&self, bytes: usize) {
        self.written.fetch_add(bytes as u64, Ordering::Relaxed);
        self.is_blocked.store(false, Ordering::Relaxed);
    }

    /// The kernel takes no more: the client does not read.
    pub(super) fn blocked(&self) {
        self.is_blocked.store(true, Ordering::Relaxed);
    }

    /// Bytes that the kernel took.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// How old the connection is, in ticks.
    pub(super) fn ticks(&self) -> u32 {
        self.ticks.load(Ordering::Relaxed)
    }

    /// The same body, whose bytes count as unsent from when the HTTP library has them until the kernel does.
    pub(super) fn counted(self: &Arc<Self>, body: Body) -> Body {
        if body.is_end_stream() { body } else { Body::new(Counted { body, traffic: self.clone() }) }
    }

    /// Resolves when the connection is to be given up.
    pub(super) async fn given_up(&self, limits: &ConnectionLimits) -> Cut {
        let mut patience = Patience::default();
        loop {
            tokio::time::sleep(TICK).await;
            let ticks = self.ticks.fetch_add(1, Ordering::Relaxed).saturating_add(1);
            if let Some(cut) = patience.look(TICK * ticks, self.seen(), self.backlog.is_full(), limits) {
                return cut;
            }
        }
    }

    fn seen(&self) -> Seen {
        Seen {
            begun: self.begun.load(Ordering::Relaxed),
            is_asked: self.in_flight.load(Ordering::Relaxed) > 0,
            owes: self.is_blocked.load(Ordering::Relaxed) || self.unsent.load(Ordering::Relaxed) > 0,
            written: self.written(),
        }
    }
}

/// What is seen of a connection at a moment.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// Requests so far.
    begun: usize,
    /// Whether one is being answered.
    is_asked: bool,
    /// Whether an answer waits for the client to read.
    owes: bool,
    /// Bytes that the client took so far.
    written: u64,
}

/// How long nothing has happened in a connection. Times are since it was accepted.
#[derive(Debug, Default)]
struct Patience {
    begun: usize,
    /// Bytes that the client had taken when it last took enough to count, and when that was.
    written: u64,
    read_at: Duration,
    /// When something was last asked, answered or read.
    active_at: Duration,
}

impl Patience {
    fn look(&mut self, now: Duration, seen: Seen, is_full: bool, limits: &ConnectionLimits) -> Option<Cut> {
        let reads = seen.written >= self.written.saturating_add(READ_BYTES_MIN);
        if reads || !seen.owes {
            (self.written, self.read_at) = (seen.written, now);
        }
        if reads || seen.is_asked || seen.begun != self.begun {
            (self.begun, self.active_at) = (seen.begun, now);
        }
        let unread_timeout = if is_full { limits.unread_timeout_when_full } else { limits.unread_timeout };
        if now.saturating_sub(self.read_at) >= unread_timeout {
            return Some(Cut::Unread);
        }
        (now.saturating_sub(self.active_at) >= limits.idle_timeout).then_some(Cut::Idle)
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(super) struct InFlight(Arc<Traffic>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A body whose parts are counted until they are dropped.
struct Counted {
    body: Body,
    traffic: Arc<Traffic>,
}

impl hyper::body::Body for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        Poll::Ready(
            frame.map(|frame| frame.map(|frame| frame.map_data(|data| Part::counted(data, self.traffic.clone())))),
        )
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A part of an answer that counts until it is dropped.
struct Part {
    data: Bytes,
    /// Bytes that are kept for this answer alone.
    own_bytes: usize,
    traffic: Arc<Traffic>,
}

impl Part {
    fn counted(data: Bytes, traffic: Arc<Traffic>) -> Bytes {
        // What is part of the program, or of a cache, takes no memory of its own.
        let own_bytes = if data.is_unique() { data.len() } else { 0 };
        traffic.unsent.fetch_add(1, Ordering::Relaxed);
        traffic.backlog.unsent_bytes.fetch_add(own_bytes, Ordering::Relaxed);
        Bytes::from_owner(Self { data, own_bytes, traffic })
    }
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.traffic.unsent.fetch_sub(1, Ordering::Relaxed);
        self.traffic.backlog.unsent_bytes.fetch_sub(self.own_bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ConnectionLimits = ConnectionLimits::PUBLIC;

    /// When a connection is given up on which `seen` is seen at each tick, and why.
    fn given_up(is_full: bool, seen: impl Fn(u32) -> Seen) -> Option<(Duration, Cut)> {
        let mut patience = Patience::default();
        (1..1_000).find_map(|tick| {
            let now = TICK * tick;
            patience.look(now, seen(tick), is_full, &LIMITS).map(|cut| (now, cut))
        })
    }

    #[test]
    fn a_connection_on_which_nothing_happens_is_given_up() {
        assert_eq!(given_up(false, |_| Seen::default()), Some((LIMITS.idle_timeout, Cut::Idle)));
        let asked_once = given_up(false, |tick| Seen { begun: usize::from(tick > 2), ..Seen::default() });
        assert_eq!(asked_once, Some((LIMITS.idle_timeout + TICK * 3, Cut::Idle)));
        let pings = given_up(false, |tick| Seen { written: u64::from(tick) * 17, ..Seen::default() });
        assert_eq!(pings, Some((LIMITS.idle_timeout, Cut::Idle)));
    }

    #[test]
    fn a_client_that_does_not_read_is_given_up_whatever_else_it_does() {
        let seen = |tick: u32| Seen { begun: tick as usize, is_asked: true, owes: true, written: 0 };
        assert_eq!(given_up(false, seen), Some((LIMITS.unread_timeout, Cut::Unread)));
        assert_eq!(given_up(true, seen), Some((LIMITS.unread_timeout_when_full, Cut::Unread)));
        let trickle = |tick: u32| Seen { written: u64::from(tick) * 100, ..seen(tick) };
        assert_eq!(given_up(false, trickle), Some((LIMITS.unread_timeout, Cut::Unread)));
    }

    #[test]
    fn a_client_that_asks_or_reads_is_kept() {
        assert_eq!(given_up(false, |tick| Seen { begun: tick as usize, ..Seen::default() }), None);
        assert_eq!(given_up(false, |_| Seen { is_asked: true, ..Seen::default() }), None);
        let slow = |tick: u32| Seen { owes: true, written: u64::from(tick) * READ_BYTES_MIN, ..Seen::default() };
        assert_eq!(given_up(false, slow), None);
        assert_eq!(given_up(true, slow), None);
    }

    #[tokio::test]
    async fn bytes_count_as_unsent_until_they_are_dropped_unless_others_share_them() {
        use http_body_util::BodyExt;
        let backlog = Arc::new(Backlog::register(&Registry::new()).unwrap());
        let traffic = Traffic::new(backlog.clone());
        let shared = Bytes::from(vec![1; 10_000]);
        for (bytes, own) in [
            (Bytes::from(vec![1; 10_000]), 10_000),
            (shared.clone(), 0),
            (Bytes::from_static(b"part of the program"), 0),
        ] {
            let mut body = traffic.counted(Body::from(bytes.clone()));
            drop(bytes);
            let data = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert!(traffic.seen().owes);
            assert_eq!(backlog.unsent_bytes.load(Ordering::Relaxed), own);
            let part = data.slice(3..5);
            drop(data);
            assert!(traffic.seen().owes);
            drop(part);
            assert!(!traffic.seen().owes);
            assert_eq!(backlog.unsent_bytes.load(Ordering::Relaxed), 0);
        }
        assert!(traffic.counted(Body::empty()).is_end_stream());
        drop(shared);
    }
}
