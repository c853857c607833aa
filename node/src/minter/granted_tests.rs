//! Minting from what an operator grants, by hand, on an embedded store with a clock that is moved by hand.

use shortener_crds::ids::claim::WINDOW_MS;
use shortener_crds::ids::{Block, IdRange, KeyspaceId};

use super::tests::{START, formats, id, metrics, minter, until};
use super::*;
use crate::kv::embedded::Embedded;

const LENGTH: CodeLength = CodeLength::DEFAULT;

struct Granted {
    minter: Minter,
    kv: Kv,
    clock: Clock,
    _directory: tempfile::TempDir,
}

impl Granted {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = Clock::manual(START);
        let kv = Kv::Embedded(Embedded::open(directory.path(), clock.clone()).unwrap());
        let authority = Authority::Lease(crate::allocation::authority::Grants::default());
        let minter = Minter::start(kv.clone(), clock.clone(), LENGTH, authority, formats(), metrics()).await.unwrap();
        Self { minter, kv, clock, _directory: directory }
    }

    fn grant(&self, worker: u16, first_block: u64, blocks: u32, granted: u64) {
        let worker = WorkerId::try_from(worker).unwrap();
        let run = IdRange::new(LENGTH, first_block, blocks).ok();
        self.minter.deliver(Entry { boot_id: self.minter.boot_id(), worker, run, granted }).unwrap();
    }

    fn asks(&self) -> Asks {
        *self.minter.asks().borrow()
    }

    /// Waits until this is what is asked for: how many blocks in all, the mark, and the refused worker ID.
    async fn until_asks(&self, wanted: u64, mark: u64, refused: Option<u16>) {
        let mut asks = self.minter.asks();
        let met = asks
            .wait_for(|asks| (asks.wanted, asks.mark, asks.refused_worker.map(u16::from)) == (wanted, mark, refused));
        let met = tokio::time::timeout(Duration::from_secs(20), met).await.is_ok();
        assert!(met, "asks for {:?} instead", self.asks());
    }

    fn burnt(&self) -> u64 {
        self.minter.shared.metrics.claims_burnt.get()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_minted_before_it_is_granted_and_claimed() {
    let node = Granted::start().await;
    node.until_asks(1, 0, None).await;
    assert_eq!(node.asks().keyspace, node.minter.keyspace_identity().map(KeyspaceId));
    assert!(node.minter.next_code().is_err() && node.minter.next_id() == Err(MintError::NoWorker));
    assert!(node.minter.is_waiting());
    let other =
        Entry { boot_id: BootId(1), worker: WorkerId::default(), run: IdRange::new(LENGTH, 0, 1).ok(), granted: 1 };
    node.minter.deliver(other).unwrap();
    node.grant(7, 40, 2, 2);
    node.until_asks(2, 42, None).await;
    assert_eq!((node.minter.remaining(), node.burnt()), (2 * 65_536, 0), "the other boot's block is not among them");
    assert_eq!(id(&node.minter, &node.clock).await.worker().get(), 7);
    assert!(node.minter.next_code().is_ok() && !node.minter.is_waiting());
}

#[tokio::test(flavor = "multi_thread")]
async fn more_is_asked_for_once_a_tenth_is_used_and_minting_goes_on_to_the_end() {
    let node = Granted::start().await;
    node.grant(7, 40, 1, 1);
    node.until_asks(1, 41, None).await;
    for _ in 0..6_554 {
        node.minter.next_code().unwrap();
    }
    node.until_asks(2, 41, None).await;
    assert!(node.minter.is_waiting());
    for _ in 6_554..65_536 {
        node.minter.next_code().unwrap();
    }
    assert!(node.minter.next_code().is_err());
    node.until_asks(3, 41, None).await;
    node.grant(7, 41, 2, 3);
    node.until_asks(3, 43, None).await;
    assert!(node.minter.next_code().is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_granted_block_that_is_somebody_elses_is_burnt_counted_and_the_mark_reported() {
    let node = Granted::start().await;
    // Who is its own authority has claimed block 0 meanwhile.
    let other = minter(&node.kv, &node.clock).await;
    assert!(other.next_code().is_ok());
    node.grant(7, 0, 3, 3);
    node.until_asks(3, 3, None).await;
    assert_eq!((node.burnt(), node.minter.remaining()), (1, 2 * 65_536));
    let block = Block::new(LENGTH, 2).unwrap();
    assert!(node.minter.shared.state().holding.worth_claiming(IdRange::new(LENGTH, 0, 4).unwrap()).all(|b| b > block));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_id_that_is_taken_or_lost_is_refused_and_another_awaited() {
    let node = Granted::start().await;
    let other = minter(&node.kv, &node.clock).await;
    let taken = other.worker_id().unwrap().get();
    node.grant(taken, 40, 1, 1);
    node.until_asks(1, 41, Some(taken)).await;
    assert_eq!(node.minter.next_id(), Err(MintError::NoWorker));
    let [next, last] = [(taken + 1) % 4096, (taken + 2) % 4096];
    node.grant(next, 40, 1, 1);
    node.until_asks(1, 41, None).await;
    assert_eq!(id(&node.minter, &node.clock).await.worker().get(), next);
    other.stop().await;
    // Longer than W without a look: another boot may have it by now.
    node.clock.advance(Duration::from_millis(WINDOW_MS + 1));
    assert!(node.minter.next_id().is_err());
    until(&node.minter, || node.minter.worker_id().is_none()).await;
    node.until_asks(1, 41, Some(next)).await;
    assert!(node.minter.is_waiting());
    node.grant(last, 40, 1, 1);
    assert_eq!(id(&node.minter, &node.clock).await.worker().get(), last);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_was_rolled_back_is_followed_and_nothing_is_minted_again() {
    let node = Granted::start().await;
    let mut codes = std::collections::HashSet::new();
    node.grant(7, 40, 1, 1);
    node.until_asks(1, 41, None).await;
    for _ in 0..6_554 {
        assert!(codes.insert(node.minter.next_code().unwrap().to_string()));
    }
    node.until_asks(2, 41, None).await;
    node.grant(7, 41, 1, 2);
    node.until_asks(2, 42, None).await;
    // etcd was restored: the ledger knows of the first grant alone, and hands out the second block again.
    node.grant(7, 40, 1, 1);
    node.until_asks(1, 42, None).await;
    node.grant(7, 41, 1, 2);
    node.until_asks(2, 42, None).await;
    while let Ok(code) = node.minter.next_code() {
        assert!(codes.insert(code.to_string()));
    }
    assert_eq!((codes.len(), node.burnt()), (2 * 65_536, 0));
}
