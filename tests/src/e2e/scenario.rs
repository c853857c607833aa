//! The scenarios by name: what each is, what must hold, and which belong to the short form.
use anyhow::Result;
use clap::ValueEnum;

use super::scenarios::{away, caches, gateway, install, kills, measurements, reinstall, rollouts, scaling, stores};
use super::world::World;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Helm and the smallest example make a cluster that serves.
    Install,
    /// Restarts, changes, upgrades, other sizes and a drained machine lose no request.
    Rollouts,
    /// Pods and operators die while links are made.
    Kills,
    /// Six times the load.
    Load,
    /// A slow store.
    SlowStore,
    /// No Prometheus, or one that says nothing of use.
    Measurements,
    /// Redis is wiped, and loses a primary.
    Caches,
    /// The store dies.
    Store,
    /// Operator and API server are away.
    Away,
    /// A gateway with a cache before the nodes.
    Gateway,
    /// Everything but the data is removed and made again.
    Reinstall,
}

impl Scenario {
    /// All, in the order in which they are run.
    pub const ALL: [Self; 11] = [
        Self::Install,
        Self::Rollouts,
        Self::Kills,
        Self::Load,
        Self::SlowStore,
        Self::Measurements,
        Self::Caches,
        Self::Store,
        Self::Away,
        Self::Gateway,
        Self::Reinstall,
    ];
    /// Those that are run on every change.
    pub const SHORT: [Self; 4] = [Self::Install, Self::Rollouts, Self::Load, Self::SlowStore];

    /// Its name on the command line and in the file system.
    pub fn name(self) -> &'static str {
        match self {
            Self::Install => "install",
            Self::Rollouts => "rollouts",
            Self::Kills => "kills",
            Self::Load => "load",
            Self::SlowStore => "slow-store",
            Self::Measurements => "measurements",
            Self::Caches => "caches",
            Self::Store => "store",
            Self::Away => "away",
            Self::Gateway => "gateway",
            Self::Reinstall => "reinstall",
        }
    }

    /// What happens in it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Install => "`helm install`, the smallest example applied",
            Self::Rollouts => {
                "rolling restart, configuration change, operator upgrade and downgrade, more nodes and fewer, a machine drained"
            }
            Self::Kills => "pods and operators deleted and killed while links are made",
            Self::Load => "load ×6, with a CPU limit that makes it bite",
            Self::SlowStore => "store slowed by 500 ms",
            Self::Measurements => "Prometheus deleted, empty, answering NaN, slow",
            Self::Caches => "Redis Cluster wiped; a primary killed",
            Self::Store => "the TiKV store killed, and back",
            Self::Away => "operator and API server away",
            Self::Gateway => "an nginx gateway with a cache in front, `CACHE_MAX_AGE` 60",
            Self::Reinstall => "uninstalled and installed again, the definition kept",
        }
    }

    /// What must hold meanwhile.
    pub fn must_hold(self) -> &'static str {
        match self {
            Self::Install => "Ready within 60 s; a link made through one pod redirects from every pod",
            Self::Rollouts => "0 failed requests, on kept connections and on one for each request",
            Self::Kills => {
                "0 codes twice, 0 mint clashes, 0 acknowledged links lost; after one retry with the same key no create fails"
            }
            Self::Load => {
                "p99 under its target within 120 s, at most one reversal, then back to the minimum; 0 failed requests"
            }
            Self::SlowStore => "as many nodes as before; `BackendBound` within 60 s",
            Self::Measurements => "no node less; `ScalingActive` false within 60 s each time; true again afterwards",
            Self::Caches => "0 links lost; ≥ 99.99 % answered; p99 ≤ 250 ms from 15 s on",
            Self::Store => "cached redirects 100 %; the rest within 30 s after it is back",
            Self::Away => "0 failed redirects and creates",
            Self::Gateway => {
                "repeated redirects answered by the gateway; a deleted link gone after 60 s; personal answers never cached"
            }
            Self::Reinstall => "the links are there; what is granted lies above every old block",
        }
    }

    /// Whether it takes away what a cluster that is not the suite's own needs.
    pub(super) fn harms_the_cluster(self) -> bool {
        self == Self::Away
    }

    /// Runs it, and tells what was seen.
    pub(super) async fn run(self, world: &World) -> Result<String> {
        match self {
            Self::Install => install::run(world).await,
            Self::Rollouts => rollouts::run(world).await,
            Self::Kills => kills::run(world).await,
            Self::Load => scaling::load(world).await,
            Self::SlowStore => scaling::slow_store(world).await,
            Self::Measurements => measurements::run(world).await,
            Self::Caches => caches::run(world).await,
            Self::Store => stores::run(world).await,
            Self::Away => away::run(world).await,
            Self::Gateway => gateway::run(world).await,
            Self::Reinstall => reinstall::run(world).await,
        }
    }

    /// Undoes what it did to servers, and ends loads that it did not stop, however it went.
    pub(super) async fn put_right(self, world: &World) -> Result<()> {
        match self {
            Self::SlowStore => scaling::set_delay(world, 0).await?,
            Self::Measurements => measurements::put_right(world).await?,
            _ => {}
        }
        world.kubectl(&["delete", "pods", "--selector=app=load", "--ignore-not-found", "--grace-period=1"]).await?;
        Ok(())
    }
}
