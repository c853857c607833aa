//! A Lua script: what has to happen to a key in one step, by the server's own clock.

use std::sync::OnceLock;

use redis::Cmd;

use super::keys::RedisKey;

/// A script that works on one key, `KEYS[1]`.
#[derive(Debug)]
pub struct Script {
    code: &'static str,
    hash: OnceLock<String>,
}

impl Script {
    /// The script of this code.
    pub const fn new(code: &'static str) -> Self {
        Self { code, hash: OnceLock::new() }
    }

    /// Runs it on a server that knows it.
    pub(super) fn by_hash(&self, key: &RedisKey, arguments: impl Fn(&mut Cmd)) -> Cmd {
        let hash = self.hash.get_or_init(|| redis::Script::new(self.code).get_hash().to_owned());
        invocation("EVALSHA", hash, key, arguments)
    }

    /// Runs it on a server that may not know it, and then does.
    pub(super) fn whole(&self, key: &RedisKey, arguments: impl Fn(&mut Cmd)) -> Cmd {
        invocation("EVAL", self.code, key, arguments)
    }
}

fn invocation(command: &str, script: &str, key: &RedisKey, arguments: impl Fn(&mut Cmd)) -> Cmd {
    let mut invocation = redis::cmd(command);
    invocation.arg(script).arg(1).arg(key.as_str());
    arguments(&mut invocation);
    invocation
}
