//! What strangers see of a link's ID, and the token that manages a link without an owner.
//!
//! All of it is computed from the ID with keys of the keyspace, so that every node agrees and nothing more is stored: a public
//! ID is the ID under a keyed permutation, a management token is a keyed hash of the ID. A repeated create therefore gives the
//! same token again, and a wrong token is refused before the store is asked. What is computed cannot be revoked: who reads the
//! keyspace's record, or a backup of it, can compute it too.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use shortener_crds::ids::{IdPermutation, PermutationKey};
use zeroize::Zeroizing;

use crate::keyed_hash::{hmac_sha256, is_hmac_sha256};
use crate::minter::{MintError, Minter};

const PUBLIC_IDS: &[u8] = b"shortener public link id v1";
/// Cursors have a key of their own: were they public IDs, a list that begins at one would tell when its link was made.
const CURSORS: &[u8] = b"shortener list cursor v1";
const MANAGEMENT_TOKENS: &[u8] = b"shortener management token v1";

/// The keys.
#[derive(Clone)]
pub struct LinkKeys {
    ids: IdPermutation,
    cursors: IdPermutation,
    tokens: Zeroizing<[u8; 32]>,
}

impl std::fmt::Debug for LinkKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LinkKeys(secret)")
    }
}

impl LinkKeys {
    /// The keys of the keyspace that `minter` mints in; fails until the store was reached.
    pub fn of(minter: &Minter) -> Result<Self, MintError> {
        Self::derived(|label| minter.keyspace_key(label))
    }

    fn derived<E>(key: impl Fn(&[u8]) -> Result<Zeroizing<[u8; 32]>, E>) -> Result<Self, E> {
        let permutation = |label| Ok(IdPermutation::new(&PermutationKey::new(*key(label)?)));
        Ok(Self { ids: permutation(PUBLIC_IDS)?, cursors: permutation(CURSORS)?, tokens: key(MANAGEMENT_TOKENS)? })
    }

    /// The ID as everybody may see it, in decimal.
    pub fn public_id(&self, id: u64) -> String {
        self.ids.encrypt(id).to_string()
    }

    /// The ID that has this public one. Every 64-bit number in its one decimal form has an ID, which a link need not have.
    pub fn id_of(&self, public: &str) -> Option<u64> {
        let number: u64 = public.parse().ok()?;
        (number.to_string() == public).then(|| self.ids.decrypt(number))
    }

    /// The place in a list after the link with this ID.
    pub fn cursor_after(&self, id: u64) -> u64 {
        self.cursors.encrypt(id)
    }

    /// The ID that [`Self::cursor_after`] was given.
    pub fn id_before(&self, cursor: u64) -> u64 {
        self.cursors.decrypt(cursor)
    }

    /// The token that manages the link with this ID: 256 bits, URL-safe.
    pub fn management_token(&self, id: u64) -> String {
        URL_SAFE_NO_PAD.encode(hmac_sha256(self.tokens.as_slice(), &[&id.to_be_bytes()]))
    }

    /// Whether `token` manages the link with this ID, in a time that does not depend on how much of it is right.
    pub fn is_management_token(&self, id: u64, token: &str) -> bool {
        let tag = URL_SAFE_NO_PAD.decode(token).unwrap_or_default();
        is_hmac_sha256(self.tokens.as_slice(), &[&id.to_be_bytes()], &tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyed_hash::derive;

    fn keys(seed: u8) -> LinkKeys {
        LinkKeys::derived(|label| Ok::<_, MintError>(derive(&[seed; 32], label))).unwrap()
    }

    #[test]
    fn a_public_id_has_one_text_and_goes_back() {
        let keys = keys(1);
        for id in [0, 1, 7_350_249_120_423_936, u64::MAX] {
            assert_eq!(keys.id_of(&keys.public_id(id)), Some(id));
            assert_eq!(keys.id_before(keys.cursor_after(id)), id);
        }
        for wrong in ["", "+5", "-1", "05", "00", " 5", "5 ", "18446744073709551616", "5a", "0x5", "\u{665}"] {
            assert_eq!(keys.id_of(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_token_manages_its_own_link_in_its_own_keyspace_alone() {
        let (keys, others) = (keys(1), keys(2));
        let token = keys.management_token(7);
        assert!(keys.is_management_token(7, &token) && token.len() == 43, "{token}");
        assert!(!keys.is_management_token(8, &token) && !others.is_management_token(7, &token));
        let (start, last) = token.split_at(42);
        for wrong in ["", "A", start, &format!("{token}A"), &format!("{token}="), &token.to_uppercase(), &token[1..]] {
            assert!(!keys.is_management_token(7, wrong), "{wrong:?}");
        }
        // The last character holds four bits and two that are zero: no second text stands for the same token.
        let twins = ('A'..='z').filter(|c| c.is_ascii_alphabetic() && !last.starts_with(*c));
        assert!(twins.map(|c| format!("{start}{c}")).all(|twin| !keys.is_management_token(7, &twin)));
    }

    #[test]
    fn a_cursor_is_no_public_id_and_no_print_shows_a_key() {
        let keys = keys(1);
        assert_ne!(keys.public_id(7), keys.cursor_after(7).to_string());
        assert_eq!(format!("{keys:?}"), "LinkKeys(secret)");
    }

    #[test]
    fn what_clients_keep_never_changes_between_releases() {
        // They were computed with Python's HMAC and OpenSSL's AES.
        let keys = keys(3);
        assert_eq!(
            (keys.public_id(7), keys.management_token(7)),
            ("18115265542234623212".to_owned(), "syxK9rMoxF2-0YzxmiKOAmBqiufSzC925F-4jGnUqIY".to_owned())
        );
    }
}
