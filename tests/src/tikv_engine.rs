//! The node's own engine on a cluster, as a node would open it.
use std::time::Duration;

use anyhow::{Result, bail};
use prometheus::Registry;
use shortener_node::ambient::Clock;
use shortener_node::kv::Kv;
use shortener_node::kv::tikv::{Tikv, TikvSettings};
use shortener_node::resilience::BackEndMetrics;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A client connects in milliseconds; a busy machine takes longer.
const CONNECT_DEADLINE: Duration = Duration::from_secs(20);

/// An engine that is connected; what keeps it ends when this is dropped.
#[derive(Debug)]
pub struct Engine {
    /// The engine.
    pub kv: Kv,
    _keeper: DropGuard,
}

impl Engine {
    /// Opens a keyspace and waits until it answers.
    pub async fn open(pd_endpoints: Vec<String>, keyspace: &str) -> Result<Self> {
        let settings = TikvSettings { pd_endpoints, keyspace: keyspace.to_owned(), tls: None };
        Self::with_settings(&settings).await
    }

    /// Opens what `settings` name and waits until it answers.
    pub async fn with_settings(settings: &TikvSettings) -> Result<Self> {
        Self::within(CONNECT_DEADLINE, settings).await
    }

    /// The same with a deadline, for what is to be refused.
    pub async fn within(deadline: Duration, settings: &TikvSettings) -> Result<Self> {
        let metrics = BackEndMetrics::register(&Registry::new())?;
        let engine = Tikv::new(settings, Clock::system(), &metrics);
        let shutdown = CancellationToken::new();
        tokio::spawn(engine.clone().keep(shutdown.clone()));
        let opened = Self { kv: Kv::Tikv(engine), _keeper: shutdown.drop_guard() };
        let connected = async {
            while opened.kv.ping().await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(deadline, connected).await.is_err() {
            bail!("TiKV does not answer after {deadline:?}: {:?}", opened.kv.ping().await);
        }
        Ok(opened)
    }
}
