//! Hosts that the operator of the service does not want to lead to: the parsed form of `BLOCKED_HOSTS_FILE`.
//!
//! One host or domain a line; a domain covers everything below it; `#` begins a comment. The file is read, and read
//! again when it changes, by whoever holds this list.

use std::collections::HashSet;
use std::net::Ipv6Addr;

use url::{Host, ParseError};

/// The most hosts in one list. Public blocklists are around a million lines; each costs about a hundred bytes.
pub const BLOCKED_HOSTS_MAX: usize = 5_000_000;

/// Blocked hosts, in the normalised form of the URL parser.
#[derive(Clone, Debug, Default)]
pub struct BlockedHosts(HashSet<Box<str>>);

/// Why a list of blocked hosts is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockedHostsError {
    /// A line that is neither a host, nor a comment, nor empty.
    #[error("line {line}: {text:?} is not a host name or address ({reason})")]
    Line {
        /// Counted from 1.
        line: usize,
        /// The line, without its comment.
        text: String,
        /// What the URL parser says.
        reason: ParseError,
    },
    /// More than [`BLOCKED_HOSTS_MAX`].
    #[error("more than {BLOCKED_HOSTS_MAX} hosts")]
    TooMany,
}

impl BlockedHosts {
    /// Parses a whole file.
    pub fn parse(text: &str) -> Result<Self, BlockedHostsError> {
        let mut hosts = HashSet::new();
        for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let entry = line.split('#').next().unwrap_or_default().trim();
            if entry.is_empty() {
                continue;
            }
            let host = normalised(entry).map_err(|reason| BlockedHostsError::Line {
                line: index + 1,
                text: entry.to_owned(),
                reason,
            })?;
            hosts.insert(host);
            if hosts.len() > BLOCKED_HOSTS_MAX {
                return Err(BlockedHostsError::TooMany);
            }
        }
        Ok(Self(hosts))
    }

    /// Whether `host`, normalised as [`TargetUrl::host`](super::target_url::TargetUrl::host) gives it, or a domain that
    /// it is under, is on the list.
    pub fn contains(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        let mut rest = Some(host);
        while let Some(suffix) = rest {
            if self.0.contains(suffix) {
                return true;
            }
            rest = suffix.split_once('.').map(|(_, parent)| parent);
        }
        false
    }

    /// Adds a host that is normalised.
    pub fn insert(&mut self, host: String) {
        self.0.insert(host.into());
    }

    /// How many hosts are on the list.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is blocked.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A host in the form in which hosts are compared.
pub fn normalised(entry: &str) -> Result<Box<str>, ParseError> {
    let host = match entry.parse::<Ipv6Addr>() {
        Ok(address) => Host::Ipv6(address),
        Err(_) => Host::parse(entry.strip_prefix("*.").unwrap_or(entry))?,
    };
    let text = host.to_string();
    Ok(text.strip_suffix('.').unwrap_or(&text).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "\u{feff}# phishing\nEvil.example\n\n  bad.example.org.  # with a comment\r\n*.wild.example\n\
                        bücher.example\n192.0.2.1\n0xC0000202\n2001:db8::1\n[2001:db8::2]\n";

    #[test]
    fn a_domain_covers_itself_and_what_is_below_it_in_every_spelling() {
        let list = BlockedHosts::parse(LIST).unwrap();
        assert_eq!(list.len(), 8);
        for blocked in [
            "evil.example",
            "evil.example.",
            "a.b.evil.example",
            "bad.example.org",
            "wild.example",
            "x.wild.example",
            "xn--bcher-kva.example",
            "192.0.2.1",
            "192.0.2.2",
            "[2001:db8::1]",
            "[2001:db8::2]",
        ] {
            assert!(list.contains(blocked), "{blocked}");
        }
        for free in ["notevil.example", "example", "example.org", "192.0.2.3", "[2001:db8::3]", "1", ""] {
            assert!(!list.contains(free), "{free}");
        }
    }

    #[test]
    fn a_bad_line_is_named() {
        for (text, line, bad) in [
            ("ok.example\nhttps://evil.example/\n", 2, "https://evil.example/"),
            ("two words.example", 1, "two words.example"),
            ("# fine\n\nhost:8080", 3, "host:8080"),
            ("1.2.3.256", 1, "1.2.3.256"),
        ] {
            match BlockedHosts::parse(text) {
                Err(BlockedHostsError::Line { line: found, text, .. }) => {
                    assert_eq!((found, text.as_str()), (line, bad));
                }
                other => panic!("{text:?}: {other:?}"),
            }
        }
    }
}
