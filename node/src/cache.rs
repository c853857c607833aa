//! What is kept to answer faster, and may be lost at any moment: an error here is a miss, never a failed request.
//!
//! [`local`] is the process's own, in front of everything on the redirect path. [`Cache`] is the shared one behind it;
//! a node alone has no one to share with and keeps it in memory.

pub mod local;
pub mod memory;

use std::time::Duration;

use bytes::Bytes;

/// The shared cache. Links themselves are not kept in [`Cache::Memory`]: it is the same process as [`local`], and a second
/// copy would buy nothing.
#[derive(Clone, Debug)]
pub enum Cache {
    /// In this process.
    Memory(memory::Memory),
}

impl Cache {
    /// What was put under `key` and has not run out.
    #[expect(clippy::unused_async, reason = "a cache that nodes share is a network away")]
    pub async fn get(&self, key: &str) -> Option<Bytes> {
        match self {
            Self::Memory(memory) => memory.get(key),
        }
    }

    /// Keeps `value` under `key` for `ttl`, or less.
    #[expect(clippy::unused_async, reason = "a cache that nodes share is a network away")]
    pub async fn put(&self, key: String, value: Bytes, ttl: Duration) {
        match self {
            Self::Memory(memory) => memory.put(key, value, ttl),
        }
    }

    /// The engine's name, as `GET /api/v1/health` shows it.
    pub fn engine(&self) -> &'static str {
        match self {
            Self::Memory(_) => "memory",
        }
    }
}
