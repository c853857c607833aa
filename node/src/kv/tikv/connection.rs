//! The client of the moment: made in the background, and made anew when it is stuck.
//!
//! The client reconnects by itself in most cases, but not in all: a leader that it has no connection to and cannot
//! connect to is never given up, and a placement driver that hangs is waited for. A new client finds its way at once.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use tikv_client::{Config, TransactionClient};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::fault::Fault;
use super::settings::{TikvSettings, Tls};
use crate::ambient::Clock;
use crate::kv::{SCAN_BYTES_MAX, TRANSACTION_BYTES_MAX};

/// A new client at most this often: each of them asks the placement driver for everything anew.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(1);
/// How long making a client may take. Each placement driver in the list that hangs takes [`REQUEST_DEADLINE`].
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
    clock: Clock,
    current: RwLock<Current>,
    /// Calls in a row that were not answered in time.
    timeouts: AtomicU32,
    wanted: Notify,
}

#[derive(Default)]
struct Current {
    client: Option<TransactionClient>,
    /// How many clients there have been: who complains about one that was replaced already is not heard.
    generation: u64,
    is_stuck: bool,
}

impl Connection {
    pub(super) fn new(settings: &TikvSettings, clock: Clock) -> Self {
        let mut config =
            Config::default().with_timeout(REQUEST_DEADLINE).with_grpc_max_decoding_message_size(ANSWER_BYTES_MAX);
        if let Some(Tls { ca, cert, key }) = &settings.tls {
            config = config.with_security(ca, cert, key);
        }
        Self {
            endpoints: settings.pd_endpoints.clone(),
            config,
            clock,
            current: RwLock::default(),
            timeouts: AtomicU32::new(0),
            wanted: Notify::new(),
        }
    }

    /// The client, and which one it is.
    pub(super) fn client(&self) -> Result<(TransactionClient, u64), Fault> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let client =
            current.client.clone().ok_or_else(|| Fault::Unavailable { reason: "not connected yet".to_owned() });
        Ok((client?, current.generation))
    }

    /// The client of this generation will not get any further by itself.
    pub(super) fn is_stuck(&self, generation: u64) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.generation == generation && !current.is_stuck {
            current.is_stuck = true;
            self.wanted.notify_one();
        }
    }

    /// A call was not answered in time.
    pub(super) fn timed_out(&self) {
        if self.timeouts.fetch_add(1, Ordering::Relaxed) + 1 >= TIMEOUTS_MAX {
            let generation = self.current.read().unwrap_or_else(PoisonError::into_inner).generation;
            self.is_stuck(generation);
        }
    }

    /// A call was answered.
    pub(super) fn answered(&self) {
        self.timeouts.store(0, Ordering::Relaxed);
    }

    /// Makes the first client, and a new one whenever the one of the moment is stuck, until `shutdown`.
    pub(super) async fn keep(&self, shutdown: CancellationToken) {
        let renewing = async {
            loop {
                let begun = self.clock.monotonic();
                self.renew().await;
                let spent = self.clock.monotonic().saturating_sub(begun);
                tokio::time::sleep(RENEWAL_INTERVAL.saturating_sub(spent)).await;
                if !self.is_wanted() {
                    self.wanted.notified().await;
                }
            }
        };
        tokio::select! {
            () = renewing => {}
            () = shutdown.cancelled() => {}
        }
    }

    fn is_wanted(&self) -> bool {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.client.is_none() || current.is_stuck
    }

    async fn renew(&self) {
        let connecting = TransactionClient::new_with_config(self.endpoints.clone(), self.config.clone());
        match tokio::time::timeout(CONNECT_DEADLINE, connecting).await {
            Ok(Ok(client)) => {
                let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
                let generation = current.generation + 1;
                *current = Current { client: Some(client), generation, is_stuck: false };
                self.answered();
                tracing::info!(generation, "connected to TiKV");
            }
            Ok(Err(error)) => tracing::warn!(%error, "cannot connect to TiKV's placement drivers; trying again"),
            Err(_) => tracing::warn!("TiKV's placement drivers do not answer; trying again"),
        }
    }
}
