//! What the store is: its identity, the key that codes are permuted with, and where its files were last.

use serde::{Deserialize, Serialize};

use super::format::Format;
use super::{Key, Kind, StoreError, decode, encode};
use crate::kv::{Kv, KvError, Place, Transaction};

/// Of a keyspace in the first format, so that programs which knew no formats can come back to it.
const KEYSPACE_V1: u8 = 1;
/// Names the format.
const KEYSPACE_V2: u8 = 2;
/// Stands in place of the version while a backup is being restored: no node begins on half of one.
const HALF_RESTORED: u8 = 0;
const PLACE_V1: u8 = 1;

/// The keyspace record.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyspaceRow {
    /// Tells this keyspace from every other, and from itself before it was restored from a copy.
    pub identity: u128,
    /// Turns code IDs into codes; drawn once for ever. Whoever knows it can enumerate all codes.
    pub permutation_key: [u8; 32],
    /// What may be written.
    pub format: Format,
}

/// [`KeyspaceRow`] as it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    identity: u128,
    permutation_key: [u8; 32],
}

impl std::fmt::Debug for KeyspaceRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyspaceRow")
            .field("identity", &self.identity)
            .field("format", &self.format)
            .finish_non_exhaustive()
    }
}

/// The record, or `fresh` if the store had none: of many who try, one writes it and all get the same.
pub async fn keyspace_or_insert(kv: &Kv, fresh: &KeyspaceRow) -> Result<KeyspaceRow, StoreError> {
    let key = Key::of(Kind::Keyspace).build();
    let inserted = kv.transact(async |mut txn| {
        if let Some(bytes) = txn.get(&key).await? {
            let found = decode_keyspace(&bytes)?;
            return Ok::<_, StoreError>((txn, found));
        }
        txn.insert(key.clone(), encode_keyspace(fresh));
        Ok((txn, fresh.clone()))
    });
    match inserted.await {
        Err(StoreError::Kv(KvError::AlreadyExists { .. } | KvError::Undetermined)) => {
            let bytes = kv.get(&key).await?.ok_or(KvError::Undetermined)?;
            decode_keyspace(&bytes)
        }
        other => other,
    }
}

/// Reads the record's value.
pub fn decode_keyspace(bytes: &[u8]) -> Result<KeyspaceRow, StoreError> {
    match bytes {
        [HALF_RESTORED, ..] => Err(StoreError::HalfRestored),
        [KEYSPACE_V1, ..] => {
            let Kept { identity, permutation_key } = decode(Kind::Keyspace, KEYSPACE_V1, bytes)?;
            Ok(KeyspaceRow { identity, permutation_key, format: Format::FIRST })
        }
        // A later version has more at its end, and its format says whether it matters.
        bytes => {
            let version = bytes.first().copied().filter(|version| *version >= KEYSPACE_V2);
            let undecodable = StoreError::Decode { kind: Kind::Keyspace, version: bytes.first().copied() };
            let (Kept { identity, permutation_key }, format) =
                decode(Kind::Keyspace, version.ok_or(undecodable)?, bytes)?;
            Ok(KeyspaceRow { identity, permutation_key, format })
        }
    }
}

fn encode_keyspace(row: &KeyspaceRow) -> Vec<u8> {
    let KeyspaceRow { identity, permutation_key, format } = *row;
    let kept = Kept { identity, permutation_key };
    if format == Format::FIRST { encode(KEYSPACE_V1, &kept) } else { encode(KEYSPACE_V2, &(kept, format)) }
}

/// The format of the keyspace; none while it has no record.
pub async fn format(kv: &Kv) -> Result<Option<Format>, StoreError> {
    let bytes = kv.get(&Key::of(Kind::Keyspace).build()).await?;
    Ok(bytes.as_deref().map(decode_keyspace).transpose()?.map(|row| row.format))
}

/// Raises the keyspace to `format` unless it is there or above, and gives the format before and after; none while it has no record.
pub async fn raise_format(kv: &Kv, format: Format) -> Result<Option<(Format, Format)>, StoreError> {
    let key = Key::of(Kind::Keyspace).build();
    kv.transact(async |mut txn| {
        let Some(bytes) = txn.get(&key).await? else { return Ok((txn, None)) };
        let found = decode_keyspace(&bytes)?;
        let raised = KeyspaceRow { format: found.format.max(format), ..found.clone() };
        if raised != found {
            txn.put(key.clone(), encode_keyspace(&raised));
        }
        Ok((txn, Some((found.format, raised.format))))
    })
    .await
}

/// Marks an empty keyspace as one that is being restored; the commit fails with `AlreadyExists` where there is a record.
pub fn begin_restore(txn: &mut Transaction) {
    txn.insert(Key::of(Kind::Keyspace).build(), vec![HALF_RESTORED]);
}

/// Makes a restored keyspace one that nodes may use.
pub fn end_restore(txn: &mut Transaction, row: &KeyspaceRow) {
    txn.put(Key::of(Kind::Keyspace).build(), encode_keyspace(row));
}

/// Gives the keyspace another identity. Its permutation key stays, and with it every code.
pub async fn renew_identity(txn: &mut Transaction, identity: u128) -> Result<(), StoreError> {
    let key = Key::of(Kind::Keyspace).build();
    if let Some(bytes) = txn.get(&key).await? {
        let found = decode_keyspace(&bytes)?;
        txn.put(key, encode_keyspace(&KeyspaceRow { identity, ..found }));
    }
    Ok(())
}

/// Where the store's files were when it was last opened; none in a new store.
pub async fn place(txn: &Transaction) -> Result<Option<Place>, StoreError> {
    let bytes = txn.get(&Key::of(Kind::Place).build()).await?;
    bytes.as_deref().map(|bytes| decode(Kind::Place, PLACE_V1, bytes)).transpose()
}

/// Sets where the store's files are.
pub fn put_place(txn: &mut Transaction, place: Place) {
    txn.put(Key::of(Kind::Place).build(), encode(PLACE_V1, &place));
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::ambient::{Clock, UnixMs};
    use crate::kv::embedded::Embedded;

    fn row(format: Format) -> KeyspaceRow {
        KeyspaceRow { identity: 300, permutation_key: [3; 32], format }
    }

    #[test]
    fn a_record_in_the_first_format_is_as_programs_without_formats_wrote_it() {
        let first = encode_keyspace(&row(Format::FIRST));
        let kept = Kept { identity: 300, permutation_key: [3; 32] };
        assert_eq!(first, encode(1, &kept));
        assert_eq!(decode_keyspace(&first).ok(), Some(row(Format::FIRST)));
        let newest = encode_keyspace(&row(Format::NEWEST));
        assert_eq!((newest[0], decode_keyspace(&newest).ok()), (2, Some(row(Format::NEWEST))));
        // A later record may have more at its end, whatever its version.
        let later = [&[7][..], &newest[1..], &[1, 2, 3]].concat();
        assert_eq!(decode_keyspace(&later).ok(), Some(row(Format::NEWEST)));
        for damaged in [&[][..], &[2], &[3, 1]] {
            assert!(matches!(decode_keyspace(damaged), Err(StoreError::Decode { kind: Kind::Keyspace, .. })));
        }
    }

    #[tokio::test]
    async fn a_format_is_only_raised_and_the_rest_of_the_record_stays() {
        let directory = TempDir::new().unwrap();
        let kv = Kv::Embedded(Embedded::open(directory.path(), Clock::manual(UnixMs(1))).unwrap());
        assert_eq!(raise_format(&kv, Format::NEWEST).await.unwrap(), None, "there is no record");
        keyspace_or_insert(&kv, &row(Format::FIRST)).await.unwrap();
        for (to, before, after) in [
            (Format::FIRST, Format::FIRST, Format::FIRST),
            (Format::NEWEST, Format::FIRST, Format::NEWEST),
            (Format::FIRST, Format::NEWEST, Format::NEWEST),
            (Format::NEXT, Format::NEWEST, Format::NEXT),
        ] {
            assert_eq!(raise_format(&kv, to).await.unwrap(), Some((before, after)));
            assert_eq!(format(&kv).await.unwrap(), Some(after));
            assert_eq!(keyspace_or_insert(&kv, &row(Format::FIRST)).await.unwrap(), row(after));
        }
    }
}
