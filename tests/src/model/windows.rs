//! Worker windows: several boots, one worker ID, a store whose row may be rolled back. Holds I7.
//!
//! A transaction is two steps, *begin* and *commit*, with anything between them; a boot may mint at any time under any idea of what
//! time it is; nobody tells it that it has lost its window. Time goes on in steps of W/2.

use shortener_crds::ids::claim::{WINDOW_MS, WorkerRow, extend_window, take_window};
use shortener_crds::ids::snowflake::EPOCH_UNIX_MS;
use shortener_crds::ids::{BootId, Snowflake, Window, WorkerId};
use stateright::{Model, Property};

/// What is left out of the protocol, to show that it is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ablation {
    /// Nothing.
    None,
    /// A window begins when its worker ID is taken, not W later.
    NoLaterStart,
    /// A boot mints on past the end of its window.
    NoFence,
    /// A boot extends a window that has run out, if the row is still its own.
    LateExtension,
}

/// The size of the model.
#[derive(Clone, Debug)]
pub struct Windows {
    /// How many boots there are.
    pub boots: usize,
    /// How many half windows time goes on.
    pub half_windows: u64,
    /// How many IDs each boot mints at most.
    pub mints: u8,
    /// How often the store is rolled back at most.
    pub rollbacks: u8,
    /// What is left out.
    pub ablation: Ablation,
}

/// A state of the whole.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    half_windows: u64,
    row: Option<WorkerRow>,
    /// The row as it was backed up; at the start that is an empty store.
    backup: Option<WorkerRow>,
    rollbacks: u8,
    boots: Vec<Boot>,
    /// Timestamps in the order of minting, each with its boot: history that no boot sees.
    minted: Vec<(u64, usize)>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Boot {
    window: Option<Window>,
    /// Every window that was ever held, at its longest: history that no boot sees.
    held: Vec<Window>,
    snowflake: Snowflake,
    transaction: Option<Begun>,
    mints: u8,
}

/// A transaction that has begun: it commits only if the row is still what it read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Begun {
    row: Option<WorkerRow>,
    writes: Window,
}

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Time goes on.
    Tick,
    /// A boot begins to take the worker ID or to extend its window.
    Begin(usize),
    /// It commits.
    Commit(usize),
    /// A boot mints, with its clock this many half windows from the start.
    Mint(usize, u64),
    /// The row is backed up.
    Backup,
    /// The backup is restored. Transactions that are under way fail.
    Restore,
}

fn boot_id(boot: usize) -> BootId {
    BootId(u128::try_from(boot).unwrap_or_default())
}

/// The store's clock and the boots' clocks, in milliseconds.
fn time_ms(half_windows: u64) -> u64 {
    EPOCH_UNIX_MS + WINDOW_MS + half_windows * (WINDOW_MS / 2)
}

impl Windows {
    /// What a boot's transaction would write now, if anything.
    fn decide(&self, state: &State, boot: usize) -> Option<Window> {
        let now_ms = time_ms(state.half_windows);
        match (state.boots[boot].window, self.ablation) {
            (Some(held), Ablation::LateExtension) => (state.row == Some(held.row(boot_id(boot))))
                .then(|| Window { end_ms: held.end_ms.max(now_ms + WINDOW_MS), ..held }),
            (Some(held), _) => extend_window(held, state.row, boot_id(boot), now_ms).ok(),
            (None, Ablation::NoLaterStart) => take_window(WorkerId::default(), state.row, now_ms)
                .ok()
                .map(|window| Window { start_ms: now_ms, ..window }),
            (None, _) => take_window(WorkerId::default(), state.row, now_ms).ok(),
        }
    }

    fn mint(&self, state: &mut State, boot: usize, clock: u64) -> Option<()> {
        let this = &mut state.boots[boot];
        let mut window = this.window?;
        if self.ablation == Ablation::NoFence {
            window.end_ms = u64::MAX;
        }
        let id = this.snowflake.next(time_ms(clock), window).ok()?;
        this.mints += 1;
        state.minted.push((id.timestamp_unix_ms(), boot));
        Some(())
    }
}

impl Model for Windows {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let boots = vec![Boot::default(); self.boots];
        vec![State { half_windows: 0, row: None, backup: None, rollbacks: 0, boots, minted: Vec::new() }]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        if state.half_windows < self.half_windows {
            steps.push(Step::Tick);
        }
        if state.rollbacks < self.rollbacks {
            steps.extend([Step::Backup, Step::Restore]);
        }
        for (boot, this) in state.boots.iter().enumerate() {
            steps.push(if this.transaction.is_none() { Step::Begin(boot) } else { Step::Commit(boot) });
            if this.mints < self.mints {
                // A clock that is right, one that stands at the start, and one that is W ahead.
                let now = state.half_windows;
                steps.extend([0, now, now + 2].map(|clock| Step::Mint(boot, clock)));
            }
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = last.clone();
        match step {
            Step::Tick => state.half_windows += 1,
            Step::Begin(boot) => match self.decide(last, boot) {
                Some(writes) => state.boots[boot].transaction = Some(Begun { row: last.row, writes }),
                // Lost: it stops minting and may take the worker ID again when that is free.
                None => state.boots[boot].window = None,
            },
            Step::Commit(boot) => {
                let Begun { row, writes } = state.boots[boot].transaction.take()?;
                if row == state.row {
                    state.row = Some(writes.row(boot_id(boot)));
                    let this = &mut state.boots[boot];
                    match this.held.last_mut().filter(|held| this.window.is_some() && held.start_ms == writes.start_ms)
                    {
                        Some(held) => *held = writes,
                        None => this.held.push(writes),
                    }
                    this.window = Some(writes);
                }
            }
            Step::Mint(boot, clock) => self.mint(&mut state, boot, clock)?,
            Step::Backup => state.backup = last.row,
            Step::Restore => {
                state.row = last.backup;
                state.rollbacks += 1;
                for boot in &mut state.boots {
                    boot.transaction = None;
                }
            }
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("I7 windows of one worker ID are disjoint", |_, state: &State| {
                let mut windows: Vec<_> = state.boots.iter().flat_map(|boot| &boot.held).collect();
                windows.retain(|window| window.start_ms < window.end_ms);
                windows.sort();
                windows.windows(2).all(|pair| pair[0].end_ms <= pair[1].start_ms)
            }),
            Property::always("I7 no timestamp is minted by two boots", |_, state: &State| {
                let two = |(timestamp, boot): &(u64, usize)| {
                    state.minted.iter().any(|(other, by)| other == timestamp && by != boot)
                };
                !state.minted.iter().any(two)
            }),
            Property::always("I7 a boot's timestamps never go back", |_, state: &State| {
                (0..state.boots.len()).all(|boot| {
                    state.minted.iter().filter(|(_, by)| *by == boot).map(|(timestamp, _)| timestamp).is_sorted()
                })
            }),
            Property::sometimes("two boots have minted under the worker ID", |_, state: &State| {
                state.minted.iter().any(|(_, boot)| *boot != state.minted[0].1)
            }),
            Property::sometimes("a window is lost to a rollback", |_, state: &State| {
                state.rollbacks > 0 && state.boots.iter().any(|boot| boot.window.is_none() && !boot.held.is_empty())
            }),
        ]
    }
}
