//! Rate limits that nodes share: the moments of the requests let through, in Redis, by Redis' own clock.
//!
//! One script a request: it forgets what is older than the window, counts the rest, and adds the request if there is room. So
//! a window that slides by the millisecond lets through exactly the limit, through however many nodes. When Redis is away each
//! node applies the same rules by itself.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::memory::MemoryLimits;
use super::{Decision, LimitRule, Subject};
use crate::ambient::random;
use crate::cache::redis_cluster::keys::Keys;
use crate::cache::redis_cluster::{RedisCluster, RedisFailure, Script};

/// The largest limit that is kept in Redis, in which a request let through takes about a hundred bytes for a window. One that
/// is higher is there against accidents, and each node keeps it by itself.
pub const SHARED_REQUESTS_MAX: u32 = 10_000;
/// Bytes that tell a caller from others in a key.
const CALLER_BYTES: usize = 16;

/// `ARGV`: the limit, the window in milliseconds, a name for the request, by which it counts once however often it is sent, and as how
/// many requests it counts. Answers whether it may pass, how many have passed within the window, and in how many milliseconds the
/// oldest leaves it, or so many that this one fits.
static TAKE: Script = Script::new(
    "local time = redis.call('TIME') \
     local now = time[1] * 1000 + math.floor(time[2] / 1000) \
     local limit, window, units = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[4]) \
     redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - window) \
     local used = redis.call('ZCARD', KEYS[1]) \
     local allowed = redis.call('ZSCORE', KEYS[1], ARGV[3]) and 1 or 0 \
     if allowed == 0 and used + units <= limit then \
       redis.call('ZADD', KEYS[1], now, ARGV[3]) \
       for unit = 2, units do redis.call('ZADD', KEYS[1], now, ARGV[3] .. unit) end \
       redis.call('PEXPIRE', KEYS[1], window) \
       allowed, used = 1, used + units \
     end \
     local leaves = allowed == 1 and 0 or used + units - limit - 1 \
     local oldest = redis.call('ZRANGE', KEYS[1], leaves, leaves, 'WITHSCORES') \
     return {allowed, used, oldest[2] + window - now}",
);

/// Lets the newest request leave the window: one is like another.
static GIVE_BACK: Script = Script::new(
    "local newest = redis.call('ZRANGE', KEYS[1], -1, -1) \
     if newest[1] then redis.call('ZADD', KEYS[1], 'XX', 0, newest[1]) end \
     return 0",
);

/// Counters in Redis.
#[derive(Debug)]
pub struct RedisLimits {
    redis: RedisCluster,
    alone: MemoryLimits,
}

impl RedisLimits {
    /// Counts in `redis`, and in `alone` while that is away.
    pub fn new(redis: RedisCluster, alone: MemoryLimits) -> Self {
        Self { redis, alone }
    }

    /// Counts a request as `units` and decides on it.
    pub async fn take(&self, subject: Subject, endpoint: &'static str, rule: LimitRule, units: u32) -> Decision {
        if rule.requests() > SHARED_REQUESTS_MAX {
            return self.alone.take_units(subject, endpoint, rule, units);
        }
        match self.take_shared(subject, endpoint, rule, units).await {
            Ok(decision) => decision,
            Err(error) => {
                tracing::debug!(%error, "a rate limit is kept by this node alone");
                self.alone.take_units(subject, endpoint, rule, units)
            }
        }
    }

    /// Gives back one request that was counted a moment ago.
    pub async fn give_back(&self, subject: Subject, endpoint: &'static str, rule: LimitRule) {
        if rule.requests() > SHARED_REQUESTS_MAX {
            self.alone.give_back(subject, endpoint);
        } else if let Err(error) = self.give_back_shared(subject, endpoint).await {
            tracing::debug!(%error, "a request is given back by this node alone");
            self.alone.give_back(subject, endpoint);
        }
    }

    async fn give_back_shared(&self, subject: Subject, endpoint: &'static str) -> Result<(), RedisFailure> {
        let keys = self.redis.keys()?;
        let key = keys.rate_limit(&caller(keys, subject), endpoint);
        self.redis.run::<u64>(&GIVE_BACK, &key, |_| {}).await.map(drop)
    }

    async fn take_shared(
        &self,
        subject: Subject,
        endpoint: &'static str,
        rule: LimitRule,
        units: u32,
    ) -> Result<Decision, RedisFailure> {
        let keys = self.redis.keys()?;
        let key = keys.rate_limit(&caller(keys, subject), endpoint);
        let request: [u8; 12] = random();
        let arguments = |script: &mut redis::Cmd| {
            script
                .arg(rule.requests())
                .arg(rule.window_ms)
                .arg(request.as_slice())
                .arg(units.clamp(1, rule.requests()));
        };
        let (allowed, used, oldest_leaves_ms) = self.redis.run(&TAKE, &key, arguments).await?;
        Ok(decision(rule, allowed, used, oldest_leaves_ms))
    }
}

/// Who is counted, so that no address stands in Redis: a hash that is another in every keyspace.
fn caller(keys: Keys, subject: Subject) -> String {
    // HMAC takes keys of any length, so this does not fail.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&keys.identity().to_be_bytes()) else { return String::new() };
    mac.update(subject.to_string().as_bytes());
    hex::encode(mac.finalize().into_bytes().first_chunk::<CALLER_BYTES>().unwrap_or(&[0; CALLER_BYTES]))
}

/// What the script's answer means.
fn decision(rule: LimitRule, allowed: bool, used: u32, oldest_leaves_ms: u64) -> Decision {
    let reset_s = oldest_leaves_ms.clamp(1, rule.window_ms).div_ceil(1_000);
    Decision {
        allowed,
        limit: rule.requests(),
        remaining: rule.requests().saturating_sub(used),
        reset_s,
        retry_after_s: if allowed { 0 } else { reset_s },
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_answer_says_what_is_left_and_when_the_oldest_leaves() {
        let rule = LimitRule::new(3, Duration::from_mins(1)).unwrap();
        let said = |allowed, remaining, reset_s, retry_after_s| Decision {
            allowed,
            limit: 3,
            remaining,
            reset_s,
            retry_after_s,
        };
        assert_eq!(decision(rule, true, 1, 60_000), said(true, 2, 60, 0));
        assert_eq!(decision(rule, true, 3, 1_001), said(true, 0, 2, 0));
        assert_eq!(decision(rule, false, 3, 1), said(false, 0, 1, 1));
        assert_eq!(decision(rule, false, 3, 0), said(false, 0, 1, 1));
    }

    #[test]
    fn a_caller_is_another_in_another_keyspace_and_shows_no_address() {
        let subject = Subject::of_address([192, 0, 2, 1].into());
        let [one, other] = [1, 2].map(|identity| caller(Keys::of(identity), subject));
        assert_ne!(one, other);
        assert_eq!(one.len(), 2 * CALLER_BYTES);
        assert_ne!(one, caller(Keys::of(1), Subject::of_address([192, 0, 2, 2].into())));
    }
}
