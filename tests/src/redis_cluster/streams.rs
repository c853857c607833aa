//! What lies in streams, whose names match a pattern of Redis.
use anyhow::{Context, Result};

use super::RedisCluster;

impl RedisCluster {
    /// How many entries there are, taken by somebody or not.
    pub async fn entries(&self, pattern: &str) -> Result<u64> {
        self.sum(pattern, &["xlen"], &[]).await
    }

    /// How many of them members of a group have taken and not acknowledged.
    pub async fn taken(&self, pattern: &str, group: &str) -> Result<u64> {
        self.sum(pattern, &["xpending"], &[group]).await
    }

    /// The sum of what a command says of each stream first.
    async fn sum(&self, pattern: &str, before: &[&str], after: &[&str]) -> Result<u64> {
        let mut sum = 0;
        for server in self.own_servers()?.iter().filter(|server| server.process.is_up()) {
            if server.view().await?.is_primary {
                for stream in server.cli(&["--scan", "--pattern", pattern]).await?.lines() {
                    let said = server.cli(&[before, &[stream], after].concat()).await?;
                    let count = said.lines().next().unwrap_or_default().trim();
                    sum += count.parse::<u64>().with_context(|| format!("reading {said:?}"))?;
                }
            }
        }
        Ok(sum)
    }
}
