//! From an allocation to IDs and codes: minting is a few instructions under a lock, and never waits.
//!
//! A keeper task holds the allocation ahead of need: it extends the worker's window, and fetches the spare grant when a tenth of
//! the current one is used. When it cannot, minting goes on with what is held, and then refuses.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use shortener_crds::ids::allocate::RESTORE_RAISE_BLOCKS;
use shortener_crds::ids::claim::WINDOW_MS;
use shortener_crds::ids::mint::{Exhausted, Holding};
use shortener_crds::ids::permutation::{CodePermutation, PermutationKey};
use shortener_crds::ids::snowflake::{Snowflake, SnowflakeError};
use shortener_crds::ids::worker_id::WORKERS;
use shortener_crds::ids::{BootId, CodeLength, ShortCode, SnowflakeId, Window, WorkerId};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::allocation::{AllocationError, extend_worker, raise_marks_if_copied, take_blocks, take_worker};
use crate::ambient::{Clock, UnixMs, random};
use crate::kv::Kv;
use crate::store::StoreError;
use crate::store::keyspace::{KeyspaceRow, keyspace_or_insert};

/// The keeper looks at least this often. Half of W, at which windows are extended, is 30 s.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A window this young grows a few milliseconds at each extension: the pause between two of them.
const LOOK_SOON: Duration = Duration::from_millis(5);
/// The pause after the store refused.
const RETRY_AFTER: Duration = Duration::from_secs(1);

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
    keyspace: OnceLock<Keyspace>,
    state: Mutex<State>,
    /// Wakes the keeper before its time.
    wanted: Notify,
    claims_burnt: prometheus::IntCounter,
}

/// What is known of the keyspace once the store was reached.
#[derive(Debug)]
struct Keyspace {
    identity: u128,
    permutation: CodePermutation,
}

#[derive(Debug)]
struct State {
    holding: Holding,
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
    /// keyspace's record is damaged: to go on would mint other codes than before.
    pub async fn start(
        kv: Kv,
        clock: Clock,
        code_length: CodeLength,
        claims_burnt: prometheus::IntCounter,
    ) -> Result<Self, StoreError> {
        let state = State { holding: Holding::new(code_length), snowflake: Snowflake::default(), worker: None };
        let shared = Arc::new(Shared {
            kv,
            clock,
            boot: BootId(u128::from_be_bytes(random())),
            code_length,
            keyspace: OnceLock::new(),
            state: Mutex::new(state),
            wanted: Notify::new(),
            claims_burnt,
        });
        let pause = match shared.look_after().await {
            Err(AllocationError::Store(damaged @ (StoreError::Decode { .. } | StoreError::HalfRestored))) => {
                return Err(damaged);
            }
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

    /// Waits until IDs can be minted, for `patience` at most. A fresh window is empty for its first milliseconds: a node that
    /// announced itself sooner would refuse the first create.
    pub async fn settled(&self, patience: Duration) {
        let settled = async {
            while !self.shared.can_mint() {
                tokio::time::sleep(LOOK_SOON).await;
            }
        };
        // What takes longer is not a matter of a fresh window: the node starts, and creates are refused until it passes.
        let _ = tokio::time::timeout(patience, settled).await;
    }

    /// The next Snowflake ID.
    pub fn next_id(&self) -> Result<SnowflakeId, MintError> {
        let monotonic = self.shared.clock.monotonic();
        let mut state = self.shared.state();
        let worker = state.worker.ok_or(MintError::NoWorker)?;
        let minted = state.snowflake.next(worker.now_ms(monotonic), worker.window);
        if minted.is_err() {
            self.shared.wanted.notify_one();
        }
        Ok(minted?)
    }

    /// The next code.
    pub fn next_code(&self) -> Result<ShortCode, MintError> {
        let keyspace = self.shared.keyspace.get().ok_or(MintError::NoKeyspace)?;
        let now_ms = millis(self.shared.clock.monotonic());
        let mut state = self.shared.state();
        let code_id = state.holding.next(now_ms);
        if state.holding.ask().is_some() {
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

async fn keep(shared: Arc<Shared>, mut pause: Pause, shutdown: CancellationToken) {
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
struct Pause {
    at_most: Duration,
    /// After a failure it does not: with nothing left to mint from, every create wants more.
    ends_when_wanted: bool,
}

impl Pause {
    fn after(looked_after: Result<Duration, AllocationError>) -> Self {
        match looked_after {
            Ok(at_most) => Self { at_most, ends_when_wanted: true },
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot allocate at the moment");
                Self { at_most: RETRY_AFTER, ends_when_wanted: false }
            }
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
        state.worker.is_some_and(|held| state.snowflake.remaining_ms(held.now_ms(monotonic), held.window) > 0)
    }

    /// Does what is due, and tells when to look again.
    async fn look_after(&self) -> Result<Duration, AllocationError> {
        if self.keyspace.get().is_none() {
            self.open_keyspace().await?;
        }
        let blocks = self.look_after_blocks().await;
        let worker = self.look_after_worker().await;
        blocks.and(worker)
    }

    /// Reads the keyspace's record, or makes it; and moves on if the store was restored from a copy.
    async fn open_keyspace(&self) -> Result<(), StoreError> {
        let fresh = KeyspaceRow { identity: u128::from_be_bytes(random()), permutation_key: random() };
        let mut keyspace = keyspace_or_insert(&self.kv, &fresh).await?;
        if raise_marks_if_copied(&self.kv, fresh.identity).await? {
            keyspace.identity = fresh.identity;
            tracing::warn!(
                "the data directory is a copy or was restored from one: codes go on {RESTORE_RAISE_BLOCKS} blocks further, past \
                 all that may have been given out since the copy was made"
            );
        }
        let permutation = CodePermutation::new(&PermutationKey::new(keyspace.permutation_key), self.code_length);
        // Only the keeper comes here, and what is there stays.
        let _ = self.keyspace.set(Keyspace { identity: keyspace.identity, permutation });
        Ok(())
    }

    /// Takes blocks until none are asked for. Each turn raises the store's mark, so that burnt ones are soon behind.
    async fn look_after_blocks(&self) -> Result<(), AllocationError> {
        loop {
            let Some(wanted) = self.state().holding.ask() else { return Ok(()) };
            let claimed = take_blocks(&self.kv, self.boot, self.code_length, wanted).await?;
            if claimed.burnt > 0 {
                tracing::error!(
                    blocks = claimed.burnt,
                    "blocks above the mark were claimed: was the store rolled back?"
                );
                self.claims_burnt.inc_by(claimed.burnt);
            }
            let now_ms = millis(self.clock.monotonic());
            self.state().holding.take_in(claimed.blocks, now_ms);
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
                        tracing::warn!(error = &lost as &dyn std::error::Error, "taking another worker ID");
                        self.state().worker = None;
                        None
                    }
                    extended => Some(extended?),
                }
            }
        };
        let (window, store_now) = match extended {
            Some(extended) => extended,
            None => {
                let first = u16::from_be_bytes(random()) % WORKERS;
                take_worker(&self.kv, self.boot, WorkerId::try_from(first).unwrap_or_default()).await?
            }
        };
        let monotonic = self.clock.monotonic();
        let mut state = self.state();
        state.worker = Some(Worker { window, store_now, monotonic });
        let left_ms = state.snowflake.remaining_ms(store_now.0, window);
        // A fresh window is empty and grows with time: extend it again after half of what it has, until it is long enough.
        Ok(Duration::from_millis(left_ms / 2).clamp(LOOK_SOON, LOOK_EVERY))
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::kv::embedded::Embedded;

    const START: UnixMs = UnixMs(1_790_000_000_000);

    fn counter() -> prometheus::IntCounter {
        prometheus::IntCounter::new("burnt", "burnt").unwrap()
    }

    async fn minter(kv: &Kv, clock: &Clock) -> Minter {
        Minter::start(kv.clone(), clock.clone(), CodeLength::DEFAULT, counter()).await.unwrap()
    }

    /// Mints until it succeeds: a fresh window grows with the clock, which a test moves by hand.
    async fn id(minter: &Minter, clock: &Clock) -> SnowflakeId {
        loop {
            match minter.next_id() {
                Ok(id) => return id,
                Err(_) => {
                    // One step at a time: a clock that runs away from the keeper would lose it its window.
                    let end_ms = window_end(minter);
                    clock.advance(Duration::from_millis(20));
                    until(minter, || window_end(minter) > end_ms).await;
                }
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn minters_that_race_on_one_store_never_mint_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let clock = Clock::manual(START);
        let kv = Kv::Embedded(Embedded::open(directory.path(), clock.clone()).unwrap());
        let racing = (0..8).map(|_| {
            let (kv, clock) = (kv.clone(), clock.clone());
            tokio::spawn(async move {
                let minter = minter(&kv, &clock).await;
                let mut minted = Vec::new();
                for _ in 0..2_000 {
                    minted.push((minter.next_code().unwrap(), id(&minter, &clock).await));
                }
                minter.stop().await;
                minted
            })
        });
        let minted: Vec<_> = futures::future::try_join_all(racing).await.unwrap().into_iter().flatten().collect();
        let codes: HashSet<_> = minted.iter().map(|(code, _)| code.as_str().to_owned()).collect();
        let ids: HashSet<u64> = minted.iter().map(|(_, id)| u64::from(*id)).collect();
        assert_eq!((codes.len(), ids.len()), (16_000, 16_000));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_restart_and_a_clock_that_jumps_by_an_hour_never_bring_back_what_was_minted() {
        let directory = tempfile::tempdir().unwrap();
        let clock = Clock::manual(START);
        let (mut codes, mut ids) = (HashSet::new(), HashSet::new());
        let hour = Duration::from_hours(1);
        for wall in [START, START.minus(hour), START.plus(hour), START.minus(hour)] {
            clock.jump_to(wall);
            let kv = Kv::Embedded(Embedded::open(directory.path(), clock.clone()).unwrap());
            let minter = minter(&kv, &clock).await;
            for _ in 0..500 {
                assert!(codes.insert(minter.next_code().unwrap().as_str().to_owned()));
                assert!(ids.insert(u64::from(id(&minter, &clock).await)));
            }
            minter.stop().await;
            assert!(kv.close(Duration::from_secs(10)).await);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_spare_is_there_before_the_current_grant_is_used_up() {
        let directory = tempfile::tempdir().unwrap();
        let clock = Clock::manual(START);
        let kv = Kv::Embedded(Embedded::open(directory.path(), clock.clone()).unwrap());
        let minter = minter(&kv, &clock).await;
        let held = minter.remaining();
        for _ in 0..=(held / 10) {
            minter.next_code().unwrap();
        }
        let more = async {
            while minter.remaining() <= held {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), more).await.unwrap();
    }

    /// Waits for `condition` while the keeper is at work.
    async fn until(minter: &Minter, condition: impl Fn() -> bool) {
        let met = async {
            while !condition() {
                minter.shared.wanted.notify_one();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), met).await.unwrap();
    }

    fn window_end(minter: &Minter) -> u64 {
        minter.shared.state().worker.map_or(0, |worker| worker.window.end_ms)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_window_is_extended_before_it_runs_out_and_replaced_when_it_has() {
        let directory = tempfile::tempdir().unwrap();
        let clock = Clock::manual(START);
        let kv = Kv::Embedded(Embedded::open(directory.path(), clock.clone()).unwrap());
        let minter = minter(&kv, &clock).await;
        let mut last = id(&minter, &clock).await;
        let worker = minter.worker_id();
        for _ in 0..10 {
            clock.advance(Duration::from_secs(31));
            let end_ms = clock.now().0 + WINDOW_MS;
            until(&minter, || window_end(&minter) == end_ms).await;
            let next = minter.next_id().expect("extended ahead of need");
            assert!(last < next && minter.worker_id() == worker, "{last:?} then {next:?}");
            last = next;
        }
        // Longer than W without a look: another boot may have it by now.
        clock.advance(Duration::from_millis(WINDOW_MS + 1));
        until(&minter, || minter.worker_id().is_some_and(|now| Some(now) != worker)).await;
        assert!(last < id(&minter, &clock).await);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_running_minter_goes_on_when_its_clock_jumps_by_an_hour() {
        let directory = tempfile::tempdir().unwrap();
        let clock = Clock::manual(START);
        let kv = Kv::Embedded(Embedded::open(directory.path(), clock.clone()).unwrap());
        let minter = minter(&kv, &clock).await;
        let mut last = id(&minter, &clock).await;
        for wall in [START.minus(Duration::from_hours(1)), START.plus(Duration::from_hours(1)), START] {
            clock.jump_to(wall);
            for _ in 0..100 {
                clock.advance(Duration::from_secs(1));
                for _ in 0..2_000 {
                    let next = id(&minter, &clock).await;
                    assert!(last < next, "{last:?} then {next:?}");
                    last = next;
                }
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn claims_above_a_mark_that_was_rolled_back_are_passed_over_and_counted() {
        let directory = tempfile::tempdir().unwrap();
        let clock = Clock::manual(START);
        let kv = Kv::Embedded(Embedded::open(directory.path(), clock.clone()).unwrap());
        let first = minter(&kv, &clock).await;
        let second = minter(&kv, &clock).await;
        let rolled_back = kv.transact(async |mut txn| {
            crate::store::allocation::put_high_water_mark(&mut txn, CodeLength::DEFAULT, 0);
            Ok::<_, StoreError>((txn, ()))
        });
        rolled_back.await.unwrap();
        let third = minter(&kv, &clock).await;
        assert_eq!(third.shared.claims_burnt.get(), 2);
        let codes = [&first, &second, &third].map(|minter| minter.next_code().unwrap().to_string());
        assert_eq!(HashSet::from(codes).len(), 3);
        assert_eq!((first.shared.claims_burnt.get(), second.shared.claims_burnt.get()), (0, 0));
    }
}
