//! What is kept to answer faster, and may be lost at any moment: an error here is a miss, never a failed request.
//!
//! [`local`] is the process's own, in front of everything on the redirect path. [`Cache`] is the shared one behind it;
//! a node alone has no one to share with and keeps it in memory.

pub mod local;
pub mod memory;
pub mod redis_cluster;

use std::time::Duration;

use bytes::Bytes;

use crate::resilience::Condition;
use redis_cluster::keys::{Keys, RedisKey};
use redis_cluster::{RedisCluster, RedisFailure, Server};

/// The shared cache of what is made from links. Links themselves are not kept in [`Cache::Memory`]: it is the same process as
/// [`local`], and a second copy would buy nothing; in a Redis Cluster they are in [`redis_cluster::links`].
#[derive(Clone, Debug)]
pub enum Cache {
    /// In this process.
    Memory(memory::Memory),
    /// In a cluster that nodes share.
    RedisCluster(RedisCluster),
}

/// What is kept, of which link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheKey<'a> {
    /// The domain's ID.
    pub domain: &'a str,
    /// The code or alias.
    pub code: &'a str,
    /// What of it.
    pub of: Kept,
}

/// What is kept of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Its QR code, drawn in this way.
    Qr(String),
    /// The summary of its clicks.
    Summary,
}

impl CacheKey<'_> {
    fn name(&self) -> String {
        let Self { domain, code, of } = self;
        match of {
            Kept::Qr(variant) => format!("qr:{domain}/{code}:{variant}"),
            Kept::Summary => format!("analytics:summary:{domain}/{code}"),
        }
    }

    fn in_redis(&self, keys: Keys) -> RedisKey {
        let Self { domain, code, of } = self;
        match of {
            Kept::Qr(variant) => keys.qr(domain, code, variant),
            Kept::Summary => keys.summary(domain, code),
        }
    }
}

impl Cache {
    /// What was put under `key` and has not run out.
    pub async fn get(&self, key: &CacheKey<'_>) -> Option<Bytes> {
        match self {
            Self::Memory(memory) => memory.get(&key.name()),
            Self::RedisCluster(redis) => get(redis, key).await.ok().flatten(),
        }
    }

    /// Keeps `value` under `key` for `ttl`, or less.
    pub async fn put(&self, key: &CacheKey<'_>, value: Bytes, ttl: Duration) {
        match self {
            Self::Memory(memory) => memory.put(key.name(), value, ttl),
            Self::RedisCluster(redis) => {
                if let Err(error) = put(redis, key, &value, ttl).await {
                    tracing::debug!(%error, "could not keep an answer in Redis");
                }
            }
        }
    }

    /// The engine's name, as `GET /api/v1/health` shows it.
    pub fn engine(&self) -> &'static str {
        match self {
            Self::Memory(_) => "memory",
            Self::RedisCluster(_) => "redis-cluster",
        }
    }

    /// How it is. What is in this process is always up.
    pub fn condition(&self) -> Condition {
        match self {
            Self::Memory(_) => Condition { is_up: true, latency: Duration::ZERO },
            Self::RedisCluster(redis) => redis.condition(),
        }
    }
}

/// Any server will do: an image never changes, and a summary may be minutes old.
async fn get(redis: &RedisCluster, key: &CacheKey<'_>) -> Result<Option<Bytes>, RedisFailure> {
    let key = key.in_redis(redis.keys()?);
    let mut get = ::redis::cmd("GET");
    get.arg(key.as_str());
    let value: Option<Vec<u8>> = redis.query(Server::Any, &key, &get).await?;
    Ok(value.map(Bytes::from))
}

async fn put(redis: &RedisCluster, key: &CacheKey<'_>, value: &[u8], ttl: Duration) -> Result<(), RedisFailure> {
    let key = key.in_redis(redis.keys()?);
    let mut set = ::redis::cmd("SET");
    set.arg(key.as_str()).arg(value).arg("PX").arg(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
    redis.query(Server::Primary, &key, &set).await
}
