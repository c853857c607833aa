//! One refresh of a token at a time. Of many that present the same token at once one writes, and the others find what it wrote; without
//! turns they would all try to write the same row, and most would try again and again.

use tokio::sync::{Mutex, MutexGuard};

use crate::store::accounts::TokenDigest;

/// Locks among which all tokens are spread: so few share one that hardly anybody waits for somebody else's token.
const LOCKS: usize = 1_024;

/// Turns, in this process alone: those at other nodes meet in the store.
pub(super) struct Turns(Box<[Mutex<()>]>);

impl Turns {
    pub(super) fn new() -> Self {
        Self((0..LOCKS).map(|_| Mutex::new(())).collect())
    }

    /// Waits for the turn of whoever presents the token with this digest. It ends when the guard is dropped.
    pub(super) async fn of(&self, digest: &TokenDigest) -> Option<MutexGuard<'_, ()>> {
        // A digest is as good as random.
        let place = usize::from(u16::from_be_bytes([digest[0], digest[1]])) % self.0.len();
        match self.0.get(place) {
            Some(lock) => Some(lock.lock().await),
            None => None,
        }
    }
}
