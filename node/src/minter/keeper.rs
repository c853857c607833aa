//! The keeper: holds the allocation ahead of need, one step at a time, until it is told to stop.

use std::sync::Arc;
use std::time::Duration;

use shortener_crds::causes::Causes;
use shortener_crds::ids::allocate::RESTORE_RAISE_BLOCKS;
use shortener_crds::ids::claim::WINDOW_MS;
use shortener_crds::ids::permutation::{CodePermutation, PermutationKey};
use shortener_crds::ids::worker_id::WORKERS;
use shortener_crds::ids::{KeyspaceId, Window, WorkerId};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{Keyspace, Shared, State, Worker, millis};
use crate::allocation::authority::{BlocksDue, WorkerDue};
use crate::allocation::{
    AllocationError, claim_granted, extend_worker, high_water_mark, raise_marks_if_copied, take_any_worker,
    take_blocks, take_worker,
};
use crate::ambient::{UnixMs, random};
use crate::store::StoreError;
use crate::store::idempotency::IdempotencySecret;
use crate::store::keyspace::{KeyspaceRow, keyspace_or_insert};
use crate::traces::ROOT;

/// The keeper looks at least this often. Half of W, at which windows are extended, is 30 s.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A window this young grows a few milliseconds at each extension: the pause between two of them.
pub(super) const LOOK_SOON: Duration = Duration::from_millis(5);
/// The pause after the store refused.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Looks after the allocation until `shutdown`.
pub(super) async fn keep(shared: Arc<Shared>, mut pause: Pause, shutdown: CancellationToken) {
    loop {
        let wanted = async {
            match pause.ends_when_wanted {
                true => shared.wanted.notified().await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause.at_most) => {}
            () = wanted => {}
            () = shutdown.cancelled() => return,
        }
        pause = Pause::after(shared.look_after().await);
    }
}

/// How long the keeper rests.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pause {
    at_most: Duration,
    /// After a failure it does not: with nothing left to mint from, every create wants more.
    ends_when_wanted: bool,
}

impl Pause {
    pub(super) fn after(looked_after: Result<Duration, AllocationError>) -> Self {
        match looked_after {
            Ok(at_most) => Self { at_most, ends_when_wanted: true },
            Err(error) => {
                tracing::warn!(error = %Causes(&error), "cannot allocate at the moment");
                Self { at_most: RETRY_AFTER, ends_when_wanted: false }
            }
        }
    }
}

impl Shared {
    /// Does what is due, and tells when to look again.
    pub(super) async fn look_after(&self) -> Result<Duration, AllocationError> {
        if self.keyspace.get().is_none() {
            self.open_keyspace().await?;
        }
        let blocks = self.look_after_blocks().await;
        let worker = self.look_after_worker().await;
        self.ask();
        blocks.and(worker)
    }

    /// Tells whoever asks the operator what is wanted of it.
    fn ask(&self) {
        let keyspace = self.keyspace.get().map(|keyspace| KeyspaceId(keyspace.identity));
        let mut state = self.state();
        let Some(asks) = state.authority.asks(&state.holding, keyspace) else { return };
        state.asked = state.holding.ask();
        drop(state);
        self.asks.send_if_modified(|last| std::mem::replace(last, asks) != asks);
    }

    /// Reads the keyspace's record, or makes it; and moves on if the store was restored from a copy.
    async fn open_keyspace(&self) -> Result<(), StoreError> {
        let identity = u128::from_be_bytes(random());
        let fresh = KeyspaceRow { identity, permutation_key: random(), format: self.formats.newest() };
        let mut keyspace = keyspace_or_insert(&self.kv, &fresh).await?;
        self.formats.see(keyspace.format).map_err(StoreError::from)?;
        if raise_marks_if_copied(&self.kv, fresh.identity).await? {
            keyspace.identity = fresh.identity;
            tracing::warn!(
                "the data directory is a copy or was restored from one: codes go on {RESTORE_RAISE_BLOCKS} blocks further, past \
                 all that may have been given out since the copy was made"
            );
        }
        let mark = high_water_mark(&self.kv, self.code_length).await?;
        self.state().authority.see_mark(mark);
        let secret = PermutationKey::new(keyspace.permutation_key);
        let permutation = CodePermutation::new(&secret, self.code_length);
        let idempotency_secret = IdempotencySecret::of(&keyspace);
        // Only the keeper comes here, and what is there stays.
        let _ = self.keyspace.set(Keyspace { identity: keyspace.identity, permutation, secret, idempotency_secret });
        Ok(())
    }

    /// Claims blocks until none are asked for, or none are granted. Each turn raises the store's mark, so that burnt ones are soon
    /// behind.
    async fn look_after_blocks(&self) -> Result<(), AllocationError> {
        loop {
            let due = {
                let mut state = self.state();
                let State { authority, holding, .. } = &mut *state;
                authority.blocks_due(holding, self.boot)
            };
            let Some(due) = due else { return Ok(()) };
            // No request waits for it, and it is rare: a trace of its own.
            let span = tracing::info_span!(target: ROOT, "claim blocks");
            let claimed = match &due {
                BlocksDue::Next(wanted) => {
                    take_blocks(&self.kv, self.boot, self.code_length, *wanted).instrument(span).await?
                }
                BlocksDue::Granted { run, blocks } => {
                    claim_granted(&self.kv, self.boot, *run, blocks).instrument(span).await?
                }
            };
            if claimed.burnt > 0 {
                tracing::error!(
                    blocks = claimed.burnt,
                    "blocks that were to be ours are somebody else's: was the store or the operator's ledger rolled back?"
                );
                self.metrics.claims_burnt.inc_by(claimed.burnt);
            }
            let now_ms = millis(self.clock.monotonic());
            let mut state = self.state();
            state.holding.take_in(claimed.blocks, now_ms);
            state.authority.settled(&due, claimed.mark);
        }
    }

    /// Extends the window when less than half of W is left, or takes another worker ID when there is none or it is lost.
    async fn look_after_worker(&self) -> Result<Duration, AllocationError> {
        let held = self.state().worker;
        let extended = match held {
            None => None,
            Some(held) => {
                let now_ms = held.now_ms(self.clock.monotonic());
                if self.state().snowflake.remaining_ms(now_ms, held.window) > WINDOW_MS / 2 {
                    return Ok(LOOK_EVERY);
                }
                match extend_worker(&self.kv, self.boot, held.window).await {
                    Err(AllocationError::WindowLost(lost)) => {
                        tracing::warn!(error = %Causes(&lost), "taking another worker ID");
                        let mut state = self.state();
                        state.worker = None;
                        state.authority.refuse(lost.worker);
                        None
                    }
                    extended => Some(extended?),
                }
            }
        };
        let taken = match extended {
            Some(extended) => Some(extended),
            None => self.take_worker().await?,
        };
        let Some((window, store_now)) = taken else { return Ok(LOOK_EVERY) };
        let monotonic = self.clock.monotonic();
        let mut state = self.state();
        state.worker = Some(Worker { window, store_now, monotonic });
        let left_ms = state.snowflake.remaining_ms(store_now.0, window);
        // A fresh window is empty and grows with time: extend it again after half of what it has, until it is long enough.
        Ok(Duration::from_millis(left_ms / 2).clamp(LOOK_SOON, LOOK_EVERY))
    }

    /// Takes the worker ID that is due; none where the operator has to grant one first.
    async fn take_worker(&self) -> Result<Option<(Window, UnixMs)>, AllocationError> {
        let due = self.state().authority.worker_due();
        match due {
            None => Ok(None),
            Some(WorkerDue::Any) => {
                let first = WorkerId::try_from(u16::from_be_bytes(random()) % WORKERS).unwrap_or_default();
                take_any_worker(&self.kv, self.boot, first).await.map(Some)
            }
            Some(WorkerDue::Granted(worker)) => match take_worker(&self.kv, self.boot, worker).await? {
                Ok(taken) => Ok(Some(taken)),
                Err(taken) => {
                    tracing::warn!(error = %Causes(&taken), "asking for another worker ID");
                    self.state().authority.refuse(worker);
                    Ok(None)
                }
            },
        }
    }
}
