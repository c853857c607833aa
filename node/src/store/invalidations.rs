//! What was changed: one row a link, written with its change, until the caches that nodes share know it for certain.

use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::links::LinkAddress;
use super::{Key, Kind, StoreError, decode, encode};
use crate::ambient::UnixMs;
use crate::kv::Transaction;

/// Version byte of an invalidation.
const INVALIDATION_V1: u8 = 1;
/// After this nothing that a cache kept before the change is there any more: links stay for two hours at most.
const AGE_MAX: Duration = Duration::from_hours(3);

/// A link's last change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvalidationRow {
    /// The link's version since.
    pub version: u32,
    /// When it was, by the store's clock.
    pub changed_at: UnixMs,
}

impl InvalidationRow {
    /// The row's value.
    pub fn encode(&self) -> Vec<u8> {
        encode(INVALIDATION_V1, self)
    }

    /// Reads a row's value.
    pub fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        decode(Kind::Invalidation, INVALIDATION_V1, bytes)
    }
}

/// Key of the last change of the link at an address.
pub fn invalidation_key(at: &LinkAddress) -> Vec<u8> {
    Key::of(Kind::Invalidation).text(&at.domain).bytes(at.code.as_bytes()).build()
}

/// Which link a key is about.
pub fn invalidated(key: &[u8]) -> Option<LinkAddress> {
    let (_kind, rest) = key.split_first()?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    let (domain, code) = rest.split_at(end);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    Some(LinkAddress { domain: text(domain)?, code: text(code.get(1..)?)? })
}

/// All invalidations.
pub fn all() -> Range<Vec<u8>> {
    Kind::Invalidation.rows()
}

/// Leaves word that the link at an address has this version now.
pub fn put_invalidation(txn: &mut Transaction, at: &LinkAddress, version: u32) {
    let row = InvalidationRow { version, changed_at: txn.now() };
    txn.put(invalidation_key(at), row.encode());
}

/// Whether nobody needs the row any more.
pub fn expired(value: &[u8], now: UnixMs) -> bool {
    InvalidationRow::decode(value).is_ok_and(|row| now.since(row.changed_at) > AGE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_tells_its_link_and_a_row_expires_once_no_cache_can_hold_what_was_before() {
        for (domain, code) in [("", "abc"), ("go.example", "launch-2026")] {
            let at = LinkAddress { domain: domain.to_owned(), code: code.to_owned() };
            let key = invalidation_key(&at);
            assert!(all().contains(&key));
            assert_eq!(invalidated(&key), Some(at));
        }
        let row = InvalidationRow { version: 2, changed_at: UnixMs(1_000) };
        assert_eq!(InvalidationRow::decode(&row.encode()).unwrap(), row);
        assert!(!expired(&row.encode(), row.changed_at.plus(AGE_MAX)));
        assert!(expired(&row.encode(), row.changed_at.plus(AGE_MAX + Duration::from_millis(1))));
        assert!(!expired(b"\x09", UnixMs(u64::MAX)), "a newer release may have written it");
    }
}
