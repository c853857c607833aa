//! The connection of the moment: made in the background, and made anew when a server hangs.
//!
//! The client (`redis` 1.8) follows a failover by itself when a connection breaks or a server says who is in charge, but a
//! server that merely does not answer is never left: its timeouts do not make it ask for the topology. A new connection asks.
//! One connection a server, shared by all calls: they are pipelined by the client.

use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::cluster_async::ClusterConnection;
use redis::cluster_read_routing::RandomReplicaStrategy;
use redis::{ClientTlsConfig, TlsCertificates, TlsMode};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::settings::{RedisCertificates, RedisSettings};
use super::{DEADLINE, Fault};
use crate::ambient::Clock;

/// A new connection at most this often: each asks for the topology, and connects to every server.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(1);
/// How long making a connection may take: servers that hang, and names that are slow to resolve, included.
const CONNECT_DEADLINE: Duration = Duration::from_secs(2);
/// Attempts that the client makes after the first, when a slot moves or a server is gone. The deadline of the call ends them.
const RETRIES_MAX: u32 = 4;
/// The client's pauses before them, in milliseconds.
const RETRY_PAUSE_MS: (u64, u64) = (20, 200);

/// Holds the connection of the moment.
pub(super) struct Connection {
    client: ClusterClient,
    clock: Clock,
    current: RwLock<Current>,
    wanted: Notify,
}

#[derive(Default)]
struct Current {
    connection: Option<ClusterConnection>,
    is_stuck: bool,
}

impl Connection {
    /// Fails when the settings contradict each other.
    pub(super) fn new(settings: &RedisSettings, clock: Clock) -> Result<Self, redis::RedisError> {
        let scheme = if settings.is_tls { "rediss" } else { "redis" };
        let seeds = settings.seeds.iter().map(|seed| format!("{scheme}://{seed}/"));
        let mut builder = ClusterClientBuilder::new(seeds)
            .connection_timeout(DEADLINE)
            .response_timeout(DEADLINE)
            // The whole call has a deadline of its own, see `RedisCluster::query`.
            .overall_response_timeout(None)
            .retries(RETRIES_MAX)
            .min_retry_wait(RETRY_PAUSE_MS.0)
            .max_retry_wait(RETRY_PAUSE_MS.1)
            // For calls that say so; all others name the primary.
            .read_routing_strategy(RandomReplicaStrategy);
        if settings.is_tls {
            // An error is that the process has one already.
            let _ = rustls::crypto::ring::default_provider().install_default();
            builder = builder.tls(TlsMode::Secure).certs(certificates(&settings.certificates));
        }
        if let Some(user) = &settings.user {
            builder = builder.username(user);
        }
        if let Some(password) = &settings.password {
            builder = builder.password(password.as_str());
        }
        let client = builder.build()?;
        Ok(Self { client, clock, current: RwLock::default(), wanted: Notify::new() })
    }

    /// The connection.
    pub(super) fn current(&self) -> Result<ClusterConnection, Fault> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.connection.clone().ok_or(Fault::NotConnected)
    }

    /// A server did not answer, so that the connection may not get any further by itself.
    pub(super) fn is_stuck(&self) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        current.is_stuck = true;
        self.wanted.notify_one();
    }

    /// Makes the first connection, and a new one whenever the one of the moment is stuck, until `shutdown`.
    pub(super) async fn keep(&self, shutdown: CancellationToken) {
        let renewing = async {
            loop {
                let begun = self.clock.monotonic();
                self.renew().await;
                let spent = self.clock.monotonic().saturating_sub(begun);
                tokio::time::sleep(RENEWAL_INTERVAL.saturating_sub(spent)).await;
                while !self.is_wanted() {
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
        current.connection.is_none() || current.is_stuck
    }

    async fn renew(&self) {
        match tokio::time::timeout(CONNECT_DEADLINE, self.client.get_async_connection()).await {
            Ok(Ok(connection)) => {
                let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
                *current = Current { connection: Some(connection), is_stuck: false };
                drop(current);
                tracing::info!("connected to Redis Cluster");
            }
            Ok(Err(error)) => tracing::warn!(%error, "cannot connect to Redis Cluster; trying again"),
            Err(_) => tracing::warn!("Redis Cluster does not answer; trying again"),
        }
    }
}

fn certificates(RedisCertificates { ca, client }: &RedisCertificates) -> TlsCertificates {
    let client_tls = client
        .as_ref()
        .map(|(certificate, key)| ClientTlsConfig { client_cert: certificate.clone(), client_key: key.to_vec() });
    TlsCertificates { client_tls, root_cert: ca.clone() }
}
