//! Committing, and finding out what became of it.

use std::collections::BTreeMap;
use std::time::Duration;

use tikv_client::{Error, Transaction};

use super::fault::Fault;
use super::{Started, Tikv, unavailable};
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
    inner.resilience.admit().map_err(|_| unavailable("it fails, and is asked again once it works"))?;
    let rows = writes.len();
    buffer(&engine, &mut transaction, writes).await.map_err(|_| unavailable("a transaction cannot be built"))?;
    let fault = match tokio::time::timeout(COMMIT_DEADLINE, transaction.commit()).await {
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
        Some(Fault::OnePhaseDeclined) => {
            inner.one_phase.declined();
            roll_back(&mut transaction).await;
            // Whoever began it begins again, in two phases this time.
            Err(KvError::Conflict)
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

/// Hands the writes to the client, which only keeps them.
async fn buffer(engine: &Tikv, transaction: &mut Transaction, writes: BTreeMap<Vec<u8>, Write>) -> Result<(), Error> {
    for (key, Write { must_not_exist, change }) in writes {
        let key = engine.inner.stored(&key);
        match change {
            Change::Put(value) if must_not_exist => transaction.insert(key, value).await?,
            Change::Put(value) => transaction.put(key, value).await?,
            Change::Delete => {
                if must_not_exist {
                    // Only that it must not exist is left of an insert that was deleted again.
                    transaction.insert(key.clone(), Vec::new()).await?;
                }
                transaction.delete(key).await?;
            }
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
