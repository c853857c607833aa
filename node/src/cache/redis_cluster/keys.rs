//! Every key in Redis. Nothing outside this file builds one.
//!
//! A key names the keyspace, so that two clusters of nodes never answer for each other on one Redis, and the domain. What is
//! sent to Redis has exactly one key, by whose slot it is routed, so that nothing reaches across slots by accident.

use std::fmt;

use redis::cluster_routing::{Route, SlotAddr};

/// Streams that clicks are spread over: one alone would be the work of one server.
pub const CLICK_STREAMS: u8 = 8;

/// A key in Redis.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RedisKey(String);

impl RedisKey {
    /// Where its slot is.
    pub(super) fn route(&self, at: SlotAddr) -> Route {
        Route::with_key(&self.0, at)
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RedisKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The keys of one keyspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys {
    identity: u128,
}

impl Keys {
    /// Those of the keyspace with this identity.
    pub fn of(identity: u128) -> Self {
        Self { identity }
    }

    /// What the keyspace is told from others by.
    pub fn identity(&self) -> u128 {
        self.identity
    }

    /// A link.
    pub fn url(&self, domain: &str, code: &str) -> RedisKey {
        self.key("url", format_args!("{domain}/{code}"))
    }

    /// How often a link was followed within the last hour.
    pub fn hot(&self, domain: &str, code: &str) -> RedisKey {
        self.key("hot", format_args!("{domain}/{code}"))
    }

    /// A QR code, drawn as `variant` says.
    pub fn qr(&self, domain: &str, code: &str, variant: &str) -> RedisKey {
        self.key("qr", format_args!("{domain}/{code}:{variant}"))
    }

    /// The summary of a link's clicks.
    pub fn summary(&self, domain: &str, code: &str) -> RedisKey {
        self.key("analytics:summary", format_args!("{domain}/{code}"))
    }

    /// What a caller did at an endpoint; `caller` is a hash.
    pub fn rate_limit(&self, caller: &str, endpoint: &str) -> RedisKey {
        self.key("ratelimit", format_args!("{caller}:{endpoint}"))
    }

    /// A stream of clicks.
    pub fn clicks(&self, stream: u8) -> RedisKey {
        self.key("analytics", format_args!("{stream}"))
    }

    /// The stream of what was changed.
    pub fn invalidations(&self) -> RedisKey {
        self.key("invalidations", format_args!("all"))
    }

    fn key(&self, kind: &str, rest: fmt::Arguments<'_>) -> RedisKey {
        RedisKey(format!("{kind}:{:032x}:{rest}", self.identity))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_things_have_one_key_and_no_key_has_a_hash_tag() {
        let (one, other) = (Keys::of(1), Keys::of(2));
        let keys = [
            one.url("", "abc"),
            other.url("", "abc"),
            one.url("a.example", "bc"),
            one.url("", "a.example/bc"),
            one.hot("", "abc"),
            one.qr("", "abc", "Png:256"),
            one.qr("", "abc", "Svg:256"),
            one.summary("", "abc"),
            one.rate_limit("ab", "c"),
            one.rate_limit("abc", ""),
            one.clicks(0),
            one.clicks(1),
            one.invalidations(),
        ];
        for (n, key) in keys.iter().enumerate() {
            assert!(!keys[..n].contains(key), "{key}");
            assert!(!key.as_str().contains(['{', '}']), "{key}");
        }
        assert_eq!(one.url("", "abc").as_str(), "url:00000000000000000000000000000001:/abc");
    }
}
