//! How many nodes: from what was measured, what was wished before, and what the spec allows. A pure function.
//!
//! Latency is the goal, but no formula of latency alone may decide: time in a queue is convex in load, pods that are starting do not lower
//! it, and a slow back end makes every node slow, so that each new one makes it worse. So the decision also asks *where* the time is
//! spent, and *how full* the nodes are:
//!
//! - over the target, and at least half of the time is the nodes' own: more nodes, at most twice as many as are warm;
//! - over the target, most of the time is the back ends', and the nodes are not even half full: hold, and say who is slow;
//! - otherwise how full they are decides, but nothing shrinks while latency is near its target by the nodes' own doing.
//!
//! Latency counts as over the target only if it is so in a short window as well as in the whole one: else what is over already would be
//! answered once more, for as long as the whole window remembers it. Nodes count as full if they are so in either: a load that came just
//! now must not wait for the window.
//!
//! Without measurements nothing shrinks. A wish is then held to its limits and paces.

use std::collections::VecDeque;
use std::time::Duration;

use shortener_crds::cluster::{Autoscaling, AutoscalingStatus};
use shortener_crds::conditions::{Reason, Verdict};

#[cfg(test)]
mod simulation;

/// Fewer redirects in the window say nothing about a percentile.
const REDIRECTS_MIN: f64 = 200.0;
/// From this share on, the time is the nodes' own.
const LOCAL_SHARE: f64 = 0.5;
/// Below this, nodes have room: what is slow is behind them.
const ROOMY: f64 = 0.5;
/// Above this share of its target, latency says that a node fewer may be one too few: it is convex in load.
const NEAR_TARGET: f64 = 0.7;
/// At most so many times the warm nodes are wished for because of latency.
const GROWTH_MAX: f64 = 2.0;
/// After so long without a measurement, the last one is old, and after so long without a decision the history has a gap; and so many
/// intervals more.
const GAP: Duration = Duration::from_secs(15);
const GAP_INTERVALS: u32 = 3;
/// How long measurements are missed before the fleet goes to its fallback.
const FALLBACK_AFTER: Duration = Duration::from_mins(3);

/// What the warm nodes did in the query window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Redirects that were answered.
    pub redirects: f64,
    /// Latency at the target's percentile, in milliseconds; none when nothing was answered.
    pub latency_ms: Option<f64>,
    /// The same in the last part of the window.
    pub recent_latency_ms: Option<f64>,
    /// Time that nodes spent on redirects by themselves, in seconds a second.
    pub local: f64,
    /// Time that they waited for the cache.
    pub cache: f64,
    /// Time that they waited for the store.
    pub store: f64,
    /// How full the nodes are on average, of 1: of their CPU, or of the requests that they take at once.
    pub utilization: f64,
    /// How full their CPU was in the last part of the window; none when that is too short for what was scraped.
    pub recent_utilization: Option<f64>,
}

impl Sample {
    /// The share of the time that was the nodes' own; all of it when there was none to speak of.
    pub fn local_share(&self) -> f64 {
        let whole = self.local + self.cache + self.store;
        if whole > 0.0 { self.local / whole } else { 1.0 }
    }

    /// How full the nodes are, by whichever part of the window has them fuller. A load that came just now must not wait until the whole
    /// window knows it: nodes at their CPU limit are late with requests that they have not seen yet, so no latency tells of it.
    fn fill(&self) -> f64 {
        self.recent_utilization.map_or(self.utilization, |recent| recent.max(self.utilization))
    }

    /// Whether it says anything: division by nothing makes what is no number, and that must not be taken for an idle fleet.
    fn makes_sense(&self) -> bool {
        let Self { redirects, latency_ms, recent_latency_ms, local, cache, store, utilization, recent_utilization } =
            *self;
        let perhaps = [latency_ms, recent_latency_ms, recent_utilization].into_iter().flatten();
        let all = [redirects, local, cache, store, utilization].into_iter().chain(perhaps);
        all.into_iter().all(|figure| figure.is_finite() && figure >= 0.0)
            && (redirects < REDIRECTS_MIN || latency_ms.is_some())
    }
}

/// Why there is no sample: what is wrong, and where to look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable(pub String);

/// The nodes that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fleet {
    /// How many the Deployment is asked for; none before it is there.
    pub size: Option<i32>,
    /// How many are ready, and have been for as long as warming up takes.
    pub warm: i32,
    /// How many there can be at most by the worker IDs and the blocks that are left.
    pub capacity: i32,
    /// Which of these there are too few of for more.
    pub scarce: Reason,
}

/// What was decided before. It begins anew with each operator, which only means that nothing shrinks for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    began: Duration,
    decided: Duration,
    wishes: VecDeque<(Duration, i32)>,
    sizes: VecDeque<(Duration, i32)>,
    missing_since: Option<Duration>,
}

impl History {
    /// Nothing is known from before `now`.
    pub fn beginning(now: Duration) -> Self {
        Self { began: now, decided: now, wishes: VecDeque::new(), sizes: VecDeque::new(), missing_since: None }
    }
}

/// An answer, or why there is none, and when it came.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// When.
    pub at: Duration,
    /// What.
    pub sample: Result<Sample, Unavailable>,
}

/// A decision, and what it was made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Decided {
    /// When that was measured which it answers, and whether that was old by then.
    pub of: (Duration, bool),
    /// The generation of the spec that it was made for.
    pub generation: Option<i64>,
    /// How many, and why.
    pub decision: Decision,
    /// What the next one has to remember.
    pub history: History,
}

/// What is known of a cluster's load.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// The moment, of the clock that measurements are timed by.
    pub now: Duration,
    /// How many nodes are warm.
    pub warm: i32,
    /// The last measurement; none when there was no time for one yet.
    pub measured: Option<Measured>,
    /// The last decision.
    pub decided: Option<Decided>,
}

impl Seen {
    /// A decision on the last measurement: the one there is, if it was made on that for this spec. None before there is any.
    pub fn decide(&self, settings: &Autoscaling, generation: Option<i64>, fleet: Fleet) -> Option<Decided> {
        let measured = self.measured.as_ref()?;
        let interval = settings.prometheus.as_ref().map_or(0, |prometheus| prometheus.query_interval_seconds);
        let gap = GAP + GAP_INTERVALS * seconds(interval);
        let is_old = self.now.saturating_sub(measured.at) > gap;
        let of = (measured.at, is_old);
        if let Some(decided) = self.decided.as_ref().filter(|it| it.of == of && it.generation == generation) {
            return Some(decided.clone());
        }
        let old = || Unavailable("the operator has not come to ask Prometheus for a while".to_owned());
        let sample = if is_old { Err(old()) } else { measured.sample.clone() };
        // What was wished for before a gap says nothing about the time between.
        let went_on = self.decided.as_ref().filter(|it| self.now.saturating_sub(it.history.decided) <= gap);
        let history = went_on.map_or_else(|| History::beginning(self.now), |decided| decided.history.clone());
        let (decision, history) = decide(settings, fleet, &sample, &history, self.now);
        Some(Decided { of, generation, decision, history })
    }
}

/// How many nodes there are to be, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// So many.
    pub replicas: i32,
    /// So many were wished for, before limits and paces.
    pub wish: i32,
    /// In a sentence.
    pub why: String,
    /// Whether there are measurements.
    pub active: Verdict,
    /// Whether it may not have what it would.
    pub limited: Verdict,
    /// Whether a back end is what is slow.
    pub bound: Verdict,
    /// What of it stands in the status.
    pub status: AutoscalingStatus,
}

/// A wish, and why.
struct Wish {
    nodes: i32,
    why: String,
    bound: Verdict,
}

/// Decides at the moment `now` of any clock that never goes back, the same one each time.
pub fn decide(
    settings: &Autoscaling,
    fleet: Fleet,
    measured: &Result<Sample, Unavailable>,
    history: &History,
    now: Duration,
) -> (Decision, History) {
    let mut history = History { decided: now, ..history.clone() };
    let size = fleet.size.unwrap_or_else(|| settings.fallback_replicas.unwrap_or(settings.min_replicas));
    let nonsense =
        || Unavailable("what Prometheus answers is no number; look at what it scrapes from the nodes".to_owned());
    let measured = measured.clone().and_then(|sample| if sample.makes_sense() { Ok(sample) } else { Err(nonsense()) });
    let (wish, active) = match &measured {
        Ok(sample) => {
            history.missing_since = None;
            let message = "Prometheus has what the nodes report";
            (wish(settings, fleet.warm, size, sample), Verdict::yes(Reason::MeasurementsAvailable, message))
        }
        Err(unavailable) => {
            let since = *history.missing_since.get_or_insert(now);
            let active = Verdict::no(Reason::MetricsUnavailable, unavailable.0.clone());
            (wish_without(settings, size, now.saturating_sub(since)), active)
        }
    };
    let (replicas, limited) = hold_to_limits(settings, fleet, size, wish.nodes, &mut history, now);
    let status = status(measured.as_ref().ok(), &wish, &active);
    let decision = Decision { replicas, wish: wish.nodes, why: wish.why, active, limited, bound: wish.bound, status };
    (decision, history)
}

/// What the measurements ask for.
fn wish(settings: &Autoscaling, warm: i32, size: i32, sample: &Sample) -> Wish {
    let target = f64::from(settings.target_latency.milliseconds);
    let percentile = i32::from(settings.target_latency.percentile);
    let over = |latency: Option<f64>| {
        latency.is_some_and(|latency| latency > target * (1.0 + share(settings.tolerance_percent)))
    };
    let has_latency = sample.redirects >= REDIRECTS_MIN;
    let latency = sample.latency_ms.filter(|_| has_latency);
    let is_slow = over(latency) && over(sample.recent_latency_ms);
    let fast =
        Verdict::no(Reason::LocalTime, "redirects are as fast as they should be, or the nodes themselves are slow");
    if warm == 0 {
        return Wish { nodes: size, why: "no node is warm yet".to_owned(), bound: fast };
    }
    let fill = sample.fill();
    let filled_nodes = f64::from(warm) * fill / share(settings.target_utilization_percent);
    let by_fill = ceil(filled_nodes);
    let said = format!("p{percentile} is {:.0} ms of {target:.0} ms", latency.unwrap_or_default());
    let filled = format!("nodes are {:.0} % full", fill * 100.0);
    let local = sample.local_share();
    if is_slow && local >= LOCAL_SHARE {
        let times = (latency.unwrap_or_default() / target).min(GROWTH_MAX);
        // Those that are not warm yet carry load as well: with fewer than there are it would be slower still.
        let nodes = by_fill.max(warm + 1).max(ceil(f64::from(warm) * times)).max(size);
        return Wish {
            nodes,
            why: format!("{said}, {:.0} % of the time is the nodes' own, {filled}", local * 100.0),
            bound: fast,
        };
    }
    if is_slow && fill < ROOMY {
        let (reason, what) = match sample.store >= sample.cache {
            true => (Reason::StoreSlow, "TiKV"),
            false => (Reason::CacheSlow, "Redis"),
        };
        let message =
            format!("redirects wait for {what}; more nodes would not help, so the fleet is held: look at {what}");
        return Wish {
            nodes: size,
            why: format!("{said}, most of it waits for {what}"),
            bound: Verdict::yes(reason, message),
        };
    }
    let is_near = local >= LOCAL_SHARE && latency.is_some_and(|latency| latency > target * NEAR_TARGET);
    // Before it is rounded: of a few nodes, one more is far more than the tolerance, and the least excess would ask for it.
    let is_alike = (filled_nodes - f64::from(size)).abs() <= f64::from(size) * share(settings.tolerance_percent);
    let nodes = if is_alike || (is_near && by_fill < size) { size } else { by_fill };
    let why = if has_latency {
        format!("{said}, {filled}")
    } else {
        format!("too few redirects to tell their latency, {filled}")
    };
    Wish { nodes, why, bound: fast }
}

/// What is asked for without measurements: what there is, and after a while no fewer than the fallback.
fn wish_without(settings: &Autoscaling, size: i32, missing_for: Duration) -> Wish {
    let fallback = settings.fallback_replicas.unwrap_or(settings.min_replicas);
    let nodes = if missing_for >= FALLBACK_AFTER { size.max(fallback) } else { size };
    let bound = Verdict::unknown(Reason::MetricsUnavailable, "latency is not measured");
    Wish { nodes, why: "there are no measurements: the fleet does not shrink".to_owned(), bound }
}

/// The wish within what is allowed, at the pace that is allowed.
fn hold_to_limits(
    settings: &Autoscaling,
    fleet: Fleet,
    size: i32,
    wish: i32,
    history: &mut History,
    now: Duration,
) -> (i32, Verdict) {
    let (up, down) = (&settings.scale_up, &settings.scale_down);
    let stabilization = seconds(down.stabilization_seconds);
    history.wishes.push_back((now, wish));
    history.wishes.retain(|(at, _)| *at >= now.saturating_sub(stabilization));
    if history.sizes.back().is_none_or(|(_, last)| *last != size) {
        history.sizes.push_back((now, size));
    }
    // Of what is older, the last held when the longer period began.
    let oldest = now.saturating_sub(seconds(up.period_seconds.max(down.period_seconds)));
    while history.sizes.get(1).is_some_and(|(at, _)| *at <= oldest) {
        history.sizes.pop_front();
    }

    // Growing needs no patience; to shrink, the largest wish of the whole window counts, and that must have been seen whole.
    let largest = history.wishes.iter().map(|(_, wish)| *wish).max().unwrap_or(wish);
    let has_seen = now.saturating_sub(history.began) >= stabilization;
    let steady = if wish >= size {
        wish
    } else if has_seen {
        largest.min(size)
    } else {
        size
    };

    let most =
        settings.max_replicas.min(fleet.capacity.max(size)).max(settings.min_replicas.min(settings.max_replicas));
    let within = steady.clamp(settings.min_replicas, most);
    let sizes_since = |period: i32| {
        let from = now.saturating_sub(seconds(period));
        // The one before the period began held when it did.
        let before = history.sizes.iter().rev().find(|(at, _)| *at <= from);
        history.sizes.iter().filter(move |(at, _)| *at > from).chain(before).map(|(_, size)| *size)
    };
    let smallest = sizes_since(up.period_seconds).min().unwrap_or(size);
    let ceiling = smallest + ceil(f64::from(smallest) * share(up.percent)).max(up.nodes);
    let biggest = sizes_since(down.period_seconds).max().unwrap_or(size);
    let floor = biggest - (biggest * down.percent / 100).max(down.nodes);
    let paced = within.min(ceiling.max(size)).max(floor.min(size)).clamp(settings.min_replicas, most);

    // By the largest wish of the window, so that one which comes and goes is not news each time.
    let wished = largest.max(steady);
    let limited = if wished > most && most == settings.max_replicas {
        let message = format!("more nodes are wished for than spec.autoscaling.maxReplicas, which is {most}");
        Verdict::yes(Reason::AtMaximum, message)
    } else if wished > most {
        let message = format!("more nodes are wished for than worker IDs and blocks are there for, which is {most}");
        Verdict::yes(fleet.scarce, message)
    } else if paced < within {
        Verdict::no(Reason::RateLimited, "the fleet grows as fast as spec.autoscaling.scaleUp allows")
    } else if steady < settings.min_replicas {
        Verdict::no(Reason::AtMinimum, "fewer nodes would do than spec.autoscaling.minReplicas")
    } else {
        Verdict::no(Reason::WithinLimits, "nothing holds the wish back")
    };
    (paced, limited)
}

fn status(sample: Option<&Sample>, wish: &Wish, active: &Verdict) -> AutoscalingStatus {
    let percent = |share: f64| whole(share * 100.0);
    AutoscalingStatus {
        latency: sample.and_then(|sample| sample.latency_ms).map(|latency| format!("{latency:.0}ms")),
        local_percent: sample.map(|sample| percent(sample.local_share())),
        utilization_percent: sample.map(|sample| percent(sample.fill())),
        wanted_replicas: Some(wish.nodes),
        reason: Some(if active.status == Some(true) { wish.why.clone() } else { active.message.clone() }),
    }
}

fn share(percent: i32) -> f64 {
    f64::from(percent) / 100.0
}

fn seconds(seconds: i32) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}

/// The next whole number of nodes; what is no number is none.
fn ceil(nodes: f64) -> i32 {
    // A product such as 3 · 0.6 ÷ 0.6 must not be one more for a bit in its last place.
    whole((nodes - 1e-9).ceil())
}

#[expect(clippy::cast_possible_truncation, reason = "`as` saturates, and what is no number becomes 0")]
fn whole(number: f64) -> i32 {
    number as i32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::simulation::settings;
    use super::*;

    fn fleet(size: i32) -> Fleet {
        Fleet { size: Some(size), warm: size, capacity: 1_600, scarce: Reason::OutOfWorkers }
    }

    fn sample(latency_ms: f64, local: f64, utilization: f64) -> Sample {
        Sample {
            redirects: 10_000.0,
            latency_ms: Some(latency_ms),
            recent_latency_ms: Some(latency_ms),
            local,
            cache: 0.0,
            store: 1.0 - local,
            utilization,
            recent_utilization: Some(utilization),
        }
    }

    /// Decides once, long after the beginning.
    fn decided(patch: &serde_json::Value, fleet: Fleet, sample: Sample) -> Decision {
        decide(&settings(patch), fleet, &Ok(sample), &History::beginning(Duration::ZERO), Duration::from_hours(1)).0
    }

    #[test]
    fn what_is_wished_for_follows_where_the_time_is_spent_and_how_full_the_nodes_are() {
        let wish =
            |latency, local, utilization| decided(&json!({}), fleet(10), sample(latency, local, utilization)).wish;
        assert_eq!(wish(150.0, 0.9, 0.7), 15, "by half as much over the target");
        assert_eq!(wish(900.0, 0.9, 0.7), 20, "at most twice as many");
        assert_eq!(wish(111.0, 0.9, 0.2), 12, "one and a bit");
        assert_eq!(wish(105.0, 0.9, 0.6), 10, "within the tolerance");
        assert_eq!(wish(900.0, 0.1, 0.3), 10, "the store is slow");
        assert_eq!(wish(900.0, 0.1, 0.9), 15, "the store is slow, and the nodes are full");
        assert_eq!(wish(20.0, 0.9, 0.9), 15, "fast, and full");
        assert_eq!(wish(20.0, 0.9, 0.3), 5, "fast, and half empty");
        assert_eq!(wish(80.0, 0.9, 0.3), 10, "near the target");
        assert_eq!(wish(80.0, 0.1, 0.3), 5, "near the target because of the store");
        let starting = Fleet { warm: 5, ..fleet(10) };
        assert_eq!(decided(&json!({}), starting, sample(115.0, 0.9, 0.7)).wish, 10, "slow, and half of it not warm");
        let few = Sample { redirects: 10.0, ..sample(900.0, 0.9, 0.01) };
        assert_eq!(decided(&json!({}), fleet(10), few).wish, 1, "too few to tell");
        let over = Sample { recent_latency_ms: Some(5.0), ..sample(900.0, 0.9, 0.6) };
        assert_eq!(decided(&json!({}), fleet(10), over).wish, 10, "it is over already");
    }

    #[test]
    fn the_least_excess_makes_a_small_fleet_no_larger() {
        let wish = |size, utilization| decided(&json!({}), fleet(size), sample(20.0, 0.9, utilization)).wish;
        assert_eq!([0.59, 0.61, 0.65].map(|utilization| wish(2, utilization)), [2, 2, 2]);
        assert_eq!(wish(2, 0.67), 3);
        // Nor smaller again by as little.
        assert_eq!([0.55, 0.45, 0.38].map(|utilization| wish(3, utilization)), [3, 3, 2]);
    }

    #[test]
    fn who_is_slow_is_named() {
        let slow = decided(&json!({}), fleet(4), sample(600.0, 0.1, 0.2));
        assert_eq!((slow.bound.status, slow.bound.reason), (Some(true), Reason::StoreSlow));
        let cache = Sample { store: 0.1, cache: 0.8, ..sample(600.0, 0.1, 0.2) };
        assert_eq!(decided(&json!({}), fleet(4), cache).bound.reason, Reason::CacheSlow);
        assert_eq!(decided(&json!({}), fleet(4), sample(600.0, 0.8, 0.2)).bound.status, Some(false));
    }

    #[test]
    fn limits_are_told() {
        let limited = |patch, fleet, sample| {
            let decision = decided(&patch, fleet, sample);
            (decision.replicas, decision.limited.status, decision.limited.reason)
        };
        let full = sample(20.0, 0.9, 1.0);
        assert_eq!(limited(json!({"maxReplicas": 12}), fleet(10), full), (12, Some(true), Reason::AtMaximum));
        let scarce = Fleet { capacity: 11, scarce: Reason::OutOfBlocks, ..fleet(10) };
        assert_eq!(limited(json!({}), scarce, full), (11, Some(true), Reason::OutOfBlocks));
        assert_eq!(
            limited(json!({"scaleUp": {"percent": 10, "nodes": 2}}), fleet(10), full),
            (12, Some(false), Reason::RateLimited)
        );
        assert_eq!(limited(json!({}), fleet(10), sample(20.0, 0.9, 0.6)), (10, Some(false), Reason::WithinLimits));
        let mut history = History::beginning(Duration::ZERO);
        history.wishes.push_back((Duration::from_secs(3_599), 1));
        let idle =
            decide(&settings(&json!({})), fleet(2), &Ok(sample(20.0, 0.9, 0.1)), &history, Duration::from_hours(1)).0;
        assert_eq!((idle.replicas, idle.limited.reason), (2, Reason::AtMinimum));
    }

    #[test]
    fn after_a_gap_history_begins_anew_and_what_was_measured_before_is_old() {
        let settings = settings(&json!({}));
        let idle = |at: u64| Some(Measured { at: Duration::from_secs(at), sample: Ok(sample(1.0, 0.9, 0.01)) });
        let seen = |now: u64, measured, decided| Seen { now: Duration::from_secs(now), warm: 9, measured, decided };
        // Wishes for a whole window: it may shrink.
        let (mut decided, mut now) = (None, 0);
        while now <= 300 {
            decided = seen(now, idle(now), decided).decide(&settings, Some(1), fleet(9));
            now += 15;
        }
        assert_eq!(decided.as_ref().unwrap().decision.replicas, 8);
        // Somebody else has decided since: nothing of that time is known.
        let later = seen(4_000, idle(4_000), decided.clone()).decide(&settings, Some(1), fleet(30)).unwrap();
        assert_eq!(later.decision.replicas, 30);
        // Nothing was measured since: that is no measurement.
        let blind = seen(4_000, idle(300), decided.clone()).decide(&settings, Some(1), fleet(30)).unwrap();
        assert_eq!((blind.decision.replicas, blind.decision.active.status), (30, Some(false)));
        // Between two measurements a decision stands.
        let again = seen(310, idle(300), decided.clone()).decide(&settings, Some(1), fleet(9));
        assert_eq!(again, decided);
    }

    #[test]
    fn an_operator_that_has_just_begun_shrinks_nothing() {
        let now = Duration::from_secs(10);
        let idle = Ok(sample(1.0, 0.9, 0.01));
        let (decision, _) = decide(&settings(&json!({})), fleet(9), &idle, &History::beginning(Duration::ZERO), now);
        assert_eq!(decision.replicas, 9);
    }

    prop_compose! {
        fn any_measurement()(
            is_there in prop::bool::weighted(0.9),
            redirects in prop_oneof![Just(0.0), 0.0..1e6],
            latency in prop_oneof![Just(None), Just(Some(f64::NAN)), (0.0..1e5).prop_map(Some)],
            recent in prop_oneof![Just(None), (0.0..1e5).prop_map(Some)],
            times in [0.0..1e3, 0.0..1e3, 0.0..1e3],
            utilization in prop_oneof![0.0..2.0, Just(f64::NAN), Just(f64::INFINITY)],
            recent_utilization in prop_oneof![Just(None), Just(Some(f64::NAN)), (0.0..2.0).prop_map(Some)],
        ) -> Result<Sample, Unavailable> {
            let [local, cache, store] = times;
            let sample = Sample {
                redirects,
                latency_ms: latency,
                recent_latency_ms: recent,
                local,
                cache,
                store,
                utilization,
                recent_utilization,
            };
            if is_there { Ok(sample) } else { Err(Unavailable("away".to_owned())) }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn whatever_is_measured_the_fleet_keeps_to_its_limits_and_paces_and_never_shrinks_blindly(
            least in 1..20_i32,
            more in 0..40_i32,
            first in 1..60_i32,
            trace in prop::collection::vec((any_measurement(), 1..40_u64, 0..=100_i32), 1..40),
        ) {
            let settings = settings(&json!({"minReplicas": least, "maxReplicas": least + more}));
            let (least, most) = (settings.min_replicas, settings.max_replicas);
            let mut history = History::beginning(Duration::ZERO);
            let (mut now, mut size) = (Duration::ZERO, first.clamp(least, most));
            let mut sizes = vec![(now, size)];
            for (measured, pause, warm_percent) in trace {
                now += Duration::from_secs(pause);
                let there = Fleet { warm: size * warm_percent / 100, ..fleet(size) };
                let (decision, after) = decide(&settings, there, &measured, &history, now);
                history = after;
                prop_assert!((least..=most).contains(&decision.replicas), "{decision:?}");
                let is_known = measured.is_ok_and(|sample| sample.makes_sense());
                if !is_known || now < Duration::from_mins(5) {
                    prop_assert!(decision.replicas >= size, "it shrank: {decision:?}");
                }
                let minute = now.saturating_sub(Duration::from_mins(1));
                let before = sizes.iter().rev().find(|(at, _)| *at <= minute).or(sizes.first());
                let within: Vec<i32> = sizes.iter().filter(|(at, _)| *at > minute).chain(before).map(|(_, size)| *size).collect();
                let (smallest, biggest) = (*within.iter().min().unwrap(), *within.iter().max().unwrap());
                prop_assert!(decision.replicas <= (smallest * 2).max(smallest + 4).max(size), "{sizes:?} {decision:?}");
                prop_assert!(decision.replicas >= (biggest - (biggest / 10).max(1)).min(size), "{sizes:?} {decision:?}");
                if decision.replicas != size {
                    size = decision.replicas;
                    sizes.push((now, size));
                }
            }
        }
    }
}
