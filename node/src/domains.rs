//! Which host means which domain.
//!
//! Links are keyed by the ID of their domain. The store has a registry of all hosts that were ever ours, and a host keeps its domain's
//! ID for ever, whatever the settings say later. `BASE_URL` chooses which domain is the default one:
//!
//! - a host of `BASE_URL` that was never ours is another name of the domain that was the default one until then: it is renamed;
//! - a host of `DOMAINS` that was never ours is a domain of its own;
//! - any other host means what it has always meant.
//!
//! The first default domain has the ID `""`, and a domain of its own the name of its first host. These are the keys of rows that are
//! older than the registry.

mod served;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use url::Host;

pub use served::{Domain, Served};

use crate::ambient::UnixMs;
use crate::public_url::{PublicUrls, UnknownHosts, without_port};
use crate::store::domains::{HOSTS_MAX, HostRow, Registry};

/// A registry in step with the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The registry as it is to be.
    pub registry: Registry,
    /// The rows of it that are new or changed.
    pub changes: Vec<(String, HostRow)>,
    /// What an administrator should know.
    pub warnings: Vec<Warning>,
}

/// There is no place for another host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("BASE_URL and DOMAINS: {HOSTS_MAX} hosts were ours already, and no more can be")]
pub struct RegistryFull;

/// What an administrator should know of the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// The default domain has another host.
    Renamed {
        /// The host that it has now.
        host: String,
        /// The host that it had.
        former: String,
    },
    /// Another domain is the default one.
    OtherDefault {
        /// Its host.
        host: String,
        /// The host of the domain that was the default one.
        former: String,
    },
    /// A host of `DOMAINS` has no links of its own.
    Alias {
        /// The host.
        host: String,
        /// The host whose links it has.
        of: String,
    },
    /// A host that was ours is not in the settings and is not answered. It matters if its domain has links.
    Unserved {
        /// The host.
        host: String,
        /// The ID of its domain.
        domain: String,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Renamed { host, former } => write!(
                f,
                "BASE_URL: the default domain is renamed from {former} to {host}, and keeps its links; name {former} in DOMAINS for \
                 as long as links printed with it are to work"
            ),
            Self::OtherDefault { host, former } => write!(
                f,
                "BASE_URL: {host} was a domain of its own and is the default domain now, with its own links; those of {former} stay \
                 with {former}: name it in DOMAINS if they are to work"
            ),
            Self::Alias { host, of } => {
                write!(f, "DOMAINS: {host} is another name of {of}: it has the same links, and none of its own")
            }
            Self::Unserved { host, .. } => write!(
                f,
                "DOMAINS: {host} has links and is no longer named: they answer 404; name it in DOMAINS if they are to work"
            ),
        }
    }
}

/// The host of the domain that is the default one.
pub fn default_host(registry: &Registry) -> Option<&str> {
    let named = registry.iter().filter_map(|(host, row)| Some((row.base_since?, host)));
    named.max().map(|(_, host)| host.as_str())
}

/// Brings a registry in step with the settings at `now`. `with_links` are the IDs of the domains that have links, which matter where
/// there is no registry yet: those that the settings do not name were ours earlier.
pub fn settle(
    registry: &Registry,
    with_links: &[String],
    urls: &PublicUrls,
    now: UnixMs,
) -> Result<Settled, RegistryFull> {
    let mut after = registry.clone();
    let base = urls.base().authority();
    let former = default_host(registry);
    if former != Some(base) {
        let former = former.and_then(|host| registry.get(host));
        let since = former.and_then(|row| row.base_since).map_or(now, |since| now.max(since.plus(MOMENT)));
        let inherited = former.map(|row| row.domain.clone()).unwrap_or_default();
        let row = after.entry(base.to_owned()).or_insert_with(|| host_of(inherited, now));
        row.base_since = Some(since);
    }
    for host in urls.further() {
        if !after.contains_key(host) {
            let domain = unused_id(&after, host);
            after.insert(host.clone(), host_of(domain, now));
        }
    }
    if registry.is_empty() {
        for domain in with_links.iter().filter(|domain| !domain.is_empty()) {
            after.entry(domain.clone()).or_insert_with(|| host_of(domain.clone(), now));
        }
    }
    if after.len() > HOSTS_MAX {
        return Err(RegistryFull);
    }
    let is_new = |(host, row): &(&String, &HostRow)| registry.get(*host) != Some(*row);
    let changes = after.iter().filter(is_new).map(|(host, row)| (host.clone(), row.clone())).collect();
    let warnings = warnings(former, &after, urls);
    Ok(Settled { registry: after, changes, warnings })
}

/// The least by which two times differ.
const MOMENT: Duration = Duration::from_millis(1);

fn host_of(domain: String, now: UnixMs) -> HostRow {
    HostRow { domain, registered_at: now, base_since: None }
}

/// The ID of a new domain: the name of its host, unless another domain has that.
fn unused_id(registry: &Registry, host: &str) -> String {
    let used: BTreeSet<&str> = registry.values().map(|row| row.domain.as_str()).collect();
    let numbered = (2..).map(|number| format!("{host}#{number}"));
    std::iter::once(host.to_owned()).chain(numbered).find(|id| !used.contains(id.as_str())).unwrap_or_default()
}

fn warnings(former: Option<&str>, registry: &Registry, urls: &PublicUrls) -> Vec<Warning> {
    let domain_of = |host: &str| registry.get(host).map(|row| row.domain.as_str());
    let base = urls.base().authority();
    let mut found = Vec::new();
    let replaced = former.filter(|former| *former != base && !is_local(former));
    if let Some(former) = replaced {
        let (host, former_host) = (base.to_owned(), former.to_owned());
        found.push(match domain_of(base) == domain_of(former) {
            true => Warning::Renamed { host, former: former_host },
            false => Warning::OtherDefault { host, former: former_host },
        });
    }
    let mut answered: Vec<(&str, Option<&str>)> = Vec::new();
    for host in urls.authorities() {
        let domain = domain_of(host);
        match answered.iter().find(|(_, other)| *other == domain) {
            Some((of, _)) => found.push(Warning::Alias { host: host.to_owned(), of: (*of).to_owned() }),
            None => answered.push((host, domain)),
        }
    }
    for (host, row) in registry {
        let is_named = urls.authorities().any(|named| named == host);
        let has_other_name = answered.iter().any(|(_, domain)| *domain == Some(&row.domain));
        let is_answered = is_named || (has_other_name && urls.unknown_hosts() == UnknownHosts::Default);
        if !is_answered && !is_local(host) && replaced != Some(host) {
            found.push(Warning::Unserved { host: host.clone(), domain: row.domain.clone() });
        }
    }
    found
}

/// Whether a host is one of this machine alone: nobody prints links with it, and its port may change at every start.
fn is_local(authority: &str) -> bool {
    match Host::parse(without_port(authority)) {
        Ok(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Ok(Host::Ipv4(address)) => address.is_loopback() || address.is_unspecified(),
        Ok(Host::Ipv6(address)) => address.is_loopback() || address.is_unspecified(),
        Err(_) => false,
    }
}

/// The registry was not read yet: nobody can say what a host means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the registry of domains was not read yet")]
pub struct Unsettled;

/// Which host means which domain now; clones tell the same.
#[derive(Clone, Debug, Default)]
pub struct Domains(watch::Sender<Option<Arc<Served>>>);

impl Domains {
    /// What hosts mean at the moment.
    pub fn now(&self) -> Result<Arc<Served>, Unsettled> {
        self.0.borrow().clone().ok_or(Unsettled)
    }

    /// Replaces it.
    pub fn set(&self, served: Served) {
        self.0.send_replace(Some(Arc::new(served)));
    }

    /// Waits until it is known, for `patience` at most.
    pub async fn settled(&self, patience: Duration) {
        let mut changes = self.0.subscribe();
        // Elapsed: requests are refused until it is. The sender is not dropped meanwhile.
        let _ = tokio::time::timeout(patience, changes.wait_for(Option::is_some)).await;
    }
}
