//! Whole transactions: begun again when another one was first.

use std::time::Duration;

use tracing::Instrument;

use super::{Kv, KvError, Transaction};
use crate::ambient;
use crate::traces::STEP;

/// How often [`Kv::transact`] runs its body before it gives up with `Conflict`.
pub const TRANSACT_ATTEMPTS_MAX: u32 = 32;
/// The longest pause between two attempts of [`Kv::transact`]: long enough for 64 contenders to pass one by one.
const BACKOFF_MS_MAX: u64 = 64;

impl Kv {
    /// Begins, runs `body` and commits; on `Conflict` begins again after a short random pause, at most
    /// [`TRANSACT_ATTEMPTS_MAX`] times. `body` must have no effect but on its transaction, which it gives back:
    ///
    /// ```
    /// # async fn double(kv: &shortener_node::kv::Kv, key: &[u8]) -> Result<usize, shortener_node::kv::KvError> {
    /// kv.transact(async |mut transaction| {
    ///     let value = transaction.get(key).await?.unwrap_or_default();
    ///     let doubled = [value.as_slice(), &value].concat();
    ///     let length = doubled.len();
    ///     transaction.put(key.to_vec(), doubled);
    ///     Ok((transaction, length))
    /// })
    /// .await
    /// # }
    /// ```
    /// (It takes the transaction by value because a future that borrows it cannot be shown to be `Send` yet.)
    pub async fn transact<T, E, Body>(&self, body: impl Fn(Transaction) -> Body) -> Result<T, E>
    where
        E: From<KvError>,
        Body: Future<Output = Result<(Transaction, T), E>>,
    {
        let span = tracing::info_span!(target: STEP, "transaction");
        async move {
            for attempt in 0..TRANSACT_ATTEMPTS_MAX {
                if attempt > 0 {
                    tokio::time::sleep(backoff(attempt, ambient::random())).await;
                }
                let (transaction, answer) = body(self.begin().await?).await?;
                match transaction.commit().await {
                    Ok(()) => return Ok(answer),
                    Err(KvError::Conflict) => {}
                    Err(other) => return Err(other.into()),
                }
            }
            Err(KvError::Conflict.into())
        }
        .instrument(span)
        .await
    }
}

/// The pause before an attempt: random, so that those who collided do not collide again, up to a bound that doubles.
fn backoff(attempt: u32, random: [u8; 2]) -> Duration {
    let bound_ms = 1_u64.checked_shl(attempt).unwrap_or(BACKOFF_MS_MAX).min(BACKOFF_MS_MAX);
    Duration::from_micros(bound_ms * 1_000 * u64::from(u16::from_be_bytes(random)) / u64::from(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_between_attempts_stays_under_its_bound() {
        assert_eq!(backoff(1, [0xff, 0xff]), Duration::from_millis(2));
        assert_eq!(backoff(31, [0, 0]), Duration::ZERO);
        assert_eq!(backoff(u32::MAX, [0xff, 0xff]), Duration::from_millis(BACKOFF_MS_MAX));
    }
}
