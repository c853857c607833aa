//! The one door to what no function can compute: the clock and randomness.
//!
//! Everything else takes `now` as a [`UnixMs`] or holds a [`Clock`] that it was given, so that a test can stand still or
//! jump. `clippy.toml` forbids the standard library's own clocks outside this file.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A moment of wall time: milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixMs(pub u64);

impl UnixMs {
    /// This moment plus `span`; stays at the largest moment instead of wrapping.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }

    /// This moment minus `span`; stays at the epoch instead of wrapping.
    #[must_use]
    pub fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier` this moment is; zero when it is not after it.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for UnixMs {
    /// RFC 3339 UTC with milliseconds: `2026-01-31T09:30:00.000Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = i64::try_from(self.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        write!(f, "{:.3}", at.unwrap_or(jiff::Timestamp::MAX))
    }
}

/// Wall and monotonic time; cheap to clone. [`Clock::manual`] gives one that a test moves by hand.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System { started: Instant },
    Manual { wall_ms: Arc<AtomicU64>, monotonic_ms: Arc<AtomicU64> },
}

impl Clock {
    /// The machine's clocks.
    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    pub fn system() -> Self {
        Self(Source::System { started: Instant::now() })
    }

    /// A clock that stands at `start` until [`Clock::advance`] or [`Clock::jump_to`] moves it.
    pub fn manual(start: UnixMs) -> Self {
        Self(Source::Manual { wall_ms: Arc::new(AtomicU64::new(start.0)), monotonic_ms: Arc::new(AtomicU64::new(0)) })
    }

    /// Wall time. It may go backwards when somebody sets the machine's clock.
    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    pub fn now(&self) -> UnixMs {
        match &self.0 {
            Source::System { .. } => {
                let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                UnixMs(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
            }
            Source::Manual { wall_ms, .. } => UnixMs(wall_ms.load(Ordering::SeqCst)),
        }
    }

    /// Time since the clock was made; never goes backwards.
    pub fn monotonic(&self) -> Duration {
        match &self.0 {
            Source::System { started } => started.elapsed(),
            Source::Manual { monotonic_ms, .. } => Duration::from_millis(monotonic_ms.load(Ordering::SeqCst)),
        }
    }

    /// Moves a manual clock on, wall and monotonic; a system clock moves by itself and ignores this.
    pub fn advance(&self, span: Duration) {
        if let Source::Manual { wall_ms, monotonic_ms } = &self.0 {
            let span_ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
            wall_ms.fetch_add(span_ms, Ordering::SeqCst);
            monotonic_ms.fetch_add(span_ms, Ordering::SeqCst);
        }
    }

    /// Sets a manual clock's wall time, forwards or back; its monotonic time stays. A system clock ignores this.
    pub fn jump_to(&self, now: UnixMs) {
        if let Source::Manual { wall_ms, .. } = &self.0 {
            wall_ms.store(now.0, Ordering::SeqCst);
        }
    }
}

/// Bytes from the operating system's cryptographic generator.
///
/// # Panics
/// When the operating system has no randomness to give: nothing that needs it could go on safely.
#[expect(clippy::disallowed_methods, clippy::expect_used, reason = "this is the door; no secret can be made without")]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_print_as_rfc_3339_with_milliseconds() {
        assert_eq!(UnixMs(1_769_851_800_000).to_string(), "2026-01-31T09:30:00.000Z");
        assert_eq!(UnixMs(1_769_851_800_007).to_string(), "2026-01-31T09:30:00.007Z");
    }

    #[test]
    fn a_manual_clock_moves_only_by_hand_and_its_monotonic_time_never_goes_back() {
        let clock = Clock::manual(UnixMs(10_000));
        clock.advance(Duration::from_millis(5));
        clock.jump_to(UnixMs(1));
        assert_eq!((clock.now(), clock.monotonic()), (UnixMs(1), Duration::from_millis(5)));
    }
}
