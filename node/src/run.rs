//! Puts a node together, serves until it is told to stop, and takes it apart again without losing anything.

mod blocked_hosts;
mod secret_key;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prometheus::{IntCounter, Registry};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::accounts::{Accounts, AccountsParts};
use crate::ambient::Clock;
use crate::cache::Cache;
use crate::cache::local::LocalCache;
use crate::cache::memory::Memory;
use crate::clicks::country::Countries;
use crate::clicks::{ClickMetrics, ClickSettings, Clicks, ClicksTask};
use crate::config::{Config, Database};
use crate::http::admin::{self, Admin};
use crate::http::metrics::HttpMetrics;
use crate::http::serve::serve;
use crate::http::{self, App};
use crate::kv::Kv;
use crate::kv::embedded::{Embedded, OpenError};
use crate::limits::{Limits, UnknownCodes};
use crate::links::link::Destination;
use crate::links::{LinkMetrics, Links, LinksParts, Resolve};
use crate::minter::Minter;
use crate::sweeper;

/// How long requests in flight have to finish after a shutdown was asked for.
const DRAIN: Duration = Duration::from_secs(5);
/// How long the clicks that wait have to be written after that. Together with [`DRAIN`] well under 10 s.
const FLUSH: Duration = Duration::from_secs(3);
/// Clicks that may wait to be written; what comes beyond is dropped and counted. About 30 MB at most.
const CLICKS_WAITING_MAX: usize = 65_536;

/// Why a node did not start or could not go on. One line each.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// An address cannot be listened on.
    #[error("{setting}: cannot listen on {address}: {source}")]
    Listen {
        /// The setting.
        setting: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The store cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The secret kept with the data cannot be read or made.
    #[error("cannot keep a secret key in {path}: {source}")]
    SecretKey {
        /// Where it is to be.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file that a setting names cannot be used.
    #[error("{setting}: {problem}")]
    File {
        /// The setting.
        setting: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// The store failed while the node ran.
    #[error("the store failed and the node stops, with all that was acknowledged safe on disk: {0}")]
    StoreFailed(String),
    /// What the node is made of did not fit together.
    #[error("cannot start: {0}")]
    Start(String),
}

/// Where a node listens.
#[derive(Debug)]
pub struct Listeners {
    /// Public HTTP.
    pub public: TcpListener,
    /// Probes and metrics.
    pub admin: TcpListener,
}

impl Listeners {
    /// Binds the addresses of the configuration.
    pub async fn bind(config: &Config) -> Result<Self, RunError> {
        Ok(Self {
            public: bind("LISTEN_ADDR", config.listen_addr).await?,
            admin: bind("ADMIN_ADDR", config.admin_addr).await?,
        })
    }
}

async fn bind(setting: &'static str, address: SocketAddr) -> Result<TcpListener, RunError> {
    TcpListener::bind(address).await.map_err(|source| RunError::Listen { setting, address, source })
}

/// Runs a node until `shutdown`, or until its store fails.
pub async fn run(
    config: Config,
    listeners: Listeners,
    clock: Clock,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let Database::Embedded(directory) = &config.database;
    let engine = Embedded::open(directory, clock.clone())?;
    let registry = Registry::new();
    let parts = assemble(config, engine.clone(), clock, &registry, &shutdown).await?;
    let Parts { app, clicks, .. } = &parts;
    let _ = clicks;
    let ready = Arc::new(AtomicBool::new(true));
    let admin_stops = CancellationToken::new();
    let admin = Admin { registry, ready: ready.clone(), app: app.clone() };
    let admin = tokio::spawn(serve(listeners.admin, admin::router(admin), admin_stops.clone(), FLUSH));

    tracing::info!(url = app.config.public_urls.base().as_str(), "ready");
    let public_stops = shutdown.child_token();
    let public = serve(listeners.public, http::router(app.clone()), public_stops.clone(), DRAIN);
    tokio::pin!(public);
    let failure = tokio::select! {
        () = &mut public => None,
        reason = engine.failed() => Some(reason),
        () = shutdown.cancelled() => None,
    };
    ready.store(false, Ordering::SeqCst);
    shutdown.cancel();
    public_stops.cancel();
    if failure.is_none() {
        public.await;
    }
    parts.stop().await;
    admin_stops.cancel();
    let _ = admin.await;
    engine.close().await;
    match failure {
        Some(reason) => Err(RunError::StoreFailed(reason)),
        None => Ok(()),
    }
}

/// A node that is put together, and what runs beside its listeners.
struct Parts {
    app: Arc<App>,
    clicks: ClicksTask,
    minter: Minter,
    background: Vec<tokio::task::JoinHandle<()>>,
}

impl Parts {
    /// Writes the clicks that wait and ends what runs in the background.
    async fn stop(self) {
        let Self { app, clicks, minter, background } = self;
        if let Err(lost) = clicks.finish(FLUSH).await {
            tracing::warn!(%lost, "clicks were not written");
        }
        minter.stop().await;
        for task in background {
            let _ = task.await;
        }
        drop(app);
    }
}
