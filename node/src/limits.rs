//! Rate limits: how often one caller may use one endpoint.
//!
//! Takes who asks, for what, under which rule, and when; gives whether it may, and the figures for the `RateLimit-*`
//! headers. Nodes that share a Redis Cluster count together, and exactly ([`redis`]).
//!
//! A node by itself has a sliding window counted in two fixed ones: the window before this one counts in proportion to how
//! much of it the sliding window still covers. That needs two numbers a caller instead of a list of moments. It lets
//! through less than twice the limit in any window at worst (a burst at the edge of one), and the limit or one more once
//! traffic has been steady for a window. ("How we built rate limiting capable of scaling to millions of domains",
//! Cloudflare 2017.)

pub mod guesses;
pub mod memory;
pub mod networks;
pub mod redis;
#[cfg(test)]
mod tests;
pub mod unknown_codes;

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use ipnet::IpNet;

use self::memory::MemoryLimits;
use self::networks::{Level, networks};
use self::redis::RedisLimits;
use crate::store::accounts::UserId;

/// The largest number of requests in a rule: what is above it limits nobody.
pub const LIMIT_REQUESTS_MAX: u32 = 1_000_000;

/// The longest window of a rule. Counters are kept in memory, so that a longer one would not outlive a restart anyway.
pub const LIMIT_WINDOW_MAX: Duration = Duration::from_hours(24);

/// The largest factor of [`LimitRule::times`].
pub const FACTOR_MAX: u32 = 256;
const _: () = assert!(LIMIT_REQUESTS_MAX < u32::MAX / FACTOR_MAX);

/// So many requests in so long a window, on average and with bursts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitRule {
    requests: u32,
    window_ms: u64,
}

/// A rule that makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a rate limit is 1 to {LIMIT_REQUESTS_MAX} requests in 1 to {} seconds", LIMIT_WINDOW_MAX.as_secs())]
pub struct LimitRuleError;

impl LimitRule {
    /// `requests` in each `window`.
    pub fn new(requests: u32, window: Duration) -> Result<Self, LimitRuleError> {
        let window_holds = (Duration::from_secs(1)..=LIMIT_WINDOW_MAX).contains(&window);
        if !window_holds || !(1..=LIMIT_REQUESTS_MAX).contains(&requests) {
            return Err(LimitRuleError);
        }
        let window_ms = u64::try_from(window.as_millis()).map_err(|_| LimitRuleError)?;
        Ok(Self { requests, window_ms })
    }

    /// How many requests.
    pub fn requests(&self) -> u32 {
        self.requests
    }

    /// `factor` times as many requests in the same window.
    #[must_use]
    pub fn times(self, factor: u32) -> Self {
        Self { requests: self.requests.saturating_mul(factor.clamp(1, FACTOR_MAX)), ..self }
    }

    /// In how long.
    pub fn window(&self) -> Duration {
        Duration::from_millis(self.window_ms)
    }
}

/// Who is counted.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subject {
    /// Who signed in.
    User(UserId),
    /// Who did not: an IPv4 address, or the /64 that one household or machine has of IPv6 (the rest of it is zero).
    Address(IpAddr),
    /// All who are in one network.
    Network(IpNet),
}

impl Subject {
    /// The subject of a client address.
    pub fn of_address(address: IpAddr) -> Self {
        Self::Address(match address.to_canonical() {
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
            }
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

impl fmt::Display for Subject {
    /// As it stands in a key of a cache: `u7340032`, `a192.0.2.1`, `a2001:db8::`, `n192.0.2.0/24`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(id) => write!(f, "u{id}"),
            Self::Address(address) => write!(f, "a{address}"),
            Self::Network(network) => write!(f, "n{network}"),
        }
    }
}

impl fmt::Debug for Subject {
    /// Without the address: none stands whole in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(id) => write!(f, "User({id})"),
            Self::Address(_) => f.write_str("Address(…)"),
            Self::Network(_) => f.write_str("Network(…)"),
        }
    }
}

/// What is counted of one subject at one endpoint: the requests let through in two fixed windows. Those refused do not
/// count, so that who keeps trying gets in as soon as who waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Which window `current` is of: the time divided by the window.
    pub window: u64,
    /// Let through in that window.
    pub current: u32,
    /// Let through in the window before it.
    pub previous: u32,
}

/// Whether a request may pass, and what its answer's headers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether it may.
    pub allowed: bool,
    /// `RateLimit-Limit`: the rule's number of requests.
    pub limit: u32,
    /// `RateLimit-Remaining`: how many more would pass right now.
    pub remaining: u32,
    /// `RateLimit-Reset`: seconds until this fixed window ends and the count begins to fall; 1 to the window.
    pub reset_s: u64,
    /// `Retry-After`: seconds until one request passes, if nothing else is asked; 0 when this one did.
    pub retry_after_s: u64,
}

/// Decides on one request at `now_ms` (of any clock), and gives the counters with it counted.
pub fn decide(counters: Counters, rule: LimitRule, now_ms: u64) -> (Counters, Decision) {
    decide_units(counters, rule, 1, now_ms)
}

/// The same for a request that counts as `units`.
pub fn decide_units(counters: Counters, rule: LimitRule, units: u32, now_ms: u64) -> (Counters, Decision) {
    let window_ms = rule.window_ms;
    let (mut counters, elapsed_ms) = slide(counters, window_ms, now_ms);
    let covered_ms = window_ms - elapsed_ms;
    // In requests times milliseconds, so that nothing is rounded: below 2 · 256 · 10^6 · 8.64 · 10^7 < 2^63.
    let limit = u64::from(rule.requests) * window_ms;
    let used = |counters: Counters| u64::from(counters.previous) * covered_ms + u64::from(counters.current) * window_ms;
    // What would never pass passes when all is free.
    let units = units.clamp(1, rule.requests);
    let allowed = used(counters) + u64::from(units) * window_ms <= limit;
    let retry_after_ms = if allowed { 0 } else { wait_ms(counters, rule, units, elapsed_ms) };
    if allowed {
        counters.current += units;
    }
    let remaining = limit.saturating_sub(used(counters)) / window_ms;
    let decision = Decision {
        allowed,
        limit: rule.requests,
        remaining: u32::try_from(remaining).unwrap_or(u32::MAX),
        reset_s: covered_ms.div_ceil(1000),
        retry_after_s: retry_after_ms.div_ceil(1000),
    };
    (counters, decision)
}

/// The counters as they are in the window of `now_ms`, and how far into it that is. A clock that went back stands at the
/// window's beginning.
fn slide(counters: Counters, window_ms: u64, now_ms: u64) -> (Counters, u64) {
    let (window, elapsed_ms) = (now_ms / window_ms, now_ms % window_ms);
    match window.checked_sub(counters.window) {
        None => (counters, 0),
        Some(0) => (counters, elapsed_ms),
        Some(1) => (Counters { window, current: 0, previous: counters.current }, elapsed_ms),
        Some(_) => (Counters { window, current: 0, previous: 0 }, elapsed_ms),
    }
}

/// How long until `units` fit, which are not more than the limit, counted from `elapsed_ms` into the counters' window.
fn wait_ms(counters: Counters, rule: LimitRule, units: u32, elapsed_ms: u64) -> u64 {
    let (window_ms, limit, units) = (rule.window_ms, u64::from(rule.requests), u64::from(units));
    // The first moment of a window at which `before`, fading, leaves room for them beside `counted`.
    let room_at_ms = |before: u64, counted: u64| {
        let free = (limit - counted - units) * window_ms;
        free.checked_div(before).map_or(0, |fades_ms| window_ms.saturating_sub(fades_ms))
    };
    let (current, previous) = (u64::from(counters.current), u64::from(counters.previous));
    if current + units <= limit {
        room_at_ms(previous, current).saturating_sub(elapsed_ms)
    } else {
        window_ms - elapsed_ms + room_at_ms(current, 0)
    }
}

/// The counters of all subjects, wherever they are kept.
#[derive(Debug)]
pub enum Limits {
    /// In this process.
    Memory(MemoryLimits),
    /// In a cluster that nodes share.
    Redis(RedisLimits),
}

impl Limits {
    /// Counts one request of `subject` to `endpoint` and decides on it.
    pub async fn take(&self, subject: Subject, endpoint: &'static str, rule: LimitRule) -> Decision {
        self.take_units(subject, endpoint, rule, 1).await
    }

    /// The same of a request that counts as `units`: all of them, or none where fewer are left.
    pub async fn take_units(&self, subject: Subject, endpoint: &'static str, rule: LimitRule, units: u32) -> Decision {
        match self {
            Self::Memory(limits) => limits.take_units(subject, endpoint, rule, units),
            Self::Redis(limits) => limits.take(subject, endpoint, rule, units).await,
        }
    }

    /// Counts one request of an address, and of each network that it is part of, narrowest first: a wider one may use more
    /// ([`networks()`]). The first to have had enough refuses it; those before it have counted it.
    pub async fn take_nested(&self, address: IpAddr, endpoint: &'static str, rule: LimitRule) -> Decision {
        let mut decision = self.take(Subject::of_address(address), endpoint, rule).await;
        for (network, Level { limit_factor, .. }) in networks(address).skip(1) {
            if !decision.allowed {
                break;
            }
            let of_network = self.take(Subject::Network(network), endpoint, rule.times(limit_factor)).await;
            if !of_network.allowed || of_network.remaining < decision.remaining {
                decision = of_network;
            }
        }
        decision
    }

    /// Gives back one request of `subject` that turned out not to count. Its networks keep it.
    pub async fn give_back(&self, subject: Subject, endpoint: &'static str, rule: LimitRule) {
        match self {
            Self::Memory(limits) => limits.give_back(subject, endpoint),
            Self::Redis(limits) => limits.give_back(subject, endpoint, rule).await,
        }
    }
}
