//! The first answer to each idempotency key, kept for a day.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::links::{LinkAddress, LinkRow};
use super::{Key, Kind, StoreError, decode, encode};
use crate::ambient::UnixMs;
use crate::kv::Transaction;

const IDEMPOTENCY_V1: u8 = 1;

/// What the first request with a key asked and was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdempotencyRow {
    /// SHA-256 of the request: the same key with another request is a mistake of the caller's.
    pub request: [u8; 32],
    /// Where the link is that was made.
    pub at: LinkAddress,
    /// That link as it was when it was made.
    pub link: LinkRow,
    /// From when on the key is forgotten.
    pub expires_at: UnixMs,
}

/// Key of the answer to `key` as used by `caller`. Only a hash is kept: a caller may be an address.
pub fn idempotency_key(caller: &str, key: &str) -> Vec<u8> {
    let hash = Sha256::new().chain_update(caller).chain_update([0]).chain_update(key).finalize();
    Key::of(Kind::Idempotency).bytes(&hash).build()
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
