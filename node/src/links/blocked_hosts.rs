//! Hosts that the operator of the service does not want to lead to: the parsed form of `BLOCKED_HOSTS_FILE`.
//!
//! Each line is a host or a domain, which covers everything below it, or a line of a hosts file (`0.0.0.0 ads.example`), or
//! a domain as ad blockers write it (`||ads.example^`). `#` begins a comment, and so does `!` at the start of a line. The
//! file is read, and read again when it changes, by whoever holds this list.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv6Addr};

use url::Host;

/// The most hosts in one list. Public blocklists are around a million lines; each costs about a hundred bytes.
pub const BLOCKED_HOSTS_MAX: usize = 5_000_000;

/// What some editors put before the first line.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Blocked hosts, in the normalised form of the URL parser.
#[derive(Clone, Debug, Default)]
pub struct BlockedHosts(HashSet<Box<str>>);

/// Why a list of blocked hosts is not taken. Never repeats what the line says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockedHostsError {
    /// A line that cannot be used.
    #[error("line {line}: {reason}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it, and what would be right.
        reason: LineError,
    },
    /// More than [`BLOCKED_HOSTS_MAX`].
    #[error("more than {BLOCKED_HOSTS_MAX} hosts")]
    TooMany,
}

/// Why a line cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// It is not text.
    #[error("is not UTF-8; save the file as UTF-8")]
    NotText,
    /// A URL.
    #[error("is a URL; give its host alone")]
    Url,
    /// A host with a port.
    #[error("has a port; give the host alone, which is blocked on every port")]
    Port,
    /// Ad blockers' syntax beyond `||domain^`.
    #[error("is a rule of an ad blocker; only ||domain^ is understood, without options or exceptions")]
    Rule,
    /// Several names and no address before them.
    #[error("has several words; give one host a line, or 0.0.0.0 before several")]
    Words,
    /// A hosts file that leads somewhere.
    #[error("maps names to an address that is in use; only 0.0.0.0, :: and addresses of loopback block names")]
    Address,
    /// No host, by what the URL parser says.
    #[error("is not a host name or address: {0}")]
    Host(url::ParseError),
}

impl BlockedHosts {
    /// Parses a whole file.
    pub fn parse(file: impl AsRef<[u8]>) -> Result<Self, BlockedHostsError> {
        let bytes = file.as_ref();
        let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
        let mut hosts = HashSet::new();
        for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            add_line(line, &mut hosts).map_err(|reason| BlockedHostsError::Line { line: index + 1, reason })?;
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

/// Adds the hosts of one line: none, one, or the names behind an address.
fn add_line(line: &[u8], hosts: &mut HashSet<Box<str>>) -> Result<(), LineError> {
    // A comment may be in any encoding.
    let entry = line.split(|byte| *byte == b'#').next().unwrap_or_default();
    if entry.first() == Some(&b'!') || is_heading(entry) {
        return Ok(());
    }
    let entry = std::str::from_utf8(entry).map_err(|_| LineError::NotText)?;
    let mut words = entry.split_whitespace();
    let Some(first) = words.next() else { return Ok(()) };
    let mut names = words.peekable();
    if names.peek().is_none() {
        hosts.insert(normalised(first)?);
        return Ok(());
    }
    let address = address(first).ok_or_else(|| if is_rule(entry) { LineError::Rule } else { LineError::Words })?;
    for name in names {
        let host = normalised(name)?;
        // Names such as `localhost` and `broadcasthost`, with which hosts files begin, are the machine's own.
        if !host.contains(['.', ':']) {
            continue;
        }
        if !address.is_unspecified() && !address.is_loopback() {
            return Err(LineError::Address);
        }
        hosts.insert(host);
    }
    Ok(())
}

/// The first line of ad blockers' lists: `[Adblock Plus 2.0]`.
fn is_heading(entry: &[u8]) -> bool {
    entry.get(..8).is_some_and(|start| start.eq_ignore_ascii_case(b"[adblock"))
}

/// The address at the start of a line of a hosts file; that of an interface has its name behind it.
fn address(word: &str) -> Option<IpAddr> {
    word.split('%').next().unwrap_or_default().parse().ok().map(|address: IpAddr| address.to_canonical())
}

fn is_rule(entry: &str) -> bool {
    entry.contains(['|', '^', '$']) || entry.starts_with("@@")
}

/// One host in the normalised form of the URL parser.
pub(super) fn normalised(entry: &str) -> Result<Box<str>, LineError> {
    let name = entry.strip_prefix("||").and_then(|rest| rest.strip_suffix('^')).unwrap_or(entry);
    let host = match name.parse::<Ipv6Addr>() {
        Ok(address) => Ok(Host::Ipv6(address)),
        // Lists for other programs begin a domain with `*.` or a dot.
        Err(_) => Host::parse(name.strip_prefix("*.").or_else(|| name.strip_prefix('.')).unwrap_or(name)),
    };
    let text = host.map_err(|error| complaint(entry, error))?.to_string();
    Ok(text.strip_suffix('.').unwrap_or(&text).into())
}

/// What somebody who wrote `entry` most likely meant.
fn complaint(entry: &str, error: url::ParseError) -> LineError {
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    match entry {
        _ if entry.contains("://") => LineError::Url,
        _ if is_rule(entry) => LineError::Rule,
        _ if entry.contains('/') => LineError::Url,
        _ if entry.rsplit_once(':').is_some_and(|(_, port)| is_port(port)) => LineError::Port,
        _ => LineError::Host(error),
    }
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

    /// What public lists look like; each line with the hosts that it blocks.
    #[test]
    fn lists_of_every_form_are_understood() {
        let lines: &[(&str, &[&str])] = &[
            ("0.0.0.0 ads.example", &["ads.example"]),
            ("127.0.0.1\tads.example tracker.example  # both\r", &["ads.example", "tracker.example"]),
            ("  0.0.0.0   ADS.Example.  ", &["ads.example"]),
            (":: ads.example", &["ads.example"]),
            ("::1 ads.example", &["ads.example"]),
            ("::ffff:127.0.0.1 ads.example", &["ads.example"]),
            ("127.0.0.53 ads.example", &["ads.example"]),
            ("0.0.0.0 m\u{fc}nchen.example", &["xn--mnchen-3ya.example"]),
            ("0.0.0.0 0.0.0.0", &["0.0.0.0"]),
            ("127.0.0.1 localhost", &[]),
            ("255.255.255.255 broadcasthost", &[]),
            ("fe80::1%lo0 localhost", &[]),
            ("ff02::1 ip6-allnodes", &[]),
            ("||ads.example^", &["ads.example"]),
            ("||Ads.Example^\r", &["ads.example"]),
            ("! Title: a list of an ad blocker", &[]),
            ("[Adblock Plus 2.0]", &[]),
            (".ads.example", &["ads.example"]),
            ("*.ads.example", &["ads.example"]),
            ("#0.0.0.0 ads.example", &[]),
            ("\t \r", &[]),
        ];
        for (line, blocked) in lines {
            let list = BlockedHosts::parse(line).unwrap_or_else(|error| panic!("{line:?}: {error}"));
            let mut found: Vec<_> = list.0.iter().map(|host| &**host).collect();
            found.sort_unstable();
            assert_eq!(found, *blocked, "{line:?}");
        }
        // A comment in another encoding is a comment.
        assert_eq!(BlockedHosts::parse(b"# M\xfcnchen\nads.example").unwrap().len(), 1);
    }

    #[test]
    fn a_bad_line_is_told_by_its_number_and_its_reason_and_not_repeated() {
        use LineError::{Address, NotText, Port, Rule, Url, Words};
        let files: &[(&[u8], usize, Option<LineError>)] = &[
            (b"ok.example\nhttps://evil.example/\n", 2, Some(Url)),
            (b"evil.example/path", 1, Some(Url)),
            (b"two words.example", 1, Some(Words)),
            (b"# fine\n\nhost.example:8080", 3, Some(Port)),
            (b"0.0.0.0 ok.example host.example:8080", 1, Some(Port)),
            (b"10.0.0.5 wiki.example", 1, Some(Address)),
            (b"||ads.example^$third-party", 1, Some(Rule)),
            (b"@@||ads.example^", 1, Some(Rule)),
            (b"||ads.example/banner^", 1, Some(Rule)),
            (b"ads.example##.banner", 1, None),
            (b"||ads.example^ ok.example", 1, Some(Rule)),
            (b"ok.example\r\n\xff\xfe\n", 2, Some(NotText)),
            (b"1.2.3.256", 1, None),
            (b"evil example.org\nok.example", 1, Some(Words)),
        ];
        for (text, line, expected) in files {
            let shown = String::from_utf8_lossy(text).into_owned();
            match BlockedHosts::parse(text) {
                Err(error @ BlockedHostsError::Line { .. }) => {
                    let message = error.to_string();
                    assert!(!message.contains("evil"), "{shown:?}: {message}");
                    let BlockedHostsError::Line { line: found, reason } = error else { unreachable!() };
                    assert_eq!(found, *line, "{shown:?}");
                    assert!(expected.as_ref().is_none_or(|expected| *expected == reason), "{shown:?}: {reason:?}");
                }
                // What stands before the comment is a host.
                Ok(list) => assert!(expected.is_none() && list.contains("ads.example"), "{shown:?}"),
                other @ Err(_) => panic!("{shown:?}: {other:?}"),
            }
        }
    }
}
