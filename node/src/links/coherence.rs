//! Keeps what this process knows of links in step with the other nodes: it forgets what any of them changed.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::link::Destination;
use crate::cache::local::LocalCache;
use crate::cache::redis_cluster::RedisCluster;
use crate::cache::redis_cluster::invalidations::{self, Cursor, Invalidation, News, POLL_INTERVAL};
use crate::cache::redis_cluster::links::SharedLinks;
use crate::domains::Domains;

/// Follows the stream of changes.
pub struct Coherence {
    redis: RedisCluster,
    shared: SharedLinks,
    local: Arc<LocalCache<Destination>>,
    domains: Domains,
}

impl Coherence {
    /// Forgets in `local` what is changed, as `redis` tells.
    pub fn new(
        redis: RedisCluster,
        shared: SharedLinks,
        local: Arc<LocalCache<Destination>>,
        domains: Domains,
    ) -> Self {
        Self { redis, shared, local, domains }
    }

    /// Until `shutdown`. While Redis is away, what is known runs out by its time to live.
    pub async fn follow(self, shutdown: CancellationToken) {
        let following = async {
            let mut cursor = Cursor::default();
            loop {
                match invalidations::poll(&self.redis, cursor).await {
                    Ok(poll) => {
                        let (read, news) = cursor.advance(poll);
                        cursor = read;
                        let is_quiet = self.forget(news);
                        if !is_quiet {
                            continue;
                        }
                    }
                    Err(error) => tracing::debug!(%error, "could not ask for changes of other nodes"),
                }
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        };
        shutdown.run_until_cancelled(following).await;
    }

    /// Whether there was nothing to forget, so that there is time to rest.
    fn forget(&self, news: News) -> bool {
        match news {
            News::Gap => self.local.clear(),
            News::Changed(changed) => {
                // Until they are known, nothing is remembered of them.
                let served = self.domains.now().ok();
                for Invalidation { at, version } in &changed {
                    // Before it is forgotten: a read that begins after that must not find the old one in Redis.
                    self.shared.heard(at, *version);
                    if let Some(domain) = served.as_ref().and_then(|served| served.by_id(&at.domain)) {
                        self.local.forget(domain.index(), &at.code);
                    }
                }
                return changed.is_empty();
            }
        }
        true
    }
}
