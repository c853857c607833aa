//! What the settings say of our hosts: what short URLs begin with, which further hosts are ours, and what any other host means.
//!
//! Which domain a host means is kept in the store: [`crate::domains`].

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use clap::ValueEnum;
use url::Url;

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
        let plain = matches!(url.scheme(), "http" | "https") && is_bare(&url);
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

    /// The host, and the port if there is one.
    pub fn authority(&self) -> &str {
        &self.authority
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

/// Whether a URL has nothing but a scheme, a host and a port.
fn is_bare(url: &Url) -> bool {
    url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none()
}

/// The host as it is compared, and the port unless the scheme implies it.
fn authority(url: &Url) -> Option<String> {
    let host = url.host_str().map(|host| host.strip_suffix('.').unwrap_or(host)).filter(|host| !host.is_empty())?;
    Some(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}

/// The one spelling of `host[:port]`: lower case, IDNA's ASCII, without the dot of DNS's root and without the port that `scheme`
/// implies. `None` if it is no host.
pub fn spelling(scheme: &str, text: &str) -> Option<String> {
    let is_foreign = |c: char| c.is_whitespace() || c.is_control() || "/\\?#@%".contains(c);
    let url = Url::parse(&format!("{scheme}://{text}")).ok().filter(is_bare)?;
    authority(&url).filter(|_| !text.contains(is_foreign))
}

/// The host of an authority, without its port.
pub fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        // The end of an IPv6 address is in brackets, and no number.
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
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

/// All hosts of ours, as the settings name them.
#[derive(Clone, Debug)]
pub struct PublicUrls {
    base: BaseUrl,
    further: Arc<[String]>,
    unknown_hosts: UnknownHosts,
    /// The address that is listened on, if it is one.
    address: Option<IpAddr>,
}

impl PublicUrls {
    /// `base` serves the default domain; `further` are host names.
    pub fn new(base: BaseUrl, further: &[String]) -> Result<Self, String> {
        let mut hosts: Vec<String> = Vec::new();
        for name in further.iter().map(|name| name.trim()).filter(|name| !name.is_empty()) {
            let host = spelling(&base.scheme, name)
                .ok_or("must be host names, each with a port if need be, separated by commas")?;
            if host == base.authority || hosts.contains(&host) {
                return Err(format!("{host:?} is there twice; BASE_URL's own host is the default domain"));
            }
            hosts.push(host);
        }
        // With one domain, every name that leads here means it. With several, a name that is not known may be a mistake.
        let unknown_hosts = if hosts.is_empty() { UnknownHosts::Default } else { UnknownHosts::NotFound };
        Ok(Self { base, further: hosts.into(), unknown_hosts, address: None })
    }

    /// The same hosts, where a host that is not one of them means what `unknown_hosts` says.
    #[must_use]
    pub fn with_unknown_hosts(self, unknown_hosts: UnknownHosts) -> Self {
        Self { unknown_hosts, ..self }
    }

    /// The same hosts, on a node that listens on this address alone.
    #[must_use]
    pub fn at_address(self, address: IpAddr) -> Self {
        Self { address: Some(address), ..self }
    }

    /// What short URLs of the default domain begin with.
    pub fn base(&self) -> &BaseUrl {
        &self.base
    }

    /// The hosts of `DOMAINS`.
    pub fn further(&self) -> &[String] {
        &self.further
    }

    /// What a host means that is not ours.
    pub fn unknown_hosts(&self) -> UnknownHosts {
        self.unknown_hosts
    }

    /// The address that is listened on as a host of ours, where any host is.
    pub fn address(&self) -> Option<String> {
        let address = self.address.filter(|_| self.unknown_hosts == UnknownHosts::Default)?;
        Some(match address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        })
    }

    /// All hosts, that of the base first.
    pub fn authorities(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.base.authority.as_str()).chain(self.further.iter().map(String::as_str))
    }

    /// All hosts, without ports.
    pub fn hosts(&self) -> Vec<String> {
        self.authorities().map(|authority| without_port(authority).to_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_one_spelling() {
        for (scheme, text, expected) in [
            ("https", "Go.Example.com", Some("go.example.com")),
            ("https", "go.example.com.", Some("go.example.com")),
            ("https", "go.example.com:443", Some("go.example.com")),
            ("https", "go.example.com:", Some("go.example.com")),
            ("https", "Go.Example.com.:443", Some("go.example.com")),
            ("https", "go.example.com:80", Some("go.example.com:80")),
            ("http", "go.example.com:80", Some("go.example.com")),
            ("http", "x.test.:8080", Some("x.test:8080")),
            ("https", "bücher.example", Some("xn--bcher-kva.example")),
            ("https", "BÜCHER.example.", Some("xn--bcher-kva.example")),
            ("https", "xn--bcher-kva.example", Some("xn--bcher-kva.example")),
            ("http", "[::1]:80", Some("[::1]")),
            ("http", "[0:0::1]:8000", Some("[::1]:8000")),
            ("http", "127.0.0.1:8000", Some("127.0.0.1:8000")),
            ("http", "", None),
            ("http", ".", None),
            ("http", "a/b", None),
            ("http", "a/", None),
            ("http", "a\\", None),
            ("http", "a?", None),
            ("http", "a#", None),
            ("http", "a@b", None),
            ("http", "@b", None),
            ("http", "%67o.example", None),
            ("http", "go example", None),
            ("http", "go.example\t", None),
            ("http", "go.example:99999", None),
        ] {
            assert_eq!(spelling(scheme, text).as_deref(), expected, "{scheme} {text:?}");
        }
    }

    #[test]
    fn hosts_of_the_settings_are_told_apart_by_their_spelling() {
        let urls = |base: &str, further: &[&str]| {
            let further: Vec<String> = further.iter().map(|name| (*name).to_owned()).collect();
            PublicUrls::new(BaseUrl::parse(base).unwrap(), &further)
        };
        let found = urls("https://Sho.rt./", &["GO.example.com", "bücher.example.", "x.test:8080"]).unwrap();
        assert_eq!(found.base().as_str(), "https://sho.rt");
        assert_eq!(found.further(), ["go.example.com", "xn--bcher-kva.example", "x.test:8080"]);
        assert_eq!(found.hosts(), ["sho.rt", "go.example.com", "xn--bcher-kva.example", "x.test"]);
        for twice in [&["sho.rt"][..], &["SHO.rt."], &["sho.rt:443"], &["a.test", "A.test."]] {
            assert!(urls("https://sho.rt", twice).is_err(), "{twice:?}");
        }
        for wrong in ["a b", "a/b", "https://a.test", "a@b", ":80"] {
            assert!(urls("https://sho.rt", &[wrong]).is_err(), "{wrong}");
        }
        let six = urls("http://[::1]:8000", &["[::2]"]).unwrap();
        assert_eq!(six.hosts(), ["[::1]", "[::2]"]);
        assert_eq!(six.unknown_hosts(), UnknownHosts::NotFound);
        assert_eq!(urls("http://a.test", &[]).unwrap().unknown_hosts(), UnknownHosts::Default);
    }
}
