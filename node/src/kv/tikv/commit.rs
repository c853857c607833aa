//! Committing, and finding out what became of it.

use std::collections::BTreeMap;
use std::time::Duration;

use tikv_client::{Error, Timestamp, Transaction};

use super::fault::Fault;
use super::{Started, Tikv, unavailable};
use crate::ambient::Clock;
use crate::kv::write_set::{Change, Write};
use crate::kv::{KvError, WRITE_DEADLINE};
use crate::resilience::Verdict;

/// What of [`WRITE_DEADLINE`] is kept for rolling back.
const ROLLBACK_DEADLINE: Duration = Duration::from_millis(800);
/// How long the commit itself may take.
const COMMIT_DEADLINE: Duration = Duration::from_millis(2_200);
const _: () = assert!(COMMIT_DEADLINE.as_millis() + ROLLBACK_DEADLINE.as_millis() == WRITE_DEADLINE.as_millis());

/// Commits `writes` in a transaction that has begun. Never repeated: only who began it may begin again.
pub(super) async fn commit(started: Started, writes: BTreeMap<Vec<u8>, Write>) -> Result<(), KvError> {
    let Started { engine, mut transaction, generation } = started;
    let inner = &engine.inner;
    let clock = Clock::system();
    expect_absent(&engine, &transaction.start_timestamp(), &writes).await?;
    inner.resilience.admit().map_err(|_| unavailable("it fails, and is asked again once it works"))?;
    let rows = writes.len();
    buffer(&engine, &mut transaction, writes).await.map_err(|_| unavailable("a transaction cannot be built"))?;
    let left = COMMIT_DEADLINE.saturating_sub(clock.monotonic());
    let fault = match tokio::time::timeout(left, transaction.commit()).await {
        Ok(Ok(_)) => {
            inner.resilience.record(true);
            inner.connection.answered();
            return Ok(());
        }
        Ok(Err(error)) => Some(inner.fault(generation, &error)),
        Err(_) => None,
    };
    inner.resilience.record(fault.as_ref().is_some_and(|fault| fault.verdict() == Verdict::Answered));
    match fault {
        Some(Fault::Conflict) => {
            // Some of its rows may be locked by now; one row alone is not.
            if rows > 1 {
                roll_back(&mut transaction).await;
            }
            Err(KvError::Conflict)
        }
        Some(Fault::AlreadyExists { key }) => {
            if rows > 1 {
                roll_back(&mut transaction).await;
            }
            Err(KvError::AlreadyExists { key })
        }
        Some(Fault::Unreachable { reason } | Fault::Unavailable { reason }) => {
            Err(fate(&mut transaction, &reason).await)
        }
        None => {
            inner.connection.timed_out(generation);
            Err(fate(&mut transaction, "a commit took longer than its deadline").await)
        }
    }
}

/// Reads what was inserted and deleted again, if anything: it must not have been there when the transaction began. The
/// deletion itself then sees to it that nobody has written it since.
async fn expect_absent(engine: &Tikv, at: &Timestamp, writes: &BTreeMap<Vec<u8>, Write>) -> Result<(), KvError> {
    let inserted_and_deleted = |write: &Write| write.must_not_exist && write.change == Change::Delete;
    let keys = writes.iter().filter(|(_, write)| inserted_and_deleted(write)).map(|(key, _)| key.clone());
    let keys: Vec<Vec<u8>> = keys.collect();
    if keys.is_empty() {
        return Ok(());
    }
    let values = engine.read(|| engine.inner.batch_get(at, &keys)).await?;
    let present = keys.into_iter().zip(values).find(|(_, value)| value.is_some());
    present.map_or(Ok(()), |(key, _)| Err(KvError::AlreadyExists { key }))
}

/// Hands the writes to the client, which only keeps them. It takes the first for its primary row, whose commit decides for
/// all: one that is written, if any is, as a row that is only locked leaves nothing to read.
async fn buffer(engine: &Tikv, transaction: &mut Transaction, writes: BTreeMap<Vec<u8>, Write>) -> Result<(), Error> {
    let (locked, written): (Vec<_>, Vec<_>) = writes.into_iter().partition(|(_, write)| write.change == Change::Lock);
    for (key, Write { must_not_exist, change }) in written.into_iter().chain(locked) {
        let key = engine.inner.stored(&key);
        match change {
            Change::Put(value) if must_not_exist => transaction.insert(key, value).await?,
            Change::Put(value) => transaction.put(key, value).await?,
            Change::Delete => transaction.delete(key).await?,
            Change::Lock => transaction.lock_keys([key]).await?,
        }
    }
    Ok(())
}

/// After a commit whose answer is lost. A rollback leaves a mark on every row that no later step of this transaction gets
/// past, and fails if it was committed: one that succeeds proves that it was not.
async fn fate(transaction: &mut Transaction, reason: &str) -> KvError {
    if roll_back(transaction).await { unavailable(reason) } else { KvError::Undetermined }
}

async fn roll_back(transaction: &mut Transaction) -> bool {
    matches!(tokio::time::timeout(ROLLBACK_DEADLINE, transaction.rollback()).await, Ok(Ok(())))
}
