//! Which of several operators works: the one that holds a Lease.
//!
//! This saves work, and no more: everything that must not happen twice is kept from it by preconditions on what is written, so that
//! two operators that both believe to lead do no harm.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use shortener_crds::causes::Causes;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::ambient;

/// The Lease.
pub const LEASE: &str = "shortener-operator";
/// How long a leader that is not heard of still leads.
pub const LEASE_DURATION: Duration = Duration::from_secs(10);
/// How often the leader is heard of, and the others look.
pub const RENEW_EVERY: Duration = Duration::from_secs(2);
/// How long one request may take: a leader must know that it cannot renew before another may lead.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a leader that cannot renew goes on: it stops before another one starts.
const LEADS_WITHOUT: Duration = Duration::from_secs(8);

const _: () = assert!(LEADS_WITHOUT.as_millis() < LEASE_DURATION.as_millis());
const _: () = assert!(
    RENEW_EVERY.as_millis() + 2 * REQUEST_TIMEOUT.as_millis() < LEASE_DURATION.as_millis(),
    "one request that hangs does not cost the leadership"
);

/// What the Lease was when it was last seen to change, by this process's own clock: no two machines need agree on the time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its version.
    pub resource_version: Option<String>,
    /// When we saw that version first.
    pub since: Instant,
}

/// What to do about the Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is none: make it.
    Create,
    /// It is ours: renew it.
    Renew,
    /// It is nobody's, or its holder was not heard of: take it.
    Take,
    /// Somebody holds it.
    Wait,
}

/// Decides.
pub fn step(lease: Option<&Lease>, me: &str, seen: Option<&Seen>, now: Instant) -> Step {
    let Some(lease) = lease else { return Step::Create };
    let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
    let is_unchanged = |seen: &&Seen| seen.resource_version == lease.metadata.resource_version;
    let silent = seen.filter(is_unchanged).map(|seen| now.saturating_duration_since(seen.since));
    match holder {
        "" => Step::Take,
        holder if holder == me => Step::Renew,
        _ if silent.is_some_and(|silent| silent > LEASE_DURATION) => Step::Take,
        _ => Step::Wait,
    }
}

/// Takes part until `shutdown`; then gives the Lease up, so that another one need not wait.
pub async fn take_part(
    client: Client,
    namespace: String,
    me: String,
    leads: watch::Sender<bool>,
    shutdown: CancellationToken,
) {
    let candidate = Candidate { api: Api::namespaced(client, &namespace), me };
    let mut seen: Option<Seen> = None;
    let mut renewed: Option<Instant> = None;
    loop {
        match tokio::time::timeout(REQUEST_TIMEOUT, candidate.turn(&mut seen)).await {
            Ok(Ok(true)) => renewed = Some(ambient::monotonic()),
            Ok(Ok(false)) => renewed = None,
            Ok(Err(error)) => {
                tracing::warn!(error = %Causes(&error), "cannot read or renew the leader's Lease");
            }
            Err(_) => {
                tracing::warn!("the API server does not answer about the leader's Lease");
            }
        }
        let is_leader = renewed.is_some_and(|at| ambient::monotonic().saturating_duration_since(at) < LEADS_WITHOUT);
        leads.send_if_modified(|leads| {
            let has_changed = *leads != is_leader;
            if has_changed {
                tracing::info!(leads = is_leader, identity = candidate.me, "leadership");
            }
            *leads = is_leader;
            has_changed
        });
        tokio::select! {
            () = tokio::time::sleep(RENEW_EVERY) => {}
            () = shutdown.cancelled() => break,
        }
    }
    leads.send_replace(false);
    if renewed.is_some() {
        // If that does not work the others wait for as long as they would after a crash.
        let _ = tokio::time::timeout(REQUEST_TIMEOUT, candidate.give_up()).await;
    }
}

struct Candidate {
    api: Api<Lease>,
    me: String,
}

impl Candidate {
    /// Looks once, and does what is to be done. Answers whether we lead.
    async fn turn(&self, seen: &mut Option<Seen>) -> Result<bool, kube::Error> {
        let lease = self.api.get_opt(LEASE).await?;
        let (now, wall) = (ambient::monotonic(), ambient::now_micro());
        let version = lease.as_ref().and_then(|lease| lease.metadata.resource_version.clone());
        if seen.as_ref().is_none_or(|seen| seen.resource_version != version) {
            *seen = Some(Seen { resource_version: version, since: now });
        }
        let written = match (step(lease.as_ref(), &self.me, seen.as_ref(), now), lease) {
            (Step::Wait, _) => return Ok(false),
            (Step::Create, _) | (_, None) => self.api.create(&PostParams::default(), &self.lease(None, &wall)).await,
            // The version that was read is a precondition: of two that try, one succeeds.
            (Step::Renew | Step::Take, Some(lease)) => {
                self.api.replace(LEASE, &PostParams::default(), &self.lease(Some(lease), &wall)).await
            }
        };
        match written {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn lease(&self, old: Option<Lease>, now: &MicroTime) -> Lease {
        let (metadata, old) = match old {
            Some(Lease { metadata, spec, .. }) => (metadata, spec.unwrap_or_default()),
            None => (ObjectMeta { name: Some(LEASE.to_owned()), ..ObjectMeta::default() }, LeaseSpec::default()),
        };
        let is_ours = old.holder_identity.as_ref() == Some(&self.me);
        let spec = LeaseSpec {
            holder_identity: Some(self.me.clone()),
            lease_duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
            acquire_time: if is_ours { old.acquire_time } else { Some(now.clone()) },
            renew_time: Some(now.clone()),
            lease_transitions: Some(old.lease_transitions.unwrap_or_default() + i32::from(!is_ours)),
            ..LeaseSpec::default()
        };
        Lease { metadata, spec: Some(spec) }
    }

    async fn give_up(&self) -> Result<(), kube::Error> {
        let Some(mut lease) = self.api.get_opt(LEASE).await? else { return Ok(()) };
        let Some(spec) = lease.spec.as_mut().filter(|spec| spec.holder_identity.as_ref() == Some(&self.me)) else {
            return Ok(());
        };
        spec.holder_identity = Some(String::new());
        self.api.replace(LEASE, &PostParams::default(), &lease).await.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str, version: &str) -> Lease {
        Lease {
            metadata: ObjectMeta { resource_version: Some(version.into()), ..ObjectMeta::default() },
            spec: Some(LeaseSpec { holder_identity: Some(holder.into()), ..LeaseSpec::default() }),
        }
    }

    #[test]
    fn a_silent_leader_is_followed_and_one_that_is_heard_of_is_not() {
        let start = ambient::monotonic();
        let seen = Seen { resource_version: Some("1".into()), since: start };
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(step(None, "me", None, start), Step::Create);
        assert_eq!(step(Some(&lease("me", "1")), "me", Some(&seen), after(60)), Step::Renew);
        assert_eq!(step(Some(&lease("", "1")), "me", Some(&seen), start), Step::Take);
        assert_eq!(step(Some(&lease("other", "1")), "me", Some(&seen), after(10)), Step::Wait);
        assert_eq!(step(Some(&lease("other", "1")), "me", Some(&seen), after(11)), Step::Take);
        assert_eq!(
            step(Some(&lease("other", "2")), "me", Some(&seen), after(11)),
            Step::Wait,
            "it was renewed meanwhile"
        );
        assert_eq!(step(Some(&lease("other", "1")), "me", None, after(11)), Step::Wait, "seen for the first time");
    }
}
