//! What a node with a `REDIS_URL` runs beside the rest.

use std::sync::Arc;

use futures::FutureExt;

use super::{Background, RunError};
use crate::ambient::Clock;
use crate::cache::local::LocalCache;
use crate::cache::redis_cluster::RedisCluster;
use crate::cache::redis_cluster::links::SharedLinks;
use crate::config::{Config, RateLimits};
use crate::domains::Domains;
use crate::kv::Kv;
use crate::limits::redis::SHARED_REQUESTS_MAX;
use crate::links::Resolve;
use crate::links::coherence::Coherence;
use crate::links::hot::{HotKeeper, HotLinks};
use crate::links::link::Destination;
use crate::links::replay::Replay;
use crate::minter::Minter;
use crate::resilience::BackEndMetrics;

/// What nodes share beside the store.
pub(super) struct Shared {
    /// The cluster.
    pub(super) redis: RedisCluster,
    /// Links in it.
    pub(super) links: SharedLinks,
}

/// Begins to use the cache that the configuration names, if it names one.
pub(super) fn share(
    config: &Config,
    kv: &Kv,
    (minter, domains): (&Minter, &Domains),
    clock: &Clock,
    local: &Arc<LocalCache<Destination>>,
    metrics: &BackEndMetrics,
    background: &mut Background,
) -> Result<Option<Shared>, RunError> {
    let Some(settings) = &config.redis else { return Ok(None) };
    for (setting, limit) in limits_kept_alone(&config.rate_limits) {
        tracing::info!(setting, limit, "above {SHARED_REQUESTS_MAX} requests each node keeps a limit by itself");
    }
    let identity = {
        let minter = minter.clone();
        move || minter.keyspace_identity()
    };
    let redis = RedisCluster::new(settings, identity, clock.clone(), metrics);
    let redis = redis.map_err(|error| RunError::Start(error.to_string()))?;
    let (links, writes) = SharedLinks::new(redis.clone(), clock.clone());
    let stops = || background.shutdown.clone();
    let coherence = Coherence::new(redis.clone(), links.clone(), local.clone(), domains.clone());
    let replay = Replay::new(kv.clone(), redis.clone(), links.clone());
    let tasks = [
        redis.clone().keep(stops()).boxed(),
        links.clone().write(writes, stops()).boxed(),
        coherence.follow(stops()).boxed(),
        replay.run(stops()).boxed(),
    ];
    for task in tasks {
        background.spawn(task);
    }
    Ok(Some(Shared { redis, links }))
}

/// Begins to look for links that many follow.
pub(super) fn keep_hot(
    config: &Config,
    Shared { redis, links: shared }: &Shared,
    (resolve, domains): (&Resolve, &Domains),
    clock: &Clock,
    background: &mut Background,
) -> Arc<HotLinks> {
    let links = Arc::new(HotLinks::new(config.hot_url_click_threshold));
    let keeper = HotKeeper {
        links: links.clone(),
        redis: redis.clone(),
        shared: shared.clone(),
        resolve: resolve.clone(),
        domains: domains.clone(),
        clock: clock.clone(),
    };
    background.spawn(keeper.run(background.shutdown.clone()));
    links
}

/// The limits that nodes do not count together, by the names of their settings.
fn limits_kept_alone(limits: &RateLimits) -> impl Iterator<Item = (&'static str, u32)> {
    let RateLimits { user, anonymous, register, login } = limits;
    let limits = [
        ("RATE_LIMIT_REQUESTS", user),
        ("RATE_LIMIT_ANONYMOUS", anonymous),
        ("RATE_LIMIT_REGISTER", register),
        ("RATE_LIMIT_LOGIN", login),
    ];
    let limits = limits.map(|(setting, rule)| (setting, rule.requests()));
    limits.into_iter().filter(|(_, requests)| *requests > SHARED_REQUESTS_MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::limits::LimitRule;

    #[test]
    fn a_limit_that_nodes_do_not_count_together_is_named() {
        let rule = |requests| LimitRule::new(requests, Duration::from_mins(1)).unwrap();
        let limits = RateLimits { user: rule(10_000), anonymous: rule(10_001), register: rule(10), login: rule(20) };
        assert_eq!(limits_kept_alone(&limits).collect::<Vec<_>>(), [("RATE_LIMIT_ANONYMOUS", 10_001)]);
    }
}
