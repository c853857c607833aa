//! The connection of the moment: made in the background, and made anew when those who use it say that it is stuck.
//!
//! Clients of a cluster reconnect by themselves in most cases, but not in all; a new one finds its way at once. Who complains
//! names the connection that it used: a complaint about one that was replaced already costs no further one.

use std::fmt;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::ambient::Clock;

/// A new connection at most this often: each asks the cluster for everything anew, and connects to its servers.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(1);

/// Holds the connection of the moment, a handle that is cheap to clone.
pub struct Renewal<C> {
    clock: Clock,
    current: watch::Sender<Current<C>>,
}

struct Current<C> {
    connection: Option<C>,
    /// How many connections there have been.
    generation: u64,
    is_stuck: bool,
}

impl<C: Clone> Renewal<C> {
    /// Nothing is connected until [`Renewal::keep`] runs.
    pub fn new(clock: Clock) -> Self {
        let current = Current { connection: None, generation: 0, is_stuck: false };
        Self { clock, current: watch::Sender::new(current) }
    }

    /// The connection and which one it is; none before the first.
    pub fn current(&self) -> Option<(C, u64)> {
        let current = self.current.borrow();
        current.connection.clone().map(|connection| (connection, current.generation))
    }

    /// Waits for the first connection.
    pub async fn connected(&self) {
        self.until(|current| current.connection.is_some()).await;
    }

    /// Which connection [`Renewal::current`] gives: the number of those that there have been.
    pub fn generation(&self) -> u64 {
        self.current.borrow().generation
    }

    /// The connection of this generation will not get any further by itself.
    pub fn is_stuck(&self, generation: u64) {
        self.current.send_if_modified(|current| {
            let is_news = current.generation == generation && !current.is_stuck;
            current.is_stuck |= is_news;
            is_news
        });
    }

    /// Makes the first connection, and a new one whenever the one of the moment is stuck, until `shutdown`. `connect` gives
    /// none, and has said why, when it cannot.
    pub async fn keep<Connecting>(&self, connect: impl Fn() -> Connecting, shutdown: CancellationToken)
    where
        Connecting: Future<Output = Option<C>>,
    {
        let renewing = async {
            loop {
                let begun = self.clock.monotonic();
                if let Some(connection) = connect().await {
                    self.replace(connection);
                }
                let spent = self.clock.monotonic().saturating_sub(begun);
                tokio::time::sleep(RENEWAL_INTERVAL.saturating_sub(spent)).await;
                self.until(|current| current.connection.is_none() || current.is_stuck).await;
            }
        };
        tokio::select! {
            () = renewing => {}
            () = shutdown.cancelled() => {}
        }
    }

    async fn until(&self, reached: impl Fn(&Current<C>) -> bool) {
        // An error is that the sender is gone, which is ourselves.
        let _ = self.current.subscribe().wait_for(reached).await;
    }

    fn replace(&self, connection: C) {
        self.current.send_modify(|current| {
            let generation = current.generation + 1;
            *current = Current { connection: Some(connection), generation, is_stuck: false };
        });
    }
}

impl<C> fmt::Debug for Renewal<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renewal").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::ambient::UnixMs;

    /// What is waited for takes a renewal interval, or two.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// A renewal that is kept, and how many connections were tried; the first `refused` of them in vain.
    fn kept(refused: u64) -> (Arc<Renewal<u64>>, Arc<AtomicU64>) {
        let renewal = Arc::new(Renewal::new(Clock::manual(UnixMs(0))));
        let tried = Arc::new(AtomicU64::new(0));
        let (kept, counted) = (renewal.clone(), tried.clone());
        tokio::spawn(async move {
            let connect = || async {
                let number = counted.fetch_add(1, Ordering::SeqCst) + 1;
                (number > refused).then_some(number)
            };
            kept.keep(connect, CancellationToken::new()).await;
        });
        (renewal, tried)
    }

    async fn until_generation(renewal: &Renewal<u64>, generation: u64) {
        let reached = async {
            while renewal.generation() < generation {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, reached).await.unwrap();
    }

    #[tokio::test]
    async fn without_a_connection_it_goes_on_trying() {
        let (renewal, tried) = kept(1);
        tokio::time::timeout(PATIENCE, renewal.connected()).await.unwrap();
        assert_eq!((renewal.current(), tried.load(Ordering::SeqCst)), (Some((2, 1)), 2));
    }

    #[tokio::test]
    async fn one_that_is_stuck_is_replaced_once_however_many_complain_and_however_late() {
        let (renewal, tried) = kept(0);
        until_generation(&renewal, 1).await;
        // Before the interval is over, and twice.
        renewal.is_stuck(1);
        renewal.is_stuck(1);
        until_generation(&renewal, 2).await;
        renewal.is_stuck(1);
        tokio::time::sleep(2 * RENEWAL_INTERVAL).await;
        assert_eq!((renewal.current(), tried.load(Ordering::SeqCst)), (Some((2, 2)), 2));
        renewal.is_stuck(2);
        until_generation(&renewal, 3).await;
    }
}
