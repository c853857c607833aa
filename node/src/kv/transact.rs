//! Whole transactions: begun again when another one was first.

use std::time::Duration;

use tracing::Instrument;

use super::{Kv, KvError, Transaction};
use crate::ambient::{self, Clock};
use crate::traces::STEP;

/// How long [`Kv::transact`] begins again before it gives up with `Conflict`. In a store that takes 30 ms for a write, 64
/// writers of one row have their turns in a sixth of it. A request has a shorter deadline of its own.
pub const TRANSACT_DEADLINE: Duration = Duration::from_secs(30);
/// The shortest and the longest bound of the pause between two attempts.
const BACKOFF_MIN: Duration = Duration::from_millis(1);
const BACKOFF_MAX: Duration = Duration::from_millis(500);

impl Kv {
    /// Begins, runs `body` and commits; on `Conflict` begins again after a random pause, for [`TRANSACT_DEADLINE`]. `body`
    /// must have no effect but on its transaction, which it gives back:
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
            let clock = Clock::system();
            for attempt in 1.. {
                let began = clock.monotonic();
                let (transaction, answer) = body(self.begin().await?).await?;
                match transaction.commit().await {
                    Ok(()) => return Ok(answer),
                    Err(KvError::Conflict) => {}
                    Err(other) => return Err(other.into()),
                }
                let now = clock.monotonic();
                match pause(attempt, now.saturating_sub(began), now, ambient::random()) {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => break,
                }
            }
            Err(KvError::Conflict.into())
        }
        .instrument(span)
        .await
    }
}

/// The pause after so many attempts, the last of which took `took`; none when it would end after the deadline. It is
/// random, so that those who collided do not collide again. Its bound begins with the time of an attempt, as whoever was
/// first needs that long again, and doubles.
fn pause(attempts: u32, took: Duration, now: Duration, random: [u8; 2]) -> Option<Duration> {
    let factor = 1_u32.checked_shl(attempts - 1).unwrap_or(u32::MAX);
    let bound = took.max(BACKOFF_MIN).saturating_mul(factor).min(BACKOFF_MAX);
    let pause = bound * u32::from(u16::from_be_bytes(random)) / u32::from(u16::MAX);
    (now + pause < TRANSACT_DEADLINE).then_some(pause)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [u8; 2] = [0xff, 0xff];

    #[test]
    fn the_pause_grows_from_the_time_of_an_attempt_to_its_bound() {
        let ms = Duration::from_millis;
        for (attempts, took, expected) in [
            (1, ms(0), BACKOFF_MIN),
            (4, ms(0), ms(8)),
            (1, ms(60), ms(60)),
            (3, ms(60), ms(240)),
            (4, ms(60), ms(480)),
            (5, ms(60), BACKOFF_MAX),
            (1, ms(2_000), BACKOFF_MAX),
            (u32::MAX, ms(60), BACKOFF_MAX),
        ] {
            assert_eq!(pause(attempts, took, ms(0), ALL), Some(expected), "{attempts} attempts of {took:?}");
            assert_eq!(pause(attempts, took, ms(0), [0, 0]), Some(ms(0)), "{attempts} attempts of {took:?}");
        }
    }

    #[test]
    fn no_attempt_begins_after_the_deadline() {
        assert_eq!(pause(9, BACKOFF_MAX, TRANSACT_DEADLINE.saturating_sub(BACKOFF_MAX), ALL), None);
        assert_eq!(pause(9, BACKOFF_MAX, TRANSACT_DEADLINE.saturating_sub(BACKOFF_MAX), [0, 0]), Some(Duration::ZERO));
        assert_eq!(pause(1, BACKOFF_MIN, TRANSACT_DEADLINE, [0, 0]), None);
    }
}
