//! Snowflake IDs strictly increase and stay in their window, whatever the clock does.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use shortener_crds::ids::claim::{WINDOW_MS, WorkerRow, extend_window, take_window};
use shortener_crds::ids::snowflake::{EPOCH_UNIX_MS, SnowflakeError};
use shortener_crds::ids::{BootId, Snowflake, SnowflakeId, Window, WorkerId};

const HOUR_MS: u64 = 60 * 60 * 1000;
const START_MS: u64 = EPOCH_UNIX_MS + 24 * HOUR_MS;
const OURS: BootId = BootId(1);

fn worker(number: u16) -> WorkerId {
    WorkerId::try_from(number).expect("a worker ID")
}

#[test]
fn they_strictly_increase_through_jumps_of_an_hour_and_bursts() {
    let window = Window { worker: worker(5), start_ms: START_MS, end_ms: START_MS + 10 * HOUR_MS };
    let mut state = Snowflake::default();
    let mut last: Option<SnowflakeId> = None;
    let noon = START_MS + 5 * HOUR_MS;
    for now_ms in
        [noon, noon + HOUR_MS, noon, noon - HOUR_MS, noon + 1, noon + HOUR_MS, noon + HOUR_MS + 2, noon + 2 * HOUR_MS]
    {
        for _ in 0..5_000 {
            let id = state.next(now_ms, window).expect("in the window");
            assert!(last < Some(id), "{last:?} then {id:?}");
            last = Some(id);
        }
    }
}

#[test]
fn a_millisecond_has_1024_and_the_next_call_moves_on() {
    let window = Window { worker: worker(5), start_ms: START_MS, end_ms: START_MS + HOUR_MS };
    let mut state = Snowflake::default();
    let timestamps: Vec<_> =
        (0..2_049).map(|_| state.next(START_MS, window).expect("in the window").timestamp_unix_ms()).collect();
    assert!(timestamps[..1_024].iter().all(|timestamp| *timestamp == START_MS));
    assert!(timestamps[1_024..2_048].iter().all(|timestamp| *timestamp == START_MS + 1));
    assert_eq!(timestamps[2_048], START_MS + 2);
}

/// What may happen between two IDs.
#[derive(Clone, Debug)]
enum Step {
    /// The node's clock is set, by up to an hour.
    Jump(i64),
    /// This many IDs are minted without the clock moving.
    Burst(u16),
    /// The store's clock goes on, and the window is extended.
    Extend(u64),
    /// The window is lost, and another worker ID taken.
    Lose(u16),
}

fn step() -> impl Strategy<Value = Step> {
    let hour = i64::try_from(HOUR_MS).unwrap();
    prop_oneof![
        (-hour..=hour).prop_map(Step::Jump),
        (1..3_000_u16).prop_map(Step::Burst),
        (1..WINDOW_MS).prop_map(Step::Extend),
        (0..4_096_u16).prop_map(Step::Lose),
    ]
}

proptest! {
    #[test]
    fn one_boot_never_repeats_nor_leaves_its_window(steps in prop::collection::vec(step(), 1..60)) {
        let (mut store_ms, mut node_ms) = (START_MS, START_MS);
        let mut window = take_window(worker(0), None, store_ms).expect("free");
        let mut state = Snowflake::default();
        let mut last: Option<SnowflakeId> = None;
        for step in steps {
            match step {
                Step::Jump(by_ms) => node_ms = node_ms.saturating_add_signed(by_ms),
                Step::Extend(by_ms) if store_ms + by_ms < window.end_ms => {
                    store_ms += by_ms;
                    window = extend_window(window, Some(window.row(OURS)), OURS, store_ms).expect("ours");
                    prop_assert!(window.end_ms <= store_ms + WINDOW_MS);
                }
                Step::Extend(_) => {}
                Step::Lose(other) => window = take_window(worker(other), None, store_ms).expect("free"),
                Step::Burst(calls) => for _ in 0..calls {
                    match state.next(node_ms, window) {
                        Ok(id) => {
                            prop_assert!(last < Some(id), "{last:?} then {id:?}");
                            prop_assert!((window.start_ms..window.end_ms).contains(&id.timestamp_unix_ms()));
                            prop_assert_eq!(id.worker(), window.worker);
                            last = Some(id);
                        }
                        Err(SnowflakeError::WindowOver { .. }) => break,
                        Err(error) => prop_assert!(false, "{error}"),
                    }
                },
            }
        }
    }

    /// Boots take one worker ID from each other, while the store's row is rolled back now and then to what it was before. No
    /// timestamp is in two windows.
    #[test]
    fn windows_of_one_worker_are_disjoint(moves in prop::collection::vec((0..3_u8, 0..3 * WINDOW_MS, 0..4_usize), 1..40)) {
        let mut store_ms = START_MS;
        let mut row: Option<WorkerRow> = None;
        let mut history = vec![row];
        let mut held: Vec<(BootId, Window)> = Vec::new();
        let mut boots = 0;
        for (kind, by_ms, which) in moves {
            store_ms += by_ms;
            match kind {
                0 => if let Ok(window) = take_window(worker(9), row, store_ms) {
                    boots += 1;
                    held.push((BootId(boots), window));
                    row = Some(window.row(BootId(boots)));
                },
                1 => for (boot, window) in &mut held {
                    if let Ok(extended) = extend_window(*window, row, *boot, store_ms) {
                        *window = extended;
                        row = Some(extended.row(*boot));
                    }
                },
                _ => {
                    history.truncate(history.len().saturating_sub(which).max(1));
                    row = history[history.len() - 1];
                }
            }
            history.push(row);
        }
        held.sort_by_key(|(_, window)| window.start_ms);
        for pair in held.windows(2) {
            prop_assert!(pair[0].1.end_ms <= pair[1].1.start_ms, "{pair:?}");
        }
    }

    #[test]
    fn an_id_survives_json_rows_and_text(number in 0..1_u64 << 63) {
        let id = SnowflakeId::try_from(number).expect("below 2^63");
        let json = serde_json::to_string(&id).expect("JSON");
        prop_assert_eq!(&json, &format!("\"{number}\""));
        prop_assert_eq!(serde_json::from_str::<SnowflakeId>(&json).expect("JSON"), id);
        let row = postcard::to_stdvec(&id).expect("a row");
        prop_assert!(row.len() <= 9);
        prop_assert_eq!(postcard::from_bytes::<SnowflakeId>(&row).expect("a row"), id);
        prop_assert_eq!(id.to_string().parse::<SnowflakeId>().expect("its own text"), id);
    }
}
