//! Who gets which blocks and which worker ID: the authority's decision, as a function from ledger to ledger.
//!
//! The operator reads the ledger and the requests, calls [`allocate`], writes the ledger by compare-and-swap, and only then
//! delivers what the new one says. With `ALLOCATION=self` there is no ledger but the store's mark, and a node calls [`take_run`].

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::ids::{BootId, CodeLength, IdRange, KeyspaceId, WorkerId};

/// The most blocks in one grant.
pub const GRANT_BLOCKS_MAX: u32 = 16;

/// How far one report of a high-water mark may raise the ledger. A mark further off is refused and left to
/// `spec.ids.floorBlock`, so that one wrong node cannot use up the space.
pub const REPAIR_BLOCKS_MAX: u64 = 1 << 16;

/// By how much restoring a backup raises the store's mark when the store is the only ledger.
pub const RESTORE_RAISE_BLOCKS: u64 = 4096;

/// The mark of a store that was restored from a copy: past all that may have been claimed since the copy was made.
pub fn restored_mark(code_length: CodeLength, mark: u64) -> u64 {
    mark.saturating_add(RESTORE_RAISE_BLOCKS).min(code_length.blocks())
}

/// The UID of a pod: what tells it from an earlier pod of the same name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PodUid(pub String);

/// What has been granted: the allocation of a cluster's status.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ledger {
    /// Of which codes these blocks are.
    pub code_length: CodeLength,
    /// The lowest block that was never granted.
    pub next_block: u64,
    /// Where the search for a free worker ID begins.
    pub next_worker: WorkerId,
    /// One entry for each live pod that has asked.
    pub entries: BTreeMap<PodUid, Entry>,
}

/// What the newest boot of a pod was granted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// To whom: a pod whose container restarts is another boot, and none of this is addressed to it.
    pub boot_id: BootId,
    /// The worker ID it may take, if the store lets it.
    pub worker: WorkerId,
    /// The newest run of blocks.
    pub run: Option<IdRange>,
    /// How many blocks this boot was granted in all.
    pub granted: u64,
}

/// What a node asks for, as its Lease says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// Who asks.
    pub boot_id: BootId,
    /// In which pod it runs.
    pub pod: PodUid,
    /// How many blocks it wants to have been granted in all since it booted.
    pub wanted: u64,
    /// The store's high-water mark, as the node saw it.
    pub mark: u64,
    /// A worker ID that the store did not let it take, or that it has lost.
    pub refused_worker: Option<WorkerId>,
}

/// The new ledger, and what could not be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// To be written; equal to the old one where there was nothing to do.
    pub ledger: Ledger,
    /// A reported mark so far above the ledger that `spec.ids.floorBlock` has to decide.
    pub refused_mark: Option<u64>,
    /// Somebody wanted blocks when none were left.
    pub out_of_blocks: bool,
    /// Somebody wanted a worker ID when all were held.
    pub out_of_workers: bool,
}

impl Ledger {
    /// The ledger of a new cluster.
    pub fn new(code_length: CodeLength) -> Self {
        Self { code_length, next_block: 0, next_worker: WorkerId::default(), entries: BTreeMap::new() }
    }

    /// The next worker ID, round robin, that no entry holds; moves the cursor past it.
    fn pick_worker(&mut self) -> Option<WorkerId> {
        let held: BTreeSet<_> = self.entries.values().map(|entry| entry.worker).collect();
        let worker = self.next_worker.round().find(|worker| !held.contains(worker))?;
        self.next_worker = worker.following();
        Some(worker)
    }

    /// Takes the next run of at most `wanted` blocks off the unused space.
    fn take(&mut self, wanted: u64) -> Option<IdRange> {
        let run = take_run(self.code_length, self.next_block, wanted)?;
        self.next_block = run.end_block();
        Some(run)
    }
}

/// Grants every request of a live pod what it still wants, up to [`GRANT_BLOCKS_MAX`] at a time.
///
/// `floor_block` is `spec.ids.floorBlock`. Blocks are taken upwards from the highest of ledger, floor and reported marks, and none is
/// ever given back: what a boot does not use is lost.
pub fn allocate(ledger: &Ledger, requests: &[Request], live_pods: &BTreeSet<PodUid>, floor_block: u64) -> Allocation {
    let mut new = ledger.clone();
    new.entries.retain(|pod, _| live_pods.contains(pod));
    let live = || requests.iter().filter(|request| live_pods.contains(&request.pod));
    let refused_mark = repair(&mut new, floor_block, live().map(|request| request.mark));
    let mut allocation = Allocation { ledger: new, refused_mark, out_of_blocks: false, out_of_workers: false };
    for request in live() {
        serve(&mut allocation, request);
    }
    allocation
}

/// Raises the ledger to the floor and to the highest mark that a report may raise it to. Returns the highest mark refused.
fn repair(ledger: &mut Ledger, floor_block: u64, marks: impl Iterator<Item = u64>) -> Option<u64> {
    let base = ledger.next_block.max(floor_block);
    let limit = base.saturating_add(REPAIR_BLOCKS_MAX);
    let (believed, refused): (Vec<_>, Vec<_>) = marks.partition(|mark| *mark <= limit);
    ledger.next_block = believed.into_iter().fold(base, u64::max);
    refused.into_iter().max()
}

/// Brings the entry of one request's pod to what the request asks for.
fn serve(allocation: &mut Allocation, request: &Request) {
    let Request { boot_id, pod, wanted, mark: _, refused_worker } = request;
    let Allocation { ledger, refused_mark: _, out_of_blocks, out_of_workers } = allocation;
    let known = ledger.entries.get(pod).filter(|entry| entry.boot_id == *boot_id).cloned();
    let worker = match &known {
        Some(entry) if *refused_worker != Some(entry.worker) => Some(entry.worker),
        // The search passes over what the pod's own entry holds: a refused worker ID, or an earlier boot's.
        _ => ledger.pick_worker(),
    };
    let Some(worker) = worker else {
        *out_of_workers = true;
        return;
    };
    let (mut run, mut granted) = known.map_or((None, 0), |entry| (entry.run, entry.granted));
    if *wanted > granted {
        match ledger.take(wanted - granted) {
            Some(taken) => {
                granted += u64::from(taken.len_blocks());
                run = Some(taken);
            }
            None => *out_of_blocks = true,
        }
    }
    ledger.entries.insert(pod.clone(), Entry { boot_id: *boot_id, worker, run, granted });
}

/// The nodes' store holds another keyspace than the one that the ledger is of: nothing may be granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the nodes report the keyspace {reported}, but {recorded} is recorded: they are on another store, or it was restored; set \
     spec.ids.adoptKeyspace to {reported} to go on with it"
)]
pub struct ForeignKeyspace {
    /// Whose blocks the ledger counts.
    pub recorded: KeyspaceId,
    /// What a node has found instead.
    pub reported: KeyspaceId,
}

/// The keyspace that is granted for: the recorded one, or the first that is reported where none is. Another one is taken only where
/// `adopt`, which is `spec.ids.adoptKeyspace`, names it.
pub fn keyspace(
    recorded: Option<KeyspaceId>,
    reported: impl Iterator<Item = KeyspaceId>,
    adopt: Option<KeyspaceId>,
) -> Result<Option<KeyspaceId>, ForeignKeyspace> {
    let mut ours = recorded;
    for reported in reported {
        match ours {
            None => ours = Some(reported),
            Some(recorded) if recorded == reported => {}
            Some(_) if adopt == Some(reported) => ours = Some(reported),
            Some(recorded) => return Err(ForeignKeyspace { recorded, reported }),
        }
    }
    Ok(ours)
}

/// The next run after a high-water mark: at most `wanted` blocks, at most [`GRANT_BLOCKS_MAX`], and fewer where the domain ends.
/// None when nothing is wanted or nothing is left.
pub fn take_run(code_length: CodeLength, mark: u64, wanted: u64) -> Option<IdRange> {
    let left = code_length.blocks().saturating_sub(mark);
    let blocks = wanted.min(left).min(u64::from(GRANT_BLOCKS_MAX));
    IdRange::new(code_length, mark, u32::try_from(blocks).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(boot: u128, pod: &str, wanted: u64) -> Request {
        Request { boot_id: BootId(boot), pod: PodUid(pod.into()), wanted, mark: 0, refused_worker: None }
    }

    #[test]
    fn another_keyspace_stops_the_grants_until_it_is_adopted() {
        let [one, other] = [KeyspaceId(1), KeyspaceId(2)];
        let keyspace = |recorded, reported: &[KeyspaceId], adopt| keyspace(recorded, reported.iter().copied(), adopt);
        assert_eq!(keyspace(None, &[], None), Ok(None));
        assert_eq!(keyspace(None, &[one, one], None), Ok(Some(one)), "an empty record adopts what is there");
        assert_eq!(keyspace(Some(one), &[], None), Ok(Some(one)));
        let foreign = ForeignKeyspace { recorded: one, reported: other };
        assert_eq!(keyspace(Some(one), &[one, other], None), Err(foreign));
        assert_eq!(keyspace(Some(one), &[other], Some(one)), Err(foreign), "another is named");
        assert_eq!(keyspace(Some(one), &[other, other], Some(other)), Ok(Some(other)));
        assert_eq!(keyspace(None, &[one, other], None), Err(foreign), "two at once");
        let back = ForeignKeyspace { recorded: other, reported: one };
        assert_eq!(keyspace(Some(other), &[one], Some(other)), Err(back));
    }

    fn live(pods: &[&str]) -> BTreeSet<PodUid> {
        pods.iter().map(|pod| PodUid((*pod).into())).collect()
    }

    fn entry<'a>(ledger: &'a Ledger, pod: &str) -> &'a Entry {
        &ledger.entries[&PodUid(pod.into())]
    }

    #[test]
    fn blocks_and_workers_are_handed_out_upwards() {
        let requests = [request(1, "a", 2), request(2, "b", 1)];
        let ledger = allocate(&Ledger::new(CodeLength::DEFAULT), &requests, &live(&["a", "b"]), 0).ledger;
        let range = |first, blocks| IdRange::new(CodeLength::DEFAULT, first, blocks).ok();
        assert_eq!((entry(&ledger, "a").run, entry(&ledger, "b").run), (range(0, 2), range(2, 1)));
        assert_eq!((u16::from(entry(&ledger, "a").worker), u16::from(entry(&ledger, "b").worker)), (0, 1));
        assert_eq!(allocate(&ledger, &requests, &live(&["a", "b"]), 0).ledger, ledger, "what is served stays as it is");
    }

    #[test]
    fn a_restart_in_place_is_another_boot_and_inherits_nothing() {
        let first = allocate(&Ledger::new(CodeLength::DEFAULT), &[request(1, "a", 1)], &live(&["a"]), 0).ledger;
        let second = allocate(&first, &[request(2, "a", 1)], &live(&["a"]), 0).ledger;
        let (before, after) = (entry(&first, "a"), entry(&second, "a"));
        assert_ne!((before.run, before.worker), (after.run, after.worker));
        assert_eq!((after.boot_id, after.granted), (BootId(2), 1));
    }

    #[test]
    fn a_dead_pod_keeps_no_entry_and_gets_nothing() {
        let first = allocate(&Ledger::new(CodeLength::DEFAULT), &[request(1, "a", 1)], &live(&["a"]), 0).ledger;
        let second = allocate(&first, &[request(1, "a", 2)], &live(&[]), 0).ledger;
        assert_eq!((second.entries.len(), second.next_block), (0, 1));
    }

    #[test]
    fn a_refused_worker_is_replaced_by_another() {
        let first = allocate(&Ledger::new(CodeLength::DEFAULT), &[request(1, "a", 1)], &live(&["a"]), 0).ledger;
        let refused_worker = Some(entry(&first, "a").worker);
        let again = Request { refused_worker, ..request(1, "a", 1) };
        let second = allocate(&first, &[again], &live(&["a"]), 0).ledger;
        assert_ne!(Some(entry(&second, "a").worker), refused_worker);
        assert_eq!(entry(&second, "a").run, entry(&first, "a").run);
    }

    #[test]
    fn a_mark_raises_the_ledger_within_the_bound_and_the_floor_without() {
        let ledger = Ledger::new(CodeLength::DEFAULT);
        let reported = |mark, floor| {
            let allocation = allocate(&ledger, &[Request { mark, ..request(1, "a", 0) }], &live(&["a"]), floor);
            (allocation.ledger.next_block, allocation.refused_mark)
        };
        assert_eq!(reported(7, 0), (7, None));
        assert_eq!(reported(REPAIR_BLOCKS_MAX, 0), (REPAIR_BLOCKS_MAX, None));
        assert_eq!(reported(REPAIR_BLOCKS_MAX + 1, 0), (0, Some(REPAIR_BLOCKS_MAX + 1)));
        assert_eq!(reported(REPAIR_BLOCKS_MAX + 1, 1), (REPAIR_BLOCKS_MAX + 1, None));
        assert_eq!(reported(0, 1 << 40), (1 << 40, None));
    }

    #[test]
    fn a_restored_mark_lies_further_on_but_not_beyond_the_space() {
        for length in CodeLength::all() {
            assert_eq!(restored_mark(length, 3), 3 + RESTORE_RAISE_BLOCKS);
            assert_eq!(restored_mark(length, length.blocks() - 1), length.blocks());
        }
    }

    #[test]
    fn the_space_ends_before_the_partial_block() {
        let length = CodeLength::DEFAULT;
        let blocks = length.blocks();
        assert_eq!(take_run(length, blocks - 3, 16).map(IdRange::len_blocks), Some(3));
        assert_eq!(
            (take_run(length, blocks, 16), take_run(length, u64::MAX, 1), take_run(length, 0, 0)),
            (None, None, None)
        );
        assert_eq!(take_run(length, 0, u64::MAX).map(IdRange::len_blocks), Some(GRANT_BLOCKS_MAX));
        let allocation = allocate(&Ledger::new(length), &[request(1, "a", 1)], &live(&["a"]), u64::MAX);
        assert!(allocation.out_of_blocks);
        assert_eq!(entry(&allocation.ledger, "a").granted, 0);
    }

    #[test]
    fn when_every_worker_is_held_the_next_pod_waits() {
        let pods: Vec<_> = (0..4097).map(|pod| pod.to_string()).collect();
        let requests: Vec<_> = (0..).zip(&pods).map(|(boot, pod)| request(boot, pod, 0)).collect();
        let live = pods.iter().cloned().map(PodUid).collect();
        let allocation = allocate(&Ledger::new(CodeLength::DEFAULT), &requests, &live, 0);
        let workers: BTreeSet<_> = allocation.ledger.entries.values().map(|entry| entry.worker).collect();
        assert_eq!((allocation.ledger.entries.len(), workers.len(), allocation.out_of_workers), (4096, 4096, true));
    }
}
