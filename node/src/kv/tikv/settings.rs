//! Which keyspace of which cluster: `tikv://pd-0:2379,pd-1:2379/keyspace`.

use std::path::PathBuf;

/// The keyspace when none is named.
const KEYSPACE_DEFAULT: &str = "shortener";
/// Bytes in a keyspace's name: it stands before every key.
const KEYSPACE_BYTES_MAX: usize = 64;

/// Where a keyspace is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TikvSettings {
    /// Addresses of placement drivers, `host:port`; some may be down.
    pub pd_endpoints: Vec<String>,
    /// The keyspace's name.
    pub keyspace: String,
    /// Mutual TLS to placement drivers and stores.
    pub tls: Option<Tls>,
}

/// PEM files for mutual TLS; the client knows no other kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Who signed the servers' certificates.
    pub ca: PathBuf,
    /// Our certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl TikvSettings {
    /// Parses what follows `tikv://`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (endpoints, keyspace) = text.split_once('/').unwrap_or((text, KEYSPACE_DEFAULT));
        let pd_endpoints: Vec<String> = endpoints.split(',').map(|endpoint| endpoint.trim().to_owned()).collect();
        if !pd_endpoints.iter().all(|endpoint| is_address(endpoint)) {
            return Err(
                "must be tikv://host:port,host:port/keyspace, with the addresses of placement drivers".to_owned()
            );
        }
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if !(1..=KEYSPACE_BYTES_MAX).contains(&keyspace.len()) || !keyspace.bytes().all(is_name) {
            return Err(format!(
                "the keyspace after the last slash must be 1 to {KEYSPACE_BYTES_MAX} of A-Z, a-z, 0-9, - and _"
            ));
        }
        Ok(Self { pd_endpoints, keyspace: keyspace.to_owned(), tls: None })
    }

    /// What all keys of the keyspace begin with. No name holds a NUL, so that no prefix is another's.
    pub(super) fn prefix(&self) -> Vec<u8> {
        [b"s", self.keyspace.as_bytes(), &[0]].concat()
    }
}

/// `host:port`, where the host is a name, an IPv4 address or an IPv6 address in brackets.
fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    port.parse::<u16>().is_ok_and(|port| port > 0) && url::Host::parse(host).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_and_a_keyspace_are_read_and_anything_else_refused() {
        let settings = TikvSettings::parse("pd-0:2379, 10.0.0.1:2379,[::1]:2379/links").unwrap();
        assert_eq!(settings.pd_endpoints, ["pd-0:2379", "10.0.0.1:2379", "[::1]:2379"]);
        assert_eq!((settings.keyspace.as_str(), settings.tls), ("links", None));
        assert_eq!(TikvSettings::parse("pd-0:2379").unwrap().keyspace, "shortener");
        for wrong in
            ["", "pd-0", "pd-0:2379,", "pd-0:0", "pd-0:2379/", "pd-0:2379/a/b", "pd-0:2379/a b", "user@pd:2379"]
        {
            assert!(TikvSettings::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn no_keyspace_lies_in_another() {
        let prefix = |name: &str| TikvSettings::parse(&format!("pd:2379/{name}")).unwrap().prefix();
        assert!(!prefix("ab").starts_with(&prefix("a")));
        assert_ne!(prefix("a").first(), Some(&u8::MAX), "no key begins with 0xff");
    }
}
