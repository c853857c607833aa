//! A few threads for bcrypt alone, behind a short queue.
//!
//! Each hash takes a core for a quarter of a second. On the runtime's threads that would hold up redirects; on tokio's
//! blocking pool it would hold up the store. Here at most half the cores are ever busy with passwords. The queue is fair
//! ([`FairQueue`]): who has no place in it hears so at once instead of waiting past its deadline.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use prometheus::{IntCounterVec, Opts, Registry};
use tokio::sync::oneshot;

use super::fair_queue::{FairQueue, Lane};
use super::password::{Password, PasswordHash};
use crate::ambient::{self, Clock};

/// Jobs that may wait in each lane for each thread: at a quarter of a second each, the last of one lane waits for two seconds.
pub const QUEUE_PER_THREAD: usize = 8;

/// The pool; cheap to clone. Its threads end when the last clone is dropped and the queue is empty.
#[derive(Clone, Debug)]
pub struct PasswordPool {
    door: Arc<Door>,
    cost: u32,
    verified: Arc<AtomicU64>,
}

/// Who asks, and in which lane.
#[derive(Clone, Copy)]
pub struct Asker {
    /// The client's address.
    pub address: IpAddr,
    /// Its lane.
    pub lane: Lane,
}

impl fmt::Debug for Asker {
    /// Without the address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Asker({:?})", self.lane)
    }
}

/// Why a password was neither hashed nor verified.
#[derive(Debug, thiserror::Error)]
pub enum PasswordPoolError {
    /// There is no place in the queue: ask again in a second.
    #[error("too many passwords are being checked")]
    Busy,
    /// The pool's threads are gone, or bcrypt refused the cost.
    #[error("the password could not be hashed")]
    Failed,
}

/// What `/metrics` shows of the pool.
#[derive(Clone, Debug)]
pub struct PasswordPoolMetrics {
    jobs: IntCounterVec,
}

impl PasswordPoolMetrics {
    /// Registers them.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let opts =
            Opts::new("shortener_password_jobs_total", "Passwords to hash or verify, by lane and what became of them.");
        let jobs = IntCounterVec::new(opts, &["lane", "outcome"])?;
        registry.register(Box::new(jobs.clone()))?;
        for (lane, outcome) in Lane::ALL.into_iter().flat_map(|lane| [(lane, "run"), (lane, "refused")]) {
            jobs.with_label_values(&[lane.name(), outcome]).inc_by(0);
        }
        Ok(Self { jobs })
    }

    fn count(&self, lane: Lane, outcome: &str) {
        self.jobs.with_label_values(&[lane.name(), outcome]).inc();
    }
}

type Answer<T> = oneshot::Sender<Result<T, PasswordPoolError>>;

#[derive(Debug)]
struct Job {
    lane: Lane,
    work: Work,
}

#[derive(Debug)]
enum Work {
    Hash { password: Password, cost: u32, answer: Answer<PasswordHash> },
    Verify { password: Password, hash: PasswordHash, verified: Arc<AtomicU64>, answer: Answer<bool> },
}

impl Job {
    /// Says that there was no place for it.
    fn refuse(self, metrics: &PasswordPoolMetrics) {
        metrics.count(self.lane, "refused");
        // Nobody listens any more: nobody is disappointed.
        let _ = match self.work {
            Work::Hash { answer, .. } => answer.send(Err(PasswordPoolError::Busy)).is_ok(),
            Work::Verify { answer, .. } => answer.send(Err(PasswordPoolError::Busy)).is_ok(),
        };
    }
}

/// What the threads and those who ask share.
#[derive(Debug)]
struct Shared {
    line: Mutex<Line>,
    woken: Condvar,
    clock: Clock,
    metrics: PasswordPoolMetrics,
}

#[derive(Debug)]
struct Line {
    jobs: FairQueue<Job>,
    is_closed: bool,
}

impl Shared {
    /// A thread that panicked here left nothing half done.
    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where jobs come in; closed behind the last who holds it.
#[derive(Debug)]
struct Door(Arc<Shared>);

impl Drop for Door {
    fn drop(&mut self) {
        self.0.line().is_closed = true;
        self.0.woken.notify_all();
    }
}

impl PasswordPool {
    /// Starts `threads` threads that hash at `cost`: [`BCRYPT_COST`](super::password::BCRYPT_COST) but in tests.
    pub fn start(
        threads: NonZeroUsize,
        cost: u32,
        clock: Clock,
        metrics: PasswordPoolMetrics,
    ) -> std::io::Result<Self> {
        let line = Mutex::new(Line { jobs: FairQueue::new(QUEUE_PER_THREAD * threads.get()), is_closed: false });
        let shared = Arc::new(Shared { line, woken: Condvar::new(), clock, metrics });
        // Before the threads: if one of them cannot be started, the others end.
        let door = Arc::new(Door(shared.clone()));
        for index in 0..threads.get() {
            let shared = shared.clone();
            thread::Builder::new().name(format!("bcrypt-{index}")).spawn(move || work(&shared))?;
        }
        Ok(Self { door, cost, verified: Arc::default() })
    }

    /// Half of the machine's cores, and at least one thread.
    pub fn default_threads() -> NonZeroUsize {
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        NonZeroUsize::new(cores / 2).unwrap_or(NonZeroUsize::MIN)
    }

    /// Hashes a new password with a random salt.
    pub async fn hash(&self, password: Password, asker: Asker) -> Result<PasswordHash, PasswordPoolError> {
        let (answer, hash) = oneshot::channel();
        self.submit(asker, Work::Hash { password, cost: self.cost, answer });
        hash.await.map_err(|_| PasswordPoolError::Failed)?
    }

    /// Whether `password` is that of `hash`. Without a hash, which is to say for an unknown user, the answer is no and takes
    /// just as long: a dummy of the same cost is verified.
    pub async fn verify(
        &self,
        password: Password,
        hash: Option<PasswordHash>,
        asker: Asker,
    ) -> Result<bool, PasswordPoolError> {
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| PasswordHash::dummy(self.cost));
        let (answer, fits) = oneshot::channel();
        self.submit(asker, Work::Verify { password, hash, verified: Arc::clone(&self.verified), answer });
        Ok(fits.await.map_err(|_| PasswordPoolError::Failed)?? && known)
    }

    /// How many verifications have run bcrypt since the start, those of unknown users among them.
    pub fn verified_total(&self) -> u64 {
        self.verified.load(Ordering::Relaxed)
    }

    fn submit(&self, Asker { address, lane }: Asker, work: Work) {
        let shared = &self.door.0;
        let displaced = shared.line().jobs.push(shared.clock.monotonic(), lane, address, Job { lane, work });
        if let Some(job) = displaced {
            job.refuse(&shared.metrics);
        }
        shared.woken.notify_one();
    }
}

/// Runs jobs until nobody can send any more.
fn work(shared: &Shared) {
    while let Some(job) = next(shared) {
        run(job, &shared.metrics);
    }
}

/// Waits for a job. Those that waited for too long are refused on the way.
fn next(shared: &Shared) -> Option<Job> {
    let mut line = shared.line();
    loop {
        let now = shared.clock.monotonic();
        for late in line.jobs.take_late(now) {
            late.refuse(&shared.metrics);
        }
        if let Some(job) = line.jobs.pop(now) {
            return Some(job);
        }
        if line.is_closed {
            return None;
        }
        line = shared.woken.wait(line).unwrap_or_else(PoisonError::into_inner);
    }
}

/// Runs one job, unless whoever asked has gone; then only the time would be lost.
fn run(Job { lane, work }: Job, metrics: &PasswordPoolMetrics) {
    match work {
        Work::Hash { password, cost, answer } if !answer.is_closed() => {
            metrics.count(lane, "run");
            let _ = answer.send(password.hash(cost, ambient::random()).map_err(|_| PasswordPoolError::Failed));
        }
        Work::Verify { password, hash, verified, answer } if !answer.is_closed() => {
            metrics.count(lane, "run");
            let fits = password.is_of(&hash);
            verified.fetch_add(1, Ordering::Relaxed);
            let _ = answer.send(Ok(fits));
        }
        Work::Hash { .. } | Work::Verify { .. } => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: NonZeroUsize = NonZeroUsize::MIN;
    const ASKER: Asker = Asker { address: IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), lane: Lane::Login };

    fn pool(cost: u32) -> PasswordPool {
        let metrics = PasswordPoolMetrics::register(&Registry::new()).unwrap();
        PasswordPool::start(ONE, cost, Clock::system(), metrics).unwrap()
    }

    #[tokio::test]
    async fn hashes_fit_their_password_and_no_other() {
        let pool = pool(4);
        let hash = pool.hash("right password".to_owned().into(), ASKER).await.unwrap();
        assert!(pool.verify("right password".to_owned().into(), Some(hash.clone()), ASKER).await.unwrap());
        assert!(!pool.verify("wrong password".to_owned().into(), Some(hash), ASKER).await.unwrap());
    }

    #[tokio::test]
    async fn an_unknown_user_costs_a_verification_too() {
        let pool = pool(4);
        let hash = pool.hash("right password".to_owned().into(), ASKER).await.unwrap();
        for hash in [Some(hash), None] {
            let before = pool.verified_total();
            assert!(!pool.verify("wrong password".to_owned().into(), hash, ASKER).await.unwrap());
            assert_eq!(pool.verified_total(), before + 1);
        }
    }

    #[tokio::test]
    async fn a_full_queue_is_told_at_once_and_what_was_queued_is_answered() {
        let pool = pool(8);
        // More at once than the thread and its queue hold together, whatever the thread has already taken out.
        let asked = QUEUE_PER_THREAD * 4;
        let answers =
            futures::future::join_all((0..asked).map(|_| pool.hash("a password".to_owned().into(), ASKER))).await;
        let busy = answers.iter().filter(|answer| matches!(answer, Err(PasswordPoolError::Busy))).count();
        let hashed = answers.iter().filter(|answer| answer.is_ok()).count();
        assert!(hashed >= QUEUE_PER_THREAD && busy > 0 && hashed + busy == asked, "{hashed} hashed, {busy} refused");
    }

    #[tokio::test]
    async fn a_job_that_nobody_waits_for_is_not_run() {
        let pool = pool(4);
        let hash = pool.hash("a password".to_owned().into(), ASKER).await.unwrap();
        for _ in 0..3 {
            let (answer, gone) = oneshot::channel();
            drop(gone);
            let verified = Arc::clone(&pool.verified);
            pool.submit(ASKER, Work::Verify { password: "x".to_owned().into(), hash: hash.clone(), verified, answer });
        }
        pool.verify("y".to_owned().into(), None, ASKER).await.unwrap();
        assert_eq!(pool.verified_total(), 1);
    }

    #[tokio::test]
    async fn who_asks_for_much_gives_way_to_who_asks_for_little() {
        let pool = pool(8);
        let flood = Asker { address: [203, 0, 113, 1].into(), ..ASKER };
        let flooded = futures::future::join_all(
            (0..QUEUE_PER_THREAD * 4).map(|_| pool.hash("a password".to_owned().into(), flood)),
        );
        let modest = async {
            // After the flood is in the queue: these futures are polled in turn.
            tokio::task::yield_now().await;
            pool.hash("a password".to_owned().into(), ASKER).await
        };
        let (flooded, modest) = futures::future::join(flooded, modest).await;
        assert!(modest.is_ok(), "{modest:?}");
        assert!(flooded.iter().any(|answer| matches!(answer, Err(PasswordPoolError::Busy))));
    }
}
