//! Which host a request names: exactly one valid authority (RFC 9112, section 3.2; RFC 3986, section 3.2).
//!
//! A request that names two hosts, or one that two programs could read in two ways, reaches another host at the next program. So what
//! is no plain `host[:port]` is refused for every route, before it is looked at any further.

use std::net::{Ipv4Addr, Ipv6Addr};

use http::{HeaderMap, Uri, Version, header};

/// The longest name that DNS has, in bytes, without a dot at its end.
const NAME_BYTES_MAX: usize = 253;
/// The longest label of a name, in bytes.
const LABEL_BYTES_MAX: usize = 63;
/// The most digits of a port.
const PORT_DIGITS_MAX: usize = 5;

/// A valid authority, as it was sent.
#[derive(Clone, Copy, Debug)]
pub struct Authority<'a> {
    text: &'a str,
    host: &'a str,
    port: Option<u16>,
}

/// Why a request does not name one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// Nothing names one.
    #[error("The request names no host; send one Host header.")]
    Missing,
    /// More than one line does.
    #[error("The request has more than one Host header; send one.")]
    Several,
    /// What names it is no authority.
    #[error("The request's host is not host[:port].")]
    Invalid,
    /// The request's target and the header differ.
    #[error("The request's target and its Host header differ.")]
    Differ,
    /// The request's target is a URL of another scheme.
    #[error("The request's target is neither http nor https.")]
    Scheme,
}

impl<'a> Authority<'a> {
    /// Reads `host[:port]`: a name of DNS, an IPv4 address, or an IPv6 address in brackets.
    pub fn parse(text: &'a str) -> Result<Self, HostError> {
        let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, port)) => {
                address.parse::<Ipv6Addr>().map_err(|_| HostError::Invalid)?;
                let colon = port.is_empty() || port.starts_with(':');
                let host = text.get(..address.len() + 2).filter(|_| colon).ok_or(HostError::Invalid)?;
                (host, port.strip_prefix(':'))
            }
            None => {
                let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
                if !is_name(host) {
                    return Err(HostError::Invalid);
                }
                (host, port)
            }
        };
        let port = port.map(self::port).transpose()?.flatten();
        Ok(Self { text, host, port })
    }

    /// As it was sent.
    pub fn as_str(&self) -> &'a str {
        self.text
    }

    /// Whether both name the same host and port, where `default_port` goes without saying.
    fn is_same(&self, other: &Self, default_port: u16) -> bool {
        let host = |authority: &Self| authority.host.strip_suffix('.').unwrap_or(authority.host);
        let port = |authority: &Self| authority.port.unwrap_or(default_port);
        host(self).eq_ignore_ascii_case(host(other)) && port(self) == port(other)
    }
}

/// A port that can be connected to; `None` for an empty one, which RFC 3986 takes for the scheme's own.
fn port(digits: &str) -> Result<Option<u16>, HostError> {
    if digits.is_empty() {
        return Ok(None);
    }
    let is_number = digits.len() <= PORT_DIGITS_MAX && digits.bytes().all(|byte| byte.is_ascii_digit());
    let port = digits.parse().ok().filter(|port| is_number && *port != 0);
    port.map(Some).ok_or(HostError::Invalid)
}

/// Whether DNS could know this name, or it is an IPv4 address. RFC 3986 has more, which no name is spelt with.
fn is_name(host: &str) -> bool {
    let labels = host.strip_suffix('.').unwrap_or(host);
    let is_label = |label: &str| {
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let last = labels.rsplit('.').next().unwrap_or_default();
    // No top-level domain is a number, so that it is an address or nothing.
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit());
    labels.len() <= NAME_BYTES_MAX
        && labels.split('.').all(is_label)
        && (!is_number || labels.parse::<Ipv4Addr>().is_ok())
}

/// The host that a request names; `None` for one of HTTP/1.0 that names none, as it may. The target outranks the header.
pub fn named<'a>(version: Version, uri: &'a Uri, headers: &'a HeaderMap) -> Result<Option<Authority<'a>>, HostError> {
    let mut lines = headers.get_all(header::HOST).iter();
    let line = lines.next();
    if lines.next().is_some() {
        return Err(HostError::Several);
    }
    let line = line.map(|line| line.to_str().map_err(|_| HostError::Invalid).and_then(Authority::parse)).transpose()?;
    let target = uri.authority().map(|authority| Authority::parse(authority.as_str())).transpose()?;
    let default_port = match uri.scheme_str() {
        None | Some("http") => 80,
        Some("https") => 443,
        Some(_) => return Err(HostError::Scheme),
    };
    match (target, line) {
        (Some(target), Some(line)) if !target.is_same(&line, default_port) => Err(HostError::Differ),
        // HTTP/1.1 has the header whatever the target is.
        (_, None) if version == Version::HTTP_11 => Err(HostError::Missing),
        (None, None) if version > Version::HTTP_11 => Err(HostError::Missing),
        (target, line) => Ok(target.or(line)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table: one case after another")]
    fn an_authority_is_a_host_and_perhaps_a_port() {
        let label = "a".repeat(63);
        let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
        for valid in [
            "go.example.com",
            "go.example.com:8080",
            "GO.Example.COM",
            "go.example.com.",
            "go.example.com.:443",
            "go.example.com:",
            "go.example.com:080",
            "localhost",
            "localhost:1",
            "a_b.example.com",
            "xn--mnchen-3ya.example",
            "1.example",
            "127.0.0.1",
            "127.0.0.1:65535",
            "[::1]",
            "[::1]:8000",
            "[2001:DB8::1]:8000",
            "[::ffff:192.0.2.1]",
            &longest,
        ] {
            assert!(Authority::parse(valid).is_ok(), "{valid:?}");
        }
        for invalid in [
            "",
            ":80",
            ":",
            ".",
            "..",
            ".example.com",
            "go..example.com",
            "a b",
            " a",
            "a ",
            "a\tb",
            "b/x",
            "go.example.com/x",
            "go.example.com?x",
            "go.example.com#x",
            "go.example.com\\x",
            "x@go.example.com",
            "x:y@go.example.com",
            "@",
            "%67o.example.com",
            "go.example.com%00",
            "http://go.example.com",
            "go.example.com,evil.example",
            "a,b",
            "a;b",
            "a*b",
            "<a>",
            "\"a\"",
            "go.example.com:abc",
            "go.example.com:-1",
            "go.example.com:+1",
            "go.example.com:0",
            "go.example.com:65536",
            "go.example.com:99999",
            "go.example.com:4294967376",
            "go.example.com:8 0",
            "go.example.com:80:80",
            "256.0.0.1",
            "1.2.3",
            "1.2.3.4.5",
            "2130706433",
            "127.0.0.1.:x",
            "::1",
            "[::1",
            "::1]",
            "[::1]]",
            "[[::1]]",
            "[]",
            "[::1]x",
            "[::1]8000",
            "[::1]:x",
            "[::1%eth0]",
            "[::1%25eth0]",
            "[127.0.0.1]",
            "[go.example.com]",
            "[v1.x]",
            "x[::1]",
            "\u{0}",
            "a\u{7f}",
            "münchen.example",
            &format!("{longest}a"),
            &format!("{label}a.example"),
        ] {
            assert!(Authority::parse(invalid).is_err(), "{invalid:?}");
        }
    }

    fn check(version: Version, uri: &str, lines: &[&str], expected: Result<Option<&str>, HostError>) {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::HOST, HeaderValue::from_str(line).unwrap());
        }
        let uri: Uri = uri.parse().unwrap();
        let found = named(version, &uri, &headers).map(|named| named.map(|authority| authority.as_str()));
        assert_eq!(found, expected, "{version:?} {uri} {lines:?}");
    }

    #[test]
    fn a_request_names_one_host() {
        let (one, two) = (Version::HTTP_11, Version::HTTP_2);
        check(one, "/x", &["a.test"], Ok(Some("a.test")));
        check(one, "/x", &[], Err(HostError::Missing));
        check(one, "/x", &["a.test", "a.test"], Err(HostError::Several));
        check(one, "/x", &["a.test", "b.test"], Err(HostError::Several));
        check(one, "/x", &["a b"], Err(HostError::Invalid));
        check(one, "*", &["a.test"], Ok(Some("a.test")));
        check(two, "http://a.test/x", &[], Ok(Some("a.test")));
        check(two, "/x", &["a.test"], Ok(Some("a.test")));
        check(two, "/x", &[], Err(HostError::Missing));
        check(two, "http://a.test/x", &["a.test", "a.test"], Err(HostError::Several));
        check(Version::HTTP_10, "/x", &[], Ok(None));
        check(Version::HTTP_10, "/x", &["a.test"], Ok(Some("a.test")));
        check(Version::HTTP_10, "/x", &["b/x"], Err(HostError::Invalid));
        check(Version::HTTP_10, "/x", &["a.test", "a.test"], Err(HostError::Several));
    }

    #[test]
    fn the_target_outranks_the_header_and_may_not_differ() {
        for version in [Version::HTTP_11, Version::HTTP_2] {
            for same in ["a.test", "A.Test", "a.test:80", "a.test.", "A.test.:80", "a.test:"] {
                check(version, "http://a.test/x", &[same], Ok(Some("a.test")));
            }
            check(version, "https://a.test/x", &["a.test:443"], Ok(Some("a.test")));
            check(version, "http://A.test:8080/x", &["a.test:8080"], Ok(Some("A.test:8080")));
            check(version, "http://[::1]:8000/x", &["[::1]:8000"], Ok(Some("[::1]:8000")));
            for other in ["b.test", "a.test:8080", "a.test:443", "x.a.test", "[::1]"] {
                check(version, "http://a.test/x", &[other], Err(HostError::Differ));
            }
            check(version, "http://x@a.test/x", &["a.test"], Err(HostError::Invalid));
            check(version, "http://a.test/x", &["x@a.test"], Err(HostError::Invalid));
            check(version, "ftp://a.test/x", &["a.test"], Err(HostError::Scheme));
        }
        check(Version::HTTP_11, "http://a.test/x", &[], Err(HostError::Missing));
        check(Version::HTTP_11, "a.test:443", &["a.test:443"], Ok(Some("a.test:443")));
    }
}
