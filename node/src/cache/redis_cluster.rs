//! The cache that nodes share: a Redis Cluster. What is in it may be lost at any moment, and an error is a miss.
//!
//! [`RedisCluster::query`] and [`RedisCluster::run`] are the one way there: each call has one key ([`keys`]), a deadline, and
//! the breaker and the budget of [`Resilience`] before it. Nothing is sent until the store has
//! told which keyspace this is: before that no key can be built.

mod connection;
pub mod invalidations;
pub mod keys;
pub mod links;
mod script;
mod settings;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{MultipleNodeRoutingInfo, ResponsePolicy, RoutingInfo, SingleNodeRoutingInfo, SlotAddr};
use redis::{Arg, Cmd, ErrorKind, FromRedisValue, RedisError, ServerErrorKind, Value};
use tokio_util::sync::CancellationToken;
use tracing::field;

use crate::ambient::Clock;
use crate::resilience::{BackEndMetrics, CallError, Condition, Resilience, Verdict};
use crate::traces::{self, STEP};
use connection::Connection;
use keys::{Keys, RedisKey};

pub use script::Script;
pub use settings::{RedisCertificates, RedisSettings};

/// How long a call may take.
pub const DEADLINE: Duration = Duration::from_millis(250);
/// How long a probe may take. Longer than a call: it is about servers that hang, not about a slow moment.
const PROBE_DEADLINE: Duration = Duration::from_millis(500);

/// Why Redis gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum RedisFailure {
    /// The store has not been reached yet.
    #[error("which keyspace this is, is not known yet")]
    NoKeyspace,
    /// The breaker is open: nothing was sent.
    #[error("Redis fails, and is asked again once it works")]
    Open,
    /// What was sent may yet be done.
    #[error("Redis did not answer within {DEADLINE:?}")]
    Deadline,
    /// There is no connection yet.
    #[error("not connected to Redis yet")]
    NotConnected,
    /// Redis or the way there failed.
    #[error("Redis failed: {0}")]
    Failed(RedisError),
}

impl RedisFailure {
    /// The kind of failure in one word, without data.
    fn kind(&self) -> &'static str {
        match self {
            Self::NoKeyspace => "no_keyspace",
            Self::Open => "breaker_open",
            Self::Deadline => "deadline",
            Self::NotConnected => "not_connected",
            Self::Failed(_) => "failed",
        }
    }
}

/// Why one attempt failed.
#[derive(Debug)]
enum Fault {
    NotConnected,
    Redis(RedisError),
}

impl From<RedisError> for Fault {
    fn from(error: RedisError) -> Self {
        Self::Redis(error)
    }
}

impl Fault {
    /// All that is ever sent may be sent twice: a repeated write changes nothing.
    fn verdict(&self) -> Verdict {
        use ServerErrorKind::{Ask, BusyLoading, ClusterDown, MasterDown, Moved, ReadOnly, TryAgain};
        match self {
            Self::NotConnected => Verdict::FailedForGood,
            Self::Redis(error) => match error.kind() {
                ErrorKind::Server(Ask | BusyLoading | ClusterDown | MasterDown | Moved | ReadOnly | TryAgain) => {
                    Verdict::Failed
                }
                ErrorKind::Server(_) | ErrorKind::Extension | ErrorKind::UnexpectedReturnType => Verdict::Answered,
                _ => Verdict::Failed,
            },
        }
    }
}

/// Which server of a shard is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// The one that writes go to.
    Primary,
    /// Any that has the data, perhaps some milliseconds old.
    Any,
}

type Identity = Box<dyn Fn() -> Option<u128> + Send + Sync>;

/// A keyspace's part of a Redis Cluster; cheap to clone.
#[derive(Clone)]
pub struct RedisCluster {
    inner: Arc<Inner>,
}

struct Inner {
    connection: Connection,
    resilience: Resilience,
    identity: Identity,
}

impl RedisCluster {
    /// The cluster of `settings`; `identity` tells the keyspace's once that is known. It need not be reachable:
    /// [`RedisCluster::keep`] connects, and calls fail until it has.
    pub fn new(
        settings: &RedisSettings,
        identity: impl Fn() -> Option<u128> + Send + Sync + 'static,
        clock: Clock,
        metrics: &BackEndMetrics,
    ) -> Result<Self, RedisFailure> {
        let connection = Connection::new(settings, clock.clone()).map_err(RedisFailure::Failed)?;
        let resilience = Resilience::new("redis", clock, metrics);
        Ok(Self { inner: Arc::new(Inner { connection, resilience, identity: Box::new(identity) }) })
    }

    /// Connects, and again whenever a server hangs; watches over the cluster's health. Until `shutdown`.
    pub async fn keep(self, shutdown: CancellationToken) {
        let probed = self.clone();
        let watching = self.inner.resilience.clone().watch(|| probed.probe(), shutdown.clone());
        tokio::join!(self.inner.connection.keep(shutdown), watching);
    }

    /// Makes a new connection, by `settings`: those of the same cluster with other credentials or certificates. Until there is
    /// one, the connection of the moment stays in use.
    pub fn connect_anew(&self, settings: &RedisSettings) -> Result<(), RedisFailure> {
        self.inner.connection.connect_anew(settings).map_err(RedisFailure::Failed)
    }

    /// How the cluster is: not up before there was a connection.
    pub fn condition(&self) -> Condition {
        let condition = self.inner.resilience.condition();
        Condition { is_up: condition.is_up && self.inner.connection.current().is_ok(), ..condition }
    }

    /// The keys of the keyspace.
    pub fn keys(&self) -> Result<Keys, RedisFailure> {
        (self.inner.identity)().map(Keys::of).ok_or(RedisFailure::NoKeyspace)
    }

    /// Sends `command`, whose one key is `key`. It must be one that may be sent twice.
    pub async fn query<T: FromRedisValue>(&self, at: Server, key: &RedisKey, command: &Cmd) -> Result<T, RedisFailure> {
        self.call(name(command), || self.inner.send(at, key, command.clone())).await
    }

    /// Runs `script` on `key` where that is written. A server that does not know the script, as after a failover, gets it whole.
    pub async fn run<T: FromRedisValue>(
        &self,
        script: &Script,
        key: &RedisKey,
        arguments: impl Fn(&mut Cmd),
    ) -> Result<T, RedisFailure> {
        self.call("EVALSHA", || async {
            let known = script.by_hash(key, &arguments);
            match self.inner.send(Server::Primary, key, known).await {
                Err(Fault::Redis(error)) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                    self.inner.send(Server::Primary, key, script.whole(key, &arguments)).await
                }
                other => other,
            }
        })
        .await
    }

    /// Calls Redis, as a step of the trace if the request is followed.
    async fn call<T, Attempt>(&self, operation: &str, attempt: impl Fn() -> Attempt) -> Result<T, RedisFailure>
    where
        Attempt: Future<Output = Result<T, Fault>>,
    {
        let span = tracing::info_span!(
            target: STEP,
            "redis",
            otel.name = operation,
            otel.kind = "client",
            otel.status_code = field::Empty,
            db.system.name = "redis",
            db.operation.name = operation,
            "error.type" = field::Empty,
        );
        traces::within(span, RedisFailure::kind, self.call_guarded(attempt)).await
    }

    async fn call_guarded<T, Attempt>(&self, attempt: impl Fn() -> Attempt) -> Result<T, RedisFailure>
    where
        Attempt: Future<Output = Result<T, Fault>>,
    {
        // Nothing can be sent, which says nothing of Redis: a node that has just started must not open its breaker by that.
        self.inner.connection.current().map_err(|_| RedisFailure::NotConnected)?;
        let answer = self.inner.resilience.call(DEADLINE, attempt, Fault::verdict).await;
        answer.map_err(|error| match error {
            CallError::Open => RedisFailure::Open,
            CallError::Deadline => RedisFailure::Deadline,
            CallError::Failed(Fault::NotConnected) => RedisFailure::NotConnected,
            CallError::Failed(Fault::Redis(error)) => RedisFailure::Failed(error),
        })
    }

    /// Whether any server answers. When one does not, a new connection is made: it may have been replaced by another.
    async fn probe(&self) -> bool {
        let Ok((connection, generation)) = self.inner.connection.current() else { return false };
        let (any, all) = tokio::join!(
            ping(connection.clone(), MultipleNodeRoutingInfo::AllMasters, ResponsePolicy::OneSucceeded),
            ping(connection.clone(), MultipleNodeRoutingInfo::AllNodes, ResponsePolicy::AllSucceeded),
        );
        if !all {
            self.inner.connection.is_stuck(generation);
        }
        any
    }
}

impl Inner {
    async fn send<T: FromRedisValue>(&self, at: Server, key: &RedisKey, command: Cmd) -> Result<T, Fault> {
        let at = match at {
            Server::Primary => SlotAddr::Master,
            Server::Any => SlotAddr::ReplicaOptional,
        };
        let route = RoutingInfo::SingleNode(SingleNodeRoutingInfo::SpecificNode(key.route(at)));
        let (mut connection, _) = self.connection.current()?;
        let answer = match connection.route_command(command.clone(), route).await.and_then(Value::extract_error) {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::Ask) => {
                ask(connection, &error, command).await?
            }
            answer => answer?,
        };
        Ok(redis::from_redis_value(answer).map_err(RedisError::from)?)
    }
}

/// Sends `command` to where `error` says that its key is already while the slot moves. The client does that by itself, but sends
/// `ASKING` and the command apart, on a connection that all calls share: under load another call comes between and takes the leave.
/// It gives up after a few attempts; as one piece both arrive.
async fn ask(mut connection: ClusterConnection, error: &RedisError, command: Cmd) -> Result<Value, RedisError> {
    let address = error.redirect_node().and_then(|(address, _)| address.rsplit_once(':'));
    let Some((host, Ok(port))) = address.map(|(host, port)| (host.to_owned(), port.parse())) else {
        return Err(error.clone());
    };
    let mut pipeline = redis::pipe();
    pipeline.cmd("ASKING").add_command(command);
    let answers = connection.route_pipeline(pipeline, 1, 1, SingleNodeRoutingInfo::ByAddress { host, port }).await?;
    answers.into_iter().next().map_or_else(|| Err(error.clone()), Value::extract_error)
}

/// The name of a command: its first word.
fn name(command: &Cmd) -> &str {
    match command.args_iter().next() {
        Some(Arg::Simple(name)) => std::str::from_utf8(name).unwrap_or_default(),
        _ => "",
    }
}

async fn ping(mut connection: ClusterConnection, servers: MultipleNodeRoutingInfo, policy: ResponsePolicy) -> bool {
    let route = RoutingInfo::MultiNode((servers, Some(policy)));
    let answer = connection.route_command(redis::cmd("PING"), route);
    matches!(tokio::time::timeout(PROBE_DEADLINE, answer).await, Ok(Ok(_)))
}

impl fmt::Debug for RedisCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisCluster").finish_non_exhaustive()
    }
}
