//! The one door to what no function can compute: the clocks and randomness.

use std::time::{Instant, SystemTime};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use k8s_openapi::jiff::Timestamp;

/// Wall time, as objects carry it: whole seconds.
pub fn now() -> Time {
    let now = wall();
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

/// Wall time, as Leases carry it.
pub fn now_micro() -> MicroTime {
    MicroTime(wall())
}

#[expect(clippy::disallowed_methods, reason = "this is the door")]
fn wall() -> Timestamp {
    Timestamp::try_from(SystemTime::now()).unwrap_or_default()
}

/// A moment of a clock that never goes back.
#[expect(clippy::disallowed_methods, reason = "this is the door")]
pub fn monotonic() -> Instant {
    Instant::now()
}

/// Bytes that nobody can guess.
#[expect(clippy::disallowed_methods, reason = "this is the door")]
pub fn random<const N: usize>() -> Result<[u8; N], getrandom::Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}
