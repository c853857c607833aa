//! Slows guesses at one account's password, from however many addresses they come.
//!
//! What is counted by address alone lets 120 addresses guess 120 times as fast. So each account has a pace: the first
//! guesses pass at once, and then each has to wait for longer after the one before, up to [`PACE_MAX`]. Those in between
//! are told when to come back. That is a pace and never a lock: it is forgotten an hour after the last guess, who signs in
//! from where the account signed in before does not come by here at all, and neither does a right password count.
//!
//! An address that is not an account's is paced in the same way, so that nobody learns from it who has one.

use std::fmt;
use std::time::Duration;

use quick_cache::sync::{Cache, EntryAction, EntryResult};

use crate::ambient::{Clock, UnixMs};
use crate::cache::redis_cluster::{RedisCluster, RedisFailure, Script};

/// What is counted for a guess from another network than the one before.
const GUESS: u32 = 4;
/// What is counted for a guess from the same network: that network has a limit of its own.
const SAME_NETWORK: u32 = 1;
/// What passes without a pause: ten guesses from ten networks, or what one network may try at once.
const FREE: u32 = 10 * GUESS;
/// The pause after the first guess that is not free. It doubles with each one.
const PACE_MIN: Duration = Duration::from_secs(1);
/// The longest pause: 2,880 guesses a day, however many addresses there are.
pub const PACE_MAX: Duration = Duration::from_secs(30);
/// How long after the last guess all of them are forgotten.
pub const REMEMBERED: Duration = Duration::from_hours(1);
/// The most accounts whose guesses are counted in this process, at about a hundred bytes each.
pub const ACCOUNTS_MAX: usize = 65_536;
/// The endpoint that they are counted under in Redis.
const ENDPOINT: &str = "guess";

/// An account, or what could be one: a keyed hash of its e-mail address.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct AccountTag(pub [u8; 16]);

/// A network, for telling it from the one before: a keyed hash.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct NetworkTag(pub [u8; 8]);

impl fmt::Debug for AccountTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccountTag(…)")
    }
}

impl fmt::Debug for NetworkTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NetworkTag(…)")
    }
}

/// What is known of the guesses at one account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Guesses {
    counted: u32,
    /// When the next one passes.
    next_at: UnixMs,
    /// When the last one passed.
    last_at: UnixMs,
    last_from: NetworkTag,
}

/// Decides on a guess: what is known with it counted, or how long it has to wait.
fn decide(known: Option<Guesses>, from: NetworkTag, now: UnixMs) -> Result<Guesses, Duration> {
    let known = known.filter(|known| now.since(known.last_at) < REMEMBERED);
    if let Some(wait) = known.map(|known| known.next_at.since(now)).filter(|wait| !wait.is_zero()) {
        return Err(wait.min(PACE_MAX));
    }
    let step = if known.is_some_and(|known| known.last_from == from) { SAME_NETWORK } else { GUESS };
    let counted = known.map_or(0, |known| known.counted).saturating_add(step);
    Ok(Guesses { counted, next_at: now.plus(pause(counted)), last_at: now, last_from: from })
}

/// The pause after a guess, with it counted.
fn pause(counted: u32) -> Duration {
    match counted.saturating_sub(FREE).div_ceil(GUESS) {
        0 => Duration::ZERO,
        beyond => PACE_MIN.saturating_mul(2_u32.saturating_pow(beyond - 1)).min(PACE_MAX),
    }
}

/// What is known once a guess turned out right.
fn forgiven(known: Guesses, now: UnixMs) -> Guesses {
    Guesses { counted: known.counted.saturating_sub(GUESS), next_at: now, ..known }
}

/// The guesses at all accounts, wherever they are counted.
#[derive(Debug)]
pub struct GuessLimits {
    alone: MemoryGuesses,
    redis: Option<RedisCluster>,
}

impl GuessLimits {
    /// Counts in `redis` with all nodes; without one, or while it is away, in this process.
    pub fn new(clock: Clock, redis: Option<RedisCluster>) -> Self {
        Self { alone: MemoryGuesses { accounts: Cache::new(ACCOUNTS_MAX), clock }, redis }
    }

    /// Counts a guess at an account. `Err` says how long to wait; then it was not counted.
    pub async fn take(&self, account: AccountTag, from: NetworkTag) -> Result<(), Duration> {
        if let Some(redis) = &self.redis {
            match take_shared(redis, account, from).await {
                Ok(decision) => return decision,
                Err(error) => tracing::debug!(%error, "guesses at an account are counted by this node alone"),
            }
        }
        self.alone.take(account, from)
    }

    /// Says that the last guess was right.
    pub async fn forgive(&self, account: AccountTag) {
        self.alone.forgive(account);
        if let Some(redis) = &self.redis
            && let Err(error) = forgive_shared(redis, account).await
        {
            tracing::debug!(%error, "a right guess at an account stays counted");
        }
    }
}

#[derive(Debug)]
struct MemoryGuesses {
    accounts: Cache<AccountTag, Guesses>,
    clock: Clock,
}

impl MemoryGuesses {
    fn take(&self, account: AccountTag, from: NetworkTag) -> Result<(), Duration> {
        let now = self.now();
        let entry = self.accounts.entry(&account, None, |_, known| {
            let decision = decide(Some(*known), from, now).map(|counted| *known = counted);
            EntryAction::Retain(decision)
        });
        match entry {
            EntryResult::Retained(decision) => decision,
            EntryResult::Vacant(guard) => {
                // An error is a table that was emptied meanwhile; then this guess is forgotten with the others.
                decide(None, from, now).map(|counted| {
                    let _ = guard.insert(counted);
                })
            }
            // The closure neither removes nor replaces, and there is no timeout.
            EntryResult::Removed(..) | EntryResult::Replaced(..) | EntryResult::Timeout => Ok(()),
        }
    }

    fn forgive(&self, account: AccountTag) {
        let now = self.now();
        // Vacant: its guesses are forgotten already.
        let _ = self.accounts.entry(&account, None, |_, known| {
            *known = forgiven(*known, now);
            EntryAction::Retain(())
        });
    }

    /// Monotonic: nobody waits for less by the machine's clock being set.
    fn now(&self) -> UnixMs {
        // From the middle of time, so that what was long ago can be told from the start of the process.
        UnixMs(0).plus(REMEMBERED).plus(self.clock.monotonic())
    }
}

/// `ARGV`: the network, [`FREE`], [`GUESS`], [`SAME_NETWORK`], [`PACE_MIN`], [`PACE_MAX`] and [`REMEMBERED`]. Answers for how long the
/// guess has to wait, in milliseconds: 0 when it passed. The value is what was counted, when the next one passes, and the last network.
static TAKE: Script = Script::new(
    "local time = redis.call('TIME') \
     local now = time[1] * 1000 + math.floor(time[2] / 1000) \
     local known = redis.call('GET', KEYS[1]) or '0:0:' \
     local counted, next_at, last = string.match(known, '^(%d+):(%d+):(.*)$') \
     counted, next_at = tonumber(counted), tonumber(next_at) \
     if next_at > now then return math.min(next_at - now, tonumber(ARGV[6])) end \
     counted = counted + tonumber(last == ARGV[1] and ARGV[4] or ARGV[3]) \
     local beyond = math.min(math.ceil((counted - tonumber(ARGV[2])) / tonumber(ARGV[3])), 32) \
     local pause = 0 \
     if beyond > 0 then pause = math.min(tonumber(ARGV[5]) * 2 ^ (beyond - 1), tonumber(ARGV[6])) end \
     redis.call('SET', KEYS[1], string.format('%d:%d:%s', counted, now + pause, ARGV[1]), 'PX', ARGV[7]) \
     return 0",
);

/// `ARGV`: [`GUESS`] and [`REMEMBERED`].
static FORGIVE: Script = Script::new(
    "local known = redis.call('GET', KEYS[1]) \
     if not known then return 0 end \
     local counted, next_at, last = string.match(known, '^(%d+):(%d+):(.*)$') \
     counted = math.max(tonumber(counted) - tonumber(ARGV[1]), 0) \
     redis.call('SET', KEYS[1], string.format('%d:0:%s', counted, last), 'PX', ARGV[2]) \
     return 0",
);

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

async fn take_shared(
    redis: &RedisCluster,
    account: AccountTag,
    from: NetworkTag,
) -> Result<Result<(), Duration>, RedisFailure> {
    let key = redis.keys()?.rate_limit(&hex::encode(account.0), ENDPOINT);
    let arguments = |script: &mut redis::Cmd| {
        script.arg(hex::encode(from.0)).arg(FREE).arg(GUESS).arg(SAME_NETWORK);
        script.arg(millis(PACE_MIN)).arg(millis(PACE_MAX)).arg(millis(REMEMBERED));
    };
    let wait_ms: u64 = redis.run(&TAKE, &key, arguments).await?;
    Ok(if wait_ms == 0 { Ok(()) } else { Err(Duration::from_millis(wait_ms)) })
}

async fn forgive_shared(redis: &RedisCluster, account: AccountTag) -> Result<(), RedisFailure> {
    let key = redis.keys()?.rate_limit(&hex::encode(account.0), ENDPOINT);
    let arguments = |script: &mut redis::Cmd| {
        script.arg(GUESS).arg(millis(REMEMBERED));
    };
    redis.run::<u64>(&FORGIVE, &key, arguments).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: AccountTag = AccountTag([1; 16]);

    fn network(n: u16) -> NetworkTag {
        NetworkTag([n.to_be_bytes(); 4].concat().try_into().unwrap())
    }

    fn limits() -> (MemoryGuesses, Clock) {
        let clock = Clock::manual(UnixMs(0));
        (MemoryGuesses { accounts: Cache::new(ACCOUNTS_MAX), clock: clock.clone() }, clock)
    }

    #[test]
    fn a_hundred_and_twenty_addresses_guess_at_the_pace_of_one() {
        let (limits, clock) = limits();
        let passed = (0..120).filter(|n| limits.take(OWNER, network(*n)).is_ok()).count();
        assert_eq!(passed, 11, "ten at once, and the first of the pace");
        // As fast as it lets them, for a day.
        let mut waits = Vec::new();
        let day = Duration::from_hours(24);
        while clock.monotonic() < day {
            match limits.take(OWNER, network(u16::try_from(waits.len() % 120).unwrap())) {
                Ok(()) => waits.push(clock.monotonic()),
                Err(wait) => clock.advance(wait),
            }
        }
        let pauses: Vec<_> = waits.windows(2).map(|pair| pair[1].saturating_sub(pair[0]).as_secs()).collect();
        assert_eq!(pauses[..6], [2, 4, 8, 16, 30, 30]);
        assert!(waits.len() < 2_900, "{} guesses in a day", waits.len());
    }

    #[test]
    fn what_one_network_may_try_is_hardly_counted() {
        let (limits, _) = limits();
        let passed = (0..120).take_while(|_| limits.take(OWNER, network(1)).is_ok()).count();
        assert!((30..=40).contains(&passed), "{passed}");
    }

    #[test]
    fn other_accounts_go_at_their_own_pace_and_a_right_guess_counts_nothing() {
        let (limits, _) = limits();
        assert_eq!((0..120).filter(|n| limits.take(OWNER, network(*n)).is_ok()).count(), 11);
        let other = AccountTag([2; 16]);
        for n in 0..120 {
            assert_eq!(limits.take(other, network(n)), Ok(()), "guess {n}");
            limits.forgive(other);
        }
    }

    #[test]
    fn a_pace_is_no_lock_and_is_forgotten() {
        let (limits, clock) = limits();
        for n in 0..120 {
            let _ = limits.take(OWNER, network(n));
        }
        let wait = limits.take(OWNER, network(500)).unwrap_err();
        assert!(wait <= PACE_MAX, "{wait:?}");
        clock.advance(wait);
        assert_eq!(limits.take(OWNER, network(500)), Ok(()));
        clock.advance(REMEMBERED);
        assert_eq!((0..120).filter(|n| limits.take(OWNER, network(*n)).is_ok()).count(), 11);
    }

    #[test]
    fn the_accounts_that_are_counted_are_bounded() {
        let (limits, _) = limits();
        for n in 0..u128::try_from(ACCOUNTS_MAX).unwrap() * 2 {
            let _ = limits.take(AccountTag(n.to_be_bytes()), network(1));
        }
        assert!(limits.accounts.len() <= ACCOUNTS_MAX);
    }
}
