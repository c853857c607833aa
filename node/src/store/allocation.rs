//! The fences of ID allocation: who took a block, how far blocks were taken, whose a worker ID is and until when.

use shortener_crds::ids::claim::WorkerRow;
use shortener_crds::ids::{Block, BootId, CodeLength, WorkerId};

use super::{Key, Kind, StoreError, decode, decode_own, encode};
use crate::kv::Transaction;

const CLAIM_V1: u8 = 1;
const MARK_V1: u8 = 1;
const WORKER_V1: u8 = 1;

fn claim_key(block: Block) -> Vec<u8> {
    let length = u8::from(block.code_length());
    Key::of(Kind::Claim).bytes(&[length]).number(block.number()).build()
}

fn mark_key(code_length: CodeLength) -> Vec<u8> {
    Key::of(Kind::HighWaterMark).bytes(&[code_length.into()]).build()
}

fn worker_key(worker: WorkerId) -> Vec<u8> {
    Key::of(Kind::Worker).number(worker.into()).build()
}

fn decode_boot(bytes: &[u8]) -> Result<BootId, StoreError> {
    decode(Kind::Claim, CLAIM_V1, bytes)
}

/// Whose a block is, within a transaction.
pub async fn claim_of(txn: &Transaction, block: Block) -> Result<Option<BootId>, StoreError> {
    txn.get(&claim_key(block)).await?.as_deref().map(decode_boot).transpose()
}

/// Makes a block `boot`'s, unless it is somebody's when the transaction commits.
pub fn insert_claim(txn: &mut Transaction, block: Block, boot: BootId) {
    txn.insert(claim_key(block), encode(CLAIM_V1, &boot));
}

/// The highest block ever claimed plus one.
pub async fn high_water_mark(txn: &Transaction, code_length: CodeLength) -> Result<u64, StoreError> {
    let bytes = txn.get(&mark_key(code_length)).await?;
    Ok(bytes.as_deref().map(|bytes| decode_own(Kind::HighWaterMark, MARK_V1, bytes)).transpose()?.unwrap_or(0))
}

/// Sets the high-water mark.
pub fn put_high_water_mark(txn: &mut Transaction, code_length: CodeLength, mark: u64) {
    txn.put(mark_key(code_length), encode(MARK_V1, &mark));
}

/// Whose a worker ID is and until when.
pub async fn worker_row(txn: &Transaction, worker: WorkerId) -> Result<Option<WorkerRow>, StoreError> {
    let bytes = txn.get(&worker_key(worker)).await?;
    bytes.as_deref().map(|bytes| decode_own(Kind::Worker, WORKER_V1, bytes)).transpose()
}

/// Sets whose a worker ID is and until when.
pub fn put_worker_row(txn: &mut Transaction, worker: WorkerId, row: WorkerRow) {
    txn.put(worker_key(worker), encode(WORKER_V1, &row));
}
