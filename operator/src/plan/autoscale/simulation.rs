//! The decision in a loop with a fleet as queueing theory has it, at the pace of a real operator with a real Prometheus.

#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "counts of pods and seconds are small"
)]

use std::collections::VecDeque;

use serde_json::json;

use super::*;

/// Requests that a node can answer a second.
const NODE_RATE: f64 = 1_000.0;
/// How long a pod takes to be ready.
const STARTS_IN: u64 = 5;
/// A node refuses what would wait longer.
const QUEUE_S: f64 = 2.0;
/// The operator decides so often, by what Prometheus has scraped so often.
const EVERY: u64 = 15;
/// The window.
const WINDOW: usize = 60;
/// Its last part, by what Prometheus scrapes each 15 s, as by default, and each 5 s.
const RECENT: usize = 40;
const RECENT_OF_MANY: usize = 15;

pub(super) fn settings(patch: &serde_json::Value) -> Autoscaling {
    let mut all = json!({"minReplicas": 2, "maxReplicas": 30, "prometheus": {"url": "http://prometheus:9090"}});
    json_patch::merge(&mut all, patch);
    serde_json::from_value(all).unwrap()
}

/// What happens to the fleet in a second.
#[derive(Clone, Copy)]
struct Weather {
    /// Requests a second.
    load: f64,
    /// How long each waits for the store.
    store_ms: f64,
    /// Whether Prometheus can be asked.
    is_measured: bool,
    /// Whether requests wait before a node sees them, as at a CPU limit: no latency that it reports tells of that.
    waits_unseen: bool,
}

/// A second that is over.
#[derive(Clone, Copy)]
struct Second {
    answered: f64,
    p99_ms: f64,
    local_s: f64,
    store_s: f64,
    utilization: f64,
    told_p99_ms: f64,
}

struct Fleet {
    /// When each pod began to start.
    pods: Vec<u64>,
    waiting: f64,
    seconds: VecDeque<Second>,
}

impl Fleet {
    fn ready(&self, now: u64) -> usize {
        self.pods.iter().filter(|started| **started + STARTS_IN <= now).count()
    }

    fn warm(&self, now: u64, warm_up: u64) -> usize {
        self.pods.iter().filter(|started| **started + STARTS_IN + warm_up <= now).count()
    }

    /// What cannot be answered at once waits; below that, the wait is that of one queue a node with random arrivals.
    fn live(&mut self, now: u64, weather: Weather) {
        let rate = self.ready(now) as f64 * NODE_RATE;
        let offered = self.waiting + weather.load;
        let answered = offered.min(rate);
        self.waiting = (offered - answered).min(rate * QUEUE_S);
        let utilization = answered / rate;
        let queued_ms = self.waiting / rate * 1_000.0;
        let random_ms = 100_f64.ln() / (NODE_RATE * (1.0 - utilization.min(0.999))) * 1_000.0;
        let mean_local_s = (queued_ms + random_ms / 100_f64.ln()) / 1_000.0;
        let p99_ms = queued_ms + random_ms.min(1_000.0) + weather.store_ms;
        self.seconds.push_back(Second {
            answered,
            p99_ms,
            told_p99_ms: if weather.waits_unseen { 0.0 } else { p99_ms },
            local_s: answered * mean_local_s,
            store_s: answered * weather.store_ms / 1_000.0,
            utilization,
        });
        if self.seconds.len() > WINDOW {
            self.seconds.pop_front();
        }
    }

    /// The percentile that nodes tell over the last so many seconds: what 99 % of all that were answered in them stayed below, where a
    /// second's answers all took what its slowest did.
    fn told_p99_ms(&self, seconds: usize) -> f64 {
        let mut last: Vec<_> = self.seconds.iter().rev().take(seconds).collect();
        last.sort_by(|one, other| other.told_p99_ms.total_cmp(&one.told_p99_ms));
        let slow = last.iter().map(|second| second.answered).sum::<f64>() * 0.01;
        let mut seen = 0.0;
        let found = last.iter().find(|second| {
            seen += second.answered;
            seen >= slow
        });
        found.map_or(0.0, |second| second.told_p99_ms)
    }

    /// What is measured, with so many seconds as the last part of the window.
    fn sample(&self, recent: usize) -> Sample {
        let sum = |of: fn(&Second) -> f64| self.seconds.iter().map(of).sum::<f64>();
        let length = self.seconds.len() as f64;
        Sample {
            redirects: sum(|second| second.answered),
            latency_ms: Some(self.told_p99_ms(WINDOW)),
            recent_latency_ms: Some(self.told_p99_ms(recent)),
            local: sum(|second| second.local_s) / length,
            cache: 0.0,
            store: sum(|second| second.store_s) / length,
            utilization: sum(|second| second.utilization) / length,
            recent_utilization: Some(
                self.seconds.iter().rev().take(recent).map(|second| second.utilization).sum::<f64>() / recent as f64,
            ),
        }
    }
}

/// What was seen of a run: each second's true latency and size, and the decisions.
struct Run {
    p99_ms: Vec<f64>,
    sizes: Vec<i32>,
    bound_at: Option<u64>,
}

impl Run {
    /// How often growing turned into shrinking or the other way round.
    fn reversals(&self) -> usize {
        let steps: Vec<i32> =
            self.sizes.windows(2).map(|pair| (pair[1] - pair[0]).signum()).filter(|step| *step != 0).collect();
        steps.windows(2).filter(|pair| pair[0] != pair[1]).count()
    }

    /// When the size changed, and to what.
    fn changes(&self) -> Vec<(usize, i32)> {
        let mut each: Vec<_> = self.sizes.iter().copied().enumerate().collect();
        each.dedup_by_key(|(_, size)| *size);
        each
    }

    fn last_size(&self) -> i32 {
        *self.sizes.last().unwrap()
    }
}

fn run(settings: &Autoscaling, begins_with: i32, seconds: u64, weather: impl Fn(u64) -> Weather) -> Run {
    run_scraped(RECENT, settings, begins_with, seconds, weather)
}

fn run_scraped(
    recent: usize,
    settings: &Autoscaling,
    begins_with: i32,
    seconds: u64,
    weather: impl Fn(u64) -> Weather,
) -> Run {
    // The pods have been there for long, and the operator too.
    let mut fleet = Fleet { pods: vec![0; begins_with as usize], waiting: 0.0, seconds: VecDeque::new() };
    let begin = 1_000;
    let mut history = History::beginning(Duration::ZERO);
    let mut seen = Run { p99_ms: Vec::new(), sizes: Vec::new(), bound_at: None };
    for past in begin - 60..begin {
        fleet.live(past, weather(0));
    }
    for now in begin..begin + seconds {
        let weather = weather(now - begin);
        fleet.live(now, weather);
        if now % EVERY == 0 {
            let warm_up = u64::try_from(settings.warm_up_seconds).unwrap();
            let there = super::Fleet {
                size: Some(fleet.pods.len() as i32),
                warm: fleet.warm(now, warm_up) as i32,
                capacity: 1_600,
                scarce: Reason::OutOfWorkers,
            };
            let measured =
                if weather.is_measured { Ok(fleet.sample(recent)) } else { Err(Unavailable("away".to_owned())) };
            let (decision, after) = decide(settings, there, &measured, &history, Duration::from_secs(now));
            history = after;
            if decision.bound.status == Some(true) {
                seen.bound_at.get_or_insert(now - begin);
            }
            fleet.pods.resize(decision.replicas as usize, now);
        }
        seen.p99_ms.push(fleet.seconds.back().unwrap().p99_ms);
        seen.sizes.push(fleet.pods.len() as i32);
    }
    seen
}

fn fair(load: f64) -> Weather {
    Weather { load, store_ms: 0.0, is_measured: true, waits_unseen: false }
}

/// So many nodes as a load takes at 60 % of what they can.
fn filled(load: f64) -> i32 {
    (load / NODE_RATE / 0.6).ceil() as i32
}

#[test]
fn six_times_the_load_is_back_under_the_target_within_two_minutes_with_no_more_than_one_reversal() {
    for load in [1_200.0, 1_800.0, 2_400.0] {
        let seen =
            run(&settings(&json!({})), filled(load), 1_800, |second| fair(if second < 5 { load } else { load * 6.0 }));
        let late = seen.p99_ms.iter().skip(5 + 120).fold(0_f64, |worst, p99| worst.max(*p99));
        assert!(late <= 100.0, "load {load}: {late} ms after two minutes, sizes {:?}", seen.changes());
        assert!(seen.reversals() <= 1, "load {load}: sizes {:?}", seen.changes());
        // Within the tolerance a size is left alone.
        assert!(seen.last_size() <= filled(load * 6.0) * 11 / 10, "load {load}: {} nodes in the end", seen.last_size());
    }
}

#[test]
fn a_load_that_no_latency_tells_of_is_back_under_the_target_within_two_minutes_as_well() {
    // Not from 0.6 on: such a fleet at its limit grows thrice until it is large enough, and each time its new nodes are to be warm.
    for fill in [0.4, 0.45, 0.5, 0.55] {
        for after in 0..EVERY {
            let load = 2.0 * NODE_RATE * fill;
            let unseen = |load: f64| Weather { waits_unseen: true, ..fair(load) };
            let step = 100 + after;
            let seen = run_scraped(RECENT_OF_MANY, &settings(&json!({})), 2, 1_800, |second| {
                unseen(if second < step { load } else { load * 6.0 })
            });
            let late = seen.p99_ms.iter().skip(step as usize + 120).fold(0_f64, |worst, p99| worst.max(*p99));
            assert!(late <= 100.0, "{fill} full, {after} s after: {late} ms, sizes {:?}", seen.changes());
            assert!(seen.reversals() <= 1, "{fill} full: sizes {:?}", seen.changes());
        }
    }
}

#[test]
fn a_load_that_went_again_leaves_the_fewest_nodes_in_the_end() {
    let seen =
        run(&settings(&json!({})), 2, 7_200, |second| fair(if (5..600).contains(&second) { 6_000.0 } else { 100.0 }));
    assert!(*seen.sizes.iter().max().unwrap() >= 8, "{:?}", seen.changes());
    assert_eq!(seen.last_size(), 2);
    assert!(seen.reversals() <= 1, "{:?}", seen.changes());
}

#[test]
fn a_flat_load_changes_nothing_in_half_an_hour() {
    for nodes in 2..=20 {
        for fill in [0.2, 0.45, 0.55, 0.6] {
            let seen = run(&settings(&json!({"minReplicas": nodes})), nodes, 1_800, |_| {
                fair(f64::from(nodes) * NODE_RATE * fill)
            });
            assert_eq!(seen.sizes.iter().filter(|size| **size != nodes).count(), 0, "{nodes} nodes at {fill}");
        }
    }
}

#[test]
fn a_slow_store_changes_no_size_and_is_named_within_a_minute() {
    for fill in [0.1, 0.3, 0.4] {
        let seen = run(&settings(&json!({"minReplicas": 3})), 3, 900, |second| Weather {
            store_ms: if second < 5 { 0.0 } else { 500.0 },
            ..fair(3.0 * NODE_RATE * fill)
        });
        assert_eq!(seen.sizes.iter().filter(|size| **size != 3).count(), 0, "{:?}", seen.changes());
        assert!(seen.bound_at.is_some_and(|at| at <= 5 + 60), "{:?}", seen.bound_at);
    }
}

#[test]
fn without_measurements_nothing_shrinks_and_the_fallback_is_kept() {
    let with = settings(&json!({"fallbackReplicas": 5}));
    let blind = |load: f64| Weather { is_measured: false, ..fair(load) };
    assert_eq!(run(&with, 9, 3_600, |_| blind(0.0)).last_size(), 9, "it shrank");
    let seen = run(&with, 3, 3_600, |_| blind(0.0));
    assert!(seen.sizes[..170].iter().all(|size| *size == 3) && seen.last_size() == 5, "{:?}", seen.changes());
    // When they are back, nothing shrinks at once.
    let seen = run(&with, 9, 600, |second| if second < 300 { blind(100.0) } else { fair(100.0) });
    assert_eq!(seen.last_size(), 9);
}

#[test]
fn an_idle_fleet_shrinks_to_its_minimum_one_at_a_time() {
    let seen = run(&settings(&json!({})), 12, 3_600, |_| fair(0.5));
    assert_eq!(seen.last_size(), 2);
    assert!(seen.sizes.windows(60).all(|minute| minute[0] - minute[59] <= 1), "{:?}", seen.changes());
}
