//! Blocks: two operators, a ledger, Leases, a store, and boots that claim and mint. Holds I1 to I6, I8 and I9.
//!
//! Every read, write, claim and insert is a step of its own, and a crash may come between any two: an operator that never
//! writes, or never delivers; a boot that never claims, or dies after its claim. An operator may plan on Leases as they were
//! a version ago. One of the two stores may be rolled back to any earlier moment, or the ledger edited by hand; a boot may
//! restart in its pod, and a process may be cloned with its memory (but not while TiKV is rolled back: then the links that
//! would tell the clone are gone). The code space ends after a few blocks, so that all of it can be looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use shortener_crds::ids::allocate::{Entry, Ledger, PodUid, Request, allocate};
use shortener_crds::ids::claim::{BlockClaim, PendingClaim, claim, raise_mark};
use shortener_crds::ids::granted::Granted;
use shortener_crds::ids::mint::Holding;
use shortener_crds::ids::{Block, BootId, CodeLength};
use stateright::{Model, Property};

/// What is left out of the protocol, to show that it is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ablation {
    /// Nothing.
    None,
    /// Grants and claims name the pod and not the boot.
    GrantsByPod,
    /// A block is minted from without a claim.
    NoClaim,
    /// A create is acknowledged whether its link was there or not.
    NoInsertIfAbsent,
}

/// The size of the model: how often each thing may happen.
#[derive(Clone, Debug)]
pub struct Blocks {
    /// Operators at once.
    pub operators: usize,
    /// Whole blocks in the code space.
    pub blocks: u64,
    /// Blocks that one boot asks for in all.
    pub wanted: u64,
    /// Writes of the status.
    pub status_writes: u64,
    /// Restarts of a container in its pod.
    pub restarts: u8,
    /// Clones of a process with its memory.
    pub clones: u8,
    /// Rollbacks of etcd (the ledger and the Leases).
    pub ledger_rollbacks: u8,
    /// Edits of the status by hand: `nextBlock` is set back to the start.
    pub edits: u8,
    /// Rollbacks of TiKV (links, claims and mark).
    pub store_rollbacks: u8,
    /// Whether operators may see Leases as they were a version ago.
    pub stale_reads: bool,
    /// What is left out.
    pub ablation: Ablation,
}

/// How many code IDs of a block are minted here.
const SEQUENCES: u32 = 1;

/// The boots that are there from the start, one a pod.
const PODS: usize = 2;

/// A state of the whole.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    etcd: Etcd,
    etcd_backup: Option<Etcd>,
    /// The Leases before their last change.
    stale_requests: Vec<Option<Request>>,
    store: Store,
    store_backup: Option<Store>,
    operators: Vec<Operator>,
    processes: Vec<Process>,
    happened: Happened,
    history: History,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Etcd {
    ledger: Ledger,
    resource_version: u64,
    /// A pod's Lease: what its newest boot asks for, and what was delivered.
    leases: Vec<(Option<Request>, Option<Entry>)>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Store {
    claims: BTreeMap<u64, BootId>,
    mark: u64,
    links: BTreeSet<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Operator {
    Idle,
    /// Has planned this ledger, to be written if the resource version still is this one.
    Planned(Ledger, u64),
    /// Has written this ledger, to be delivered.
    Written(Ledger),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Process {
    /// Which process: a clone is another, with everything else the same.
    boot: usize,
    pod: usize,
    granted: Granted,
    /// Claimed, but the answer is not in yet.
    to_take_in: Option<PendingClaim>,
    holding: Holding<SEQUENCES>,
}

/// What of the bounded has happened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Happened {
    restarts: u8,
    clones: u8,
    ledger_rollbacks: u8,
    edits: u8,
    store_rollbacks: u8,
}

/// What has been, whatever was rolled back: nobody but the properties sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct History {
    /// Acknowledged creates of each code ID.
    acknowledged: BTreeMap<u64, u8>,
    /// The boots that have ever claimed each block.
    claimed: BTreeMap<u64, BTreeSet<usize>>,
    /// The boots that have ever minted each code ID.
    minted: BTreeMap<u64, BTreeSet<usize>>,
    /// The boots that each block was ever granted to.
    granted: BTreeMap<u64, BTreeSet<BootId>>,
    broken: BTreeSet<&'static str>,
}

/// A step.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// A node writes its Lease: what it wants, and the mark it sees.
    Ask(usize),
    /// An operator reads the resource and the Leases (as they are, or as they were) and plans.
    Plan(usize, bool),
    /// It writes the status, if nobody else has.
    Write(usize),
    /// It mirrors what it wrote into the Leases.
    Deliver(usize),
    /// It dies, and another is there.
    CrashOperator(usize),
    /// A node reads its Lease.
    Receive(usize),
    /// It claims the next block of its run in the store.
    Claim(usize),
    /// It learns that the claim succeeded, and raises the store's mark.
    TakeIn(usize),
    /// The answer to its claim is lost; it has to read back.
    LoseAnswer(usize),
    /// It mints a code and creates its link.
    Create(usize),
    /// A container dies and restarts in its pod.
    Restart(usize),
    /// A process is cloned with its memory.
    Clone(usize),
    /// etcd is backed up.
    BackUpEtcd,
    /// etcd is restored.
    RestoreEtcd,
    /// The status is edited.
    Edit,
    /// TiKV is backed up.
    BackUpStore,
    /// TiKV is restored.
    RestoreStore,
}

fn hash(operator: &Operator) -> u64 {
    let mut hasher = DefaultHasher::new();
    operator.hash(&mut hasher);
    hasher.finish()
}

fn pod(number: usize) -> PodUid {
    PodUid(number.to_string())
}

impl Blocks {
    fn first_block(&self) -> u64 {
        CodeLength::DEFAULT.blocks() - self.blocks
    }

    fn boot_id(&self, process: &Process) -> BootId {
        let boot = if self.ablation == Ablation::GrantsByPod { process.pod } else { process.boot };
        BootId(u128::try_from(boot).unwrap_or_default())
    }

    fn new_process(boot: usize, pod: usize) -> Process {
        Process { boot, pod, granted: Granted::default(), to_take_in: None, holding: Holding::new(CodeLength::DEFAULT) }
    }

    /// Faults of the ledger and of the store together are the one case that the protocol cannot see.
    fn ledger_is_whole(happened: &Happened) -> bool {
        happened.ledger_rollbacks == 0 && happened.edits == 0
    }

    fn faults(&self, state: &State, steps: &mut Vec<Step>) {
        let happened = &state.happened;
        for (number, process) in state.processes.iter().enumerate() {
            if happened.restarts < self.restarts && process.pod == 0 {
                steps.push(Step::Restart(number));
            }
            if happened.clones < self.clones {
                steps.push(Step::Clone(number));
            }
        }
        if happened.store_rollbacks == 0 {
            if happened.ledger_rollbacks < self.ledger_rollbacks {
                steps.extend([Step::BackUpEtcd, Step::RestoreEtcd]);
            }
            if happened.edits < self.edits {
                steps.push(Step::Edit);
            }
        }
        if happened.store_rollbacks < self.store_rollbacks && Self::ledger_is_whole(happened) {
            steps.extend([Step::BackUpStore, Step::RestoreStore]);
        }
    }

    fn ask(&self, state: &mut State, number: usize) -> Option<()> {
        let process = &state.processes[number];
        let wanted = process.granted.wanted(&process.holding);
        let request = Request {
            boot_id: self.boot_id(process),
            pod: pod(process.pod),
            wanted,
            mark: state.store.mark,
            refused_worker: None,
        };
        let lease = &mut state.etcd.leases[process.pod].0;
        if wanted > self.wanted || wanted == process.granted.blocks() || lease.as_ref() == Some(&request) {
            return None;
        }
        if self.stale_reads {
            state.stale_requests[process.pod].clone_from(lease);
        }
        *lease = Some(request);
        Some(())
    }

    fn plan(state: &mut State, operator: usize, stale: bool) -> Option<()> {
        let fresh = state.etcd.leases.iter().map(|(request, _)| request);
        let requests: Vec<_> = if stale {
            state.stale_requests.iter().flatten().cloned().collect()
        } else {
            fresh.flatten().cloned().collect()
        };
        let live = (0..PODS).map(pod).collect();
        let ledger = &state.etcd.ledger;
        let planned = allocate(ledger, &requests, &live, 0).ledger;
        if planned.next_block < ledger.next_block {
            state.history.broken.insert("I9");
        }
        // What is already so is not written, but what of it is not delivered yet is: level, not edge.
        let is_delivered = |(number, (_, delivered)): (usize, &(Option<Request>, Option<Entry>))| {
            planned.entries.get(&pod(number)).is_none_or(|entry| delivered.as_ref() == Some(entry))
        };
        state.operators[operator] = if planned != *ledger {
            Operator::Planned(planned, state.etcd.resource_version)
        } else if state.etcd.leases.iter().enumerate().all(is_delivered) {
            return None;
        } else {
            Operator::Written(planned)
        };
        Some(())
    }

    fn write(state: &mut State, operator: usize) -> Option<()> {
        let Operator::Planned(ledger, resource_version) = state.operators[operator].clone() else { return None };
        if resource_version != state.etcd.resource_version {
            state.operators[operator] = Operator::Idle;
            return Some(());
        }
        for entry in ledger.entries.values() {
            let Some(run) = entry.run else { continue };
            for block in run.blocks() {
                state.history.granted.entry(block.number()).or_default().insert(entry.boot_id);
            }
        }
        state.etcd.ledger = ledger.clone();
        state.etcd.resource_version += 1;
        state.operators[operator] = Operator::Written(ledger);
        Some(())
    }

    fn deliver(state: &mut State, operator: usize) -> Option<()> {
        let Operator::Written(ledger) = std::mem::replace(&mut state.operators[operator], Operator::Idle) else {
            return None;
        };
        for (number, lease) in state.etcd.leases.iter_mut().enumerate() {
            if let Some(entry) = ledger.entries.get(&pod(number)) {
                let unwritten = |block: Block| {
                    state.history.granted.get(&block.number()).is_none_or(|boots| !boots.contains(&entry.boot_id))
                };
                if entry.run.is_some_and(|run| run.blocks().any(unwritten)) {
                    state.history.broken.insert("I4");
                }
                lease.1 = Some(entry.clone());
            }
        }
        Some(())
    }

    fn receive(&self, state: &mut State, number: usize) -> Option<()> {
        let process = &mut state.processes[number];
        let grant = state.etcd.leases[process.pod].1.as_ref()?;
        let boot_id = self.boot_id(process);
        process.granted.receive(grant, boot_id).then_some(())
    }

    fn claim(&self, state: &mut State, number: usize) -> Option<()> {
        let process = &mut state.processes[number];
        if process.to_take_in.is_some() {
            return None;
        }
        let run = process.granted.unclaimed()?;
        let Some(block) = process.holding.worth_claiming(run).next() else {
            process.granted.settle(run.last());
            return Some(());
        };
        let boot_id = self.boot_id(process);
        let process = &mut state.processes[number];
        let row = state.store.claims.get(&block.number()).copied().filter(|_| self.ablation != Ablation::NoClaim);
        match claim(block, row, boot_id) {
            BlockClaim::Won(pending) => {
                state.store.claims.insert(block.number(), boot_id);
                process.to_take_in = Some(pending);
                let claimed = state.history.claimed.entry(block.number()).or_default();
                claimed.insert(process.boot);
                let above =
                    |(other, boots): (&u64, &BTreeSet<usize>)| *other > block.number() && boots.contains(&process.boot);
                if state.history.claimed.iter().any(above) {
                    state.history.broken.insert("I5");
                }
            }
            BlockClaim::AlreadyOurs(claimed) => {
                process.holding.take_in([claimed], 0);
                process.granted.settle(block);
                state.store.mark = raise_mark(state.store.mark, block);
            }
            BlockClaim::Burnt => {
                state.store.mark = raise_mark(state.store.mark, block);
                process.granted.settle(block);
            }
        }
        Some(())
    }

    fn take_in(state: &mut State, number: usize) -> Option<()> {
        let process = &mut state.processes[number];
        let pending = process.to_take_in.take()?;
        state.store.mark = raise_mark(state.store.mark, pending.block());
        process.granted.settle(pending.block());
        process.holding.take_in([pending.committed()], 0);
        Some(())
    }

    fn create(&self, state: &mut State, number: usize) -> Option<()> {
        let process = &mut state.processes[number];
        let code_id = process.holding.next(0).ok()?;
        let claimed = state.history.claimed.get(&(code_id >> 16));
        if claimed.is_none_or(|boots| !boots.contains(&process.boot)) {
            state.history.broken.insert("I3");
        }
        state.history.minted.entry(code_id).or_default().insert(process.boot);
        let is_new = state.store.links.insert(code_id);
        if is_new || self.ablation == Ablation::NoInsertIfAbsent {
            *state.history.acknowledged.entry(code_id).or_default() += 1;
        }
        Some(())
    }

    fn restart(state: &mut State, number: usize) {
        let Process { pod, .. } = state.processes.remove(number);
        let boot = PODS + usize::from(state.happened.restarts);
        state.processes.push(Self::new_process(boot, pod));
        state.happened.restarts += 1;
    }

    fn fault(&self, state: &mut State, step: &Step) -> Option<()> {
        match step {
            Step::Restart(number) => Self::restart(state, *number),
            Step::Clone(number) => {
                state.processes.push(state.processes[*number].clone());
                state.happened.clones += 1;
            }
            Step::BackUpEtcd => state.etcd_backup = Some(state.etcd.clone()),
            Step::RestoreEtcd => {
                state.etcd = state.etcd_backup.take()?;
                state.happened.ledger_rollbacks += 1;
            }
            Step::Edit => {
                state.etcd.ledger.next_block = self.first_block();
                state.etcd.resource_version += 1;
                state.happened.edits += 1;
            }
            Step::BackUpStore => state.store_backup = Some(state.store.clone()),
            Step::RestoreStore => {
                // Links that were acknowledged are lost with the rest; what they were bound to is not asked here.
                state.store = state.store_backup.take()?;
                state.happened.store_rollbacks += 1;
            }
            _ => return None,
        }
        Some(())
    }
}

impl Model for Blocks {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let ledger = Ledger { next_block: self.first_block(), ..Ledger::new(CodeLength::DEFAULT) };
        vec![State {
            etcd: Etcd { ledger, resource_version: 0, leases: vec![(None, None); PODS] },
            etcd_backup: None,
            stale_requests: vec![None; PODS],
            store: Store { mark: self.first_block(), ..Store::default() },
            store_backup: None,
            operators: vec![Operator::Idle; self.operators],
            processes: (0..PODS).map(|boot| Self::new_process(boot, boot)).collect(),
            happened: Happened::default(),
            history: History::default(),
        }]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        for (number, operator) in state.operators.iter().enumerate() {
            match operator {
                Operator::Idle => {
                    steps.push(Step::Plan(number, false));
                    if self.stale_reads {
                        steps.push(Step::Plan(number, true));
                    }
                }
                Operator::Planned(..) => steps.extend([Step::Write(number), Step::CrashOperator(number)]),
                Operator::Written(..) => steps.extend([Step::Deliver(number), Step::CrashOperator(number)]),
            }
        }
        for number in 0..state.processes.len() {
            steps.extend([Step::Ask(number), Step::Receive(number), Step::Claim(number), Step::TakeIn(number)]);
            steps.extend([Step::LoseAnswer(number), Step::Create(number)]);
        }
        self.faults(state, steps);
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = last.clone();
        match step {
            Step::Ask(number) => self.ask(&mut state, number)?,
            Step::Plan(operator, stale) => Self::plan(&mut state, operator, stale)?,
            Step::Write(operator) => Self::write(&mut state, operator)?,
            Step::Deliver(operator) => Self::deliver(&mut state, operator)?,
            Step::CrashOperator(operator) => state.operators[operator] = Operator::Idle,
            Step::Receive(number) => self.receive(&mut state, number)?,
            Step::Claim(number) => self.claim(&mut state, number)?,
            Step::TakeIn(number) => Self::take_in(&mut state, number)?,
            Step::LoseAnswer(number) => drop(state.processes[number].to_take_in.take()?),
            Step::Create(number) => self.create(&mut state, number)?,
            fault => self.fault(&mut state, &fault)?,
        }
        // A plan whose resource version has passed comes to nothing, unless a rollback brings that version back.
        if state.happened.ledger_rollbacks == self.ledger_rollbacks {
            for operator in &mut state.operators {
                if matches!(operator, Operator::Planned(_, version) if *version < state.etcd.resource_version) {
                    *operator = Operator::Idle;
                }
            }
        }
        // Operators are alike: which of them is where makes no difference.
        state.operators.sort_by_cached_key(hash);
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("I1 every acknowledged code was bound once", |_, state: &State| {
                state.history.acknowledged.values().all(|times| *times == 1)
            }),
            Property::always("I2 a block is claimed by one boot, ever", |_, state: &State| {
                state.history.claimed.values().all(|boots| boots.len() == 1)
            }),
            Property::always("I3 no mint before its claim", |_, state: &State| !state.history.broken.contains("I3")),
            Property::always("I4 no delivery before its status write", |_, state: &State| {
                !state.history.broken.contains("I4")
            }),
            Property::always("I5 claimed blocks only go up", |_, state: &State| !state.history.broken.contains("I5")),
            Property::always("I6 no code ID is minted by two boots", |_, state: &State| {
                state.history.minted.values().all(|boots| boots.len() == 1)
            }),
            Property::always("I8 no two grants of a block while the ledger is whole", |_, state: &State| {
                !Self::ledger_is_whole(&state.happened) || state.history.granted.values().all(|boots| boots.len() == 1)
            }),
            Property::always("I9 repair only raises", |_, state: &State| !state.history.broken.contains("I9")),
            Property::sometimes("three boots have minted", |_, state: &State| {
                let minters: BTreeSet<_> = state.history.minted.values().flatten().collect();
                minters.len() > PODS
            }),
            Property::sometimes("a granted block is burnt", |model, state: &State| {
                state.processes.iter().any(|process| {
                    let next = process.granted.unclaimed().and_then(|run| process.holding.worth_claiming(run).next());
                    let row = next.and_then(|block| state.store.claims.get(&block.number()));
                    row.is_some_and(|boot| *boot != model.boot_id(process))
                })
            }),
            Property::sometimes("a code clashes", |_, state: &State| {
                state.processes.iter().any(|process| {
                    process.holding.clone().next(0).is_ok_and(|code_id| state.store.links.contains(&code_id))
                })
            }),
        ]
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.etcd.resource_version <= self.status_writes
    }
}
