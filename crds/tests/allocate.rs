//! The allocator never grants twice, only ever raises, and stays small.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use shortener_crds::ids::allocate::{Entry, GRANT_BLOCKS_MAX, Ledger, PodUid, REPAIR_BLOCKS_MAX, Request, allocate};
use shortener_crds::ids::claim::{BlockClaim, ClaimedBlock, claim};
use shortener_crds::ids::mint::Holding;
use shortener_crds::ids::{BootId, CodeLength, IdRange, WorkerId};

const PODS: u8 = 6;

fn pod(number: u8) -> PodUid {
    PodUid(format!("pod-{number}"))
}

/// One pass of the operator over whatever the Leases say: any of it may be stale, doubled, or wrong.
#[derive(Clone, Debug)]
struct Pass {
    live: BTreeSet<u8>,
    requests: Vec<(u8, u8, u64, u64, Option<u16>)>,
    floor_block: u64,
}

fn request((in_pod, boot, wanted, mark, refused): (u8, u8, u64, u64, Option<u16>)) -> Request {
    Request {
        boot_id: BootId(u128::from(in_pod) * 16 + u128::from(boot)),
        pod: pod(in_pod),
        wanted,
        mark,
        refused_worker: refused.map(|worker| WorkerId::try_from(worker).unwrap()),
    }
}

fn pass() -> impl Strategy<Value = Pass> {
    let mark = prop_oneof![0..100_u64, 0..2 * REPAIR_BLOCKS_MAX, any::<u64>()];
    let floor = prop_oneof![9 => Just(0), 1 => 0..1_000_000_u64];
    let request = (0..PODS, 0..4_u8, 0..60_u64, mark, prop::option::of(0..8_u16));
    (prop::collection::btree_set(0..PODS, 0..=usize::from(PODS)), prop::collection::vec(request, 0..8), floor)
        .prop_map(|(live, requests, floor_block)| Pass { live, requests, floor_block })
}

proptest! {
    #[test]
    fn no_block_is_granted_twice_and_the_ledger_only_rises(passes in prop::collection::vec(pass(), 1..40)) {
        let mut ledger = Ledger::new(CodeLength::DEFAULT);
        let mut granted: BTreeMap<u64, BootId> = BTreeMap::new();
        for Pass { live, requests, floor_block } in passes {
            let live: BTreeSet<_> = live.into_iter().map(pod).collect();
            let requests: Vec<_> = requests.into_iter().map(request).collect();
            let base = ledger.next_block.max(floor_block);
            let new = allocate(&ledger, &requests, &live, floor_block).ledger;
            prop_assert!(new.next_block >= base);
            let most = u64::try_from(requests.len()).unwrap() * u64::from(GRANT_BLOCKS_MAX);
            prop_assert!(new.next_block <= base + REPAIR_BLOCKS_MAX + most, "one pass raises no further");
            let workers: BTreeSet<_> = new.entries.values().map(|entry| entry.worker).collect();
            prop_assert_eq!(workers.len(), new.entries.len(), "worker IDs of live pods differ");
            prop_assert!(new.entries.keys().all(|pod| live.contains(pod)));
            for (pod, Entry { boot_id, run, .. }) in &new.entries {
                let before = ledger.entries.get(pod).filter(|entry| entry.boot_id == *boot_id).and_then(|entry| entry.run);
                for block in run.filter(|run| Some(*run) != before).into_iter().flat_map(IdRange::blocks) {
                    prop_assert!(block.number() >= base);
                    prop_assert!(block.number() < new.next_block);
                    prop_assert_eq!(granted.insert(block.number(), *boot_id), None, "block {} twice", block);
                }
            }
            ledger = new;
        }
    }

    #[test]
    fn a_ledger_reads_back_as_it_was_written(passes in prop::collection::vec(pass(), 1..5)) {
        let mut ledger = Ledger::new(CodeLength::DEFAULT);
        for Pass { live, requests, floor_block } in passes {
            let requests: Vec<_> = requests.into_iter().map(request).collect();
            ledger = allocate(&ledger, &requests, &live.into_iter().map(pod).collect(), floor_block).ledger;
        }
        let json = serde_json::to_string(&ledger).expect("JSON");
        prop_assert_eq!(serde_json::from_str::<Ledger>(&json).expect("its own JSON"), ledger);
    }
}

#[test]
fn a_range_that_leaves_its_domain_does_not_read() {
    for run in [
        r#"{"codeLength":7,"firstBlock":0,"blocks":0}"#,
        r#"{"codeLength":7,"firstBlock":53735574,"blocks":1}"#,
        r#"{"codeLength":5,"firstBlock":0,"blocks":1}"#,
        r#"{"codeLength":7,"firstBlock":-1,"blocks":1}"#,
        r#"{"codeLength":7,"firstBlock":18446744073709551615,"blocks":1}"#,
    ] {
        assert!(serde_json::from_str::<IdRange>(run).is_err(), "{run}");
    }
    assert!(serde_json::from_str::<IdRange>(r#"{"codeLength":7,"firstBlock":53735573,"blocks":1}"#).is_ok());
}

/// I10: at most 64 KiB and 300 bytes a pod, with every number as long as it gets.
#[test]
fn the_status_stays_within_its_size() {
    let length = CodeLength::try_from(10).unwrap();
    for pods in [1, 1_000, 4_096_u32] {
        let entry = |number: u32| Entry {
            boot_id: BootId(u128::MAX - u128::from(number)),
            worker: WorkerId::try_from(4_095).unwrap(),
            run: IdRange::new(length, length.blocks() - 16, 16).ok(),
            granted: u64::MAX,
        };
        let uid = |number: u32| PodUid(format!("{number:08x}-0000-4000-8000-000000000000"));
        let entries = (0..pods).map(|number| (uid(number), entry(number))).collect();
        let ledger = Ledger { entries, next_block: length.blocks(), ..Ledger::new(length) };
        let bytes = serde_json::to_vec(&ledger).expect("JSON").len();
        assert!(bytes <= 64 * 1024 + 300 * usize::try_from(pods).unwrap(), "{bytes} bytes for {pods} pods");
    }
}

/// I10: at most 0.5 status writes a second when 1,000 pods mint 10,000 codes a second, however the load is spread.
#[test]
fn a_thousand_pods_seldom_write_the_status() {
    // Every pod the same; and one that takes it all, which asks for the largest grants.
    assert!(grants_per_second(10, 3 * 60 * 60) * 1_000.0 <= 0.5);
    assert!(grants_per_second(10_000, 60 * 60) <= 0.5);
}

/// How often one pod asks that mints `codes_per_second`, its first few grants included.
fn grants_per_second(codes_per_second: u64, seconds: u32) -> f64 {
    let mut holding: Holding = Holding::new(CodeLength::DEFAULT);
    let (mut next_block, mut grants) = (0, 0_u32);
    for second in 0..u64::from(seconds) {
        while let Some(blocks) = holding.ask() {
            let run = IdRange::new(CodeLength::DEFAULT, next_block, blocks).unwrap();
            next_block = run.end_block();
            holding.take_in(claim_all(run), second * 1_000);
            grants += 1;
        }
        for _ in 0..codes_per_second {
            holding.next(second * 1_000).expect("held ahead of need");
        }
    }
    f64::from(grants) / f64::from(seconds)
}

fn claim_all(run: IdRange) -> Vec<ClaimedBlock> {
    let claim = |block| match claim(block, None, BootId(1)) {
        BlockClaim::Won(pending) => pending.committed(),
        other => panic!("nobody has it: {other:?}"),
    };
    run.blocks().map(claim).collect()
}
