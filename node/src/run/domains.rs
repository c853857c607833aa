//! Keeps a node in step with the registry of domains: writes the hosts of its settings into it at start, and reads what other nodes
//! write every [`LOOK_EVERY`] from then on.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::RunError;
use crate::cache::local::LocalCache;
use crate::domains::{Domains, RegistryFull, Served, Settled, Warning, settle};
use crate::kv::{Kv, KvError};
use crate::links::link::Destination;
use crate::public_url::PublicUrls;
use crate::store::StoreError;
use crate::store::domains::{Registry, domains_with_links, has_links, put_host, registry};

/// How often a node looks for hosts that other nodes have registered.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often a node tries to register its hosts, before which it answers nothing but its health.
const TRY_EVERY: Duration = Duration::from_millis(250);
/// Warnings of a start at most.
const WARNINGS_MAX: usize = 20;

/// Why hosts could not be registered.
#[derive(Debug, thiserror::Error)]
enum SettleError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Full(#[from] RegistryFull),
}

impl From<KvError> for SettleError {
    fn from(error: KvError) -> Self {
        StoreError::from(error).into()
    }
}

/// Brings the registry in step with the settings, and the node with the registry.
pub(super) struct Settling {
    pub(super) kv: Kv,
    pub(super) urls: PublicUrls,
    pub(super) domains: Domains,
    /// What it remembers of links depends on the hosts that are ours.
    pub(super) local: Arc<LocalCache<Destination>>,
}

impl Settling {
    /// Registers the hosts of the settings, and gives the registry; none if the store does not answer. Fails where asking again would
    /// not help.
    pub(super) async fn begin(&self) -> Result<Option<Registry>, RunError> {
        match self.register().await {
            Ok(registry) => Ok(Some(registry)),
            Err(SettleError::Store(StoreError::Kv(error))) => {
                tracing::debug!(%error, "the registry of domains could not be read yet");
                Ok(None)
            }
            Err(SettleError::Store(error)) => Err(error.into()),
            Err(SettleError::Full(error)) => Err(error.into()),
        }
    }

    /// Registers the hosts of the settings if that was not done, and follows the registry from the one that is `known` until `shutdown`.
    pub(super) async fn follow(self, mut known: Option<Registry>, shutdown: CancellationToken) {
        loop {
            let pause = if known.is_some() { LOOK_EVERY } else { TRY_EVERY };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = shutdown.cancelled() => return,
            }
            match &known {
                None => match self.begin().await {
                    Ok(registry) => known = registry,
                    Err(error) => tracing::error!(%error, "no host is answered"),
                },
                // No other node uses the store.
                Some(_) if matches!(self.kv, Kv::Embedded(_)) => return,
                Some(before) => match self.read().await {
                    Ok(now) if now != *before => {
                        self.answer(&now);
                        known = Some(now);
                    }
                    Ok(_) => {}
                    Err(error) => tracing::debug!(%error, "the registry of domains could not be read"),
                },
            }
        }
    }

    async fn register(&self) -> Result<Registry, SettleError> {
        let Settled { registry, warnings, .. } = self
            .kv
            .transact(async |mut txn| {
                let before = registry(&txn).await?;
                let with_links = if before.is_empty() { domains_with_links(&txn).await? } else { Vec::new() };
                let settled = settle(&before, &with_links, &self.urls, txn.now())?;
                for (host, row) in &settled.changes {
                    put_host(&mut txn, host, row);
                }
                Ok::<_, SettleError>((txn, settled))
            })
            .await?;
        self.answer(&registry);
        self.warn(warnings).await?;
        Ok(registry)
    }

    async fn read(&self) -> Result<Registry, StoreError> {
        registry(&self.kv.begin().await?).await
    }

    /// Answers what `registry` says from now on.
    fn answer(&self, registry: &Registry) {
        let Some(served) = Served::new(registry, &self.urls) else {
            tracing::warn!("the registry of domains has lost hosts of BASE_URL and DOMAINS; they mean what they did");
            return;
        };
        self.domains.set(served);
        // Whether a link leads back here was decided when it was read.
        self.local.clear();
    }

    /// Says what an administrator should know; of hosts that are not answered, if there are links.
    async fn warn(&self, warnings: Vec<Warning>) -> Result<(), StoreError> {
        let txn = self.kv.begin().await?;
        let mut said = 0;
        for warning in warnings {
            let matters = match &warning {
                Warning::Unserved { domain, .. } => has_links(&txn, domain).await?,
                _ => true,
            };
            if matters && said == WARNINGS_MAX {
                tracing::warn!("more hosts that were ours are not answered");
                break;
            }
            if matters {
                tracing::warn!("{warning}");
                said += 1;
            }
        }
        Ok(())
    }
}
