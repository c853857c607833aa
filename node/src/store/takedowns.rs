//! What was taken down: one row for each host that no link may lead to, and for each code that leads nowhere any more.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::links::LinkAddress;
use super::{Key, Kind, StoreError, encode};
use crate::ambient::UnixMs;
use crate::kv::{Snapshot, Transaction};

/// Version byte of a takedown.
const TAKEDOWN_V1: u8 = 1;
/// Takedowns that are read, and held in memory by every node. For longer lists of hosts there is a file.
pub const TAKEDOWNS_MAX: usize = 10_000;

/// What stands in a key before a host, and before the address of a link.
const HOST: u64 = 0;
const CODE: u64 = 1;

/// What is taken down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Takedown {
    /// Every link to this host, normalised, and to what is below it.
    Host(String),
    /// The link at this address.
    Code(LinkAddress),
}

/// When it was; the key says what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct TakedownRow {
    since: UnixMs,
}

impl Takedown {
    /// Its key in the store.
    pub fn key(&self) -> Vec<u8> {
        match self {
            Self::Host(host) => Key::of(Kind::Takedown).number(HOST).bytes(host.as_bytes()).build(),
            Self::Code(at) => Key::of(Kind::Takedown).number(CODE).text(&at.domain).bytes(at.code.as_bytes()).build(),
        }
    }

    /// What a key in the store says.
    pub fn of_key(key: &[u8]) -> Option<Self> {
        let key = key.strip_prefix(&[Kind::Takedown as u8])?;
        let (kind, rest) = key.split_first_chunk().map(|(kind, rest)| (u64::from_be_bytes(*kind), rest))?;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        match kind {
            HOST => text(rest).map(Self::Host),
            CODE => {
                let end = rest.iter().position(|byte| *byte == 0)?;
                let (domain, code) = (rest.get(..end)?, rest.get(end + 1..)?);
                Some(Self::Code(LinkAddress { domain: text(domain)?, code: text(code)? }))
            }
            _ => None,
        }
    }
}

/// Takes it down from `since` on.
pub fn put_takedown(txn: &mut Transaction, takedown: &Takedown, since: UnixMs) {
    let row = TakedownRow { since };
    txn.put(takedown.key(), encode(TAKEDOWN_V1, &row));
}

/// Lets it be again.
pub fn delete_takedown(txn: &mut Transaction, takedown: &Takedown) {
    txn.delete(takedown.key());
}

/// All that is taken down, at most [`TAKEDOWNS_MAX`]. What only a newer release knows is left out.
pub async fn takedowns(snapshot: &Snapshot) -> Result<Vec<Takedown>, StoreError> {
    /// Rows read at once.
    const PAGE: usize = 1_000;
    let (mut range, mut found): (Range<Vec<u8>>, Vec<Takedown>) = (Kind::Takedown.rows(), Vec::new());
    loop {
        let rows = snapshot.scan(range.clone(), PAGE).await?;
        found.extend(rows.iter().filter_map(|(key, _)| Takedown::of_key(key)));
        match rows.last() {
            Some((last, _)) if rows.len() == PAGE && found.len() < TAKEDOWNS_MAX => {
                range.start = super::key_after(last);
            }
            _ => break,
        }
    }
    found.truncate(TAKEDOWNS_MAX);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_takedowns_key_says_what_is_taken_down() {
        let at = |domain: &str, code: &str| LinkAddress { domain: domain.to_owned(), code: code.to_owned() };
        for takedown in [
            Takedown::Host("evil.example".to_owned()),
            Takedown::Host("[2606:4700::1111]".to_owned()),
            Takedown::Code(at("", "promo")),
            Takedown::Code(at("go.example.com:8443", "promo")),
        ] {
            assert_eq!(Takedown::of_key(&takedown.key()), Some(takedown));
        }
        assert_eq!(Takedown::of_key(b"u"), None);
    }
}
