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
use redis::{ClientTlsConfig, RedisError, TlsCertificates, TlsMode};
use tokio_util::sync::CancellationToken;

use super::settings::{RedisCertificates, RedisSettings};
use super::{DEADLINE, Fault};
use crate::ambient::Clock;
use crate::resilience::renewal::Renewal;

/// How long making a connection may take: servers that hang, and names that are slow to resolve, included.
const CONNECT_DEADLINE: Duration = Duration::from_secs(2);
/// Attempts that the client makes after the first, when a slot moves or a server is gone. The deadline of the call ends them.
const RETRIES_MAX: u32 = 4;
/// The client's pauses before them, in milliseconds.
const RETRY_PAUSE_MS: (u64, u64) = (20, 200);

/// Holds the connection of the moment.
pub(super) struct Connection {
    /// Makes connections by the settings of the moment.
    client: RwLock<ClusterClient>,
    connections: Renewal<ClusterConnection>,
}

impl Connection {
    /// Fails when the settings contradict each other.
    pub(super) fn new(settings: &RedisSettings, clock: Clock) -> Result<Self, RedisError> {
        Ok(Self { client: RwLock::new(client(settings)?), connections: Renewal::new(clock) })
    }

    /// Makes a new connection, by other settings.
    pub(super) fn connect_anew(&self, settings: &RedisSettings) -> Result<(), RedisError> {
        *self.client.write().unwrap_or_else(PoisonError::into_inner) = client(settings)?;
        self.connections.is_stuck(self.connections.generation());
        Ok(())
    }

    /// The connection, and which one it is.
    pub(super) fn current(&self) -> Result<(ClusterConnection, u64), Fault> {
        self.connections.current().ok_or(Fault::NotConnected)
    }

    /// A server did not answer, so that the connection of this generation may not get any further by itself.
    pub(super) fn is_stuck(&self, generation: u64) {
        self.connections.is_stuck(generation);
    }

    /// Makes the first connection, and a new one whenever the one of the moment is stuck, until `shutdown`.
    pub(super) async fn keep(&self, shutdown: CancellationToken) {
        self.connections.keep(|| self.connect(), shutdown).await;
    }

    async fn connect(&self) -> Option<ClusterConnection> {
        let client = self.client.read().unwrap_or_else(PoisonError::into_inner).clone();
        match tokio::time::timeout(CONNECT_DEADLINE, client.get_async_connection()).await {
            Ok(Ok(connection)) => {
                tracing::info!("connected to Redis Cluster");
                return Some(connection);
            }
            Ok(Err(error)) => tracing::warn!(%error, "cannot connect to Redis Cluster; trying again"),
            Err(_) => tracing::warn!("Redis Cluster does not answer; trying again"),
        }
        None
    }
}

fn client(settings: &RedisSettings) -> Result<ClusterClient, RedisError> {
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
    builder.build()
}

fn certificates(RedisCertificates { ca, client }: &RedisCertificates) -> TlsCertificates {
    let client_tls = client
        .as_ref()
        .map(|(certificate, key)| ClientTlsConfig { client_cert: certificate.clone(), client_key: key.to_vec() });
    TlsCertificates { client_tls, root_cert: ca.clone() }
}
