//! What the store is: its identity, the key that codes are permuted with, and where its files were last.

use serde::{Deserialize, Serialize};

use super::{Key, Kind, StoreError, decode, encode};
use crate::kv::{Kv, KvError, Place, Transaction};

const KEYSPACE_V1: u8 = 1;
/// Stands in place of the version while a backup is being restored: no node begins on half of one.
const HALF_RESTORED: u8 = 0;
const PLACE_V1: u8 = 1;

/// The keyspace record.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyspaceRow {
    /// Tells this keyspace from every other, and from itself before it was restored from a copy.
    pub identity: u128,
    /// Turns code IDs into codes; drawn once for ever. Whoever knows it can enumerate all codes.
    pub permutation_key: [u8; 32],
}

impl std::fmt::Debug for KeyspaceRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyspaceRow").field("identity", &self.identity).finish_non_exhaustive()
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
        txn.insert(key.clone(), encode(KEYSPACE_V1, fresh));
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
        bytes => decode(Kind::Keyspace, KEYSPACE_V1, bytes),
    }
}

/// Marks an empty keyspace as one that is being restored; the commit fails with `AlreadyExists` where there is a record.
pub fn begin_restore(txn: &mut Transaction) {
    txn.insert(Key::of(Kind::Keyspace).build(), vec![HALF_RESTORED]);
}

/// Makes a restored keyspace one that nodes may use.
pub fn end_restore(txn: &mut Transaction, row: &KeyspaceRow) {
    txn.put(Key::of(Kind::Keyspace).build(), encode(KEYSPACE_V1, row));
}

/// Gives the keyspace another identity. Its permutation key stays, and with it every code.
pub async fn renew_identity(txn: &mut Transaction, identity: u128) -> Result<(), StoreError> {
    let key = Key::of(Kind::Keyspace).build();
    if let Some(bytes) = txn.get(&key).await? {
        let found = decode_keyspace(&bytes)?;
        txn.put(key, encode(KEYSPACE_V1, &KeyspaceRow { identity, ..found }));
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
