//! Links in the store: the link itself by (domain, code), where it is by ID, and each owner's list.

use serde::{Deserialize, Serialize};

use super::accounts::UserId;
use super::format::{Format, Formats};
use super::search::{link_was_changed, link_was_made};
use super::{Key, Kind, StoreError, decode, decode_to_change, encode, encode_in};
use crate::ambient::UnixMs;
use crate::kv::{Snapshot, Transaction, prefix_range};

/// Version byte of a link's row, in every format so far.
const LINK_V1: u8 = 1;
/// Version byte of an address row.
const ADDRESS_V1: u8 = 1;

/// A link as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkRow {
    /// Snowflake ID.
    pub id: u64,
    /// The user it belongs to; `None` for a link made without a token.
    pub owner: Option<UserId>,
    /// Where it leads, normalised.
    pub target: String,
    /// HTTP status of its redirect.
    pub status: u16,
    /// Free text for its owner.
    pub title: Option<String>,
    /// Free words for its owner.
    pub tags: Vec<String>,
    /// Whether it redirects at all.
    pub is_active: bool,
    /// From when on it is gone.
    pub expires_at: Option<UnixMs>,
    /// When it was made.
    pub created_at: UnixMs,
    /// When it was last changed.
    pub updated_at: UnixMs,
    /// Counts its changes; a cache never lets a lower one replace a higher one.
    pub version: u32,
    /// Whether its code was chosen by a person.
    pub is_alias: bool,
    /// Whether it was deleted: the row stays, so that the code is never given out again.
    pub is_deleted: bool,
}

/// What a link is keyed by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LinkAddress {
    /// The domain's ID; see [`crate::domains`].
    pub domain: String,
    /// The code or alias.
    pub code: String,
}

/// Key of the link at (`domain`, `code`).
pub fn link_key(domain: &str, code: &str) -> Vec<u8> {
    Key::of(Kind::Link).text(domain).bytes(code.as_bytes()).build()
}

/// Key of the row that tells where link `id` is.
pub fn by_id_key(id: u64) -> Vec<u8> {
    Key::of(Kind::LinkById).spread(id).build()
}

/// Key of `owner`'s list entry for link `id`; entries sort newest first.
fn by_owner_key(owner: UserId, id: u64) -> Vec<u8> {
    Key::of(Kind::LinkByOwner).spread(owner.0.into()).descending(id).build()
}

/// Encodes a link's row.
pub fn encode_link(format: Format, row: &LinkRow) -> Vec<u8> {
    encode_in(format, LINK_V1, row)
}

/// Decodes a link's row.
pub fn decode_link(bytes: &[u8]) -> Result<LinkRow, StoreError> {
    decode(Kind::Link, LINK_V1, bytes)
}

fn decode_address(kind: Kind, bytes: &[u8]) -> Result<LinkAddress, StoreError> {
    decode(kind, ADDRESS_V1, bytes)
}

/// Adds a new link: commit fails with `AlreadyExists` of [`link_key`] or [`by_id_key`] when either is taken.
pub fn insert_link(txn: &mut Transaction, format: Format, at: &LinkAddress, row: &LinkRow) {
    let address = encode(ADDRESS_V1, at);
    txn.insert(link_key(&at.domain, &at.code), encode_link(format, row));
    if let Some(owner) = row.owner {
        txn.put(by_owner_key(owner, row.id), address.clone());
    }
    txn.insert(by_id_key(row.id), address);
    link_was_made(txn, row);
}

/// Replaces a link's row as it was `before`.
pub fn replace_link(txn: &mut Transaction, format: Format, at: &LinkAddress, before: &LinkRow, row: &LinkRow) {
    txn.put(link_key(&at.domain, &at.code), encode_link(format, row));
    link_was_changed(txn, before, row);
}

/// Leaves `tombstone` in place of the link and takes it off all lists.
pub fn bury_link(txn: &mut Transaction, format: Format, at: &LinkAddress, before: &LinkRow, tombstone: &LinkRow) {
    replace_link(txn, format, at, before, tombstone);
    txn.delete(by_id_key(tombstone.id));
    if let Some(owner) = tombstone.owner {
        txn.delete(by_owner_key(owner, tombstone.id));
    }
}

/// The link with this ID, within a transaction.
pub async fn link_by_id(txn: &Transaction, id: u64) -> Result<Option<(LinkAddress, LinkRow)>, StoreError> {
    let Some((at, bytes)) = link_bytes_by_id(txn, id).await? else { return Ok(None) };
    Ok(Some((at, decode_link(&bytes)?)))
}

/// The link with this ID, within a transaction that is going to change it.
pub async fn link_to_change(
    txn: &Transaction,
    id: u64,
    formats: &Formats,
) -> Result<Option<(LinkAddress, LinkRow)>, StoreError> {
    let Some((at, bytes)) = link_bytes_by_id(txn, id).await? else { return Ok(None) };
    Ok(Some((at, decode_to_change(Kind::Link, LINK_V1, &bytes, formats)?)))
}

async fn link_bytes_by_id(txn: &Transaction, id: u64) -> Result<Option<(LinkAddress, Vec<u8>)>, StoreError> {
    let Some(bytes) = txn.get(&by_id_key(id)).await? else { return Ok(None) };
    let at = decode_address(Kind::LinkById, &bytes)?;
    let bytes = txn.get(&link_key(&at.domain, &at.code)).await?;
    Ok(bytes.map(|bytes| (at, bytes)))
}

/// The link at an address, as of a snapshot; a deleted one too.
pub async fn read_link(snapshot: &Snapshot, domain: &str, code: &str) -> Result<Option<LinkRow>, StoreError> {
    let bytes = snapshot.get(&link_key(domain, code)).await?;
    bytes.as_deref().map(decode_link).transpose()
}

/// Up to `limit` of `owner`'s links, newest first, beginning after the link `after`.
pub async fn links_of_owner(
    snapshot: &Snapshot,
    owner: UserId,
    after: Option<u64>,
    limit: usize,
) -> Result<Vec<(LinkAddress, LinkRow)>, StoreError> {
    let mut range = prefix_range(Key::of(Kind::LinkByOwner).spread(owner.0.into()).build());
    if let Some(id) = after {
        range.start = by_owner_key(owner, id);
        range.start.push(0);
    }
    let entries = snapshot.scan(range, limit).await?;
    let addresses: Vec<LinkAddress> =
        entries.iter().map(|(_, value)| decode_address(Kind::LinkByOwner, value)).collect::<Result<_, _>>()?;
    let keys: Vec<Vec<u8>> = addresses.iter().map(|at| link_key(&at.domain, &at.code)).collect();
    let rows = snapshot.batch_get(&keys).await?;
    let found = addresses.into_iter().zip(rows).filter_map(|(at, bytes)| bytes.map(|bytes| (at, bytes)));
    found.map(|(at, bytes)| Ok((at, decode_link(&bytes)?))).collect()
}

/// The links with these IDs, as of a snapshot, in their order; a deleted one is not there.
pub async fn links_by_id(snapshot: &Snapshot, ids: &[u64]) -> Result<Vec<Option<(LinkAddress, LinkRow)>>, StoreError> {
    let entries = snapshot.batch_get(&ids.iter().map(|id| by_id_key(*id)).collect::<Vec<_>>()).await?;
    let mut found: Vec<Option<(LinkAddress, LinkRow)>> = vec![None; ids.len()];
    let (mut places, mut addresses, mut keys) = (Vec::new(), Vec::new(), Vec::new());
    for (place, bytes) in entries.into_iter().enumerate() {
        let Some(bytes) = bytes else { continue };
        let at = decode_address(Kind::LinkById, &bytes)?;
        keys.push(link_key(&at.domain, &at.code));
        places.push(place);
        addresses.push(at);
    }
    let rows = snapshot.batch_get(&keys).await?;
    for ((place, at), bytes) in places.into_iter().zip(addresses).zip(rows) {
        if let (Some(slot), Some(bytes)) = (found.get_mut(place), bytes) {
            *slot = Some((at, decode_link(&bytes)?));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::decode_own;
    use super::*;

    fn user(id: u64) -> UserId {
        UserId(id.try_into().unwrap())
    }

    #[test]
    fn a_link_row_of_version_1_stays_readable() {
        let row = LinkRow {
            id: 7,
            owner: Some(user(300)),
            target: "https://example.com/".to_owned(),
            status: 302,
            title: None,
            tags: vec!["a".to_owned()],
            is_active: true,
            expires_at: Some(UnixMs(1_769_851_800_000)),
            created_at: UnixMs(1),
            updated_at: UnixMs(2),
            version: 3,
            is_alias: false,
            is_deleted: false,
        };
        let bytes = encode_link(Format::NEWEST, &row);
        assert_eq!(
            hex::encode(&bytes),
            "010701ac021468747470733a2f2f6578616d706c652e636f6d2fae02000101610101c0938d9bc1330102030000"
        );
        assert_eq!(decode_link(&bytes).unwrap(), row);

        // The next version is read, and written back only by a program that knows it.
        let next = encode_link(Format::NEXT, &row);
        assert_eq!((next[0], next.len(), &next[1..bytes.len()]), (2, bytes.len() + 1, &bytes[1..]));
        assert_eq!(decode_link(&next).unwrap(), row);
        for (newest, written) in [(Format::NEWEST, None), (Format::NEXT, Some(Format::NEXT))] {
            let formats = Formats::up_to(newest);
            let to_change = decode_to_change::<LinkRow>(Kind::Link, LINK_V1, &next, &formats);
            assert_eq!(to_change.ok().map(|_| formats.written()), written);
        }
        assert!(matches!(
            decode_own::<LinkRow>(Kind::Link, LINK_V1, &next),
            Err(StoreError::NewerRow { kind: Kind::Link, version: 2 })
        ));
    }

    #[test]
    fn a_newer_version_is_refused_not_misread() {
        assert!(matches!(decode_link(&[9, 1, 2]), Err(StoreError::Decode { kind: Kind::Link, version: Some(9) })));
        assert!(matches!(decode_link(&[]), Err(StoreError::Decode { kind: Kind::Link, version: None })));
    }

    #[test]
    fn domains_never_share_keys_and_an_owners_newest_link_sorts_first() {
        assert_ne!(link_key("a", "bc"), link_key("ab", "c"));
        assert!(by_owner_key(user(5), 10) < by_owner_key(user(5), 9));
        assert_ne!(by_owner_key(user(5), 10)[..9], by_owner_key(user(6), 10)[..9]);
    }
}
