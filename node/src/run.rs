//! Puts a node together, serves until it is told to stop, and takes it apart again without losing anything.

mod domains;
mod files;
mod files_in_use;
mod followed;
mod format;
mod listen;
pub mod once;
mod private_file;
mod secret_key;
mod shared;
mod takedowns;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prometheus::process_collector::ProcessCollector;
use prometheus::{Gauge, IntCounter, Registry};
use shortener_crds::ids::worker_id::WORKERS;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::domains::Settling;
use crate::accounts::known_networks::NetworkTags;
use crate::accounts::password::BCRYPT_COST;
use crate::accounts::password_pool::{PasswordPool, PasswordPoolMetrics};
use crate::accounts::token::AccessTokens;
use crate::accounts::{Accounts, AccountsParts};
use crate::allocation::authority::{Authority, Grants};
use crate::ambient::Clock;
use crate::cache::Cache;
use crate::cache::local::LocalCache;
use crate::cache::memory::Memory;
use crate::clicks::queue::{ClickQueue, ClickQueueReader};
use crate::clicks::{self, ClickMetrics, ClickReader, ClickRows, ClickSettings, ClickStore, Clicks};
use crate::config::{Config, Database, ListenOn};
use crate::cores;
use crate::domains::{Domains, RegistryFull};
use crate::http::admin::{self, Admin};
use crate::http::drawing::Drawing;
use crate::http::guard::API_IN_FLIGHT_MAX;
use crate::http::metrics::HttpMetrics;
use crate::http::serve::{Backlog, ConnectionLimits, serve};
use crate::http::{self, App};
use crate::kv::Kv;
use crate::kv::embedded::{Embedded, OpenError};
use crate::kv::tikv::Tikv;
use crate::lease::{LeaseError, OwnLease};
use crate::limits::Limits;
use crate::limits::guesses::GuessLimits;
use crate::limits::memory::MemoryLimits;
use crate::limits::redis::RedisLimits;
use crate::limits::unknown_codes::UnknownCodes;
use crate::links::link::Destination;
use crate::links::takedowns::Takedowns;
use crate::links::{LinkMetrics, Links, LinksParts, Resolve};
use crate::minter::{Minter, MinterMetrics};
use crate::resilience::BackEndMetrics;
use crate::store::StoreError;
use crate::store::format::Formats;
use crate::sweeper::{self, Sweeper};
use files_in_use::InUse;
use shared::{Shared, keep_hot, share};

pub use listen::Listeners;

/// How long connections are told to close before they are closed. Who uses one at least so often loses no request.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long requests in flight have to finish after a shutdown was asked for.
const DRAIN: Duration = Duration::from_secs(5);
/// How long the clicks that wait have to be written after that.
const FLUSH: Duration = Duration::from_secs(3);
/// How long all has to end after [`DRAIN`], the clicks included: both and the last steps of the process are under 10 s.
const STOP: Duration = Duration::from_secs(4);
/// What of [`STOP`] is not kept for closing the store.
const STOP_TASKS: Duration = Duration::from_millis(3_500);
const _: () = assert!(FLUSH.as_millis() < STOP_TASKS.as_millis() && STOP_TASKS.as_millis() < STOP.as_millis());
/// How long a start waits for its connection to the store at most, which takes milliseconds: a first claim without it is tried again a
/// second later.
const CONNECT: Duration = Duration::from_secs(1);
/// How long a start waits for the first IDs at most. They take milliseconds, or a second where an operator grants them, or as long as
/// another operator needs to take over from one that died. Without them the node serves redirects alone.
const SETTLE: Duration = Duration::from_secs(15);
/// Clicks that may wait to be written; what comes beyond is dropped and counted. About 30 MB at most.
const CLICKS_WAITING_MAX: usize = 65_536;

/// Why a node did not start or could not go on. One line each.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// An address cannot be listened on.
    #[error("{setting}: cannot listen on {on}: {source}")]
    Listen {
        /// The setting.
        setting: &'static str,
        /// The address.
        on: ListenOn,
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
    /// The store did not close.
    #[error("the disk hangs: the store did not close in time; all that was acknowledged is safe on it")]
    StoreHangs,
    /// The store failed at start, or holds what this program does not know.
    #[error("cannot run on this store")]
    Store(#[from] StoreError),
    /// The registry of domains has no place for the hosts of the settings.
    #[error(transparent)]
    Domains(#[from] RegistryFull),
    /// The way to the node's Lease cannot be found.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// A metric was registered twice.
    #[error("cannot register a metric")]
    Metrics(#[from] prometheus::Error),
    /// What the node is made of did not fit together.
    #[error("cannot start: {0}")]
    Start(String),
}

/// What a running node is told; clones tell the same node.
#[derive(Clone, Debug, Default)]
pub struct Orders {
    /// To stop.
    pub shutdown: CancellationToken,
    /// How often it was told to read its files again.
    read_files: watch::Sender<u64>,
}

impl Orders {
    /// Has every file that may be replaced read at once, whether it changed or not.
    pub fn read_files_again(&self) {
        self.read_files.send_modify(|times| *times = times.wrapping_add(1));
    }
}

/// Runs a node that knows these formats of rows until `orders` say that it stops, or until its store fails.
pub async fn run(
    config: Config,
    formats: Formats,
    listeners: Listeners,
    clock: Clock,
    orders: Orders,
) -> Result<(), RunError> {
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let registry = Registry::new();
    let (app, background) = assemble(config, formats, clock, &orders, &registry).await?;
    let Orders { shutdown, .. } = orders;
    // A fleet whose nodes are replaced is to lose no create to one that has no IDs yet.
    tokio::select! {
        _ = async { tokio::join!(app.minter.settled(SETTLE), app.domains.settled(SETTLE)) } => {}
        () = shutdown.cancelled() => {}
    }
    let ready = Arc::new(AtomicBool::new(true));
    let admin_stops = CancellationToken::new();
    let last_metrics = Arc::default();
    let admin = Admin { registry, ready: ready.clone(), app: app.clone(), last_metrics };
    let admin = tokio::spawn(shortener_probes::serve(listeners.admin, admin::router(admin), admin_stops.clone()));
    tracing::info!(url = app.config.public_urls.base().as_str(), listening = %app.config.listen_on, "ready");

    let failure = {
        let limits = ConnectionLimits { connections_max: files::connections_max(), ..ConnectionLimits::PUBLIC };
        let router = http::router(app.clone());
        let backlog = app.backlog.clone();
        let public = serve(listeners.public, limits, backlog, router, shutdown.clone(), FAREWELL, DRAIN);
        let not_ready = async {
            shutdown.cancelled().await;
            ready.store(false, Ordering::SeqCst);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = public => None,
            () = not_ready => None,
            reason = app.kv.failed() => Some(RunError::StoreFailed(reason)),
            newer = app.formats.outdated() => Some(StoreError::from(newer).into()),
        }
    };
    ready.store(false, Ordering::SeqCst);
    let stopping = app.clock.monotonic();
    let stopped = async {
        background.stop().await;
        app.minter.stop().await;
        admin_stops.cancel();
        // A panic of the admin listener was reported where it happened.
        let _ = admin.await;
    };
    // What is left then only reads, or waits for the store.
    let _ = tokio::time::timeout(STOP_TASKS, stopped).await;
    let left = STOP.saturating_sub(app.clock.monotonic().saturating_sub(stopping));
    let is_closed = app.kv.close(left).await;
    match failure {
        Some(failure) => Err(failure),
        None if is_closed => Ok(()),
        None => Err(RunError::StoreHangs),
    }
}

/// What runs beside the listeners.
struct Background {
    shutdown: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Background {
    fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.push(tokio::spawn(task));
    }

    /// Ends all of it; the clicks that wait are written first.
    async fn stop(self) {
        self.shutdown.cancel();
        for task in self.tasks {
            // A panic of a task was reported where it happened.
            let _ = task.await;
        }
    }
}

/// Opens the store that the configuration names.
fn open(
    database: &Database,
    clock: &Clock,
    metrics: &BackEndMetrics,
    background: &mut Background,
) -> Result<Kv, OpenError> {
    match database {
        Database::Embedded(directory) => {
            let engine = Embedded::open(directory, clock.clone())?;
            background.spawn(engine.clone().keep(background.shutdown.clone()));
            Ok(Kv::Embedded(engine))
        }
        Database::Tikv(settings) => {
            let engine = Tikv::new(settings, clock.clone(), metrics);
            background.spawn(engine.clone().keep(background.shutdown.clone()));
            Ok(Kv::Tikv(engine))
        }
    }
}

async fn start_minter(
    config: &Config,
    kv: &Kv,
    clock: &Clock,
    formats: &Formats,
    registry: &Registry,
) -> Result<Minter, RunError> {
    let authority = match &config.lease {
        None => Authority::Own,
        Some(_) => Authority::Lease(Grants::default()),
    };
    let metrics = MinterMetrics::register(registry)?;
    // Elapsed: the node starts all the same, and claims once it is connected.
    let _ = tokio::time::timeout(CONNECT, kv.connected()).await;
    Ok(Minter::start(kv.clone(), clock.clone(), config.code_length, authority, formats.clone(), metrics).await?)
}

/// Raises the keyspace's format where no other node can run on the store, and follows it.
async fn settle_format(config: &Config, kv: &Kv, formats: &Formats, background: &mut Background) {
    let is_alone = matches!(kv, Kv::Embedded(_));
    if is_alone {
        format::raise_to_newest(kv, formats).await;
    }
    let is_operated = is_alone || config.lease.is_some();
    let following = format::follow(kv.clone(), formats.clone(), is_operated, background.shutdown.clone());
    background.spawn(following);
}

/// Puts a node together on its store.
async fn assemble(
    config: Config,
    formats: Formats,
    clock: Clock,
    orders: &Orders,
    registry: &Registry,
) -> Result<(Arc<App>, Background), RunError> {
    let mut background = Background { shutdown: CancellationToken::new(), tasks: Vec::new() };
    let back_ends = BackEndMetrics::register(registry)?;
    let kv = open(&config.database, &clock, &back_ends, &mut background)?;
    let metrics = HttpMetrics::register(registry)?;
    let backlog = Arc::new(Backlog::register(registry)?);
    register_process(registry)?;
    let mint_clashes = counter(registry, "shortener_mint_clashes_total", "Minted codes that were there already.")?;
    let minter = start_minter(&config, &kv, &clock, &formats, registry).await?;
    settle_format(&config, &kv, &formats, &mut background).await;
    let local = Arc::new(LocalCache::new(config.local_cache_bytes, config.local_cache_ttl, Destination::weight));
    let domains = settle_domains(&config, &kv, &local, &mut background).await?;
    let shared = share(&config, &kv, (&minter, &domains), &clock, &local, &back_ends, &mut background)?;
    if let Some(settings) = config.lease.clone() {
        let redis = shared.as_ref().map(|shared| shared.redis.clone());
        let lease = OwnLease::new(settings, minter.clone(), kv.clone(), redis, formats.clone(), clock.clone()).await?;
        background.spawn(lease.keep(background.shutdown.clone()));
    }
    let countries = files_in_use::load_countries(config.geoip_database.as_deref())?;
    let reads_and_writes = (ClickReader::new(kv.clone(), countries.clone()), click_rows(&kv, &minter));
    let boot = minter.boot_id().0;
    let clicks = start_clicks(&config, reads_and_writes, boot, &clock, shared.as_ref(), registry, &mut background)?;
    let blocked_hosts = files_in_use::load_blocked_hosts(config.blocked_hosts_file.as_deref())?;
    let blocked = Takedowns::new(blocked_hosts.clone());
    follow_takedowns(&config, &kv, &blocked, &mut background).await;
    let redis = shared.as_ref().map(|shared| &shared.redis);
    let in_use = InUse { config: &config, blocked_hosts: &blocked_hosts, countries: &countries, kv: &kv, redis };
    background.spawn(followed::follow(in_use.followed(), orders.read_files.subscribe(), background.shutdown.clone()));
    let expiring = sweeper::table(config.analytics_retention_days);
    background.spawn(Sweeper::new(kv.clone(), clock.clone(), expiring).run(background.shutdown.clone()));
    let links = Links::new(LinksParts {
        kv: kv.clone(),
        clock: clock.clone(),
        minter: minter.clone(),
        cache: local.clone(),
        shared: shared.as_ref().map(|shared| shared.links.clone()),
        domains: domains.clone(),
        takedowns: blocked.clone(),
        redirect_status: config.redirect_status,
        formats: formats.clone(),
        metrics: LinkMetrics { mint_clashes },
    });
    background.spawn(links.lists().indexer().clone().run(background.shutdown.clone()));
    let shared_links = shared.as_ref().map(|shared| shared.links.clone());
    let resolve = Resolve::new(kv.clone(), clock.clone(), local, shared_links, domains.clone(), config.cache_max_age);
    let app = App {
        hot: shared.as_ref().map(|shared| keep_hot(&config, shared, (&resolve, &domains), &clock, &mut background)),
        domains,
        links,
        resolve,
        takedowns: blocked,
        accounts: start_accounts(&config, &kv, &clock, &minter, &formats, shared.as_ref(), registry)?,
        clicks,
        cache: cache_of(shared.as_ref(), &clock),
        limits: limits_of(shared.as_ref(), &clock),
        drawing: Drawing::on_half_the_cores(),
        unknown_codes: UnknownCodes::new(clock.clone()).map_err(|error| RunError::Start(error.to_string()))?,
        minter,
        formats,
        api_places: Semaphore::new(API_IN_FLIGHT_MAX),
        metrics,
        backlog,
        kv,
        clock,
        config,
    };
    Ok((Arc::new(app), background))
}

fn cache_of(shared: Option<&Shared>, clock: &Clock) -> Cache {
    match shared {
        Some(shared) => Cache::RedisCluster(shared.redis.clone()),
        None => Cache::Memory(Memory::new(clock.clone())),
    }
}

fn limits_of(shared: Option<&Shared>, clock: &Clock) -> Limits {
    let alone = MemoryLimits::new(clock.clone());
    match shared {
        Some(shared) => Limits::Redis(RedisLimits::new(shared.redis.clone(), alone)),
        None => Limits::Memory(alone),
    }
}

/// Brings the registry of domains in step with the settings before the first request, if the store answers, and follows it from then on.
async fn settle_domains(
    config: &Config,
    kv: &Kv,
    local: &Arc<LocalCache<Destination>>,
    background: &mut Background,
) -> Result<Domains, RunError> {
    let domains = Domains::default();
    let urls = config.public_urls.clone();
    let settling = Settling { kv: kv.clone(), urls, domains: domains.clone(), local: local.clone() };
    // Elapsed: it is done once the store answers.
    let known = tokio::time::timeout(CONNECT, settling.begin()).await.unwrap_or(Ok(None))?;
    background.spawn(settling.follow(known, background.shutdown.clone()));
    Ok(domains)
}

/// Reads what is blocked before the first redirect, if the store answers, and follows it from then on.
async fn follow_takedowns(config: &Config, kv: &Kv, blocked: &Takedowns, background: &mut Background) {
    // Elapsed: it is read once the store answers.
    let _ = tokio::time::timeout(CONNECT, takedowns::read(kv, blocked)).await;
    let directory = match &config.database {
        Database::Embedded(directory) => Some(directory.clone()),
        Database::Tikv(_) => None,
    };
    let following = takedowns::follow(kv.clone(), blocked.clone(), directory, background.shutdown.clone());
    background.spawn(following);
}

/// Rows of clicks, counted in the shard of the node's worker ID.
fn click_rows(kv: &Kv, minter: &Minter) -> ClickRows {
    let boot = minter.boot_id().0;
    // Without a worker ID, a number beyond all of them that hardly anybody else has: counting goes on.
    let stand_in = WORKERS + u16::try_from(boot % u128::from(u16::MAX - WORKERS)).unwrap_or_default();
    let minter = minter.clone();
    ClickRows::new(kv.clone(), move || minter.worker_id().map_or(stand_in, u16::from))
}

fn start_clicks(
    config: &Config,
    (reader, rows): (ClickReader, ClickRows),
    boot: u128,
    clock: &Clock,
    shared: Option<&Shared>,
    registry: &Registry,
    background: &mut Background,
) -> Result<Clicks, RunError> {
    let settings = ClickSettings {
        batch_size: config.analytics_batch_size,
        flush_interval: config.analytics_flush_interval,
        retention_days: config.analytics_retention_days,
        queue_events_max: CLICKS_WAITING_MAX,
    };
    let metrics = ClickMetrics::register(registry)?;
    let stops = || background.shutdown.clone();
    let Some(Shared { redis, .. }) = shared else {
        let (clicks, consumer) = clicks::pipeline(&settings, boot, ClickStore::new(reader, rows), &metrics);
        background.spawn(consumer.run(stops(), FLUSH));
        return Ok(clicks);
    };
    let queue = ClickQueue::new(redis.clone(), reader, boot, &metrics);
    let (clicks, consumer) = clicks::pipeline(&settings, boot, queue, &metrics);
    let from_queue = ClickQueueReader::new(redis.clone(), rows, boot, clock.clone(), &metrics);
    let (to_queue, from_queue) = (consumer.run(stops(), FLUSH), from_queue.run(stops()));
    background.spawn(to_queue);
    background.spawn(from_queue);
    Ok(clicks)
}

fn start_accounts(
    config: &Config,
    kv: &Kv,
    clock: &Clock,
    minter: &Minter,
    formats: &Formats,
    shared: Option<&Shared>,
    registry: &Registry,
) -> Result<Accounts, RunError> {
    let directory = match &config.database {
        Database::Embedded(directory) => Some(directory.as_path()),
        Database::Tikv(_) => None,
    };
    let secret = secret_key::load(config.secret_key.clone(), directory)?;
    let previous = config.secret_key_previous.as_ref();
    let issuer = config.public_urls.base().as_str().to_owned();
    let metrics = PasswordPoolMetrics::register(registry)?;
    let passwords = PasswordPool::start(PasswordPool::default_threads(), BCRYPT_COST, clock.clone(), metrics)
        .map_err(|error| RunError::Start(format!("no thread for passwords: {error}")))?;
    let minter = minter.clone();
    Ok(Accounts::new(AccountsParts {
        kv: kv.clone(),
        clock: clock.clone(),
        mint_id: Box::new(move || minter.next_id().ok()),
        passwords,
        tokens: AccessTokens::new(issuer, config.access_token_ttl, &secret, previous),
        refresh_lifetime: config.refresh_token_ttl,
        hosts: config.public_urls.hosts(),
        formats: formats.clone(),
        network_tags: NetworkTags::new(&secret, previous),
        guesses: GuessLimits::new(clock.clone(), shared.map(|shared| shared.redis.clone())),
        guesses_slowed: counter(
            registry,
            "shortener_password_guesses_slowed_total",
            "Sign-ins refused because others guess at the same account's password.",
        )?,
    }))
}

fn counter(registry: &Registry, name: &str, help: &str) -> Result<IntCounter, RunError> {
    let counter = IntCounter::new(name, help)?;
    registry.register(Box::new(counter.clone()))?;
    Ok(counter)
}

/// CPU seconds, memory, file descriptors; and of how much CPU that is.
fn register_process(registry: &Registry) -> Result<(), RunError> {
    let cores =
        Gauge::new("shortener_cpu_limit_cores", "Cores that this process may use: its quota, or the machine's.")?;
    cores.set(cores::limit());
    registry.register(Box::new(cores))?;
    registry.register(Box::new(cores::CpuSeconds::new()?))?;
    Ok(registry.register(Box::new(ProcessCollector::for_self()))?)
}
