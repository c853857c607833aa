//! The registry of domains: one row for each host that was ever ours, which says what domain it means, for ever.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::keyspace::decode_keyspace;
use super::{Key, Kind, StoreError, decode, encode};
use crate::ambient::UnixMs;
use crate::kv::{SCAN_ROWS_MAX, Transaction, prefix_range};

const HOST_V1: u8 = 1;
/// Hosts that a registry has at most: it is read whole, and held in memory by every node.
pub const HOSTS_MAX: usize = SCAN_ROWS_MAX;

/// What is known of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRow {
    /// The ID of its domain: what links are keyed by.
    pub domain: String,
    /// When it was first ours.
    pub registered_at: UnixMs,
    /// Since when it is the host of `BASE_URL`, if it ever was. That with the latest time is the default domain's.
    pub base_since: Option<UnixMs>,
}

/// All hosts that were ever ours, by the one spelling that they have.
pub type Registry = BTreeMap<String, HostRow>;

/// Reads the registry; fails while the keyspace is being restored.
pub async fn registry(txn: &Transaction) -> Result<Registry, StoreError> {
    if let Some(bytes) = txn.get(&Key::of(Kind::Keyspace).build()).await? {
        decode_keyspace(&bytes)?;
    }
    let rows = txn.scan(Kind::Domain.rows(), HOSTS_MAX).await?;
    let read = |(key, value): (Vec<u8>, Vec<u8>)| {
        let host = key.get(1..).and_then(|host| String::from_utf8(host.to_vec()).ok());
        let host = host.ok_or(StoreError::Decode { kind: Kind::Domain, version: None })?;
        Ok((host, decode(Kind::Domain, HOST_V1, &value)?))
    };
    rows.into_iter().map(read).collect()
}

/// Writes what is known of a host.
pub fn put_host(txn: &mut Transaction, host: &str, row: &HostRow) {
    txn.put(Key::of(Kind::Domain).bytes(host.as_bytes()).build(), encode(HOST_V1, row));
}

/// The IDs of the domains that have links, at most [`HOSTS_MAX`]: one read for each.
pub async fn domains_with_links(txn: &Transaction) -> Result<Vec<String>, StoreError> {
    let (mut range, mut found) = (Kind::Link.rows(), Vec::new());
    while found.len() < HOSTS_MAX {
        let row = txn.scan(range.clone(), 1).await?.pop();
        let domain = row.as_ref().and_then(|(key, _)| key.get(1..)?.split(|byte| *byte == 0).next());
        let Some(domain) = domain.and_then(|domain| std::str::from_utf8(domain).ok()) else { break };
        range.start = links_of(domain).end;
        found.push(domain.to_owned());
    }
    Ok(found)
}

/// Whether a domain has links, or had some: codes are never given out again.
pub async fn has_links(txn: &Transaction, domain: &str) -> Result<bool, StoreError> {
    Ok(!txn.scan(links_of(domain), 1).await?.is_empty())
}

fn links_of(domain: &str) -> std::ops::Range<Vec<u8>> {
    prefix_range(Key::of(Kind::Link).text(domain).build())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ambient::Clock;
    use crate::kv::Kv;
    use crate::kv::embedded::Embedded;
    use crate::store::links::link_key;

    #[tokio::test]
    async fn hosts_and_the_domains_that_have_links_are_read_as_they_were_written() {
        let directory = tempfile::tempdir().unwrap();
        let kv = Kv::Embedded(Embedded::open(directory.path(), Clock::manual(UnixMs(5))).unwrap());
        let row =
            |domain: &str, base_since| HostRow { domain: domain.to_owned(), registered_at: UnixMs(1), base_since };
        let written = [("sho.rt", row("", Some(UnixMs(2)))), ("x.test:8080", row("x.test:8080", None))];
        let mut txn = kv.begin().await.unwrap();
        for (host, row) in &written {
            put_host(&mut txn, host, row);
        }
        for (domain, code) in [("", "abc"), ("", "abd"), ("a", "xyz"), ("a.test", "q"), ("a.test", "r"), ("b", "s")] {
            txn.put(link_key(domain, code), vec![1]);
        }
        txn.commit().await.unwrap();
        let txn = kv.begin().await.unwrap();
        let expected: Registry = written.into_iter().map(|(host, row)| (host.to_owned(), row)).collect();
        assert_eq!(registry(&txn).await.unwrap(), expected);
        assert_eq!(domains_with_links(&txn).await.unwrap(), ["", "a", "a.test", "b"]);
        for (domain, has) in [("", true), ("a", true), ("a.test", true), ("a.tes", false), ("c", false)] {
            assert_eq!(has_links(&txn, domain).await.unwrap(), has, "{domain:?}");
        }
    }
}
