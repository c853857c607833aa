//! The address that a short link leads to: parsed once, checked once, and from then on a type that cannot be wrong.
//!
//! Takes what a client sent and gives the normalised serialisation that is stored and sent as `Location`, or the reason
//! to refuse it. The parser is the WHATWG one that browsers use, so that what is compared here is what a browser will
//! open: decimal, octal and hexadecimal addresses, fullwidth digits and dots, percent-encoded and upper-case hosts are
//! all in one form before anything is looked at.

mod host;
mod rfc3986;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashSet;
use std::fmt;

use http::HeaderValue;
use url::{Host, ParseError, SyntaxViolation, Url};

pub use rfc3986::{encoded, host_of};

use super::invisible::{Invisible, is_invisible};

/// The longest target URL, in bytes, as sent and as normalised. Browsers and proxies take about as much in a header.
pub const TARGET_URL_BYTES_MAX: usize = 8192;

/// An `http` or `https` URL on a public host that is not this service's own, in its normalised form, which is one of RFC 3986 too.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TargetUrl(Url);

/// Why a URL is refused. The text says what is wrong and what would be right; it never repeats the URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetUrlError {
    /// Over [`TARGET_URL_BYTES_MAX`], as sent or once percent-encoded.
    #[error("the URL is too long: at most {TARGET_URL_BYTES_MAX} bytes, once what is not ASCII is percent-encoded")]
    TooLong,
    /// A control character or a space, anywhere.
    #[error("the URL holds a control character or a space: percent-encode it, as in %20")]
    ControlOrSpace,
    /// A character that nobody sees, but for the ends, where they are left out.
    #[error("the URL holds {0}, which nobody sees: remove it, or percent-encode it if it belongs there")]
    Invisible(Invisible),
    /// Not a whole URL.
    #[error("this is not a whole URL ({0}): write it as https://example.com/page")]
    Malformed(ParseError),
    /// A scheme that is not for web pages.
    #[error("the scheme must be http or https")]
    Scheme,
    /// A user name or password before the host.
    #[error("the URL holds user information: leave out what stands before the @")]
    UserInfo,
    /// A host that only means something inside one network.
    #[error("the host {reason}: only public hosts can be shortened")]
    Host {
        /// What is wrong with the host.
        reason: &'static str,
    },
    /// One of this service's own domains: the redirect could go round for ever.
    #[error("the URL is this service's own: shorten the address that it leads to")]
    OwnDomain,
}

impl TargetUrl {
    /// Checks `raw` as "Refused URLs" of the HTTP contract lists, and normalises it.
    pub fn parse(raw: &str, own_domains: &OwnDomains) -> Result<Self, TargetUrlError> {
        if raw.len() > TARGET_URL_BYTES_MAX {
            return Err(TargetUrlError::TooLong);
        }
        // Copying leaves them there, and nobody can see to take them away.
        let raw = raw.trim_matches(is_invisible);
        // The parser drops tabs, newlines and surrounding spaces silently, so they have to be seen before it.
        if raw.chars().any(|c| c.is_control() || c == ' ') {
            return Err(TargetUrlError::ControlOrSpace);
        }
        if let Some(invisible) = Invisible::first_in(raw) {
            return Err(TargetUrlError::Invisible(invisible));
        }
        // An empty user name (`https://@host`) leaves no trace in the parsed URL; only the parser's warning tells.
        let has_user_info = Cell::new(false);
        let watch = |violation| {
            if matches!(violation, SyntaxViolation::EmbeddedCredentials) {
                has_user_info.set(true);
            }
        };
        let url =
            Url::options().syntax_violation_callback(Some(&watch)).parse(raw).map_err(TargetUrlError::Malformed)?;

        if !matches!(url.scheme(), "http" | "https") {
            return Err(TargetUrlError::Scheme);
        }
        if has_user_info.get() || !url.username().is_empty() || url.password().is_some() {
            return Err(TargetUrlError::UserInfo);
        }
        let host = url.host().ok_or(TargetUrlError::Malformed(ParseError::EmptyHost))?;
        if own_domains.contains(&host) {
            return Err(TargetUrlError::OwnDomain);
        }
        if let Some(reason) = host::refusal(&host) {
            return Err(TargetUrlError::Host { reason });
        }
        let url = match encoded(url.as_str()) {
            Cow::Borrowed(_) => url,
            Cow::Owned(text) => Url::parse(&text).map_err(TargetUrlError::Malformed)?,
        };
        if url.as_str().len() > TARGET_URL_BYTES_MAX {
            return Err(TargetUrlError::TooLong);
        }
        // The WHATWG serialisation of these schemes is visible ASCII; a redirect must never fail on it, so it is held.
        if HeaderValue::from_str(url.as_str()).is_err() {
            return Err(TargetUrlError::ControlOrSpace);
        }
        Ok(Self(url))
    }

    /// The normalised URL: visible ASCII, a valid header value.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The normalised host, as [`BlockedHosts::contains`](super::blocked_hosts::BlockedHosts::contains) takes it.
    pub fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default()
    }
}

impl From<TargetUrl> for String {
    fn from(target: TargetUrl) -> Self {
        target.0.into()
    }
}

impl fmt::Display for TargetUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for TargetUrl {
    /// The host only: paths and queries carry what does not belong in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TargetUrl({}…)", self.host())
    }
}

/// Hosts of this service itself; whatever the port.
#[derive(Clone, Debug, Default)]
pub struct OwnDomains(HashSet<Host>);

impl OwnDomains {
    /// From host names without a port. What is no host is left out: no URL leads there.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        Self(names.into_iter().filter_map(|name| Host::parse(name).ok()).map(rootless).collect())
    }

    /// Whether a stored target leads to one of them.
    pub fn include_host_of(&self, target: &str) -> bool {
        Url::parse(target).is_ok_and(|url| url.host().is_some_and(|host| self.contains(&host)))
    }

    fn contains(&self, host: &Host<&str>) -> bool {
        self.0.contains(&rootless(host.to_owned()))
    }
}

/// The form in which own hosts are compared.
fn rootless(host: Host) -> Host {
    match host {
        Host::Domain(name) => Host::Domain(host::without_root(&name).to_owned()),
        address => address,
    }
}
