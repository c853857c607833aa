//! What stands between the node and a back end on another machine: a circuit breaker, a retry budget, deadlines, and a connection
//! that is made anew when it is stuck.
//!
//! Every call to such a back end goes through [`Resilience::call`]. While the breaker is open nothing is sent but one probe
//! a second, so that a back end that is gone costs its callers nothing, and one that is back is used again within two seconds
//! without waiting for traffic. A failed call is repeated only while the budget allows it: retries must not multiply the
//! load of a back end that is failing because of its load. What decides is pure, in [`breaker`] and [`budget`]; [`renewal`] keeps
//! the connection.

pub mod breaker;
pub mod budget;
pub mod renewal;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use tokio_util::sync::CancellationToken;

use crate::ambient::{Clock, random};
use breaker::Breaker;
use budget::Budget;

/// How often the back end is asked for its health, whether there is traffic or not.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// The longest pause before a call is repeated; it is random, so that those who failed together do not come back together.
const RETRY_PAUSE_MAX: Duration = Duration::from_millis(50);
/// Attempts of one call, the first included. More would only use up the deadline of a back end that is really gone.
const ATTEMPTS_MAX: u32 = 2;

/// What a failed attempt says of the back end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It answered; the answer is just not what was hoped for.
    Answered,
    /// It did not do its work. Asking again does no harm and may help.
    Failed,
    /// It did not do its work, or nobody knows whether it did: never to be repeated here.
    FailedForGood,
}

/// Why a call gave nothing.
#[derive(Debug)]
pub enum CallError<E> {
    /// The breaker is open: nothing was sent.
    Open,
    /// The deadline passed. What was sent may yet be done.
    Deadline,
    /// The last attempt failed.
    Failed(E),
}

/// How a back end is, as health shows it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Condition {
    /// Whether it is used.
    pub is_up: bool,
    /// How long the last probe took.
    pub latency: Duration,
}

/// The one way to a back end; cheap to clone.
#[derive(Clone, Debug)]
pub struct Resilience {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    backend: String,
    clock: Clock,
    breaker: Mutex<Breaker>,
    budget: Mutex<Budget>,
    probe_us: AtomicU64,
    /// Whether a probe has ever succeeded.
    was_up: AtomicBool,
    metrics: Metrics,
}

#[derive(Debug)]
struct Metrics {
    is_open: IntGauge,
    retries: IntCounter,
    succeeded: IntCounter,
    failed: IntCounter,
    refused: IntCounter,
}

/// What `/metrics` shows of all back ends; one for a process, shared by them.
#[derive(Clone, Debug)]
pub struct BackEndMetrics {
    is_open: prometheus::IntGaugeVec,
    retries: IntCounterVec,
    calls: IntCounterVec,
}

impl BackEndMetrics {
    /// Registers them.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let opts =
            Opts::new("shortener_backend_breaker_open", "Whether a back end is not asked because it fails: 1 or 0.");
        let is_open = prometheus::IntGaugeVec::new(opts, &["backend"])?;
        registry.register(Box::new(is_open.clone()))?;
        let opts = Opts::new("shortener_backend_retries_total", "Calls of a back end that were repeated.");
        let retries = IntCounterVec::new(opts, &["backend"])?;
        registry.register(Box::new(retries.clone()))?;
        let help = "Attempts to call a back end, by outcome: succeeded, failed, refused (by the open breaker).";
        let calls = IntCounterVec::new(Opts::new("shortener_backend_calls_total", help), &["backend", "outcome"])?;
        registry.register(Box::new(calls.clone()))?;
        Ok(Self { is_open, retries, calls })
    }

    fn of(&self, backend: &str) -> Metrics {
        let calls = |outcome| self.calls.with_label_values(&[backend, outcome]);
        Metrics {
            is_open: self.is_open.with_label_values(&[backend]),
            retries: self.retries.with_label_values(&[backend]),
            succeeded: calls("succeeded"),
            failed: calls("failed"),
            refused: calls("refused"),
        }
    }
}

impl Resilience {
    /// The way to the back end that metrics call `backend`.
    pub fn new(backend: &str, clock: Clock, metrics: &BackEndMetrics) -> Self {
        let inner = Inner {
            backend: backend.to_owned(),
            clock,
            breaker: Mutex::default(),
            budget: Mutex::default(),
            probe_us: AtomicU64::new(0),
            was_up: AtomicBool::new(false),
            metrics: metrics.of(backend),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Calls the back end: `attempt` within `deadline`, repeated while `judge` calls its error repeatable and the budget allows.
    pub async fn call<T, E, Attempt>(
        &self,
        deadline: Duration,
        attempt: impl Fn() -> Attempt,
        judge: impl Fn(&E) -> Verdict,
    ) -> Result<T, CallError<E>>
    where
        Attempt: Future<Output = Result<T, E>>,
    {
        self.admit().map_err(|Refused| CallError::Open)?;
        let attempts = async {
            let mut made = 1;
            loop {
                let error = match attempt().await {
                    Ok(answer) => {
                        self.record(true);
                        return Ok(answer);
                    }
                    Err(error) => error,
                };
                let verdict = judge(&error);
                self.record(verdict == Verdict::Answered);
                if verdict != Verdict::Failed || made >= ATTEMPTS_MAX || !self.may_retry() {
                    return Err(CallError::Failed(error));
                }
                made += 1;
                tokio::time::sleep(pause(random())).await;
            }
        };
        tokio::time::timeout(deadline, attempts).await.unwrap_or_else(|_| {
            self.record(false);
            Err(CallError::Deadline)
        })
    }

    /// Whether a call may be made now: for those that cannot be made by [`call`](Self::call), who then have to
    /// [`record`](Self::record) what became of it.
    pub fn admit(&self) -> Result<(), Refused> {
        if self.breaker().admits() {
            self.budget().called();
            Ok(())
        } else {
            self.inner.metrics.refused.inc();
            Err(Refused)
        }
    }

    /// Takes note of an attempt: whether the back end answered.
    pub fn record(&self, is_answered: bool) {
        let Metrics { succeeded, failed, .. } = &self.inner.metrics;
        let counter = if is_answered { succeeded } else { failed };
        counter.inc();
        let now = self.inner.clock.monotonic();
        self.change(|breaker| breaker.called(is_answered, now));
    }

    fn may_retry(&self) -> bool {
        let may = self.budget().take();
        if may {
            self.inner.metrics.retries.inc();
        }
        may
    }

    /// How the back end is.
    pub fn condition(&self) -> Condition {
        let latency = Duration::from_micros(self.inner.probe_us.load(Ordering::Relaxed));
        // Before it was reached for the first time, no breaker had a reason to open.
        Condition { is_up: self.inner.was_up.load(Ordering::Relaxed) && self.breaker().admits(), latency }
    }

    /// Asks `probe` once a second whether the back end works, until `shutdown`. It must have a deadline of its own.
    pub async fn watch<Probe: Future<Output = bool>>(self, probe: impl Fn() -> Probe, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(PROBE_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = shutdown.cancelled() => return,
            }
            let begun = self.inner.clock.monotonic();
            let is_up = tokio::select! {
                is_up = probe() => is_up,
                () = shutdown.cancelled() => return,
            };
            let now = self.inner.clock.monotonic();
            let took_us = u64::try_from(now.saturating_sub(begun).as_micros()).unwrap_or(u64::MAX);
            self.inner.probe_us.store(took_us, Ordering::Relaxed);
            self.inner.was_up.fetch_or(is_up, Ordering::Relaxed);
            self.change(|breaker| breaker.probed(is_up, now));
        }
    }

    fn change(&self, change: impl FnOnce(&mut Breaker)) {
        let mut breaker = self.breaker();
        let admitted = breaker.admits();
        change(&mut breaker);
        let admits = breaker.admits();
        drop(breaker);
        if admits != admitted {
            self.inner.metrics.is_open.set((!admits).into());
            let backend = self.inner.backend.as_str();
            match admits {
                true => tracing::info!(backend, "a back end works again and is used"),
                false => tracing::warn!(backend, "a back end fails and is left alone until it works again"),
            }
        }
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.inner.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn budget(&self) -> MutexGuard<'_, Budget> {
        self.inner.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The breaker is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

fn pause(random: [u8; 2]) -> Duration {
    RETRY_PAUSE_MAX * u32::from(u16::from_be_bytes(random)) / u32::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;
    use crate::ambient::UnixMs;

    fn resilience() -> (Resilience, Clock) {
        let clock = Clock::manual(UnixMs(0));
        let metrics = BackEndMetrics::register(&Registry::new()).unwrap();
        (Resilience::new("test", clock.clone(), &metrics), clock)
    }

    const DEADLINE: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn a_failed_attempt_is_repeated_once_and_an_answer_never() {
        let (resilience, _) = resilience();
        let check = async |verdict, expected| {
            let attempts = AtomicU32::new(0);
            let attempt = || async {
                attempts.fetch_add(1, Ordering::SeqCst);
                Err::<(), _>(verdict)
            };
            let failed = resilience.call(DEADLINE, attempt, |verdict| *verdict).await;
            assert!(matches!(failed, Err(CallError::Failed(found)) if found == verdict), "{failed:?}");
            assert_eq!(attempts.into_inner(), expected, "{verdict:?}");
        };
        check(Verdict::Failed, 2).await;
        check(Verdict::FailedForGood, 1).await;
        check(Verdict::Answered, 1).await;
    }

    #[tokio::test]
    async fn nothing_outlasts_the_deadline() {
        let (resilience, _) = resilience();
        let hangs = std::future::pending::<Result<(), Verdict>>;
        assert!(matches!(
            resilience.call(Duration::from_millis(20), hangs, |verdict| *verdict).await,
            Err(CallError::Deadline)
        ));
    }

    #[tokio::test]
    async fn when_nothing_works_most_attempts_are_never_made() {
        let (resilience, _) = resilience();
        let made = AtomicU32::new(0);
        for _ in 0..1_000 {
            let attempt = || async {
                made.fetch_add(1, Ordering::SeqCst);
                Err::<(), _>(Verdict::Failed)
            };
            let _ = resilience.call(DEADLINE, attempt, |verdict| *verdict).await;
        }
        assert!(made.load(Ordering::SeqCst) < 40, "{made:?}");
        assert!(!resilience.condition().is_up);
        assert_eq!(resilience.inner.metrics.is_open.get(), 1);
    }

    #[tokio::test]
    async fn a_back_end_that_is_back_is_used_again_without_any_traffic() {
        let (resilience, _) = resilience();
        while resilience.admit().is_ok() {
            resilience.record(false);
        }
        let shutdown = CancellationToken::new();
        let watching = tokio::spawn(resilience.clone().watch(|| std::future::ready(true), shutdown.clone()));
        tokio::time::timeout(2 * PROBE_INTERVAL, async {
            while !resilience.condition().is_up {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
        shutdown.cancel();
        watching.await.unwrap();
    }
}
