//! Rate limits in this process: a table of counters, bounded, behind locks by shard.

use quick_cache::sync::{Cache, EntryAction, EntryResult};

use super::{Counters, Decision, LimitRule, Subject, decide, decide_units};
use crate::ambient::Clock;

/// The most counters that are kept, at about a hundred bytes each. When more callers than this are about within a window,
/// the least active are forgotten and start anew: better than to run out of memory, or to refuse strangers.
pub const COUNTERS_MAX: usize = 100_000;

/// Counters by subject and endpoint.
#[derive(Debug)]
pub struct MemoryLimits {
    counters: Cache<(Subject, &'static str), Counters>,
    clock: Clock,
}

impl MemoryLimits {
    /// An empty table of at most [`COUNTERS_MAX`] counters.
    pub fn new(clock: Clock) -> Self {
        Self { counters: Cache::new(COUNTERS_MAX), clock }
    }

    /// Counts one request and decides on it; of requests at the same time exactly as many pass as the rule says.
    pub fn take(&self, subject: Subject, endpoint: &'static str, rule: LimitRule) -> Decision {
        self.take_units(subject, endpoint, rule, 1)
    }

    /// The same for a request that counts as `units`.
    pub fn take_units(&self, subject: Subject, endpoint: &'static str, rule: LimitRule, units: u32) -> Decision {
        let now_ms = self.now_ms();
        let entry = self.counters.entry(&(subject, endpoint), None, |_, counters| {
            let (counted, decision) = decide_units(*counters, rule, units, now_ms);
            *counters = counted;
            EntryAction::Retain(decision)
        });
        match entry {
            EntryResult::Retained(decision) => decision,
            EntryResult::Vacant(guard) => {
                let (counted, decision) = decide_units(Counters::default(), rule, units, now_ms);
                // An error is a table that was emptied meanwhile; then this request is forgotten with the others.
                let _ = guard.insert(counted);
                decision
            }
            // The closure neither removes nor replaces, and there is no timeout.
            EntryResult::Removed(..) | EntryResult::Replaced(..) | EntryResult::Timeout => {
                decide_units(Counters::default(), rule, units, now_ms).1
            }
        }
    }

    /// Gives back one request that was counted a moment ago.
    pub fn give_back(&self, subject: Subject, endpoint: &'static str) {
        // Vacant: its counters are forgotten already.
        let _ = self.counters.entry(&(subject, endpoint), None, |_, counters| {
            counters.current = counters.current.saturating_sub(1);
            EntryAction::Retain(())
        });
    }

    /// What [`take`](Self::take) would decide on one request, without counting.
    pub fn peek(&self, subject: Subject, endpoint: &'static str, rule: LimitRule) -> Decision {
        let counters = self.counters.get(&(subject, endpoint)).unwrap_or_default();
        decide(counters, rule, self.now_ms()).1
    }

    /// How many counters are kept.
    pub fn len(&self) -> usize {
        self.counters.len()
    }

    /// Whether nobody has asked for anything yet.
    pub fn is_empty(&self) -> bool {
        self.counters.is_empty()
    }

    /// Monotonic: nobody gets a fresh window by the machine's clock being set.
    fn now_ms(&self) -> u64 {
        u64::try_from(self.clock.monotonic().as_millis()).unwrap_or(u64::MAX)
    }
}
