//! Telling visitors apart without knowing them: a keyed hash, whose key is forgotten when its day is over.
//!
//! The hash covers the link, so a visitor of two links is two visitors: nobody can be followed from one to the other. It
//! is keyed with a random salt of the day (HMAC, RFC 2104), which the nodes share through the store; with the salt gone, no
//! address can be tried against the hashes that are kept.

use std::collections::BTreeMap;
use std::net::IpAddr;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::event::ClickedLink;
use crate::ambient;
use crate::kv::Kv;
use crate::store::StoreError;
use crate::store::clicks::{Day, salt_or_insert};

/// What a day's visitors are hashed with.
pub type Salt = [u8; 32];

/// Days whose salts a node remembers: the present one and the one before, for clicks that wait at midnight. No more, for
/// a salt that is gone from the store must go from memory, too.
const DAYS_REMEMBERED_MAX: usize = 2;

/// Who clicked: the same for the same address and software on the same link and day.
pub fn visitor(salt: &Salt, link: &ClickedLink, address: IpAddr, user_agent: &[u8]) -> u64 {
    let address = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    // HMAC takes keys of any length, so this does not fail.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(salt) else { return 0 };
    // Neither a domain nor a code holds a NUL, and an address has a fixed length: no two inputs read the same.
    for part in [link.domain.as_bytes(), &[0], link.code.as_bytes(), &[0], &address.octets(), user_agent] {
        mac.update(part);
    }
    mac.finalize().into_bytes().first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

/// The salts of the last days, as far as this node has needed them.
#[derive(Default)]
pub struct Salts(BTreeMap<Day, Salt>);

impl Salts {
    /// The salt of a day: the one that the nodes share, made now if this is the first to need it. May conflict.
    pub async fn of(&mut self, kv: &Kv, day: Day) -> Result<Salt, StoreError> {
        if let Some(salt) = self.0.get(&day) {
            return Ok(*salt);
        }
        let fresh: Salt = ambient::random();
        // Two nodes that begin a day at once: one of them conflicts, tries again, and finds the other's.
        let salt = salt_or_insert(kv, day, fresh).await?;
        self.0.insert(day, salt);
        if self.0.len() > DAYS_REMEMBERED_MAX {
            self.0.pop_first();
        }
        Ok(salt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visitor_is_an_address_and_software_on_one_link_and_one_day() {
        let link = |domain: &str, code: &str| ClickedLink { domain: domain.into(), code: code.into() };
        let address = |last| IpAddr::from([192, 0, 2, last]);
        let base = visitor(&[1; 32], &link("", "abc"), address(1), b"Firefox");
        assert_eq!(visitor(&[1; 32], &link("", "abc"), address(1), b"Firefox"), base);
        let others = [
            visitor(&[2; 32], &link("", "abc"), address(1), b"Firefox"),
            visitor(&[1; 32], &link("", "abd"), address(1), b"Firefox"),
            visitor(&[1; 32], &link("abc", ""), address(1), b"Firefox"),
            visitor(&[1; 32], &link("", "abc"), address(2), b"Firefox"),
            visitor(&[1; 32], &link("", "abc"), address(1), b"Chrome"),
        ];
        assert!(!others.contains(&base), "{others:?}");
    }
}
