//! The one thread that commits: it takes all queued transactions as a group, checks each in turn against what was
//! committed since it began, applies the survivors as one batch with one sync, and only then answers them all.
//!
//! While it syncs, the next group gathers in the queue: the slower the disk, the larger the groups.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::kv::KvError;
use crate::kv::embedded::conflicts::Conflicts;
use crate::kv::embedded::engine::{Engine, EngineError};
use crate::kv::embedded::shared::{Failure, Live, Shared};
use crate::kv::write_set::{Change, Write};

/// Most transactions that wait for the committer; those behind them wait to get in, until their deadline.
pub(super) const COMMIT_QUEUE_MAX: usize = 1_024;
/// Most transactions in a group: bounds how long the first one waits for the others.
const GROUP_TRANSACTIONS_MAX: usize = 256;
/// A group takes no further transaction once it has this many writes.
const GROUP_ROWS_MAX: usize = 10_000;

/// What a transaction writes, in the order of the keys.
pub(super) type Writes = BTreeMap<Vec<u8>, Write>;

/// What the committer is asked.
pub(super) enum Request {
    /// Commit a transaction.
    Commit(Commit),
    /// Finish what is queued, sync, and stop.
    Close(oneshot::Sender<()>),
}

/// A transaction that wants to be committed.
pub(super) struct Commit {
    /// Held until the answer, so that what it may conflict with is not forgotten.
    pub(super) live: Live,
    /// What it writes.
    pub(super) writes: Writes,
    /// Where it waits.
    pub(super) answer: oneshot::Sender<Result<(), KvError>>,
}

/// The state of the committing thread.
pub(super) struct Committer {
    engine: Arc<Engine>,
    shared: Arc<Shared>,
    queue: mpsc::Receiver<Request>,
    conflicts: Conflicts,
    /// Whether the last group found too little room on the disk.
    is_short_of_room: bool,
    /// Whether any group has.
    was_short_of_room: bool,
}

impl Committer {
    pub(super) fn new(engine: Arc<Engine>, shared: Arc<Shared>, queue: mpsc::Receiver<Request>) -> Self {
        Self {
            engine,
            shared,
            queue,
            conflicts: Conflicts::default(),
            is_short_of_room: false,
            was_short_of_room: false,
        }
    }

    /// Commits until it is closed or nobody is left to ask.
    pub(super) fn run(mut self) {
        let mut closing = None;
        while let Some(request) = self.queue.blocking_recv() {
            if let Some(done) = self.commit_from(request) {
                // What is in the queue is served; nothing new gets in.
                self.queue.close();
                closing = Some(done);
            }
        }
        if self.shared.check().is_ok()
            && let Err(error) = self.engine.sync()
        {
            self.fail(&error);
        }
        self.shared.fail("it was closed".to_owned());
        if let Some(done) = closing {
            // Whoever asked may have stopped waiting.
            let _ = done.send(());
        }
    }

    /// Commits the group that starts with `request`; a request to close ends the group and is given back.
    fn commit_from(&mut self, request: Request) -> Option<oneshot::Sender<()>> {
        let (mut group, mut rows) = (Vec::new(), 0);
        let (mut next, mut closing) = (Some(request), None);
        while let Some(request) = next.take() {
            match request {
                Request::Close(done) => closing = Some(done),
                Request::Commit(commit) => {
                    rows += commit.writes.len();
                    group.push(commit);
                }
            }
            if closing.is_none() && group.len() < GROUP_TRANSACTIONS_MAX && rows < GROUP_ROWS_MAX {
                next = self.queue.try_recv().ok();
            }
        }
        if !group.is_empty() {
            self.commit_group(group);
        }
        closing
    }

    fn commit_group(&mut self, group: Vec<Commit>) {
        if let Err(unavailable) = self.shared.check().and_then(|()| self.check_room()) {
            for commit in group {
                let _ = commit.answer.send(Err(unavailable.clone()));
            }
            return;
        }
        self.shared.group_started();
        let mut sequence = self.shared.sequence();
        let (mut survivors, mut refused) = (Vec::new(), Vec::new());
        let mut taken = Group { snapshot: self.engine.snapshot(), exists: HashMap::new() };
        // A caller that has stopped waiting is not served: its answer would be lost, and its load is shed.
        for commit in group.into_iter().filter(|commit| !commit.answer.is_closed()) {
            match self.validate(&commit, &taken) {
                Ok(()) => {
                    sequence += 1;
                    self.take(&commit.writes, sequence, &mut taken);
                    survivors.push(commit);
                }
                Err(error) => refused.push((commit, error)),
            }
        }
        let applied = self.apply(&survivors);
        if applied.is_ok() {
            self.shared.set_sequence(sequence);
        }
        self.shared.group_ended();
        for commit in survivors {
            let _ = commit.answer.send(applied.clone());
        }
        for (commit, error) in refused {
            // It may have been refused for what has just failed to become true.
            let _ = commit.answer.send(Err(applied.clone().err().unwrap_or(error)));
        }
        self.conflicts.prune(self.shared.oldest_live());
    }

    /// Refuses commits before the disk is full: the engine could not go on after a write that failed.
    fn check_room(&mut self) -> Result<(), KvError> {
        let is_short = self.engine.space().is_some_and(|space| !space.is_enough_for_commits());
        match (self.is_short_of_room, is_short) {
            (false, true) => tracing::error!("the disk is full: nothing is written until there is room; reads go on"),
            (true, false) => tracing::info!("the disk has room again"),
            _ => {}
        }
        self.is_short_of_room = is_short;
        self.was_short_of_room |= is_short;
        if is_short { Err(KvError::Unavailable { reason: "the disk is full".to_owned() }) } else { Ok(()) }
    }

    /// Whether a transaction may commit after all those before it.
    fn validate(&self, commit: &Commit, taken: &Group) -> Result<(), KvError> {
        for (key, write) in &commit.writes {
            if write.must_not_exist && self.exists(key, taken)? {
                return Err(KvError::AlreadyExists { key: key.clone() });
            }
        }
        let begun_at = commit.live.begun_at();
        let is_stale = commit.writes.keys().any(|key| self.conflicts.changed_since(key, begun_at));
        if is_stale { Err(KvError::Conflict) } else { Ok(()) }
    }

    /// Whether a key exists, seen from behind those in the group that were taken so far.
    fn exists(&self, key: &[u8], taken: &Group) -> Result<bool, KvError> {
        match taken.exists.get(key) {
            Some(exists) => Ok(*exists),
            None => Ok(self.engine.contains(&taken.snapshot, key)?),
        }
    }

    fn take(&mut self, writes: &BTreeMap<Vec<u8>, Write>, sequence: u64, taken: &mut Group) {
        for (key, write) in writes.iter().filter(|(_, write)| write.change != Change::Lock) {
            self.conflicts.record(key, sequence);
            taken.exists.insert(key.clone(), write.change != Change::Delete);
        }
    }

    fn apply(&self, survivors: &[Commit]) -> Result<(), KvError> {
        let writes_anything =
            survivors.iter().any(|commit| commit.writes.values().any(|write| write.change != Change::Lock));
        if !writes_anything {
            return Ok(());
        }
        // Later transactions come later in the batch, where the last write of a key wins.
        let mut last = BTreeMap::new();
        for (key, write) in survivors.iter().flat_map(|commit| commit.writes.iter()) {
            if write.change != Change::Lock {
                last.insert(key.as_slice(), &write.change);
            }
        }
        self.engine.apply(last.into_iter(), self.shared.clock_max()).map_err(|error| {
            // The batch may have reached the disk although the engine says that it failed.
            self.fail(&error);
            KvError::Undetermined
        })
    }

    fn fail(&self, error: &EngineError) -> KvError {
        let reason = error.reason();
        match error.is_full(self.engine.space(), self.was_short_of_room) {
            true => {
                tracing::error!(
                    reason,
                    "the disk was full when it was written to: nothing is written until there is room"
                );
                self.shared.fail_with(Failure::Full(reason))
            }
            false => self.shared.fail(reason),
        }
    }
}

/// What the transactions of a group that were taken so far make of the store.
struct Group {
    snapshot: fjall::Snapshot,
    exists: HashMap<Vec<u8>, bool>,
}

impl Drop for Committer {
    fn drop(&mut self) {
        // Nothing changes when it failed or was closed before. Otherwise it panicked.
        self.shared.fail("the committer broke off".to_owned());
    }
}
