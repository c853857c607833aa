//! Whether to ask for a commit in one phase, which a store may decline: for some time after its leader changed, say.
//!
//! The client (0.4) takes that for the end of the transaction, although two phases would do. It is begun again without asking, and
//! for a while so are all others: a store that declined one declines the next.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::ambient::Clock;

/// How long a store that declined is not asked again. Two phases cost a round trip more, which is little for so long.
const PAUSE: Duration = Duration::from_secs(5);

/// When a store last declined.
#[derive(Debug)]
pub(super) struct OnePhase {
    clock: Clock,
    /// Milliseconds of the monotonic clock until which nobody is to ask.
    paused_until_ms: AtomicU64,
}

impl OnePhase {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, paused_until_ms: AtomicU64::new(0) }
    }

    /// Whether to ask.
    pub(super) fn is_worth_trying(&self) -> bool {
        self.clock.monotonic() >= Duration::from_millis(self.paused_until_ms.load(Ordering::Relaxed))
    }

    /// A store declined.
    pub(super) fn declined(&self) {
        let until = (self.clock.monotonic() + PAUSE).as_millis();
        self.paused_until_ms.fetch_max(u64::try_from(until).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ambient::UnixMs;

    #[test]
    fn a_store_that_declined_is_asked_again_after_a_pause() {
        let clock = Clock::manual(UnixMs(0));
        let one_phase = OnePhase::new(clock.clone());
        assert!(one_phase.is_worth_trying());
        one_phase.declined();
        assert!(!one_phase.is_worth_trying());
        clock.advance(PAUSE);
        assert!(one_phase.is_worth_trying());
    }
}
