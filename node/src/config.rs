//! Flags and environment → one checked [`Config`].
//!
//! [`Settings`] is what a person may write: a flag and an environment variable of the same name for each. [`Settings::check`]
//! turns it into values that cannot be wrong, or into one line that names the setting and what is allowed. Nothing outside
//! this file reads the environment.

mod parse;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{BoolishValueParser, OsStr, Resettable};
use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;
use shortener_crds::ids::CodeLength;
use shortener_crds::ids::allocate::PodUid;

use crate::accounts::secret_key::SecretKey;
use crate::cache::redis_cluster::RedisSettings;
use crate::kv::tikv::{TikvSettings, Tls};
use crate::lease::LeaseSettings;
use crate::limits::LimitRule;
use crate::links::RedirectStatus;
use crate::links::takedowns::Order;
use crate::public_url::{BaseUrl, PublicUrls, UnknownHosts};
use crate::traces::{OtlpEndpoint, TraceSettings};

pub use parse::{RedisSource, Secret};

/// The port of the public HTTP listener, unless an address is given.
const PUBLIC_PORT: u16 = 8000;
/// The port of the probes and metrics listener, unless an address is given.
const ADMIN_PORT: u16 = 9000;
/// The longest that anything may lag behind: a click its count, a node's copy its link.
const WAIT_MAX: Duration = Duration::from_hours(1);

/// Runs a shortener node. With no settings at all it runs alone and keeps everything under ./data.
#[derive(Clone, Debug, Parser)]
#[command(name = "shortener-node", version, max_term_width = 100)]
pub struct Settings {
    #[command(subcommand)]
    command: Option<Command>,
    /// Address of the public HTTP listener. Default: port 8000 of all interfaces, IPv4 and IPv6.
    #[arg(long, env)]
    listen_addr: Option<SocketAddr>,
    /// Address of the probes and metrics listener. Default: `127.0.0.1:9000`; with an `ALLOCATION` of lease, where the kubelet
    /// asks, port 9000 of all interfaces.
    #[arg(long, env)]
    admin_addr: Option<SocketAddr>,
    /// What short URLs begin with.
    #[arg(long, env, default_value = "http://localhost:8000", value_parser = BaseUrl::parse)]
    base_url: BaseUrl,
    /// Further host names, comma-separated, each with codes of its own.
    #[arg(long, env, value_delimiter = ',')]
    domains: Vec<String>,
    /// What a valid host gets that is not ours: the default domain, or 404 for every path but that of health. Default: `default` while
    /// there are no DOMAINS, else `404`.
    #[arg(long, env)]
    unknown_hosts: Option<UnknownHosts>,
    /// Where links are kept: `embedded:DIRECTORY` of this machine, or `tikv://host:port,host:port/keyspace`, the addresses of
    /// placement drivers.
    #[arg(long, env, global = true, default_value = "embedded:./data", value_parser = parse::database)]
    database_url: Database,
    /// PEM file of who signed the certificates of TiKV's servers.
    #[arg(long, env, global = true)]
    tikv_ca: Option<PathBuf>,
    /// PEM file of the certificate shown to TiKV.
    #[arg(long, env, global = true)]
    tikv_cert: Option<PathBuf>,
    /// PEM file of that certificate's key.
    #[arg(long, env, global = true)]
    tikv_key: Option<PathBuf>,
    /// Cache that nodes share, `redis-cluster://user:password@host:port,host:port`, or `rediss-cluster://` for TLS; without one
    /// the node keeps everything in its own memory.
    #[arg(long, env, hide_env_values = true)]
    redis_url: Option<Secret>,
    /// File that holds `REDIS_URL`.
    #[arg(long, env)]
    redis_url_file: Option<PathBuf>,
    /// Who logs in to Redis, where that is not in `REDIS_URL`; without it Redis' own `default`.
    #[arg(long, env)]
    redis_username: Option<String>,
    /// The password for Redis, where it is not in `REDIS_URL`.
    #[arg(long, env, hide_env_values = true)]
    redis_password: Option<Secret>,
    /// File that holds `REDIS_PASSWORD`.
    #[arg(long, env)]
    redis_password_file: Option<PathBuf>,
    /// PEM file of who signed the certificates of Redis' servers; by default those that this machine trusts.
    #[arg(long, env)]
    redis_ca: Option<PathBuf>,
    /// PEM file of the certificate shown to Redis, if it asks for one.
    #[arg(long, env)]
    redis_cert: Option<PathBuf>,
    /// PEM file of that certificate's key.
    #[arg(long, env)]
    redis_key: Option<PathBuf>,
    /// Signs access tokens; 32 bytes at least. Generated and kept with the data when the node runs alone.
    #[arg(long, env, hide_env_values = true)]
    secret_key: Option<Secret>,
    /// File that holds `SECRET_KEY`.
    #[arg(long, env)]
    secret_key_file: Option<PathBuf>,
    /// The key before the last rotation: tokens signed with it are still accepted.
    #[arg(long, env, hide_env_values = true)]
    secret_key_previous: Option<Secret>,
    /// File that holds `SECRET_KEY_PREVIOUS`.
    #[arg(long, env)]
    secret_key_previous_file: Option<PathBuf>,
    /// Life of an access token, in minutes.
    #[arg(long, env, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=1440))]
    access_token_expire_minutes: u64,
    /// Life of a refresh token, in days.
    #[arg(long, env, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=365))]
    refresh_token_expire_days: u64,
    /// OAuth server whose access tokens are accepted beside our own.
    #[arg(long, env)]
    oidc_issuer: Option<String>,
    /// Audience that such tokens must name.
    #[arg(long, env)]
    oidc_audience: Option<String>,
    /// Characters in a generated code, 6 to 10.
    #[arg(long, env, default_value = "7", value_parser = parse::code_length)]
    short_code_length: CodeLength,
    /// Status of new links that name none: 301, 302, 307 or 308.
    #[arg(long, env, default_value = "302", value_parser = parse::redirect_status)]
    redirect_status: RedirectStatus,
    /// How long a CDN or gateway may keep a temporary redirect, in seconds.
    #[arg(long, env, default_value = "0", value_parser = parse::span)]
    cache_max_age: Duration,
    /// Requests a user may make to one endpoint in a window.
    #[arg(long, env, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate_limit_requests: u32,
    /// Requests an address without a token may make to one endpoint in a window.
    #[arg(long, env, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate_limit_anonymous: u32,
    /// Length of that window, in seconds.
    #[arg(long, env, default_value = "60", value_parser = parse::span)]
    rate_limit_window: Duration,
    /// Registrations an address may make: requests/seconds.
    #[arg(long, env, default_value = "60/3600", value_parser = parse::rule)]
    rate_limit_register: LimitRule,
    /// Logins an address may try: requests/seconds.
    #[arg(long, env, default_value = "20/300", value_parser = parse::rule)]
    rate_limit_login: LimitRule,
    /// Networks, comma-separated, whose Forwarded and X-Forwarded-For headers are believed.
    #[arg(long, env, value_delimiter = ',', value_parser = parse::proxies)]
    trusted_proxies: Vec<IpNet>,
    /// Clicks written in one transaction.
    #[arg(long, env, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    analytics_batch_size: u32,
    /// Longest time a click waits to be written, in seconds.
    #[arg(long, env, default_value = "5", value_parser = parse::span)]
    analytics_flush_interval: Duration,
    /// How long single clicks are kept, in days.
    #[arg(long, env, default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=3650))]
    analytics_retention_days: u32,
    /// MaxMind-format file that tells countries.
    #[arg(long, env)]
    geoip_database: Option<PathBuf>,
    /// Clicks in an hour from which a link counts as hot in a shared cache.
    #[arg(long, env, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    hot_url_click_threshold: u32,
    /// Memory for links kept in the process, in bytes.
    #[arg(long, env, default_value = "64MiB", value_parser = parse::bytes)]
    local_cache_bytes: u64,
    /// How long a link is kept in the process, in seconds.
    #[arg(long, env, default_value = "5", value_parser = parse::span)]
    local_cache_ttl: Duration,
    /// File of hosts that may not be shortened, one host or domain a line; read again when it changes.
    #[arg(long, env)]
    blocked_hosts_file: Option<PathBuf>,
    /// error, warn, info, debug or trace. Default: info.
    #[arg(long, env)]
    log_level: Option<LogLevel>,
    /// Default: text on a terminal, else json.
    #[arg(long, env)]
    log_format: Option<LogFormat>,
    /// Level debug, as text.
    #[arg(long, env, default_value = "false", num_args = 0..=1, default_missing_value = "true",
        value_parser = BoolishValueParser::new())]
    debug: bool,
    /// OpenTelemetry collector that traces are sent to by OTLP over HTTP: its base URL, such as `http://localhost:4318`; without one,
    /// no traces.
    #[arg(long, env)]
    otlp_endpoint: Option<String>,
    /// Who hands out worker IDs and blocks: the node itself, or the operator.
    #[arg(long, env, default_value = "self")]
    allocation: Allocation,
    /// The pod that this node runs in. With `lease`: what its Lease is named like; with an `OTLP_ENDPOINT`: who sends traces.
    #[arg(long, env, value_parser = parse::pod_name)]
    pod_name: Option<String>,
    /// With `lease`: that pod's UID.
    #[arg(long, env, value_parser = parse::pod_uid)]
    pod_uid: Option<PodUid>,
    /// With `lease`: that pod's namespace.
    #[arg(long, env, value_parser = parse::label_name)]
    pod_namespace: Option<String>,
    /// With `lease`: that pod's address.
    #[arg(long, env)]
    pod_ip: Option<IpAddr>,
    /// With `lease`: the `ShortenerCluster` that this node belongs to.
    #[arg(long, env, value_parser = parse::label_name)]
    cluster_name: Option<String>,
}

/// What to do with a whole store instead of serving.
#[derive(Clone, Debug, Subcommand)]
pub enum Copying {
    /// Writes everything that is kept to a file, as JSON Lines, as it is at one moment. An embedded store must not be in use by a
    /// node meanwhile; TiKV may.
    Backup {
        /// Where to. `-` is standard output.
        file: PathBuf,
    },
    /// Reads such a file into a store that is empty.
    Restore {
        /// Where from. `-` is standard input.
        file: PathBuf,
    },
}

/// What to do instead of serving.
#[derive(Clone, Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Copy(Copying),
    /// Takes a link or a host down: within seconds no node redirects it any more, and no link is made to the host. A node that uses
    /// the embedded store may run meanwhile.
    Block {
        /// A code, a short URL, or a host, which covers all hosts below it.
        what: String,
    },
    /// Undoes `block`.
    Unblock {
        /// What was blocked.
        what: String,
    },
    /// Lets nodes write the rows of this release, once no node of an earlier one runs. Earlier releases refuse to start from then on.
    /// It is for nodes that share a store without an operator: the operator does it by itself, and so does a node on the embedded store.
    RaiseFormat,
}

/// What the program is asked to do.
#[derive(Clone, Debug)]
pub enum Task {
    /// Serve.
    Serve(Box<Config>),
    /// Back up this database or restore it.
    Once(Copying, Database),
    /// Block something in this database, or let it be again.
    TakeDown(Order, Database),
    /// Raise this database's format.
    RaiseFormat(Database),
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Only what failed.
    Error,
    /// Also what looks wrong.
    Warn,
    /// Also API requests, start and stop.
    Info,
    /// Also redirects.
    Debug,
    /// Everything.
    Trace,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Who hands out worker IDs and blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Allocation {
    /// The node takes them from the store.
    #[value(name = "self")]
    Own,
    /// The operator, through a Lease.
    Lease,
}

/// What a listener is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenOn {
    /// This address.
    Address(SocketAddr),
    /// A port of all interfaces, IPv4 and, where the machine has it, IPv6.
    AllInterfaces {
        /// The port.
        port: u16,
    },
}

impl ListenOn {
    fn port(self) -> u16 {
        match self {
            Self::Address(address) => address.port(),
            Self::AllInterfaces { port } => port,
        }
    }

    /// Its one interface; none for all of them.
    fn interface(self) -> Option<IpAddr> {
        match self {
            Self::Address(address) => Some(address.ip()).filter(|ip| !ip.is_unspecified()),
            Self::AllInterfaces { .. } => None,
        }
    }

    /// Whether the two cannot both be listened on. Port 0 is another one each time.
    fn collides(self, other: Self) -> bool {
        let shares_an_interface = match (self.interface(), other.interface()) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        };
        self.port() != 0 && self.port() == other.port() && shares_an_interface
    }
}

impl fmt::Display for ListenOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::AllInterfaces { port } => write!(f, "port {port} of all interfaces"),
        }
    }
}

/// Where links are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Database {
    /// In this directory of this machine.
    Embedded(PathBuf),
    /// In a cluster that nodes share.
    Tikv(TikvSettings),
}

/// What the log shows and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// How much.
    pub level: LogLevel,
    /// In which form; `None` lets the terminal decide.
    pub format: Option<LogFormat>,
}

/// The rate limits of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimits {
    /// Per user and endpoint.
    pub user: LimitRule,
    /// Per address and endpoint, without a token.
    pub anonymous: LimitRule,
    /// Registrations per address.
    pub register: LimitRule,
    /// Logins per address.
    pub login: LimitRule,
}

/// Everything a node is told, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Public HTTP.
    pub listen_on: ListenOn,
    /// Probes and metrics.
    pub admin_listen_on: ListenOn,
    /// What short URLs begin with, for each domain.
    pub public_urls: PublicUrls,
    /// Where links are kept.
    pub database: Database,
    /// The cache that nodes share; `None`: this process's own.
    pub redis: Option<RedisSettings>,
    /// Where these settings come from, for when its files are replaced.
    pub redis_source: RedisSource,
    /// Signs access tokens; `None`: the one generated with the data.
    pub secret_key: Option<SecretKey>,
    /// Still accepted for access tokens.
    pub secret_key_previous: Option<SecretKey>,
    /// Life of an access token.
    pub access_token_ttl: Duration,
    /// Life of a refresh token.
    pub refresh_token_ttl: Duration,
    /// Characters in a generated code.
    pub code_length: CodeLength,
    /// Status of new links that name none.
    pub redirect_status: RedirectStatus,
    /// How long a CDN may keep a temporary redirect.
    pub cache_max_age: Duration,
    /// The rate limits of the API.
    pub rate_limits: RateLimits,
    /// Networks whose forwarding headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Clicks written in one transaction.
    pub analytics_batch_size: usize,
    /// Longest time a click waits to be written.
    pub analytics_flush_interval: Duration,
    /// How long single clicks are kept.
    pub analytics_retention_days: u32,
    /// A MaxMind-format file for countries.
    pub geoip_database: Option<PathBuf>,
    /// Redirects in an hour from which a link is hot.
    pub hot_url_click_threshold: u32,
    /// Memory for links kept in the process, in bytes.
    pub local_cache_bytes: u64,
    /// How long a link is kept in the process.
    pub local_cache_ttl: Duration,
    /// Hosts that may not be shortened.
    pub blocked_hosts_file: Option<PathBuf>,
    /// The node's own Lease, through which the operator hands out IDs; `None`: the node takes them from the store itself.
    pub lease: Option<LeaseSettings>,
    /// What the log shows and how.
    pub log: LogSettings,
    /// Where traces are sent; `None`: nowhere.
    pub traces: Option<TraceSettings>,
    /// What works and is no good: a line each, for the log.
    pub warnings: Vec<String>,
}

/// A setting that makes no sense, in one line.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The value is not one of those allowed.
    #[error("{setting}: {problem}")]
    Invalid {
        /// The setting's name, as the environment spells it.
        setting: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// A file that a setting names cannot be read.
    #[error("{setting}: cannot read {path}: {source}")]
    Unreadable {
        /// The setting's name, as the environment spells it.
        setting: &'static str,
        /// The file it names.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

/// Our hosts, on a node that listens on `listen_on`.
fn public_urls(
    base: BaseUrl,
    further: &[String],
    unknown_hosts: Option<UnknownHosts>,
    listen_on: ListenOn,
) -> Result<PublicUrls, ConfigError> {
    let urls = PublicUrls::new(base, further).map_err(|problem| invalid("DOMAINS", problem))?;
    let urls = match unknown_hosts {
        Some(unknown_hosts) => urls.with_unknown_hosts(unknown_hosts),
        None => urls,
    };
    Ok(match listen_on {
        ListenOn::Address(address) if !address.ip().is_unspecified() => urls.at_address(address.ip()),
        ListenOn::Address(_) | ListenOn::AllInterfaces { .. } => urls,
    })
}

fn invalid(setting: &'static str, problem: impl Into<String>) -> ConfigError {
    ConfigError::Invalid { setting, problem: problem.into() }
}

impl Settings {
    /// Reads the command line and the environment, where a variable that is empty counts as one that is not set.
    #[expect(clippy::disallowed_methods, reason = "this is the door to the environment")]
    pub fn read() -> Result<Self, clap::Error> {
        let command = Self::command().mut_args(|arg| {
            let is_empty = arg.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
            // A password may stand in a value, also where none belongs: --help shows names alone.
            let arg = arg.hide_env_values(true);
            if is_empty { arg.env(Resettable::<OsStr>::Reset) } else { arg }
        });
        let settings = command.try_get_matches().and_then(|matches| Self::from_arg_matches(&matches));
        settings.map_err(without_values)
    }

    /// What is asked for, with the settings that it needs checked.
    pub fn task(self) -> Result<Task, ConfigError> {
        match self.command.clone() {
            None => self.check().map(Box::new).map(Task::Serve),
            Some(command) => {
                let tls = parse::tls(self.tikv_ca, self.tikv_cert, self.tikv_key)?;
                // No token is signed: no key is needed.
                let database = database(self.database_url, tls, true)?;
                let (what, is_blocked) = match command {
                    Command::Copy(copying) => return Ok(Task::Once(copying, database)),
                    Command::RaiseFormat => return Ok(Task::RaiseFormat(database)),
                    Command::Block { what } => (what, true),
                    Command::Unblock { what } => (what, false),
                };
                let order = Order::new(&what, is_blocked).map_err(|error| invalid("WHAT", error.to_string()))?;
                Ok(Task::TakeDown(order, database))
            }
        }
    }

    /// Checks every setting and every pair that could contradict each other.
    pub fn check(self) -> Result<Config, ConfigError> {
        self.refuse_what_this_release_cannot_do()?;
        let lease = self.lease()?;
        let window = self.rate_limit_window;
        let rule = |requests| {
            LimitRule::new(requests, window).map_err(|error| invalid("RATE_LIMIT_WINDOW", error.to_string()))
        };
        self.check_ranges()?;
        let mut warnings = parse::open_files(self.secret_files());
        let (listen_on, admin_listen_on) = self.listeners()?;
        let tls = parse::tls(self.tikv_ca, self.tikv_cert, self.tikv_key)?;
        let secret_key = parse::signing_secret("SECRET_KEY", self.secret_key, self.secret_key_file)?;
        let (secret_key_previous, warning) =
            parse::previous_secret("SECRET_KEY_PREVIOUS", self.secret_key_previous, self.secret_key_previous_file)?;
        warnings.extend(warning);
        if secret_key_previous.is_some() && secret_key.is_none() {
            return Err(invalid("SECRET_KEY_PREVIOUS", "needs SECRET_KEY: it names the key before that one"));
        }
        let database = database(self.database_url, tls, secret_key.is_some())?;
        let redis_source = RedisSource {
            url: self.redis_url,
            url_file: self.redis_url_file,
            username: self.redis_username,
            password: self.redis_password,
            password_file: self.redis_password_file,
            ca: self.redis_ca,
            cert: self.redis_cert,
            key: self.redis_key,
        };
        let redis = redis_source.read()?;
        let public_urls = public_urls(self.base_url, &self.domains, self.unknown_hosts, listen_on)?;
        let traces = traces(self.otlp_endpoint, self.pod_name)?;
        let log = log(self.debug, self.log_level, self.log_format)?;
        Ok(Config {
            listen_on,
            admin_listen_on,
            public_urls,
            database,
            redis,
            redis_source,
            secret_key,
            secret_key_previous,
            access_token_ttl: Duration::from_secs(self.access_token_expire_minutes * 60),
            refresh_token_ttl: Duration::from_secs(self.refresh_token_expire_days * 86_400),
            code_length: self.short_code_length,
            redirect_status: self.redirect_status,
            cache_max_age: self.cache_max_age,
            rate_limits: RateLimits {
                user: rule(self.rate_limit_requests)?,
                anonymous: rule(self.rate_limit_anonymous)?,
                register: self.rate_limit_register,
                login: self.rate_limit_login,
            },
            trusted_proxies: self.trusted_proxies,
            analytics_batch_size: self.analytics_batch_size as usize,
            analytics_flush_interval: self.analytics_flush_interval,
            analytics_retention_days: self.analytics_retention_days,
            geoip_database: self.geoip_database,
            hot_url_click_threshold: self.hot_url_click_threshold,
            local_cache_bytes: self.local_cache_bytes,
            local_cache_ttl: self.local_cache_ttl,
            blocked_hosts_file: self.blocked_hosts_file,
            lease,
            log,
            traces,
            warnings,
        })
    }

    fn check_ranges(&self) -> Result<(), ConfigError> {
        if !(Duration::from_millis(100)..=WAIT_MAX).contains(&self.analytics_flush_interval) {
            return Err(invalid("ANALYTICS_FLUSH_INTERVAL", "must be from 100ms to 1h"));
        }
        if self.local_cache_ttl > WAIT_MAX {
            return Err(invalid("LOCAL_CACHE_TTL", "must be at most 1h: a change may be seen that late"));
        }
        if self.local_cache_bytes < parse::MIB {
            return Err(invalid("LOCAL_CACHE_BYTES", "must be at least 1MiB"));
        }
        Ok(())
    }

    /// The files that hold secrets, by the settings that name them.
    fn secret_files(&self) -> [(&'static str, Option<&PathBuf>); 6] {
        [
            ("SECRET_KEY_FILE", self.secret_key_file.as_ref()),
            ("SECRET_KEY_PREVIOUS_FILE", self.secret_key_previous_file.as_ref()),
            ("REDIS_URL_FILE", self.redis_url_file.as_ref()),
            ("REDIS_PASSWORD_FILE", self.redis_password_file.as_ref()),
            ("REDIS_KEY", self.redis_key.as_ref()),
            ("TIKV_KEY", self.tikv_key.as_ref()),
        ]
    }

    /// Names of the contract that no code stands behind yet are refused, not ignored: a fleet that believes it shares a
    /// cache, or a login server, would be worse off than one that does not start.
    fn refuse_what_this_release_cannot_do(&self) -> Result<(), ConfigError> {
        let not_yet = |setting, set: bool| match set {
            true => Err(invalid(setting, "not supported by this release; leave it unset")),
            false => Ok(()),
        };
        not_yet("OIDC_ISSUER", self.oidc_issuer.is_some())?;
        not_yet("OIDC_AUDIENCE", self.oidc_audience.is_some())
    }

    /// What the two listeners are bound to. The admin port is for this machine alone, unless the operator runs the node: there the
    /// kubelet asks, from outside the pod.
    fn listeners(&self) -> Result<(ListenOn, ListenOn), ConfigError> {
        let public = self.listen_addr.map_or(ListenOn::AllInterfaces { port: PUBLIC_PORT }, ListenOn::Address);
        let admin_default = match self.allocation {
            Allocation::Own => ListenOn::Address(SocketAddr::from((Ipv4Addr::LOCALHOST, ADMIN_PORT))),
            Allocation::Lease => ListenOn::AllInterfaces { port: ADMIN_PORT },
        };
        let admin = self.admin_addr.map_or(admin_default, ListenOn::Address);
        if public.collides(admin) {
            return Err(invalid("ADMIN_ADDR", "must differ from LISTEN_ADDR: metrics are not for the public"));
        }
        Ok((public, admin))
    }

    /// The node's own Lease, if IDs are handed out through it.
    fn lease(&self) -> Result<Option<LeaseSettings>, ConfigError> {
        fn required<T: Clone>(setting: &'static str, value: Option<&T>) -> Result<T, ConfigError> {
            value.cloned().ok_or_else(|| invalid(setting, "is required with an ALLOCATION of lease"))
        }
        match (self.allocation, &self.database_url) {
            (Allocation::Own, _) => Ok(None),
            (Allocation::Lease, Database::Embedded(_)) => {
                Err(invalid("ALLOCATION", "may be lease only with a DATABASE_URL of tikv://, which nodes share"))
            }
            (Allocation::Lease, Database::Tikv(_)) => Ok(Some(LeaseSettings {
                cluster: required("CLUSTER_NAME", self.cluster_name.as_ref())?,
                namespace: required("POD_NAMESPACE", self.pod_namespace.as_ref())?,
                pod: required("POD_NAME", self.pod_name.as_ref())?,
                pod_uid: required("POD_UID", self.pod_uid.as_ref())?,
                pod_ip: required("POD_IP", self.pod_ip.as_ref())?,
            })),
        }
    }
}

/// The same error without what was given: a password may stand in any value, also where none belongs.
fn without_values(mut error: clap::Error) -> clap::Error {
    if error.get(ContextKind::InvalidValue).is_some() {
        error.insert(ContextKind::InvalidValue, ContextValue::String(NOT_REPEATED.to_owned()));
    }
    error
}

/// What stands in an error in the place of a value.
const NOT_REPEATED: &str = "…";

/// What the log shows. `DEBUG` is short for two other settings, which may not say otherwise.
fn log(debug: bool, level: Option<LogLevel>, format: Option<LogFormat>) -> Result<LogSettings, ConfigError> {
    if !debug {
        return Ok(LogSettings { level: level.unwrap_or(LogLevel::Info), format });
    }
    match (level.unwrap_or(LogLevel::Debug), format.unwrap_or(LogFormat::Text)) {
        (level @ LogLevel::Debug, format @ LogFormat::Text) => Ok(LogSettings { level, format: Some(format) }),
        (LogLevel::Debug, _) => Err(invalid("DEBUG", "means LOG_FORMAT=text; leave one of the two unset")),
        _ => Err(invalid("DEBUG", "means LOG_LEVEL=debug; leave one of the two unset")),
    }
}

/// Where traces are sent, and from which pod.
fn traces(endpoint: Option<String>, pod: Option<String>) -> Result<Option<TraceSettings>, ConfigError> {
    let endpoint = endpoint.map(|endpoint| OtlpEndpoint::parse(&endpoint)).transpose();
    let endpoint = endpoint.map_err(|problem| invalid("OTLP_ENDPOINT", problem))?;
    Ok(endpoint.map(|endpoint| TraceSettings { endpoint, instance: pod }))
}

/// Where links are kept, with what goes with it.
fn database(database: Database, tls: Option<Tls>, has_secret_key: bool) -> Result<Database, ConfigError> {
    match database {
        Database::Embedded(_) if tls.is_some() => {
            Err(invalid("TIKV_CA", "is for a DATABASE_URL of tikv://; leave it unset"))
        }
        Database::Tikv(_) if !has_secret_key => {
            Err(invalid("SECRET_KEY", "is required with a DATABASE_URL of tikv://: all nodes must sign with one key"))
        }
        Database::Tikv(settings) => Ok(Database::Tikv(TikvSettings { tls, ..settings })),
        embedded @ Database::Embedded(_) => Ok(embedded),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(args: &[&str]) -> Result<Config, String> {
        let args = std::iter::once("shortener-node").chain(args.iter().copied());
        let settings = Settings::try_parse_from(args).map_err(|error| without_values(error).to_string())?;
        settings.check().map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_is_required_and_the_defaults_are_those_of_the_contract() {
        let config = check(&[]).unwrap();
        assert_eq!(config.listen_on, ListenOn::AllInterfaces { port: 8000 });
        assert_eq!(config.admin_listen_on, ListenOn::Address(SocketAddr::from(([127, 0, 0, 1], 9000))));
        assert_eq!(config.public_urls.base().as_str(), "http://localhost:8000");
        assert_eq!(config.database, Database::Embedded(PathBuf::from("./data")));
        assert_eq!(config.access_token_ttl, Duration::from_mins(30));
        assert_eq!(config.refresh_token_ttl, Duration::from_hours(30 * 24));
        assert_eq!(config.rate_limits.register, LimitRule::new(60, Duration::from_hours(1)).unwrap());
        assert_eq!(config.local_cache_bytes, 64 * 1024 * 1024);
        assert_eq!((config.analytics_batch_size, config.analytics_flush_interval), (100, Duration::from_secs(5)));
    }

    #[test]
    fn what_makes_no_sense_stops_the_start_and_is_named() {
        let refused: &[(&[&str], &str)] = &[
            (&["--short-code-length", "5"], "--short-code-length"),
            (&["--short-code-length", "11"], "--short-code-length"),
            (&["--redirect-status", "303"], "--redirect-status"),
            (&["--base-url", "ftp://sho.rt"], "--base-url"),
            (&["--base-url", "https://sho.rt/path?x=1"], "--base-url"),
            (&["--domains", "not a host"], "DOMAINS"),
            (&["--domains", "localhost:8000"], "DOMAINS"),
            (&["--unknown-hosts", "403"], "--unknown-hosts"),
            (&["--database-url", "postgres://x"], "--database-url"),
            (&["--database-url", "tikv://pd-0"], "--database-url"),
            (&["--database-url", "tikv://pd-0:2379"], "SECRET_KEY"),
            (&["--tikv-ca", "/no/such/file"], "TIKV_CA"),
            (&["--tikv-ca", "/dev/null", "--tikv-cert", "/dev/null", "--tikv-key", "/no/such/file"], "TIKV_KEY"),
            (&["--tikv-ca", "/dev/null", "--tikv-cert", "/dev/null", "--tikv-key", "/dev/null"], "TIKV_CA"),
            (&["--redis-url", "redis://r:6379"], "REDIS_URL"),
            (&["--redis-url", "rediss-cluster://r:6379", "--redis-ca", "/no/such/file"], "REDIS_CA"),
            (&["--redis-url", "redis-cluster://r:6379", "--redis-ca", "/dev/null"], "REDIS_CA"),
            (&["--redis-url", "rediss-cluster://r:6379", "--redis-cert", "/dev/null"], "REDIS_CERT"),
            (&["--redis-url-file", "/no/such/file"], "REDIS_URL"),
            (&["--redis-password", "p"], "REDIS_PASSWORD"),
            (&["--redis-url", "redis-cluster://:p@r:6379", "--redis-password", "p"], "REDIS_PASSWORD"),
            (&["--redis-url", "redis-cluster://r:6379", "--redis-username", "ada"], "REDIS_USERNAME"),
            (&["--redis-url", "redis-cluster://r:6379", "--redis-password-file", "/no/such/file"], "REDIS_PASSWORD"),
            (&["--rate-limit-window", "0"], "RATE_LIMIT_WINDOW"),
            (&["--rate-limit-requests", "0"], "--rate-limit-requests"),
            (&["--rate-limit-login", "5"], "--rate-limit-login"),
            (&["--rate-limit-login", "0/60"], "--rate-limit-login"),
            (&["--trusted-proxies", "10.0.0.0/33"], "--trusted-proxies"),
            (&["--trusted-proxies", "0.0.0.0/0"], "--trusted-proxies"),
            (&["--trusted-proxies", "::/0"], "--trusted-proxies"),
            (&["--trusted-proxies", "10.0.0.0/8,::/0"], "--trusted-proxies"),
            (&["--trusted-proxies", "0.0.0.0/1,128.0.0.0/1"], "--trusted-proxies"),
            (&["--trusted-proxies", "2000::/3"], "--trusted-proxies"),
            (&["--secret-key", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"], "SECRET_KEY"),
            (&["--secret-key", "changeme-changeme-changeme-changeme"], "SECRET_KEY"),
            (&["--secret-key", "short"], "SECRET_KEY"),
            (&["--secret-key-previous", "0123456789abcdef0123456789abcdef"], "SECRET_KEY_PREVIOUS"),
            (&["--secret-key-file", "/no/such/file"], "SECRET_KEY"),
            (&["--local-cache-bytes", "12"], "LOCAL_CACHE_BYTES"),
            (&["--local-cache-bytes", "12 parsecs"], "--local-cache-bytes"),
            (&["--admin-addr", "0.0.0.0:8000"], "ADMIN_ADDR"),
            (&["--admin-addr", "127.0.0.1:8000"], "ADMIN_ADDR"),
            (&["--listen-addr", "0.0.0.0:9000"], "ADMIN_ADDR"),
            (&["--listen-addr", "[::1]:8001", "--admin-addr", "[::1]:8001"], "ADMIN_ADDR"),
            (&["--allocation", "lease"], "ALLOCATION"),
            (&["--allocation", "operator"], "--allocation"),
            (&["--pod-name", "Main_0"], "--pod-name"),
            (&["--pod-name", "main..0"], "--pod-name"),
            (&["--pod-uid", "a b"], "--pod-uid"),
            (&["--pod-namespace", "team.links"], "--pod-namespace"),
            (&["--pod-ip", "10.0.0"], "--pod-ip"),
            (&["--cluster-name", "main-"], "--cluster-name"),
            (&["--otlp-endpoint", "localhost:4318"], "OTLP_ENDPOINT"),
            (&["--otlp-endpoint", "grpc://localhost:4317"], "OTLP_ENDPOINT"),
            (&["--otlp-endpoint", "http://ada:secret@localhost:4318"], "OTLP_ENDPOINT"),
            (&["--otlp-endpoint", "http://localhost:4318?token=secret"], "OTLP_ENDPOINT"),
            (&["--otlp-endpoint", "http://localhost:4318/v1/traces/"], "OTLP_ENDPOINT"),
            (&["--log-level", "loud"], "--log-level"),
            (&["--debug", "--log-level", "error"], "DEBUG"),
            (&["--debug", "--log-format", "json"], "DEBUG"),
            (&["--local-cache-ttl", "61m"], "LOCAL_CACHE_TTL"),
            (&["--analytics-flush-interval", "61m"], "ANALYTICS_FLUSH_INTERVAL"),
            (&["--analytics-flush-interval", "99ms"], "ANALYTICS_FLUSH_INTERVAL"),
        ];
        for (args, named) in refused {
            let problem = check(args).expect_err(&format!("{args:?} should be refused"));
            assert!(problem.contains(named), "{args:?}: {problem}");
        }
    }

    #[test]
    fn a_lease_needs_to_know_its_pod_and_its_cluster() {
        let all = [
            ("--pod-name", "POD_NAME", "main-7c9-x"),
            ("--pod-uid", "POD_UID", "b5f0b0e4-7a5c-4f0e-9f0e-0d6b8a1c2d3e"),
            ("--pod-namespace", "POD_NAMESPACE", "links"),
            ("--pod-ip", "POD_IP", "10.0.0.7"),
            ("--cluster-name", "CLUSTER_NAME", "main"),
        ];
        let key = "0123456789abcdef0123456789abcdef";
        let without = |left_out: Option<&str>| {
            let told = all.into_iter().filter(|(flag, ..)| Some(*flag) != left_out);
            let told = told.flat_map(|(flag, _, value)| [flag, value]);
            let common = ["--allocation", "lease", "--database-url", "tikv://pd-0:2379", "--secret-key", key];
            check(&common.into_iter().chain(told).collect::<Vec<_>>())
        };
        let config = without(None).unwrap();
        assert_eq!(config.admin_listen_on, ListenOn::AllInterfaces { port: 9000 }, "the kubelet asks from outside");
        let lease = config.lease.unwrap();
        assert_eq!(
            (lease.pod.as_str(), lease.namespace.as_str(), lease.cluster.as_str()),
            ("main-7c9-x", "links", "main")
        );
        for (flag, setting, _) in all {
            let problem = without(Some(flag)).unwrap_err();
            assert!(problem.starts_with(setting) && problem.contains("ALLOCATION of lease"), "{flag}: {problem}");
        }
        // Without it they are no business of ours: others know variables of these names too.
        assert!(check(&["--pod-name", "main-7c9-x"]).unwrap().lease.is_none());
    }

    #[test]
    fn a_backup_needs_the_database_alone() {
        let task = |args: &[&str]| Settings::try_parse_from(args).map(|settings| settings.task().unwrap());
        let asked = task(&["shortener-node", "backup", "--database-url", "tikv://pd-0:2379", "out"]).unwrap();
        let Task::Once(Copying::Backup { file }, Database::Tikv(settings)) = asked else { panic!("{asked:?}") };
        assert_eq!((file, settings.pd_endpoints), (PathBuf::from("out"), vec!["pd-0:2379".to_owned()]));
        assert!(matches!(task(&["shortener-node"]).unwrap(), Task::Serve(_)));
        assert!(task(&["shortener-node", "restore"]).is_err(), "the file is missing");
        let asked = task(&["shortener-node", "unblock", "evil.example"]).unwrap();
        let Task::TakeDown(order, _) = asked else { panic!("{asked:?}") };
        assert_eq!(Ok(order), Order::new("evil.example", false));
    }

    #[test]
    fn a_secret_is_never_shown() {
        let config = check(&["--secret-key", "0123456789abcdef0123456789abcdef"]).unwrap();
        assert!(!format!("{config:?}").contains("0123456789abcdef"));
        let config = check(&["--redis-url", "redis-cluster://ada:0123456789abcdef@r:6379"]).unwrap();
        assert!(!format!("{config:?}").contains("0123456789abcdef"));
        let problem = check(&["--redis-url", "redis-cluster://ada:0123456789abcdef@r"]).unwrap_err();
        assert!(!problem.contains("0123456789abcdef"), "{problem}");
    }

    #[test]
    fn no_value_is_repeated_whatever_is_wrong_with_it() {
        const SECRET: &str = "hunter2-hunter2";
        let url = |scheme: &str, host: &str| format!("{scheme}://ada:{SECRET}@{host}");
        for (flag, value) in [
            ("--database-url", url("tikv", "pd-0:2379")),
            ("--database-url", url("tikv", "pd-0")),
            ("--database-url", url("postgres", "db/links")),
            ("--database-url", url("mysql", "db/links")),
            ("--base-url", url("https", "sho.rt")),
            ("--domains", format!("ada:{SECRET}@sho.rt")),
            ("--redis-url", url("redis", "r:6379")),
            ("--redis-url", url("redis-cluster", "r")),
            ("--otlp-endpoint", url("http", "localhost:4318")),
            ("--otlp-endpoint", url("grpc", "localhost:4317")),
            ("--secret-key", SECRET.to_owned()),
            ("--secret-key-previous", SECRET.to_owned()),
            ("--redis-password", SECRET.to_owned()),
            ("--listen-addr", SECRET.to_owned()),
            ("--admin-addr", SECRET.to_owned()),
            ("--trusted-proxies", SECRET.to_owned()),
            ("--rate-limit-login", SECRET.to_owned()),
            ("--log-level", SECRET.to_owned()),
            ("--allocation", SECRET.to_owned()),
            ("--pod-name", format!("{SECRET}!")),
            ("--pod-ip", SECRET.to_owned()),
        ] {
            let problem = check(&[flag, &value]).expect_err(flag);
            assert!(!problem.contains(SECRET), "{flag}: {problem}");
        }
        let shown = format!("{:?}", Settings::try_parse_from(["x", "--redis-url", SECRET, "--secret-key", SECRET]));
        assert!(!shown.contains(SECRET), "{shown}");
    }

    #[test]
    fn a_secret_that_others_may_read_is_warned_of() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, "9f86d081884c7d659a2feaa0c55ad015").unwrap();
        let path = path.to_str().unwrap();
        for (mode, is_warned) in
            [(0o600, false), (0o400, false), (0o440, false), (0o644, true), (0o604, true), (0o660, true)]
        {
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
            let warnings = check(&["--secret-key-file", path]).unwrap().warnings;
            assert_eq!(warnings.iter().any(|warning| warning.starts_with("SECRET_KEY_FILE: ")), is_warned, "{mode:o}");
        }
    }

    #[test]
    fn a_weak_key_may_be_rotated_away_with_a_warning() {
        let previous = "changeme".repeat(4);
        let args = ["--secret-key", "9f86d081884c7d659a2feaa0c55ad015", "--secret-key-previous", &previous];
        let warnings = check(&args).unwrap().warnings;
        assert!(warnings.len() == 1 && warnings[0].starts_with("SECRET_KEY_PREVIOUS is a placeholder"), "{warnings:?}");
    }

    #[test]
    fn who_logs_in_to_redis_may_stand_beside_its_url() {
        let url = ["--redis-url", "redis-cluster://r:6379"];
        let redis =
            check(&[&url[..], &["--redis-username", "ada", "--redis-password", "p@ss:word"]].concat()).unwrap().redis;
        let redis = redis.unwrap();
        let password = redis.password.as_ref().map(|password| password.as_str());
        assert_eq!((redis.user.as_deref(), password), (Some("ada"), Some("p@ss:word")));
        assert!(!format!("{redis:?}").contains("p@ss"));
    }

    #[test]
    fn debug_means_level_debug_as_text() {
        for args in [&["--debug"][..], &["--debug", "--log-level", "debug", "--log-format", "text"]] {
            let log = check(args).unwrap().log;
            assert_eq!(log, LogSettings { level: LogLevel::Debug, format: Some(LogFormat::Text) }, "{args:?}");
        }
        assert_eq!(check(&[]).unwrap().log, LogSettings { level: LogLevel::Info, format: None });
    }
}
