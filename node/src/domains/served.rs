//! What a node answers: the registry and its settings, ready to be asked.

use std::collections::HashMap;
use std::sync::Arc;

use crate::links::target_url::OwnDomains;
use crate::public_url::{BaseUrl, PublicUrls, UnknownHosts, spelling, without_port};
use crate::store::domains::Registry;

/// A domain that is answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Domain {
    id: Arc<str>,
    host: Arc<str>,
    index: u16,
}

impl Domain {
    /// Its ID: what its links are keyed by.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The host that its short URLs are written with, and the port if they have one.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Its name and, if its URLs have one, its port.
    pub fn host_and_port(&self) -> (&str, Option<i64>) {
        let host = without_port(&self.host);
        let port = self.host.get(host.len()..).and_then(|port| port.strip_prefix(':')?.parse().ok());
        (host, port)
    }

    /// A short stand-in for the ID within this process; 0 is that of the default domain.
    pub fn index(&self) -> u16 {
        self.index
    }
}

/// A host that is or was ours.
#[derive(Clone, Debug)]
struct Known {
    domain: Arc<str>,
    /// Which of the domains it is answered with, if it is answered.
    answers: Option<usize>,
}

/// Which host means which domain on this node.
#[derive(Clone, Debug)]
pub struct Served {
    base: BaseUrl,
    /// By index; the first is the default one.
    domains: Vec<Domain>,
    hosts: HashMap<Box<str>, Known>,
    /// Of every domain the host that it had last.
    last_hosts: HashMap<Arc<str>, Box<str>>,
    unknown_hosts: UnknownHosts,
    ours: OwnDomains,
    answered: OwnDomains,
}

impl Served {
    /// What a node with these settings answers; `None` where the registry does not know all its hosts.
    pub fn new(registry: &Registry, urls: &PublicUrls) -> Option<Self> {
        let mut domains: Vec<Domain> = Vec::new();
        for host in urls.authorities() {
            let id = &registry.get(host)?.domain;
            if !domains.iter().any(|known| *known.id == **id) {
                let index = u16::try_from(domains.len()).ok()?;
                domains.push(Domain { id: id.as_str().into(), host: host.into(), index });
            }
        }
        let answers_others = urls.unknown_hosts() == UnknownHosts::Default;
        let known = registry.iter().map(|(host, row)| {
            let place = domains.iter().position(|domain| *domain.id == *row.domain);
            let answers = place.filter(|_| answers_others || urls.authorities().any(|named| named == host));
            (host.as_str().into(), Known { domain: row.domain.as_str().into(), answers })
        });
        let hosts: HashMap<Box<str>, Known> = known.collect();
        let address = urls.address();
        let mut by_age: Vec<_> = registry.iter().collect();
        by_age.sort_by_key(|(_, row)| row.base_since.unwrap_or(row.registered_at));
        let last_hosts = by_age.iter().map(|(host, row)| (row.domain.as_str().into(), host.as_str().into())).collect();
        let answered = hosts.iter().filter(|(_, known)| known.answers.is_some()).map(|(host, _)| without_port(host));
        Some(Self {
            base: urls.base().clone(),
            unknown_hosts: urls.unknown_hosts(),
            last_hosts,
            ours: OwnDomains::new(registry.keys().map(|host| without_port(host)).chain(address.as_deref())),
            answered: OwnDomains::new(answered.chain(address.as_deref())),
            domains,
            hosts,
        })
    }

    /// The domain that a request's host means; `None` for one that is answered with nothing: it is not ours where `UNKNOWN_HOSTS` is
    /// `404`, or it was a domain of its own. A request of HTTP/1.0 may name no host, which counts as one that is not ours.
    pub fn by_host(&self, host: Option<&str>) -> Option<&Domain> {
        let if_unknown = match self.unknown_hosts {
            UnknownHosts::Default => self.domains.first(),
            UnknownHosts::NotFound => None,
        };
        if if_unknown.is_some() && self.hosts.len() == 1 {
            return if_unknown;
        }
        match host.and_then(|host| self.known(host)) {
            Some(known) => self.answering(known),
            None => if_unknown,
        }
    }

    /// The domain that a request's body or query names; empty is the default one. `None` for one that is not answered.
    pub fn by_name(&self, name: &str) -> Option<&Domain> {
        match name {
            "" => self.domains.first(),
            name => self.answering(self.known(name)?),
        }
    }

    /// The ID of the domain that `name` names, be it answered or not.
    pub fn id_of(&self, name: &str) -> Option<&str> {
        match name {
            "" => self.domains.first().map(Domain::id),
            name => self.known(name).map(|known| &*known.domain),
        }
    }

    /// The domain with this ID, if it is answered.
    pub fn by_id(&self, id: &str) -> Option<&Domain> {
        self.domains.iter().find(|domain| *domain.id == *id)
    }

    /// How answers name the domain with this ID: by its host, or the last one that it had; the default one has an empty name.
    pub fn name_of<'a>(&'a self, id: &'a str) -> &'a str {
        match self.by_id(id) {
            Some(domain) if domain.index == 0 => "",
            _ => self.host_of(id),
        }
    }

    /// The short URL of `code` on the domain with this ID.
    pub fn short_url(&self, id: &str, code: &str) -> String {
        format!("{}://{}/{code}", self.base.scheme(), self.host_of(id))
    }

    /// All hosts that are or were ours. No new link may lead there.
    pub fn ours(&self) -> &OwnDomains {
        &self.ours
    }

    /// Those that are answered. A link that leads there would redirect to ourselves.
    pub fn answered(&self) -> &OwnDomains {
        &self.answered
    }

    fn host_of<'a>(&'a self, id: &'a str) -> &'a str {
        let host = self.by_id(id).map(Domain::host);
        host.or_else(|| self.last_hosts.get(id).map(|host| &**host)).unwrap_or(id)
    }

    fn known(&self, host: &str) -> Option<&Known> {
        // Seldom is it spelt in another way: in upper case, with the port that the scheme implies, or the dot of DNS's root.
        self.hosts.get(host).or_else(|| self.hosts.get(&*spelling(self.base.scheme(), host)?))
    }

    fn answering(&self, known: &Known) -> Option<&Domain> {
        known.answers.and_then(|place| self.domains.get(place))
    }
}
