//! The client of the moment: made in the background, and made anew when it is stuck.
//!
//! The client reconnects by itself in most cases, but not in all: a leader that it has no connection to and cannot
//! connect to is never given up, and a placement driver that hangs is waited for. A new client finds its way at once.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tikv_client::{Config, TransactionClient};
use tokio_util::sync::CancellationToken;

use super::fault::Fault;
use super::settings::{TikvSettings, Tls};
use crate::ambient::Clock;
use crate::kv::{SCAN_BYTES_MAX, TRANSACTION_BYTES_MAX};
use crate::resilience::renewal::Renewal;

/// How long making a client may take. The client waits for every placement driver without a deadline: while one hangs, and does not refuse, none can
/// be made (tikv/client-rust#558).
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// How long the client waits for one request to one server.
const REQUEST_DEADLINE: Duration = Duration::from_secs(1);
/// Calls in a row that were not answered in time, after which the client counts as stuck.
const TIMEOUTS_MAX: u32 = 3;
/// The largest answer: a scan's page, and room for what wraps it.
const ANSWER_BYTES_MAX: usize = SCAN_BYTES_MAX + TRANSACTION_BYTES_MAX;

/// Holds the client of the moment.
pub(super) struct Connection {
    endpoints: Vec<String>,
    config: Config,
    clients: Renewal<TransactionClient>,
    /// Calls in a row that were not answered in time.
    timeouts: AtomicU32,
}

impl Connection {
    pub(super) fn new(settings: &TikvSettings, clock: Clock) -> Self {
        let mut config =
            Config::default().with_timeout(REQUEST_DEADLINE).with_grpc_max_decoding_message_size(ANSWER_BYTES_MAX);
        if let Some(Tls { ca, cert, key }) = &settings.tls {
            config = config.with_security(ca, cert, key);
        }
        let (endpoints, clients) = (settings.pd_endpoints.clone(), Renewal::new(clock));
        Self { endpoints, config, clients, timeouts: AtomicU32::new(0) }
    }

    /// The client, and which one it is.
    pub(super) fn client(&self) -> Result<(TransactionClient, u64), Fault> {
        self.clients.current().ok_or_else(|| Fault::Unavailable { reason: "not connected yet".to_owned() })
    }

    /// Waits for the first client.
    pub(super) async fn connected(&self) {
        self.clients.connected().await;
    }

    /// The client of this generation will not get any further by itself.
    pub(super) fn is_stuck(&self, generation: u64) {
        self.clients.is_stuck(generation);
    }

    /// Which client [`Connection::client`] gives.
    pub(super) fn generation(&self) -> u64 {
        self.clients.generation()
    }

    /// A call of the client of this generation was not answered in time. What one that was replaced still owed says nothing
    /// about the next: many calls that end late together would have one client after another replaced.
    pub(super) fn timed_out(&self, generation: u64) {
        let counts = generation == self.clients.generation();
        if counts && self.timeouts.fetch_add(1, Ordering::Relaxed) + 1 >= TIMEOUTS_MAX {
            self.is_stuck(generation);
        }
    }

    /// A call was answered.
    pub(super) fn answered(&self) {
        self.timeouts.store(0, Ordering::Relaxed);
    }

    /// Makes the first client, and a new one whenever the one of the moment is stuck, until `shutdown`.
    pub(super) async fn keep(&self, shutdown: CancellationToken) {
        self.clients.keep(|| self.connect(), shutdown).await;
    }

    async fn connect(&self) -> Option<TransactionClient> {
        let connecting = TransactionClient::new_with_config(self.endpoints.clone(), self.config.clone());
        match tokio::time::timeout(CONNECT_DEADLINE, connecting).await {
            Ok(Ok(client)) => {
                self.answered();
                tracing::info!("connected to TiKV");
                return Some(client);
            }
            Ok(Err(error)) => tracing::warn!(%error, "cannot connect to TiKV's placement drivers; trying again"),
            Err(_) => tracing::warn!("TiKV's placement drivers do not answer; trying again"),
        }
        None
    }
}
