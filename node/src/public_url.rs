//! Which hosts are ours and what short URLs begin with.
//!
//! The default domain is `""`, the host of `BASE_URL`; each further host of `DOMAINS` has codes of its own. A request
//! belongs to the domain that its host names. `UNKNOWN_HOSTS` says what a host means that is not ours: the default domain, or none.

use std::fmt;
use std::sync::Arc;

use clap::ValueEnum;
use url::{Host, Url};

/// `http(s)://host[:port]`, without a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl {
    text: String,
    scheme: String,
    authority: String,
}

impl BaseUrl {
    /// Parses what `BASE_URL` may be. The error says what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let shape =
            || "must be http:// or https:// with a host and nothing after it, such as https://sho.rt".to_owned();
        let url = Url::parse(text).map_err(|_| shape())?;
        let plain = matches!(url.scheme(), "http" | "https")
            && url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        let authority = authority(&url).filter(|_| plain).ok_or_else(shape)?;
        let scheme = url.scheme().to_owned();
        Ok(Self { text: format!("{scheme}://{authority}"), scheme, authority })
    }

    /// Whether it is reached by https.
    pub fn is_https(&self) -> bool {
        self.scheme == "https"
    }

    /// http or https.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// The URL without a slash at its end.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn authority(url: &Url) -> Option<String> {
    let host = url.host_str().filter(|host| !host.is_empty())?;
    Some(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}

/// A domain of ours: the key that its links are stored under, and its place in the list of domains.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Domain {
    name: Arc<str>,
    index: u16,
}

impl Domain {
    /// The default domain, whose name is empty.
    pub fn default_domain() -> Self {
        Self { name: Arc::from(""), index: 0 }
    }

    /// What links of this domain are keyed by; empty for the default one.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// A short stand-in for the name within this process.
    pub fn index(&self) -> u16 {
        self.index
    }
}

/// What a valid host means that is not ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum UnknownHosts {
    /// The default domain.
    Default,
    /// Nothing.
    #[value(name = "404")]
    NotFound,
}

/// All hosts of ours.
#[derive(Clone, Debug)]
pub struct PublicUrls {
    base: BaseUrl,
    unknown_hosts: UnknownHosts,
    /// The domains by index; the first is the default one.
    domains: Arc<[Domain]>,
}

impl PublicUrls {
    /// `base` serves the default domain; `further` are host names, each a domain of its own.
    pub fn new(base: BaseUrl, further: &[String]) -> Result<Self, String> {
        let mut domains = vec![Domain::default_domain()];
        for name in further.iter().map(|name| name.trim()).filter(|name| !name.is_empty()) {
            let url = Url::parse(&format!("{}://{name}", base.scheme)).ok().filter(|url| url.path() == "/");
            let known = url.as_ref().and_then(authority).filter(|authority| authority.eq_ignore_ascii_case(name));
            let authority = known.ok_or("must be host names, each with a port if need be, separated by commas")?;
            if authority == base.authority || domains.iter().any(|domain| domain.as_str() == authority) {
                return Err(format!("{authority:?} is there twice; BASE_URL's own host is the default domain"));
            }
            let index = u16::try_from(domains.len()).map_err(|_| "too many domains".to_owned())?;
            domains.push(Domain { name: Arc::from(authority), index });
        }
        // With one domain, every name that leads here means it. With several, a name that is not known may be a mistake.
        let unknown_hosts = if domains.len() == 1 { UnknownHosts::Default } else { UnknownHosts::NotFound };
        Ok(Self { base, unknown_hosts, domains: domains.into() })
    }

    /// The same hosts, where a host that is not one of them means what `unknown_hosts` says.
    #[must_use]
    pub fn with_unknown_hosts(self, unknown_hosts: UnknownHosts) -> Self {
        Self { unknown_hosts, ..self }
    }

    /// What short URLs of the default domain begin with.
    pub fn base(&self) -> &BaseUrl {
        &self.base
    }

    /// The short URL of `code` on the domain named `domain`.
    pub fn short_url(&self, domain: &str, code: &str) -> String {
        match domain {
            "" => format!("{}/{code}", self.base.text),
            host => format!("{}://{host}/{code}", self.base.scheme),
        }
    }

    /// The domain that a request's host means; `None` for one that is not ours where `UNKNOWN_HOSTS` is `404`. A request of HTTP/1.0
    /// may name no host, which counts as one that is not ours.
    pub fn by_host(&self, host: Option<&str>) -> Option<&Domain> {
        let default = self.domains.first();
        let if_unknown = match self.unknown_hosts {
            UnknownHosts::Default => default,
            UnknownHosts::NotFound => None,
        };
        if if_unknown.is_some() && self.domains.len() == 1 {
            return default;
        }
        let named = |host: &str| self.by_name(host).filter(|_| !host.is_empty());
        // Seldom is it not spelt as in the settings: with the port that goes without saying, or the dot of DNS's root.
        let found = host.and_then(|host| named(host).or_else(|| named(&self.usual_spelling(host)?)));
        found.or(if_unknown)
    }

    fn usual_spelling(&self, host: &str) -> Option<String> {
        let url = Url::parse(&format!("{}://{host}", self.base.scheme)).ok()?;
        let authority = authority(&url)?;
        let (name, port) = authority.split_once(':').unwrap_or((&authority, ""));
        let name = name.strip_suffix('.').unwrap_or(name);
        Some(if port.is_empty() { name.to_owned() } else { format!("{name}:{port}") })
    }

    /// The domain a request body or query names: empty or `BASE_URL`'s host is the default one; `None` if it is not ours.
    pub fn by_name(&self, name: &str) -> Option<&Domain> {
        match name.is_empty() || name.eq_ignore_ascii_case(&self.base.authority) {
            true => self.domains.first(),
            false => self.domains[1..].iter().find(|domain| domain.as_str().eq_ignore_ascii_case(name)),
        }
    }

    /// The host name of a domain, and the port if its URLs have one.
    pub fn host_and_port(&self, domain: &Domain) -> (&str, Option<i64>) {
        let authority = match domain.as_str() {
            "" => &self.base.authority,
            _ => self.domains.get(usize::from(domain.index)).map_or("", Domain::as_str),
        };
        // The end of an IPv6 address is in brackets, and no number.
        let port = authority.rsplit_once(':').and_then(|(host, port)| Some((host, Some(port.parse().ok()?))));
        port.unwrap_or((authority, None))
    }

    /// The host names of all domains, without ports: a link to one of them would redirect to ourselves.
    pub fn hosts(&self) -> Vec<String> {
        let authorities =
            std::iter::once(self.base.authority.as_str()).chain(self.domains[1..].iter().map(Domain::as_str));
        authorities
            .filter_map(|authority| Url::parse(&format!("http://{authority}")).ok())
            .filter_map(|url| url.host().map(|host: Host<&str>| host.to_string()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls() -> PublicUrls {
        let further = ["go.example.com".to_owned(), "x.test:8080".to_owned()];
        PublicUrls::new(BaseUrl::parse("https://sho.rt/").unwrap(), &further).unwrap()
    }

    #[test]
    fn short_urls_begin_with_their_domain() {
        assert_eq!(urls().short_url("", "abc"), "https://sho.rt/abc");
        assert_eq!(urls().short_url("x.test:8080", "abc"), "https://x.test:8080/abc");
    }

    #[test]
    fn a_host_chooses_the_domain_and_the_setting_says_what_a_strange_one_means() {
        let with = |unknown_hosts| urls().with_unknown_hosts(unknown_hosts);
        let (open, strict) = (with(UnknownHosts::Default), with(UnknownHosts::NotFound));
        for (host, domain) in [
            (Some("GO.example.com"), Some("go.example.com")),
            (Some("x.test:8080"), Some("x.test:8080")),
            (Some("x.test"), None),
            (Some("go.example.com:443"), Some("go.example.com")),
            (Some("go.example.com."), Some("go.example.com")),
            (Some("Go.Example.com.:443"), Some("go.example.com")),
            (Some("go.example.com:80"), None),
            (Some("x.test.:8080"), Some("x.test:8080")),
            (Some("[::1]:8000"), None),
            (Some("sho.rt"), Some("")),
            (Some("Sho.rt."), Some("")),
            (Some("sho.rt:443"), Some("")),
            (Some("sho.rt:80"), None),
            (Some("x.sho.rt"), None),
            (Some("10.0.0.1:8000"), None),
            (None, None),
        ] {
            assert_eq!(strict.by_host(host).map(Domain::as_str), domain, "{host:?}");
            assert_eq!(open.by_host(host).map(Domain::as_str), Some(domain.unwrap_or("")), "{host:?}");
        }
    }

    #[test]
    fn a_strange_host_means_the_default_domain_only_where_it_is_the_only_one_or_the_setting_says_so() {
        let alone = PublicUrls::new(BaseUrl::parse("https://sho.rt").unwrap(), &[]).unwrap();
        assert_eq!(alone.by_host(Some("10.0.0.1")).map(Domain::as_str), Some(""));
        assert_eq!(alone.by_host(None).map(Domain::as_str), Some(""));
        assert_eq!(urls().by_host(Some("10.0.0.1")), None);
        let strict = alone.with_unknown_hosts(UnknownHosts::NotFound);
        assert_eq!(strict.by_host(Some("10.0.0.1")), None);
        assert_eq!(strict.by_host(Some("SHO.rt:443")).map(Domain::as_str), Some(""));
    }

    #[test]
    fn a_domain_has_a_host_and_a_port_if_its_urls_do() {
        let check = |host: &str, expected| {
            let urls = urls();
            assert_eq!(urls.host_and_port(urls.by_host(Some(host)).unwrap()), expected, "{host}");
        };
        check("sho.rt", ("sho.rt", None));
        check("x.test:8080", ("x.test", Some(8080)));
        let six = PublicUrls::new(BaseUrl::parse("http://[::1]").unwrap(), &["[::2]:8000".to_owned()]).unwrap();
        assert_eq!(six.host_and_port(six.by_host(Some("[::1]")).unwrap()), ("[::1]", None));
        assert_eq!(six.host_and_port(six.by_host(Some("[::2]:8000")).unwrap()), ("[::2]", Some(8000)));
    }

    #[test]
    fn a_named_domain_must_be_ours() {
        let urls = urls();
        assert_eq!(urls.by_name("sho.rt").map(Domain::as_str), Some(""));
        assert_eq!(urls.by_name("go.example.com").map(Domain::as_str), Some("go.example.com"));
        assert_eq!(urls.by_name("evil.example"), None);
        assert_eq!(urls.hosts(), ["sho.rt", "go.example.com", "x.test"]);
    }
}
