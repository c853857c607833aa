//! Slows an address that asks for many unknown codes: somebody who tries out codes, or a crawler that is lost.
//!
//! Redirects have no rate limit, but an unknown code costs a read of the store and tells whoever tries codes that it was
//! none. So unknown codes are counted by address, and past the limit that address gets 429 for every code that is not in
//! this node's cache, known or not: were known ones still answered, 429 would say "unknown" just as well as 404. What many
//! people click is in the cache and goes on, also for those who share the address. Counted in this process only: nothing
//! is counted remotely before a redirect's answer leaves.

use std::time::Duration;

use super::memory::MemoryLimits;
use super::{LimitRule, LimitRuleError, Subject};
use crate::ambient::Clock;

/// How many unknown codes an address may ask for in [`UNKNOWN_CODES_WINDOW`]: a page of dead links, but no search.
pub const UNKNOWN_CODES_MAX: u32 = 60;

/// In how long.
pub const UNKNOWN_CODES_WINDOW: Duration = Duration::from_mins(1);

/// The name that they are counted under.
const ENDPOINT: &str = "unknown-code";

/// Unknown codes by address.
#[derive(Debug)]
pub struct UnknownCodes {
    limits: MemoryLimits,
    rule: LimitRule,
}

impl UnknownCodes {
    /// With the limits above.
    pub fn new(clock: Clock) -> Result<Self, LimitRuleError> {
        Ok(Self { limits: MemoryLimits::new(clock), rule: LimitRule::new(UNKNOWN_CODES_MAX, UNKNOWN_CODES_WINDOW)? })
    }

    /// To be asked before the store is: `Err` is the `Retry-After` of a 429, in seconds.
    pub fn check(&self, subject: Subject) -> Result<(), u64> {
        let decision = self.limits.peek(subject, ENDPOINT, self.rule);
        if decision.allowed { Ok(()) } else { Err(decision.retry_after_s) }
    }

    /// Counts a code that the store did not know.
    pub fn count(&self, subject: Subject) {
        self.limits.take(subject, ENDPOINT, self.rule);
    }
}
