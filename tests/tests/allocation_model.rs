//! Every reachable state of the allocation protocol keeps the invariants I1 to I9 of `shortener_crds::ids`, and each part of the
//! protocol is needed: without it the checker finds the counter-example. `SHORTENER_SOAK=1` checks larger models.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::hash::Hash;

use shortener_tests::model::blocks::{self, Blocks};
use shortener_tests::model::windows::{self, Windows};
use shortener_tests::sizes::sized;
use stateright::{Checker, Expectation, HasDiscoveries, Model};

/// Threads of one check; tests run beside each other.
const THREADS: usize = 2;

/// All states are looked at, none breaks an invariant, and each of `reached` is reached.
fn assert_holds<M>(model: &M, reached: &[&'static str])
where
    M: Model + Clone + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq + Send + Sync,
{
    let checker = model.clone().checker().threads(THREADS).spawn_bfs().join();
    #[expect(clippy::print_stdout, reason = "how large the model was is what a reader of the log wants to know")]
    {
        println!("{} states, {} steps deep", checker.unique_state_count(), checker.max_depth());
    }
    assert!(checker.is_done());
    for property in model.properties() {
        match property.expectation {
            Expectation::Sometimes if reached.contains(&property.name) => {
                checker.assert_any_discovery(property.name);
            }
            Expectation::Sometimes => {}
            Expectation::Always | Expectation::Eventually => checker.assert_no_discovery(property.name),
        }
    }
}

/// Without the part that `model` leaves out, `property` breaks.
fn assert_breaks<M>(model: M, property: &'static str)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq + Send + Sync,
{
    let finish = HasDiscoveries::AllOf(BTreeSet::from([property]));
    let checker = model.checker().threads(THREADS).finish_when(finish).spawn_bfs().join();
    let path = checker.assert_any_discovery(property);
    #[expect(clippy::print_stdout, reason = "how far away the counter-example is")]
    {
        println!("{} steps break \"{property}\"", path.into_actions().len());
    }
}

const BLOCKS: Blocks = Blocks {
    operators: 2,
    blocks: 3,
    wanted: 1,
    status_writes: 3,
    restarts: 1,
    clones: 0,
    ledger_rollbacks: 0,
    edits: 0,
    store_rollbacks: 0,
    stale_reads: false,
    ablation: blocks::Ablation::None,
};

#[test]
fn blocks_hold_with_crashes_restarts_and_stale_reads() {
    let model = Blocks { stale_reads: true, wanted: sized(1, 2), status_writes: sized(3, 4), ..BLOCKS };
    assert_holds(&model, &["three boots have minted"]);
}

#[test]
fn blocks_hold_when_the_ledger_is_rolled_back() {
    let model = Blocks { ledger_rollbacks: 1, blocks: 2, wanted: sized(1, 2), status_writes: sized(2, 3), ..BLOCKS };
    assert_holds(&model, &["a granted block is burnt"]);
}

#[test]
fn blocks_hold_when_the_status_is_edited() {
    let model = Blocks { edits: 1, wanted: 2, status_writes: sized(4, 5), ..BLOCKS };
    assert_holds(&model, &["a granted block is burnt"]);
}

#[test]
fn blocks_hold_when_the_store_is_rolled_back() {
    let model = Blocks { store_rollbacks: 1, status_writes: sized(2, 3), ..BLOCKS };
    assert_holds(&model, &[]);
}

#[test]
fn blocks_hold_when_a_process_is_cloned_and_the_status_edited() {
    let model = Blocks { clones: 1, edits: 1, blocks: 2, restarts: sized(0, 1), status_writes: 3, ..BLOCKS };
    assert_holds(&model, &["a code clashes"]);
}

#[test]
fn grants_by_pod_break_at_a_restart_in_place() {
    let model = Blocks { ablation: blocks::Ablation::GrantsByPod, ..BLOCKS };
    assert_breaks(model, "I6 no code ID is minted by two boots");
}

#[test]
fn blocks_without_claims_break_when_the_ledger_is_rolled_back_or_edited() {
    let model = Blocks { ablation: blocks::Ablation::NoClaim, restarts: 0, ..BLOCKS };
    for damaged in [Blocks { ledger_rollbacks: 1, ..model.clone() }, Blocks { edits: 1, ..model }] {
        assert_breaks(damaged.clone(), "I2 a block is claimed by one boot, ever");
        assert_breaks(damaged, "I6 no code ID is minted by two boots");
    }
}

#[test]
fn creates_without_insert_if_absent_break_when_a_process_is_cloned() {
    let model = Blocks { ablation: blocks::Ablation::NoInsertIfAbsent, clones: 1, restarts: 0, ..BLOCKS };
    assert_breaks(model, "I1 every acknowledged code was bound once");
}

const WINDOWS: Windows =
    Windows { boots: 3, half_windows: 6, mints: 1, rollbacks: 1, ablation: windows::Ablation::None };

#[test]
fn windows_hold_when_the_store_is_rolled_back() {
    let model = Windows { half_windows: sized(4, 6), ..WINDOWS };
    assert_holds(&model, &["two boots have minted under the worker ID", "a window is lost to a rollback"]);
}

#[test]
fn windows_that_start_at_once_break_when_the_store_is_rolled_back() {
    let model = Windows { ablation: windows::Ablation::NoLaterStart, boots: 2, ..WINDOWS };
    assert_breaks(model.clone(), "I7 windows of one worker ID are disjoint");
    assert_breaks(model, "I7 no timestamp is minted by two boots");
}

#[test]
fn windows_without_a_fence_break() {
    let model = Windows { ablation: windows::Ablation::NoFence, boots: 2, rollbacks: 0, ..WINDOWS };
    assert_breaks(model, "I7 no timestamp is minted by two boots");
}

#[test]
fn windows_extended_too_late_break_when_the_store_is_rolled_back() {
    let model = Windows { ablation: windows::Ablation::LateExtension, boots: 2, ..WINDOWS };
    assert_breaks(model, "I7 windows of one worker ID are disjoint");
}
