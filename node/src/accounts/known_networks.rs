//! From where accounts signed in before: an address (IPv6: a /64) at which each of them registered or signed in.
//!
//! There is no cookie by which a device could be told again. But who guesses at a password, or floods sign-ins, is almost
//! never at the network of the account's owner. So sign-ins from there have places of their own in the queue for passwords
//! ([`Lane::Known`](super::fair_queue::Lane::Known)), and are not held up by what strangers try at the account
//! ([`guesses`](crate::limits::guesses)). What is kept is a hash of account and network, keyed with the service's secret:
//! neither whoever reads the store nor an account tells where people are. Nobody but who knows the password adds to it.

use std::net::IpAddr;
use std::time::Duration;

use zeroize::Zeroizing;

use super::secret_key::{SecretKey, hmac_sha256};
use crate::ambient::UnixMs;
use crate::limits::guesses::{AccountTag, NetworkTag};
use crate::limits::networks::networks;
use crate::store::accounts::{KnownNetworkTag, UserId};

/// How long a network stays known after a sign-in from there.
pub const KNOWN_FOR: Duration = Duration::from_hours(90 * 24);
/// One that is known for at least as long yet is not written again.
const RENEWED_BELOW: Duration = Duration::from_hours(60 * 24);

/// What tags are derived for.
const KEY_LABEL: &[u8] = b"shortener known networks v1";

/// Makes tags of accounts and networks, with a key that only the service has.
pub struct NetworkTags {
    current: Zeroizing<[u8; 32]>,
    previous: Option<Zeroizing<[u8; 32]>>,
}

impl NetworkTags {
    /// With the service's secret, and the one before the last rotation.
    pub fn new(secret: &SecretKey, previous: Option<&SecretKey>) -> Self {
        Self { current: secret.derive(KEY_LABEL), previous: previous.map(|secret| secret.derive(KEY_LABEL)) }
    }

    /// Of a user at the network of `address`, as it is written.
    pub(super) fn of_user(&self, user: Option<UserId>, address: IpAddr) -> KnownNetworkTag {
        known(&self.current, user, address)
    }

    /// The same as it was written before the key was changed.
    pub(super) fn of_user_before(&self, user: Option<UserId>, address: IpAddr) -> Option<KnownNetworkTag> {
        self.previous.as_ref().map(|key| known(key, user, address))
    }

    /// Of an e-mail address, whether an account has it or not.
    pub(super) fn of_account(&self, normalised_email: &str) -> AccountTag {
        AccountTag(first(hmac_sha256(self.current.as_slice(), &[b"account", normalised_email.as_bytes()])))
    }

    /// Of the network of an address.
    pub(super) fn of_network(&self, address: IpAddr) -> NetworkTag {
        NetworkTag(first(hmac_sha256(self.current.as_slice(), &[b"network", network(address).as_bytes()])))
    }
}

/// Whether a network that is known until `until` is to be written again.
pub(super) fn is_to_be_renewed(until: Option<UnixMs>, now: UnixMs) -> bool {
    until.is_none_or(|until| until.since(now) < RENEWED_BELOW)
}

fn known(key: &Zeroizing<[u8; 32]>, user: Option<UserId>, address: IpAddr) -> KnownNetworkTag {
    let user = user.map_or(0, |user| u64::from(user.0));
    first(hmac_sha256(key.as_slice(), &[b"known", &user.to_be_bytes(), network(address).as_bytes()]))
}

fn network(address: IpAddr) -> String {
    networks(address).next().map(|(network, _)| network.to_string()).unwrap_or_default()
}

fn first<const N: usize>(hash: [u8; 32]) -> [u8; N] {
    std::array::from_fn(|at| hash[at % hash.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(byte: u8) -> SecretKey {
        let bytes: Vec<u8> = (0..32).map(|n: u8| n ^ byte).collect();
        SecretKey::new(bytes.into()).unwrap()
    }

    #[expect(clippy::unnecessary_wraps, reason = "as the tags take it")]
    fn user(id: u64) -> Option<UserId> {
        Some(UserId(id.try_into().unwrap()))
    }

    #[test]
    fn a_network_is_known_for_one_account_by_the_address_or_the_64_it_is_in() {
        let tags = NetworkTags::new(&secret(0), None);
        let of = |user: Option<UserId>, address: &str| tags.of_user(user, address.parse().unwrap());
        assert_eq!(of(user(1), "2001:db8::1"), of(user(1), "2001:db8::ffff"));
        assert_eq!(of(user(1), "192.0.2.1"), of(user(1), "::ffff:192.0.2.1"));
        let one = of(user(1), "192.0.2.1");
        for other in [of(user(2), "192.0.2.1"), of(None, "192.0.2.1"), of(user(1), "192.0.2.2")] {
            assert_ne!(one, other);
        }
        assert_ne!(of(user(1), "2001:db8::1"), of(user(1), "2001:db8:0:1::1"));
    }

    #[test]
    fn a_network_stays_known_when_the_key_is_changed() {
        let (old, new) = (secret(0), secret(1));
        let address = [192, 0, 2, 1].into();
        let before = NetworkTags::new(&old, None).of_user(user(1), address);
        let after = NetworkTags::new(&new, Some(&old));
        assert_eq!(after.of_user_before(user(1), address), Some(before));
        assert_ne!(after.of_user(user(1), address), before);
    }

    #[test]
    fn what_is_known_for_long_is_not_written_again() {
        let now = UnixMs(0);
        assert!(is_to_be_renewed(None, now));
        assert!(!is_to_be_renewed(Some(now.plus(KNOWN_FOR)), now));
        assert!(is_to_be_renewed(Some(now.plus(KNOWN_FOR)), now.plus(KNOWN_FOR / 2)));
    }
}
