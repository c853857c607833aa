//! When a back end is left alone: pure, one attempt or probe at a time.
//!
//! It opens when nearly all of the last few seconds' calls failed, or a few probes in a row; one probe that succeeds closes
//! it. A part of a back end that is gone (one of three stores) must not cut off the rest, so failures have to be nearly all.

use std::time::Duration;

/// The calls of this long are looked at, in two halves: the current one, and the one before it.
const WINDOW_HALF: Duration = Duration::from_secs(2);
/// Fewer calls than this say nothing.
const CALLS_MIN: u32 = 10;
/// It opens when fewer than one call in this many succeeded.
const SUCCESSES_ONE_IN: u32 = 5;
/// It opens after so many failed probes in a row: one may be lost by chance.
const PROBES_FAILED_MAX: u32 = 3;

#[derive(Clone, Copy, Debug, Default)]
struct Calls {
    made: u32,
    answered: u32,
}

/// The breaker of one back end; closed at first.
#[derive(Clone, Debug, Default)]
pub struct Breaker {
    is_open: bool,
    half: u64,
    current: Calls,
    previous: Calls,
    probes_failed: u32,
}

impl Breaker {
    /// Whether calls may be made.
    pub fn admits(&self) -> bool {
        !self.is_open
    }

    /// Takes note of a call at `now` (monotonic).
    pub fn called(&mut self, is_answered: bool, now: Duration) {
        self.slide(now);
        self.current.made += 1;
        self.current.answered += u32::from(is_answered);
        let (made, answered) = (self.current.made + self.previous.made, self.current.answered + self.previous.answered);
        if made >= CALLS_MIN && answered < made.div_ceil(SUCCESSES_ONE_IN) {
            self.is_open = true;
        }
    }

    /// Takes note of a probe at `now` (monotonic). One that succeeds begins a new account.
    pub fn probed(&mut self, is_up: bool, now: Duration) {
        self.slide(now);
        if !is_up {
            self.probes_failed += 1;
            self.is_open |= self.probes_failed >= PROBES_FAILED_MAX;
        } else if self.is_open {
            *self = Self { half: self.half, ..Self::default() };
        } else {
            self.probes_failed = 0;
        }
    }

    fn slide(&mut self, now: Duration) {
        let half = u64::try_from(now.as_millis() / WINDOW_HALF.as_millis()).unwrap_or(u64::MAX);
        match half.saturating_sub(self.half) {
            0 => return,
            1 => self.previous = std::mem::take(&mut self.current),
            _ => (self.previous, self.current) = (Calls::default(), Calls::default()),
        }
        self.half = half;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT_START: Duration = Duration::ZERO;

    fn breaker_after(calls: &[(bool, u32)]) -> Breaker {
        let mut breaker = Breaker::default();
        for &(is_answered, times) in calls {
            (0..times).for_each(|_| breaker.called(is_answered, AT_START));
        }
        breaker
    }

    #[test]
    fn it_opens_when_nearly_all_calls_fail_and_not_before() {
        let check = |calls: &[(bool, u32)], admits| assert_eq!(breaker_after(calls).admits(), admits, "{calls:?}");
        check(&[(false, 9)], true);
        check(&[(false, 10)], false);
        check(&[(true, 100), (false, 300)], true);
        check(&[(true, 10), (false, 41)], false);
    }

    #[test]
    fn what_is_long_past_does_not_count() {
        let mut breaker = breaker_after(&[(false, 9)]);
        breaker.called(false, 3 * WINDOW_HALF);
        assert!(breaker.admits());
        let mut breaker = breaker_after(&[(true, 1_000)]);
        for _ in 0..10 {
            breaker.called(false, 3 * WINDOW_HALF);
        }
        assert!(!breaker.admits(), "former successes do not keep it closed");
    }

    #[test]
    fn probes_open_and_close_it_without_any_call() {
        let mut breaker = Breaker::default();
        for failed in [true, true] {
            breaker.probed(!failed, AT_START);
        }
        breaker.probed(true, AT_START);
        breaker.probed(false, AT_START);
        breaker.probed(false, AT_START);
        assert!(breaker.admits(), "not three in a row");
        breaker.probed(false, AT_START);
        assert!(!breaker.admits());
        breaker.probed(true, AT_START);
        assert!(breaker.admits());
    }

    #[test]
    fn after_it_closed_the_failures_that_opened_it_are_forgotten() {
        let mut breaker = breaker_after(&[(false, 50)]);
        breaker.probed(true, AT_START);
        breaker.called(false, AT_START);
        assert!(breaker.admits());
    }
}
