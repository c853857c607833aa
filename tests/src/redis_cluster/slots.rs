//! Moving a slot from one primary to another in the steps that Redis has for it, so that a test can look at what is in between.
use anyhow::{Context, Result, ensure};

use super::RedisCluster;

/// How long Redis may take to move one batch of keys, in milliseconds.
const MIGRATE_DEADLINE_MS: &str = "1000";
/// Keys that one step moves.
const KEYS_AT_ONCE: &str = "100";

/// A slot that is on its way. Until it has arrived its old primary answers for the keys that it still has, and sends whoever asks
/// for another to the new one (`ASK`).
#[derive(Debug)]
pub struct MovingSlot<'a> {
    cluster: &'a RedisCluster,
    slot: String,
    from: usize,
    to: usize,
}

impl RedisCluster {
    /// Begins to move the slot of `key` to a primary that does not have it. No key is moved yet.
    pub async fn begin_move(&self, key: &str) -> Result<MovingSlot<'_>> {
        let slot = self.any_up()?.cli(&["cluster", "keyslot", key]).await?.trim().to_owned();
        let from = self.primary_of(key).await?;
        let mut others = Vec::new();
        for (number, server) in self.own_servers()?.iter().enumerate() {
            if number != from && server.process.is_up() && server.view().await?.is_primary {
                others.push(number);
            }
        }
        // Not always the same one: half of the slots would end up there.
        let turn = slot.parse::<usize>().context("a slot is a number")? % others.len().max(1);
        let to = *others.get(turn).context("there is another primary")?;
        let moving = MovingSlot { cluster: self, slot, from, to };
        let (source, target) = (moving.id(from).await?, moving.id(to).await?);
        moving.set(to, &["importing", &source]).await?;
        moving.set(from, &["migrating", &target]).await?;
        Ok(moving)
    }
}

impl MovingSlot<'_> {
    /// Moves all of its keys.
    pub async fn move_keys(&self) -> Result<()> {
        let source = self.cluster.server(self.from)?;
        let port = self.cluster.server(self.to)?.port().to_string();
        loop {
            let keys = source.cli(&["cluster", "getkeysinslot", &self.slot, KEYS_AT_ONCE]).await?;
            let keys: Vec<_> = keys.lines().map(str::trim).filter(|key| !key.is_empty()).collect();
            if keys.is_empty() {
                return Ok(());
            }
            let mut migrate = vec!["migrate", "127.0.0.1", &port, "", "0", MIGRATE_DEADLINE_MS, "keys"];
            migrate.extend(keys);
            let said = source.cli(&migrate).await?;
            ensure!(said.trim() == "OK" || said.trim() == "NOKEY", "keys were not moved: {said}");
        }
    }

    /// Makes the new primary the slot's own: from now on the old one sends everybody there (`MOVED`).
    pub async fn end(self) -> Result<()> {
        let target = self.id(self.to).await?;
        // The new one first: else both would take the other for the owner.
        for server in [self.to, self.from] {
            self.set(server, &["node", &target]).await?;
        }
        Ok(())
    }

    async fn id(&self, server: usize) -> Result<String> {
        Ok(self.cluster.server(server)?.cli(&["cluster", "myid"]).await?.trim().to_owned())
    }

    async fn set(&self, server: usize, state: &[&str]) -> Result<()> {
        let command = [&["cluster", "setslot", &self.slot], state].concat();
        self.cluster.server(server)?.cli(&command).await?;
        Ok(())
    }
}
