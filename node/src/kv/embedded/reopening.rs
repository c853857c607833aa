//! Opening the engine again after the disk was full: it never writes again after a write that failed, and a new one does.
//!
//! All that was acknowledged is in the journal, and [`Tally`](super::tally) says if it is not. A transaction that began before is
//! refused by the engine that it began on; the store's clock goes on from where it was.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::room::Space;
use super::{Embedded, Inner, OpenError};
use crate::ambient::UnixMs;
use crate::kv::WRITE_DEADLINE;

/// How often it is looked whether there is room again.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long it is left alone after it was opened again and the disk was full again: each time some reads fail.
const LEFT_ALONE_MAX: Duration = Duration::from_mins(1);
/// An engine that has worked for so long since it was opened again is looked at as often as at first.
const SOUND_AFTER: Duration = Duration::from_mins(5);
/// How long reads and commits that have begun have to end. New ones are refused meanwhile.
const READS_END: Duration = WRITE_DEADLINE;
/// How long what is left of the old engine may hold the directory: a merge of tables that is under way ends first.
const LETS_GO: Duration = Duration::from_secs(30);
/// How often it is looked whether everybody has let go.
const LOOK_SOON: Duration = Duration::from_millis(20);

impl Embedded {
    /// Opens the engine again whenever the disk was full and has room, until `shutdown`.
    pub async fn keep(self, shutdown: CancellationToken) {
        let clock = self.home.clock.clone();
        let keeping = async {
            let (mut pause, mut opened_at) = (LOOK_EVERY, clock.monotonic());
            loop {
                tokio::time::sleep(pause).await;
                if !self.may_open_again() {
                    continue;
                }
                let was_sound = clock.monotonic().saturating_sub(opened_at) > SOUND_AFTER;
                pause = if was_sound { LOOK_EVERY } else { (pause * 2).min(LEFT_ALONE_MAX) };
                match self.open_again().await {
                    Ok(true) => tracing::info!("the disk has room again, and the store was opened again"),
                    Ok(false) => tracing::warn!("the store is still being read; it is opened again later"),
                    Err(error @ OpenError::DiskFull { .. }) => tracing::error!(%error, "it is opened again later"),
                    Err(error) => {
                        self.home.lost.send_replace(Some(error.to_string()));
                        return;
                    }
                }
                opened_at = clock.monotonic();
            }
        };
        tokio::select! {
            () = keeping => {}
            () = shutdown.cancelled() => {}
        }
    }

    /// Whether the engine has failed for want of space, or was not opened again for it, and there is room.
    fn may_open_again(&self) -> bool {
        let was_full = self.home.open.borrow().as_ref().is_none_or(|inner| inner.shared.is_full());
        was_full && Space::of(&self.home.dir).is_some_and(Space::is_enough_to_open)
    }

    /// Puts a new engine in place of the one that failed. False if somebody reads that one for too long.
    async fn open_again(&self) -> Result<bool, OpenError> {
        if let Some(old) = self.home.open.send_replace(None) {
            self.home.clock_min_ms.fetch_max(old.shared.clock_max().0, Ordering::SeqCst);
            let read = async {
                while Arc::strong_count(&old) > 1 {
                    tokio::time::sleep(LOOK_SOON).await;
                }
            };
            if tokio::time::timeout(READS_END, read).await.is_err() {
                self.home.open.send_replace(Some(old));
                return Ok(false);
            }
            // It waits for its threads.
            let closing = tokio::task::spawn_blocking(move || drop(old));
            // A panic of it was reported where it happened.
            let _ = closing.await;
        }
        let clock_min = UnixMs(self.home.clock_min_ms.load(Ordering::SeqCst));
        let until = self.home.clock.monotonic() + LETS_GO;
        loop {
            let (dir, clock) = (self.home.dir.clone(), self.home.clock.clone());
            let opening = tokio::task::spawn_blocking(move || Inner::open(&dir, clock, clock_min)).await;
            match opening.unwrap_or_else(|_| Err(OpenError::damaged(&self.home.dir, "opening it again broke off"))) {
                Ok(inner) => {
                    self.home.open.send_replace(Some(Arc::new(inner)));
                    return Ok(true);
                }
                // A read that nobody waits for any more.
                Err(OpenError::InUse { .. }) if self.home.clock.monotonic() < until => {
                    tokio::time::sleep(LOOK_SOON).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
}
