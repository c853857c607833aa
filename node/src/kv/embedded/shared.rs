//! What the committer and everybody else share: the sequence of commits, who is live, the store's clock, and whether the
//! engine has failed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::ambient::{Clock, UnixMs};
use crate::kv::KvError;

/// A commit group that takes longer than this will not end: the disk hangs, or the engine waits for a thread that died.
const STALL_MAX: Duration = Duration::from_secs(30);

/// What is shared.
#[derive(Debug)]
pub(super) struct Shared {
    clock: Clock,
    /// How far the store's clock is ahead of the monotonic one.
    clock_ahead_ms: AtomicU64,
    /// The largest moment ever handed out or persisted.
    clock_max_ms: AtomicU64,
    sequence: Mutex<Sequence>,
    /// When the group that is being committed started, in milliseconds of the monotonic clock plus one; 0 when there is none.
    group_started: AtomicU64,
    failure: watch::Sender<Option<Failure>>,
    given_up: AtomicBool,
}

/// Why the engine takes no more commits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The disk was full: what is there can be read, and the engine may be opened again once there is room.
    Full(String),
    /// It was closed, or nobody can say what the disk holds.
    ForGood(String),
}

impl Failure {
    fn reason(&self) -> &str {
        match self {
            Self::Full(reason) | Self::ForGood(reason) => reason,
        }
    }
}

/// Milliseconds of the monotonic clock.
fn monotonic_ms(clock: &Clock) -> u64 {
    u64::try_from(clock.monotonic().as_millis()).unwrap_or(u64::MAX)
}

#[derive(Debug, Default)]
struct Sequence {
    /// The number of the last commit that can be seen.
    last: u64,
    /// How many live transactions began at which number.
    live: BTreeMap<u64, usize>,
}

impl Shared {
    pub(super) fn new(clock: Clock, persisted: UnixMs) -> Self {
        Self {
            clock_ahead_ms: AtomicU64::new(persisted.0.saturating_sub(monotonic_ms(&clock))),
            clock_max_ms: AtomicU64::new(persisted.0),
            clock,
            sequence: Mutex::default(),
            group_started: AtomicU64::new(0),
            failure: watch::Sender::new(None),
            given_up: AtomicBool::new(false),
        }
    }

    /// The store's clock: wall time, but never before what it was. When wall time has gone back, this clock goes on from where
    /// it was: one that stood still until wall time caught up would give nobody a new window of timestamps for as long.
    pub(super) fn now(&self) -> UnixMs {
        // Wall time first: whatever passes between the two readings must not count as wall time being ahead.
        let wall_ms = self.clock.now().0;
        let monotonic_ms = monotonic_ms(&self.clock);
        let ahead_ms = wall_ms.saturating_sub(monotonic_ms);
        let ahead_ms = self.clock_ahead_ms.fetch_max(ahead_ms, Ordering::AcqRel).max(ahead_ms);
        let now_ms = monotonic_ms.saturating_add(ahead_ms);
        // Another thread may have read the monotonic clock after us and already told a later moment.
        UnixMs(self.clock_max_ms.fetch_max(now_ms, Ordering::AcqRel).max(now_ms))
    }

    /// The largest moment handed out so far.
    pub(super) fn clock_max(&self) -> UnixMs {
        UnixMs(self.clock_max_ms.load(Ordering::Acquire))
    }

    /// The number of the last commit that can be seen.
    pub(super) fn sequence(&self) -> u64 {
        self.locked().last
    }

    /// Makes a commit visible to those who begin from now on.
    pub(super) fn set_sequence(&self, last: u64) {
        self.locked().last = last;
    }

    /// Below this number nobody can conflict any more.
    pub(super) fn oldest_live(&self) -> u64 {
        let sequence = self.locked();
        sequence.live.keys().next().copied().unwrap_or(sequence.last)
    }

    /// Fails when the engine takes no more commits.
    pub(super) fn check(&self) -> Result<(), KvError> {
        match &*self.failure.borrow() {
            None => Ok(()),
            Some(failure) => Err(KvError::Unavailable { reason: failure.reason().to_owned() }),
        }
    }

    /// Fails when the engine cannot even be read.
    pub(super) fn check_reads(&self) -> Result<(), KvError> {
        match &*self.failure.borrow() {
            None | Some(Failure::Full(_)) => Ok(()),
            Some(Failure::ForGood(reason)) => Err(KvError::Unavailable { reason: reason.clone() }),
        }
    }

    /// Whether the disk was full when a write failed.
    pub(super) fn is_full(&self) -> bool {
        matches!(&*self.failure.borrow(), Some(Failure::Full(_)))
    }

    /// Every later call is `Unavailable` for this reason; the first reason stays.
    pub(super) fn fail(&self, reason: String) -> KvError {
        self.fail_with(Failure::ForGood(reason))
    }

    /// Every later commit is `Unavailable`, unless every later call is already, or comes to be.
    pub(super) fn fail_with(&self, failure: Failure) -> KvError {
        let unavailable = KvError::Unavailable { reason: failure.reason().to_owned() };
        self.failure.send_if_modified(|known| {
            let is_worse = matches!((&*known, &failure), (None, _) | (Some(Failure::Full(_)), Failure::ForGood(_)));
            if is_worse {
                *known = Some(failure);
            }
            is_worse
        });
        unavailable
    }

    /// Fails the engine when its committer has been busy with one group for too long.
    pub(super) fn check_stall(&self) {
        let started_ms = self.group_started.load(Ordering::Acquire);
        let Some(started_ms) = started_ms.checked_sub(1) else { return };
        if self.clock.monotonic().saturating_sub(Duration::from_millis(started_ms)) > STALL_MAX {
            self.give_up(format!("the disk did not finish a commit within {} s", STALL_MAX.as_secs()));
        }
    }

    /// Fails the engine because its committer hangs: nobody is to wait for it any more.
    pub(super) fn give_up(&self, reason: String) {
        self.given_up.store(true, Ordering::Release);
        self.fail(reason);
    }

    /// Whether the committer hangs.
    pub(super) fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Acquire)
    }

    pub(super) fn group_started(&self) {
        self.group_started.store(monotonic_ms(&self.clock).saturating_add(1), Ordering::Release);
    }

    pub(super) fn group_ended(&self) {
        self.group_started.store(0, Ordering::Release);
    }

    /// Resolves with the reason when the engine has failed for good.
    pub(super) async fn failed_for_good(&self) -> String {
        let mut failure = self.failure.subscribe();
        let for_good = |failure: &Option<Failure>| matches!(failure, Some(Failure::ForGood(_)));
        // The sender is `self`, so that waiting cannot fail while we do.
        let found = failure.wait_for(for_good).await.ok().and_then(|failure| failure.clone());
        found.map(|failure| failure.reason().to_owned()).unwrap_or_default()
    }

    fn locked(&self) -> MutexGuard<'_, Sequence> {
        // Nothing panics while it holds the lock, and every state in between is a valid one.
        self.sequence.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A live transaction: while it is held, the changes that it may conflict with are remembered.
#[derive(Debug)]
pub(super) struct Live {
    shared: Arc<Shared>,
    begun_at: u64,
}

impl Live {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        let mut sequence = shared.locked();
        let begun_at = sequence.last;
        *sequence.live.entry(begun_at).or_default() += 1;
        drop(sequence);
        Self { shared: Arc::clone(shared), begun_at }
    }

    /// The number of the last commit that it sees for certain.
    pub(super) fn begun_at(&self) -> u64 {
        self.begun_at
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let mut sequence = self.shared.locked();
        if let Some(count) = sequence.live.get_mut(&self.begun_at) {
            *count -= 1;
            if *count == 0 {
                sequence.live.remove(&self.begun_at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_never_goes_back() {
        let clock = Clock::manual(UnixMs(1_000));
        let shared = Shared::new(clock.clone(), UnixMs(5_000));
        assert_eq!(shared.now(), UnixMs(5_000));
        clock.jump_to(UnixMs(9_000));
        assert_eq!(shared.now(), UnixMs(9_000));
        clock.jump_to(UnixMs(2_000));
        assert_eq!((shared.now(), shared.clock_max()), (UnixMs(9_000), UnixMs(9_000)));
    }

    #[test]
    fn the_clock_goes_on_while_wall_time_is_behind() {
        let clock = Clock::manual(UnixMs(1_000));
        let shared = Shared::new(clock.clone(), UnixMs(5_000));
        clock.advance(Duration::from_millis(10));
        assert_eq!(shared.now(), UnixMs(5_010));
        clock.jump_to(UnixMs(9_000));
        assert_eq!(shared.now(), UnixMs(9_000));
        clock.jump_to(UnixMs(0));
        clock.advance(Duration::from_millis(10));
        assert_eq!(shared.now(), UnixMs(9_010));
    }

    #[test]
    fn the_oldest_live_transaction_is_remembered_until_it_ends() {
        let shared = Arc::new(Shared::new(Clock::manual(UnixMs(0)), UnixMs(0)));
        let (first, second) = (Live::new(&shared), Live::new(&shared));
        shared.set_sequence(7);
        drop(first);
        assert_eq!(shared.oldest_live(), 0);
        drop(second);
        assert_eq!(shared.oldest_live(), 7);
    }

    #[test]
    fn a_full_disk_ends_commits_and_what_is_worse_ends_reads() {
        let shared = Shared::new(Clock::manual(UnixMs(0)), UnixMs(0));
        assert_eq!((shared.check(), shared.check_reads(), shared.is_full()), (Ok(()), Ok(()), false));
        let full = shared.fail_with(Failure::Full("full".to_owned()));
        assert_eq!((shared.check(), shared.check_reads(), shared.is_full()), (Err(full), Ok(()), true));
        let closed = shared.fail("closed".to_owned());
        shared.fail_with(Failure::Full("full again".to_owned()));
        assert_eq!((shared.check(), shared.check_reads()), (Err(closed.clone()), Err(closed)));
    }

    #[test]
    fn a_group_that_never_ends_fails_the_engine() {
        let clock = Clock::manual(UnixMs(0));
        let shared = Shared::new(clock.clone(), UnixMs(0));
        shared.check_stall();
        shared.group_started();
        clock.advance(STALL_MAX);
        shared.check_stall();
        assert_eq!(shared.check(), Ok(()));
        clock.advance(Duration::from_millis(1));
        shared.check_stall();
        assert!(matches!(shared.check(), Err(KvError::Unavailable { reason }) if reason.contains("30 s")));
    }
}
