//! A few threads for bcrypt alone, behind a short queue.
//!
//! Each hash takes a core for a quarter of a second. On the runtime's threads that would hold up redirects; on tokio's
//! blocking pool it would hold up the store. Here at most half the cores are ever busy with passwords, and when the
//! queue is full the caller hears so at once instead of waiting past its deadline.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;

use tokio::sync::oneshot;

use super::password::{Password, PasswordHash};
use crate::ambient;

/// Jobs that may wait for each thread: at a quarter of a second each, the last waits for two seconds.
pub const QUEUE_PER_THREAD: usize = 8;

/// The pool; cheap to clone. Its threads end when the last clone is dropped and the queue is empty.
#[derive(Clone, Debug)]
pub struct PasswordPool {
    queue: SyncSender<Job>,
    cost: u32,
    verified: Arc<AtomicU64>,
}

/// Why a password was neither hashed nor verified.
#[derive(Debug, thiserror::Error)]
pub enum PasswordPoolError {
    /// The queue is full: ask again in a second.
    #[error("too many passwords are being checked")]
    Busy,
    /// The pool's threads are gone, or bcrypt refused the cost.
    #[error("the password could not be hashed")]
    Failed,
}

#[derive(Debug)]
enum Job {
    Hash { password: Password, cost: u32, answer: oneshot::Sender<Option<PasswordHash>> },
    Verify { password: Password, hash: PasswordHash, verified: Arc<AtomicU64>, answer: oneshot::Sender<bool> },
}

impl PasswordPool {
    /// Starts `threads` threads that hash at `cost`: [`BCRYPT_COST`](super::password::BCRYPT_COST) but in tests.
    pub fn start(threads: NonZeroUsize, cost: u32) -> std::io::Result<Self> {
        let (queue, jobs) = sync_channel(QUEUE_PER_THREAD * threads.get());
        let jobs = Arc::new(Mutex::new(jobs));
        for index in 0..threads.get() {
            let jobs = Arc::clone(&jobs);
            thread::Builder::new().name(format!("bcrypt-{index}")).spawn(move || work(&jobs))?;
        }
        Ok(Self { queue, cost, verified: Arc::default() })
    }

    /// Half of the machine's cores, and at least one thread.
    pub fn default_threads() -> NonZeroUsize {
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        NonZeroUsize::new(cores / 2).unwrap_or(NonZeroUsize::MIN)
    }

    /// Hashes a new password with a random salt.
    pub async fn hash(&self, password: Password) -> Result<PasswordHash, PasswordPoolError> {
        let (answer, hash) = oneshot::channel();
        self.submit(Job::Hash { password, cost: self.cost, answer })?;
        hash.await.ok().flatten().ok_or(PasswordPoolError::Failed)
    }

    /// Whether `password` is that of `hash`. Without a hash, which is to say for an unknown user, the answer is no and takes
    /// just as long: a dummy of the same cost is verified.
    pub async fn verify(&self, password: Password, hash: Option<PasswordHash>) -> Result<bool, PasswordPoolError> {
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| PasswordHash::dummy(self.cost));
        let (answer, fits) = oneshot::channel();
        self.submit(Job::Verify { password, hash, verified: Arc::clone(&self.verified), answer })?;
        Ok(fits.await.map_err(|_| PasswordPoolError::Failed)? && known)
    }

    /// How many verifications have run bcrypt since the start, those of unknown users among them.
    pub fn verified_total(&self) -> u64 {
        self.verified.load(Ordering::Relaxed)
    }

    fn submit(&self, job: Job) -> Result<(), PasswordPoolError> {
        self.queue.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => PasswordPoolError::Busy,
            TrySendError::Disconnected(_) => PasswordPoolError::Failed,
        })
    }
}

/// Runs jobs until nobody can send any more.
fn work(jobs: &Mutex<Receiver<Job>>) {
    loop {
        // Held while waiting: the threads take turns at the queue, and a job runs without it. A thread that panicked
        // here left nothing half done.
        let next = jobs.lock().unwrap_or_else(std::sync::PoisonError::into_inner).recv();
        match next {
            Ok(job) => run(job),
            Err(_) => return,
        }
    }
}

/// Runs one job, unless whoever asked has gone; then only the time would be lost.
fn run(job: Job) {
    match job {
        Job::Hash { password, cost, answer } => {
            if !answer.is_closed() {
                let _ = answer.send(password.hash(cost, ambient::random()).ok());
            }
        }
        Job::Verify { password, hash, verified, answer } => {
            if !answer.is_closed() {
                let fits = password.is_of(&hash);
                verified.fetch_add(1, Ordering::Relaxed);
                let _ = answer.send(fits);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: NonZeroUsize = NonZeroUsize::MIN;

    #[tokio::test]
    async fn hashes_fit_their_password_and_no_other() {
        let pool = PasswordPool::start(ONE, 4).unwrap();
        let hash = pool.hash("right password".to_owned().into()).await.unwrap();
        assert!(pool.verify("right password".to_owned().into(), Some(hash.clone())).await.unwrap());
        assert!(!pool.verify("wrong password".to_owned().into(), Some(hash)).await.unwrap());
    }

    #[tokio::test]
    async fn an_unknown_user_costs_a_verification_too() {
        let pool = PasswordPool::start(ONE, 4).unwrap();
        let hash = pool.hash("right password".to_owned().into()).await.unwrap();
        for hash in [Some(hash), None] {
            let before = pool.verified_total();
            assert!(!pool.verify("wrong password".to_owned().into(), hash).await.unwrap());
            assert_eq!(pool.verified_total(), before + 1);
        }
    }

    #[tokio::test]
    async fn a_full_queue_is_told_at_once_and_what_was_queued_is_answered() {
        let pool = PasswordPool::start(ONE, 8).unwrap();
        // More at once than the thread and its queue hold together, whatever the thread has already taken out.
        let asked = QUEUE_PER_THREAD * 4;
        let answers = futures::future::join_all((0..asked).map(|_| pool.hash("a password".to_owned().into()))).await;
        let busy = answers.iter().filter(|answer| matches!(answer, Err(PasswordPoolError::Busy))).count();
        let hashed = answers.iter().filter(|answer| answer.is_ok()).count();
        assert!(hashed >= QUEUE_PER_THREAD && busy > 0 && hashed + busy == asked, "{hashed} hashed, {busy} refused");
    }

    #[tokio::test]
    async fn a_job_that_nobody_waits_for_is_not_run() {
        let pool = PasswordPool::start(ONE, 4).unwrap();
        let hash = pool.hash("a password".to_owned().into()).await.unwrap();
        for _ in 0..3 {
            let (answer, gone) = oneshot::channel();
            drop(gone);
            let verified = Arc::clone(&pool.verified);
            pool.submit(Job::Verify { password: "x".to_owned().into(), hash: hash.clone(), verified, answer }).unwrap();
        }
        pool.verify("y".to_owned().into(), None).await.unwrap();
        assert_eq!(pool.verified_total(), 1);
    }
}
