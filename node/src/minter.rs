//! From an allocation to IDs and codes: minting is a few instructions under a lock, and never waits.
//!
//! A keeper task holds the allocation ahead of need: it extends the worker's window, and sees to the spare grant when a tenth of
//! the current one is used. It takes both by itself, or what the operator grants: what it asks for then is read by
//! [`Minter::asks`], and a grant is brought by [`Minter::deliver`]. When there is none, minting goes on with what is held, and then refuses.

mod keeper;
mod metrics;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use shortener_crds::ids::allocate::Entry;
use shortener_crds::ids::mint::{Exhausted, Holding};
use shortener_crds::ids::permutation::{CodePermutation, PermutationKey};
use shortener_crds::ids::snowflake::{Snowflake, SnowflakeError};
use shortener_crds::ids::{BootId, CodeLength, ShortCode, SnowflakeId, Window, WorkerId};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::field;
use zeroize::Zeroizing;

use crate::allocation::AllocationError;
use crate::allocation::authority::{Asks, Authority, OtherCodeLength};
use crate::ambient::{Clock, UnixMs, random};
use crate::keyed_hash::derive;
use crate::kv::Kv;
use crate::store::StoreError;
use crate::store::format::Formats;
use crate::store::idempotency::IdempotencySecret;
use crate::traces::{self, STEP};
use keeper::{LOOK_SOON, Pause, keep};

pub use metrics::MinterMetrics;

/// Why nothing was minted. All of them pass by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    /// The store has not been reached since the start: nobody knows yet how codes are permuted.
    #[error("the store has not been reached yet")]
    NoKeyspace,
    /// No worker ID is held at the moment.
    #[error("no worker ID is held")]
    NoWorker,
    /// The worker's window is used up or has run out.
    #[error(transparent)]
    Snowflake(#[from] SnowflakeError),
    /// All blocks are used up.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// A code ID lies outside the code space: never, by construction.
    #[error("a code ID lies outside the code space")]
    OutsideSpace,
}

impl MintError {
    /// The kind of error in one word.
    fn kind(&self) -> &'static str {
        match self {
            Self::NoKeyspace => "no_keyspace",
            Self::NoWorker => "no_worker_id",
            Self::Snowflake(_) => "no_window",
            Self::Exhausted(_) => "no_block",
            Self::OutsideSpace => "outside_space",
        }
    }
}

/// Mints; cheap to clone.
#[derive(Clone, Debug)]
pub struct Minter {
    shared: Arc<Shared>,
    shutdown: CancellationToken,
    keeper: Arc<Mutex<Option<JoinHandle<()>>>>,
}

#[derive(Debug)]
struct Shared {
    kv: Kv,
    clock: Clock,
    boot: BootId,
    code_length: CodeLength,
    formats: Formats,
    keyspace: OnceLock<Keyspace>,
    state: Mutex<State>,
    /// Wakes the keeper before its time.
    wanted: Notify,
    /// What is asked of the operator, where one is asked.
    asks: watch::Sender<Asks>,
    metrics: MinterMetrics,
}

/// What is known of the keyspace once the store was reached.
#[derive(Debug)]
struct Keyspace {
    identity: u128,
    permutation: CodePermutation,
    /// What has a key of its own derived from it for each use.
    secret: PermutationKey,
    /// What callers' idempotency keys are hashed under.
    idempotency_secret: IdempotencySecret,
}

#[derive(Debug)]
struct State {
    authority: Authority,
    holding: Holding,
    /// How many blocks the operator has been asked for, of those that the holding asks for: it need not be woken for them again.
    asked: Option<u32>,
    snowflake: Snowflake,
    worker: Option<Worker>,
}

/// A worker ID in hand.
#[derive(Clone, Copy, Debug)]
struct Worker {
    window: Window,
    /// The store's time, and the monotonic time at which we had it: from these we know the store's time without asking.
    store_now: UnixMs,
    monotonic: Duration,
}

impl Worker {
    fn now_ms(&self, monotonic: Duration) -> u64 {
        self.store_now.plus(monotonic.saturating_sub(self.monotonic)).0
    }
}

impl Minter {
    /// Takes a first allocation if the store gives one, and starts the keeper, which goes on trying if not. Fails when the
    /// keyspace's record is damaged, as to go on would mint other codes than before; and when the keyspace is in a format that `formats`
    /// do not know.
    pub async fn start(
        kv: Kv,
        clock: Clock,
        code_length: CodeLength,
        authority: Authority,
        formats: Formats,
        metrics: MinterMetrics,
    ) -> Result<Self, StoreError> {
        let state = State {
            authority,
            holding: Holding::new(code_length),
            asked: None,
            snowflake: Snowflake::default(),
            worker: None,
        };
        let shared = Arc::new(Shared {
            kv,
            clock,
            boot: BootId(u128::from_be_bytes(random())),
            code_length,
            formats,
            keyspace: OnceLock::new(),
            state: Mutex::new(state),
            wanted: Notify::new(),
            asks: watch::Sender::default(),
            metrics,
        });
        let pause = match shared.look_after().await {
            Err(AllocationError::Store(
                unusable @ (StoreError::Decode { .. } | StoreError::HalfRestored | StoreError::NewerFormat(_)),
            )) => return Err(unusable),
            looked_after => Pause::after(looked_after),
        };
        let shutdown = CancellationToken::new();
        let keeper = tokio::spawn(keep(shared.clone(), pause, shutdown.clone()));
        Ok(Self { shared, shutdown, keeper: Arc::new(Mutex::new(Some(keeper))) })
    }

    /// What tells the keyspace from every other; none until the store has been reached.
    pub fn keyspace_identity(&self) -> Option<u128> {
        self.shared.keyspace.get().map(|keyspace| keyspace.identity)
    }

    /// The key for one use of the keyspace's secret, named by `label`. It is the same on every node, and never changes.
    pub fn keyspace_key(&self, label: &[u8]) -> Result<Zeroizing<[u8; 32]>, MintError> {
        let keyspace = self.shared.keyspace.get().ok_or(MintError::NoKeyspace)?;
        Ok(derive(keyspace.secret.as_bytes(), label))
    }

    /// What idempotency rows are hashed under.
    pub fn idempotency_secret(&self) -> Result<IdempotencySecret, MintError> {
        let keyspace = self.shared.keyspace.get().ok_or(MintError::NoKeyspace)?;
        Ok(keyspace.idempotency_secret.clone())
    }

    /// Waits until IDs can be minted, for `patience` at most. A fresh window is empty for its first milliseconds: a node that
    /// announced itself sooner would refuse the first create.
    pub async fn settled(&self, patience: Duration) {
        let settled = async {
            while !self.can_mint() {
                tokio::time::sleep(LOOK_SOON).await;
            }
        };
        // Elapsed: creates are refused until there are some.
        let _ = tokio::time::timeout(patience, settled).await;
    }

    /// Whether both an ID and a code can be minted now.
    pub fn can_mint(&self) -> bool {
        self.shared.can_mint()
    }

    /// The next Snowflake ID.
    pub fn next_id(&self) -> Result<SnowflakeId, MintError> {
        step("mint id", || self.mint_id())
    }

    /// The next code.
    pub fn next_code(&self) -> Result<ShortCode, MintError> {
        step("mint code", || self.mint_code())
    }

    fn mint_id(&self) -> Result<SnowflakeId, MintError> {
        let monotonic = self.shared.clock.monotonic();
        let mut state = self.shared.state();
        let worker = state.worker.ok_or(MintError::NoWorker)?;
        let minted = state.snowflake.next(worker.now_ms(monotonic), worker.window);
        if minted.is_err() {
            self.shared.wanted.notify_one();
        }
        Ok(minted?)
    }

    fn mint_code(&self) -> Result<ShortCode, MintError> {
        let keyspace = self.shared.keyspace.get().ok_or(MintError::NoKeyspace)?;
        let now_ms = millis(self.shared.clock.monotonic());
        let mut state = self.shared.state();
        let code_id = state.holding.next(now_ms);
        let ask = state.holding.ask();
        if ask.is_some() && ask != state.asked {
            self.shared.wanted.notify_one();
        }
        drop(state);
        keyspace.permutation.code(code_id?).ok_or(MintError::OutsideSpace)
    }

    /// The worker ID in use.
    pub fn worker_id(&self) -> Option<WorkerId> {
        self.shared.state().worker.map(|worker| worker.window.worker)
    }

    /// Codes that can be minted from what is held.
    pub fn remaining(&self) -> u64 {
        self.shared.state().holding.remaining()
    }

    /// Whether the operator has yet to grant what was asked for. What is held is minted from meanwhile.
    pub fn is_waiting(&self) -> bool {
        let state = self.shared.state();
        state.authority.is_awaited(&state.holding, state.worker.is_some())
    }

    /// What is asked of the operator, now and whenever that changes.
    pub fn asks(&self) -> watch::Receiver<Asks> {
        self.shared.asks.subscribe()
    }

    /// Brings what the operator has granted; what is known or another boot's changes nothing.
    pub fn deliver(&self, entry: Entry) -> Result<(), OtherCodeLength> {
        let is_news = self.shared.state().authority.deliver(entry, self.shared.boot, self.shared.code_length)?;
        if is_news {
            self.shared.wanted.notify_one();
        }
        Ok(())
    }

    /// Brings the gauges up to date before they are read.
    pub fn refresh_metrics(&self) {
        self.shared.metrics.show(self.remaining(), self.is_waiting());
    }

    /// This process among all, ever.
    pub fn boot_id(&self) -> BootId {
        self.shared.boot
    }

    /// Ends the keeper. What is held stays usable until its window runs out.
    pub async fn stop(&self) {
        self.shutdown.cancel();
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(keeper) = keeper {
            // A panic of the keeper was reported where it happened.
            let _ = keeper.await;
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn can_mint(&self) -> bool {
        let monotonic = self.clock.monotonic();
        let state = self.state();
        let has_ids = |held: Worker| state.snowflake.remaining_ms(held.now_ms(monotonic), held.window) > 0;
        state.worker.is_some_and(has_ids) && state.holding.remaining() > 0
    }
}

/// Mints, as a step of the trace if the request is followed. It never waits: for want of a block it fails at once.
fn step<T>(what: &'static str, mint: impl FnOnce() -> Result<T, MintError>) -> Result<T, MintError> {
    let span = tracing::info_span!(
        target: STEP,
        "mint",
        otel.name = what,
        otel.status_code = field::Empty,
        "error.type" = field::Empty,
    );
    let minted = mint();
    if let Err(error) = &minted {
        traces::failed(&span, error.kind());
    }
    minted
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod granted_tests;
#[cfg(test)]
mod tests;
