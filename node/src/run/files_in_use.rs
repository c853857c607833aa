//! What the node reads from files besides its settings: at the start, and again whenever one of them is replaced.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use zeroize::Zeroizing;

use super::RunError;
use super::followed::Followed;
use crate::cache::redis_cluster::{RedisCertificates, RedisCluster};
use crate::clicks::{Countries, CountriesNow};
use crate::config::{Config, Database, RedisSource};
use crate::kv::Kv;
use crate::kv::tikv::Tls;
use crate::links::BlockedHostsNow;
use crate::links::blocked_hosts::BlockedHosts;
use crate::tls_files::{self, PemFile};

/// The largest list of hosts that is read, in bytes: about a million hosts.
const BLOCKED_HOSTS_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// The largest database of countries that is read, in bytes. One of cities, which holds countries as well, has a quarter.
const COUNTRIES_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// The largest PEM file that is read, in bytes: all authorities that a machine trusts have a third.
const PEM_BYTES_MAX: u64 = 1024 * 1024;

/// Reads the list of blocked hosts, if there is one. A file that cannot be used stops the start.
pub(super) fn load_blocked_hosts(path: Option<&Path>) -> Result<BlockedHostsNow, RunError> {
    let read = path.map(read_blocked_hosts).transpose();
    let hosts = read.map_err(|problem| RunError::File { setting: "BLOCKED_HOSTS_FILE", problem })?;
    Ok(Arc::new(RwLock::new(Arc::new(hosts.unwrap_or_default()))))
}

/// Reads the database of countries, if there is one. A file that cannot be used stops the start.
pub(super) fn load_countries(path: Option<&Path>) -> Result<CountriesNow, RunError> {
    let read = path.map(read_countries).transpose();
    let countries = read.map_err(|problem| RunError::File { setting: "GEOIP_DATABASE", problem })?;
    Ok(Arc::new(RwLock::new(Arc::new(countries.unwrap_or_else(Countries::unknown)))))
}

/// What is in use and comes from files.
pub(super) struct InUse<'a> {
    pub(super) config: &'a Config,
    pub(super) blocked_hosts: &'a BlockedHostsNow,
    pub(super) countries: &'a CountriesNow,
    pub(super) kv: &'a Kv,
    pub(super) redis: Option<&'a RedisCluster>,
}

impl InUse<'_> {
    /// The files to follow, and what becomes of each that was replaced.
    pub(super) fn followed(&self) -> Vec<Followed> {
        let of_hosts = self.config.blocked_hosts_file.clone().map(|path| {
            let (hosts, at) = (self.blocked_hosts.clone(), path.clone());
            Followed::new("BLOCKED_HOSTS_FILE", [path], move || {
                read_blocked_hosts(&at).map(|next| replace(&hosts, next))
            })
        });
        let of_countries = self.config.geoip_database.clone().map(|path| {
            let (countries, at) = (self.countries.clone(), path.clone());
            Followed::new("GEOIP_DATABASE", [path], move || read_countries(&at).map(|next| replace(&countries, next)))
        });
        [of_hosts, of_countries, self.of_tikv(), self.of_redis()].into_iter().flatten().collect()
    }

    fn of_tikv(&self) -> Option<Followed> {
        let (Kv::Tikv(engine), Database::Tikv(settings)) = (self.kv, &self.config.database) else { return None };
        let (engine, tls) = (engine.clone(), settings.tls.clone()?);
        let paths = [tls.ca.clone(), tls.cert.clone(), tls.key.clone()];
        Some(Followed::new("TIKV_CA, TIKV_CERT, TIKV_KEY", paths, move || {
            check_tikv(&tls)?;
            // The client reads the files when it connects.
            engine.connect_anew();
            Ok(())
        }))
    }

    fn of_redis(&self) -> Option<Followed> {
        let (redis, source) = (self.redis?.clone(), self.config.redis_source.clone());
        let paths = source.files();
        (!paths.is_empty()).then(|| Followed::new("REDIS_*", paths, move || renew_redis(&redis, &source)))
    }
}

fn replace<T>(now: &RwLock<Arc<T>>, next: T) {
    *now.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
}

fn renew_redis(redis: &RedisCluster, source: &RedisSource) -> Result<(), String> {
    let settings = source.read().map_err(|error| error.to_string())?;
    let settings = settings.ok_or_else(|| "REDIS_URL: is empty".to_owned())?;
    let RedisCertificates { ca, client } = &settings.certificates;
    let file = |setting, contents| PemFile { setting, contents };
    let ca = ca.as_deref().map(|ca| file("REDIS_CA", ca));
    let client = client.as_ref().map(|(cert, key)| (file("REDIS_CERT", &**cert), file("REDIS_KEY", &**key)));
    tls_files::check(ca, client)?;
    redis.connect_anew(&settings).map_err(|error| error.to_string())
}

fn check_tikv(Tls { ca, cert, key }: &Tls) -> Result<(), String> {
    let [ca, cert, key] = [("TIKV_CA", ca), ("TIKV_CERT", cert), ("TIKV_KEY", key)]
        .map(|(setting, path)| read(path, PEM_BYTES_MAX).map(|contents| (setting, Zeroizing::new(contents))));
    let (ca, cert, key) = (ca?, cert?, key?);
    tls_files::check(Some(pem(&ca)), Some((pem(&cert), pem(&key))))
}

fn pem<'a>((setting, contents): &'a (&'static str, Zeroizing<Vec<u8>>)) -> PemFile<'a> {
    PemFile { setting, contents }
}

fn read_blocked_hosts(path: &Path) -> Result<BlockedHosts, String> {
    let bytes = read(path, BLOCKED_HOSTS_BYTES_MAX)?;
    let hosts = BlockedHosts::parse(&bytes).map_err(|error| format!("{}: {error}", path.display()))?;
    tracing::info!(hosts = hosts.len(), "read BLOCKED_HOSTS_FILE");
    Ok(hosts)
}

fn read_countries(path: &Path) -> Result<Countries, String> {
    let bytes = read(path, COUNTRIES_BYTES_MAX)?;
    Countries::parse(bytes).map_err(|error| format!("{}: {error}", path.display()))
}

/// The bytes of a file that has at most `bytes_max`.
fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > bytes_max {
        return Err(format!("{} has {length} bytes; at most {bytes_max} are read", path.display()));
    }
    std::fs::read(path).map_err(failed)
}
