//! Passwords and their hashes: pure, and slow on purpose. Run them on the [pool](super::password_pool), not here.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use icu_normalizer::ComposingNormalizerBorrowed;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::secret_key::hmac_sha256;
use super::weak_passwords::is_weak;

/// The shortest password, in characters.
pub const PASSWORD_CHARS_MIN: usize = 8;

/// The longest password, in bytes: a passphrase fits, a denial of service does not.
pub const PASSWORD_BYTES_MAX: usize = 256;

/// bcrypt's cost in production: 2^12 rounds, about a quarter of a second.
pub const BCRYPT_COST: u32 = 12;

/// Keeps these digests apart from every other HMAC of a password in the world. Changing it forgets every password.
const PRE_HASH_LABEL: &[u8] = b"shortener password v1";

/// A password in clear. Wiped from memory when dropped; never printed.
#[derive(Clone, Deserialize)]
#[serde(from = "String")]
pub struct Password(Zeroizing<String>);

/// Why a new password is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Under [`PASSWORD_CHARS_MIN`].
    #[error("a password has at least {PASSWORD_CHARS_MIN} characters")]
    TooShort,
    /// Over [`PASSWORD_BYTES_MAX`].
    #[error("a password has at most {PASSWORD_BYTES_MAX} bytes")]
    TooLong,
    /// Known to be tried first: see [`weak_passwords`](super::weak_passwords).
    #[error("this password is among the first that anybody tries; choose another")]
    Weak,
}

/// A bcrypt hash as it is stored: `$2b$12$…`.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(String);

impl Password {
    /// Whether this may become the password of somebody of whom these words are known. One that is only being tried need not
    /// hold to it: it is just wrong.
    pub fn check_new(&self, own_words: &[String]) -> Result<(), PasswordError> {
        if self.0.len() > PASSWORD_BYTES_MAX {
            return Err(PasswordError::TooLong);
        }
        if self.0.chars().count() < PASSWORD_CHARS_MIN {
            return Err(PasswordError::TooShort);
        }
        if is_weak(&self.0, own_words) { Err(PasswordError::Weak) } else { Ok(()) }
    }

    /// What bcrypt is given: 43 characters of base64. bcrypt itself stops at 72 bytes and at NUL; the digest makes every
    /// byte count. Composed first, because keyboards differ in how they send the same accented letter (RFC 8265 §4.2.2).
    fn pre_hash(&self) -> Zeroizing<String> {
        let composed = Zeroizing::new(ComposingNormalizerBorrowed::new_nfc().normalize(&self.0).into_owned());
        let digest = Zeroizing::new(hmac_sha256(PRE_HASH_LABEL, &[composed.as_bytes()]));
        Zeroizing::new(STANDARD_NO_PAD.encode(digest.as_slice()))
    }

    /// Hashes with bcrypt at `cost` (4 to 31) and this `salt`. Takes 2^`cost` rounds.
    pub fn hash(&self, cost: u32, salt: [u8; 16]) -> Result<PasswordHash, bcrypt::BcryptError> {
        let parts = bcrypt::hash_with_salt(self.pre_hash().as_bytes(), cost, salt)?;
        Ok(PasswordHash(parts.to_string()))
    }

    /// Whether this is the password of `hash`; compared in constant time.
    pub fn is_of(&self, hash: &PasswordHash) -> bool {
        bcrypt::verify(self.pre_hash().as_bytes(), &hash.0).unwrap_or(false)
    }
}

impl PasswordHash {
    /// A hash that no password has been hashed to, and that takes as long to verify as a real one of the same cost.
    pub fn dummy(cost: u32) -> Self {
        Self(format!("$2b${cost:02}${}", ".".repeat(53)))
    }
}

impl From<String> for Password {
    fn from(raw: String) -> Self {
        Self(Zeroizing::new(raw))
    }
}

impl From<String> for PasswordHash {
    /// Takes a hash as it was stored; a damaged one fits no password.
    fn from(stored: String) -> Self {
        Self(stored)
    }
}

impl From<PasswordHash> for String {
    fn from(hash: PasswordHash) -> Self {
        hash.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(redacted)")
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// bcrypt's lowest cost: what is tested here does not depend on it.
    const COST: u32 = 4;

    fn password(raw: &str) -> Password {
        raw.to_owned().into()
    }

    #[test]
    fn new_passwords_are_held_to_their_limits() {
        for (raw, expected) in [
            ("73019462".to_owned(), Ok(())),
            ("pässword".to_owned(), Ok(())),
            ("12345678".to_owned(), Err(PasswordError::Weak)),
            ("🔑🗝️🔐🔏🔑🗝️🔐🔒".to_owned(), Ok(())),
            (format!("zu8&kd-2ls{}", "x".repeat(246)), Ok(())),
            ("🔑".repeat(8), Err(PasswordError::Weak)),
            ("1234567".to_owned(), Err(PasswordError::TooShort)),
            ("äöüäöüä".to_owned(), Err(PasswordError::TooShort)),
            (String::new(), Err(PasswordError::TooShort)),
            ("x".repeat(257), Err(PasswordError::TooLong)),
            ("🔑".repeat(65), Err(PasswordError::TooLong)),
        ] {
            assert_eq!(password(&raw).check_new(&[]), expected, "{raw:?}");
        }
    }

    #[test]
    fn every_byte_counts_past_72_and_past_nul() {
        let long = "x".repeat(72);
        for (right, wrong) in [
            (format!("{long}a"), format!("{long}b")),
            (long.clone(), format!("{long}x")),
            ("before\0after1".to_owned(), "before\0after2".to_owned()),
            ("\0".repeat(8), "\0".repeat(9)),
            ("Password".to_owned(), "password".to_owned()),
            ("password".to_owned(), "password ".to_owned()),
        ] {
            let hash = password(&right).hash(COST, [7; 16]).unwrap();
            assert!(password(&right).is_of(&hash), "{right:?}");
            assert!(!password(&wrong).is_of(&hash), "{wrong:?}");
        }
    }

    #[test]
    fn an_accent_typed_either_way_is_the_same_password() {
        let hash = password("caf\u{e9} au lait").hash(COST, [7; 16]).unwrap();
        assert!(password("cafe\u{301} au lait").is_of(&hash));
    }

    #[test]
    fn the_salt_makes_equal_passwords_hash_apart_and_the_production_cost_is_written_in_the_hash() {
        let password = password("same password");
        assert_ne!(password.hash(COST, [1; 16]).unwrap(), password.hash(COST, [2; 16]).unwrap());
        assert!(password.hash(BCRYPT_COST, [1; 16]).unwrap().0.starts_with("$2b$12$"));
    }

    #[test]
    fn the_dummy_parses_as_a_hash_of_its_cost_so_that_verifying_it_runs_bcrypt() {
        for cost in [COST, BCRYPT_COST] {
            let dummy = PasswordHash::dummy(cost);
            assert_eq!(dummy.0.parse::<bcrypt::HashParts>().unwrap().get_cost(), cost);
        }
        assert!(!password("password").is_of(&PasswordHash::dummy(COST)));
    }

    #[test]
    fn nothing_secret_is_printed() {
        let password = password("hunter2hunter2");
        let hash = password.hash(COST, [7; 16]).unwrap();
        assert_eq!(format!("{password:?} {hash:?}"), "Password(redacted) PasswordHash(redacted)");
    }
}
