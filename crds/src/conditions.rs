//! The conditions of a `ShortenerCluster`: each type, each reason, and how one is set.
//!
//! All of them are there from the first visit on. True is good for those that name a good thing (Ready, AllocationHealthy,
//! StoreReachable, CacheReachable, ScalingActive) and no cause for alarm in the others.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The longest message of a condition, in bytes. Kubernetes allows 32,768; people read less.
pub const MESSAGE_BYTES_MAX: usize = 1_023;

macro_rules! names {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// As it stands in the resource.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant),)* }
            }
        }
    };
}

names! {
    /// What a condition tells about.
    ConditionType {
        /// The summary: the nodes that are wanted are there, and can serve and create.
        Ready,
        /// A rollout is under way.
        Progressing,
        /// Who asks for IDs gets them.
        AllocationHealthy,
        /// The nodes reach TiKV.
        StoreReachable,
        /// The nodes reach Redis.
        CacheReachable,
        /// The autoscaler has measurements and decides.
        ScalingActive,
        /// The autoscaler would have more or fewer nodes than it may.
        ScalingLimited,
        /// Redirects are slow because of a back end, which more nodes would not help.
        BackendBound,
    }
}

names! {
    /// Why a condition is as it is.
    Reason {
        /// Nothing has been seen yet.
        Pending,
        /// The spec makes no sense; the message says where.
        SpecInvalid,
        /// This release of the operator does not understand the resource; the message names the field.
        Unreadable,
        /// A Secret that the spec names is not there, or has not what it should.
        SecretMissing,
        /// As it should be.
        AsWanted,
        /// All but an object whose kind the cluster does not know.
        KindUnknown,
        /// Fewer nodes are ready than are wanted.
        NodesNotReady,
        /// No node is wanted.
        ScaledToZero,
        /// The Deployment replaces its pods.
        RollingOut,
        /// The Deployment makes no progress.
        RolloutStuck,
        /// Nothing is rolled out.
        Complete,
        /// Everyone who asked was granted.
        Granted,
        /// The blocks of this code length are used up.
        OutOfBlocks,
        /// Every worker ID is held.
        OutOfWorkers,
        /// The nodes' store is another one than was recorded.
        KeyspaceChanged,
        /// A node reports a mark too far above the ledger to be believed.
        MarkTooHigh,
        /// The list of grants is full.
        TooManyPods,
        /// Every node that has reported reaches it.
        Reachable,
        /// Some nodes do not reach it.
        PartlyReachable,
        /// No node reaches it.
        Unreachable,
        /// No node has reported yet.
        NoReports,
        /// There is none.
        NotConfigured,
        /// Nothing scales by itself here.
        Disabled,
        /// Somebody else decides.
        External,
        /// Measurements are there.
        MeasurementsAvailable,
        /// Measurements are missing, stale or make no sense.
        MetricsUnavailable,
        /// The autoscaler is not told to hold back.
        WithinLimits,
        /// It would have fewer.
        AtMinimum,
        /// It would have more.
        AtMaximum,
        /// What grows is held to its pace.
        RateLimited,
        /// The time goes where more nodes help, or is short.
        LocalTime,
        /// The time goes to the store.
        StoreSlow,
        /// The time goes to the cache.
        CacheSlow,
    }
}

/// What a condition says, but for when it began to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// True, false, or unknown.
    pub status: Option<bool>,
    /// Why.
    pub reason: Reason,
    /// For people: what is so, and what to do.
    pub message: String,
}

impl Verdict {
    /// It is so.
    pub fn yes(reason: Reason, message: impl Into<String>) -> Self {
        Self { status: Some(true), reason, message: message.into() }
    }

    /// It is not so.
    pub fn no(reason: Reason, message: impl Into<String>) -> Self {
        Self { status: Some(false), reason, message: message.into() }
    }

    /// Nobody knows.
    pub fn unknown(reason: Reason, message: impl Into<String>) -> Self {
        Self { status: None, reason, message: message.into() }
    }

    /// Its status, as a condition has it.
    pub fn word(&self) -> &'static str {
        match self.status {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        }
    }
}

/// Sets one condition. The time of its last transition stays where its status does.
pub fn set(
    conditions: &mut Vec<Condition>,
    condition_type: ConditionType,
    verdict: Verdict,
    generation: Option<i64>,
    now: &Time,
) {
    let status = verdict.word();
    let Verdict { reason, message, .. } = verdict;
    let known = conditions.iter().position(|condition| condition.type_ == condition_type.as_str());
    let last = known.map(|index| &conditions[index]).filter(|condition| condition.status == status);
    let condition = Condition {
        type_: condition_type.as_str().to_owned(),
        status: status.to_owned(),
        reason: reason.as_str().to_owned(),
        message: shortened(message),
        observed_generation: generation,
        last_transition_time: last.map_or_else(|| now.clone(), |condition| condition.last_transition_time.clone()),
    };
    match known {
        Some(index) => conditions[index] = condition,
        None => conditions.push(condition),
    }
}

fn shortened(mut message: String) -> String {
    const ELLIPSIS: &str = "…";
    if message.len() > MESSAGE_BYTES_MAX {
        let end = (0..=MESSAGE_BYTES_MAX - ELLIPSIS.len()).rev().find(|end| message.is_char_boundary(*end));
        message.truncate(end.unwrap_or_default());
        message.push_str(ELLIPSIS);
    }
    message
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).expect("a time"))
    }

    #[test]
    fn the_time_of_the_last_transition_moves_with_the_status_alone() {
        let mut conditions = Vec::new();
        let mut set_at = |verdict, second| {
            set(&mut conditions, ConditionType::Ready, verdict, Some(second), &at(second));
            let [condition] = &conditions[..] else { panic!("one condition: {conditions:?}") };
            (condition.last_transition_time.clone(), condition.observed_generation)
        };
        assert_eq!(set_at(Verdict::no(Reason::NodesNotReady, "1 of 3"), 1), (at(1), Some(1)));
        assert_eq!(set_at(Verdict::no(Reason::NodesNotReady, "2 of 3"), 2), (at(1), Some(2)));
        assert_eq!(set_at(Verdict::yes(Reason::AsWanted, "3 of 3"), 3), (at(3), Some(3)));
        assert_eq!(set_at(Verdict::unknown(Reason::NoReports, ""), 4), (at(4), Some(4)));
    }

    #[test]
    fn a_message_is_cut_between_characters() {
        for length in 0..4 {
            let cut = shortened("x".repeat(length) + &"é".repeat(2_000));
            assert!(cut.len() <= MESSAGE_BYTES_MAX && cut.ends_with('…'), "{}", cut.len());
        }
        assert_eq!(shortened("short".into()), "short");
    }
}
