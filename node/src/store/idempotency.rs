//! The first answer to each idempotency key, kept for a day.
//!
//! Callers may be addresses, and keys and requests are easy to guess, so that a plain hash would give them away to whoever reads
//! these rows. They are hashed under a secret of the keyspace.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::keyspace::KeyspaceRow;
use super::links::{LinkAddress, LinkRow};
use super::{Key, Kind, StoreError, decode, encode};
use crate::ambient::UnixMs;
use crate::keyed_hash::hmac_sha256;
use crate::kv::Transaction;

const IDEMPOTENCY_V1: u8 = 1;
/// Keeps the secret apart from whatever else is derived from the keyspace's key. Changing it forgets every answer.
const LABEL: &[u8] = b"shortener idempotency v1";

/// What the first request with a key asked and was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdempotencyRow {
    /// Hash of the request: the same key with another request is a mistake of the caller's.
    pub request: [u8; 32],
    /// Where the link is that was made.
    pub at: LinkAddress,
    /// That link as it was when it was made.
    pub link: LinkRow,
    /// From when on the key is forgotten.
    pub expires_at: UnixMs,
}

/// What callers, keys and requests are hashed under. Wiped when dropped, never printed.
#[derive(Clone)]
pub struct IdempotencySecret(Zeroizing<[u8; 32]>);

impl fmt::Debug for IdempotencySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdempotencySecret(redacted)")
    }
}

impl IdempotencySecret {
    /// That of a keyspace: the same on all its nodes, and after a restore.
    pub fn of(keyspace: &KeyspaceRow) -> Self {
        Self(Zeroizing::new(hmac_sha256(&keyspace.permutation_key, &[LABEL])))
    }

    /// Key of the answer to `key` as used by `caller`, and the hash of a `request` that came with it. Equal requests of
    /// different callers have different hashes.
    pub fn hashes(&self, caller: &str, key: &str, request: &[u8]) -> (Vec<u8>, [u8; 32]) {
        // No caller and no key holds a NUL.
        let who = hmac_sha256(&*self.0, &[b"key\0", caller.as_bytes(), &[0], key.as_bytes()]);
        let request = hmac_sha256(&*self.0, &[b"request\0", &who, request]);
        (row_key(&who), request)
    }
}

/// What [`IdempotencySecret::hashes`] were before they had a secret. An answer of an older program is found by them, until a day
/// after the last of those has stopped.
pub fn former_hashes(caller: &str, key: &str, request: &[u8]) -> (Vec<u8>, [u8; 32]) {
    let who = Sha256::new().chain_update(caller).chain_update([0]).chain_update(key).finalize();
    (row_key(&who), Sha256::digest(request).into())
}

fn row_key(hash: &[u8]) -> Vec<u8> {
    Key::of(Kind::Idempotency).bytes(hash).build()
}

/// The first answer, if there is one that is not yet forgotten.
pub async fn first_answer(txn: &Transaction, key: &[u8], now: UnixMs) -> Result<Option<IdempotencyRow>, StoreError> {
    let row = txn.get(key).await?.as_deref().map(decode_row).transpose()?;
    Ok(row.filter(|row| now < row.expires_at))
}

/// Remembers the first answer. A put, with the key locked by it: of two racing requests one commits, the other conflicts
/// and finds this answer when it begins again.
pub fn remember_answer(txn: &mut Transaction, key: Vec<u8>, row: &IdempotencyRow) {
    txn.put(key, encode(IDEMPOTENCY_V1, row));
}

/// Whether a row has had its day: what the sweeper asks.
pub fn expired(value: &[u8], now: UnixMs) -> bool {
    decode_row(value).is_ok_and(|row| row.expires_at <= now)
}

fn decode_row(bytes: &[u8]) -> Result<IdempotencyRow, StoreError> {
    decode(Kind::Idempotency, IDEMPOTENCY_V1, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::format::Format;

    fn secret(permutation_key: u8) -> IdempotencySecret {
        IdempotencySecret::of(&KeyspaceRow {
            identity: 1,
            permutation_key: [permutation_key; 32],
            format: Format::NEWEST,
        })
    }

    #[test]
    fn nothing_of_a_caller_can_be_guessed_from_a_row_without_the_keyspaces_secret() {
        let asked = ("203.0.113.9", "order-4711", &b"{\"original_url\":\"https://example.com/\"}"[..]);
        let (key, request) = secret(3).hashes(asked.0, asked.1, asked.2);
        assert_eq!((key.clone(), request), secret(3).hashes(asked.0, asked.1, asked.2));
        for (other_key, other_request) in [
            former_hashes(asked.0, asked.1, asked.2),
            secret(4).hashes(asked.0, asked.1, asked.2),
            secret(3).hashes("203.0.113.8", asked.1, asked.2),
            secret(3).hashes(asked.0, "order-4712", asked.2),
        ] {
            assert!(key != other_key && request != other_request);
        }
        let (same_key, other_request) = secret(3).hashes(asked.0, asked.1, b"{}");
        assert!(key == same_key && request != other_request);
        assert_eq!(format!("{:?}", secret(3)), "IdempotencySecret(redacted)");
    }
}
