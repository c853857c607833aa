//! What the store is, drawn once for ever: its identity and the key that codes are permuted with.

use serde::{Deserialize, Serialize};

use super::{Key, Kind, StoreError, decode, encode};
use crate::kv::{Kv, KvError};

const KEYSPACE_V1: u8 = 1;

/// The keyspace record.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyspaceRow {
    /// Tells this keyspace from every other.
    pub identity: u128,
    /// Turns code IDs into codes. Whoever knows it can enumerate all codes.
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
            let found = decode(Kind::Keyspace, KEYSPACE_V1, &bytes)?;
            return Ok::<_, StoreError>((txn, found));
        }
        txn.insert(key.clone(), encode(KEYSPACE_V1, fresh));
        Ok((txn, fresh.clone()))
    });
    match inserted.await {
        Err(StoreError::Kv(KvError::AlreadyExists { .. } | KvError::Undetermined)) => {
            let bytes = kv.get(&key).await?.ok_or(KvError::Undetermined)?;
            decode(Kind::Keyspace, KEYSPACE_V1, &bytes)
        }
        other => other,
    }
}
