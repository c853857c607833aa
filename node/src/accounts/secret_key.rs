//! The service's secret, and the keys that are derived from it: one for each use, so that none stands in for another.

use std::fmt;

use zeroize::Zeroizing;

use crate::keyed_hash::derive;
pub(super) use crate::keyed_hash::hmac_sha256;

/// The shortest secret, in bytes: as long as the hash that it keys (RFC 7518 §3.2, RFC 8725 §3.5).
pub const SECRET_KEY_BYTES_MIN: usize = 32;

/// `SECRET_KEY` or `SECRET_KEY_PREVIOUS`. Wiped from memory when dropped; never printed.
#[derive(Clone)]
pub struct SecretKey(Zeroizing<Vec<u8>>);

/// The secret is too short to sign with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a secret key has at least {SECRET_KEY_BYTES_MIN} bytes")]
pub struct SecretKeyTooShort;

impl SecretKey {
    /// Takes the secret as it is in the settings.
    pub fn new(bytes: Zeroizing<Vec<u8>>) -> Result<Self, SecretKeyTooShort> {
        if bytes.len() < SECRET_KEY_BYTES_MIN { Err(SecretKeyTooShort) } else { Ok(Self(bytes)) }
    }

    /// The key for one use, named by `label`: HMAC-SHA-256 as the expansion step of HKDF (RFC 5869 §2.3, one block).
    pub fn derive(&self, label: &[u8]) -> Zeroizing<[u8; 32]> {
        derive(&self.0, label)
    }
}

/// A secret that somebody who guesses would find. What it is, is not repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuessableKey {
    /// A text from an example or a template.
    #[error("is a placeholder from an example")]
    Placeholder,
    /// One part again and again, or neighbours in the alphabet.
    #[error("repeats itself or counts up")]
    Pattern,
    /// Less to guess than a random key has.
    #[error("is too easy to guess")]
    Entropy,
}

/// What templates and examples have in the place of a secret, letters and digits alone.
const PLACEHOLDERS: [&str; 18] = [
    "changeme",
    "changethis",
    "changeit",
    "replaceme",
    "replacethis",
    "replacewith",
    "placeholder",
    "yoursecret",
    "yourkey",
    "yoursupersecret",
    "mysecretkey",
    "mysupersecret",
    "supersecretkey",
    "secretkeyhere",
    "insecure",
    "notasecret",
    "donotuse",
    "keepthissecret",
];
/// The longest part that a secret is a repetition of: shorter ones have too little to guess.
const REPEATED_BYTES_MAX: usize = 15;
/// The longest row of neighbours (`abcdefg…`) in a secret. The digits of hexadecimal numbers are two shorter ones.
const ROW_BYTES_MAX: usize = 15;
/// The least that there is to guess, in bits, going by how often each byte is in the secret. Random secrets of 32 bytes or
/// digits have more than 90, however they are written.
const ENTROPY_BITS_MIN: f64 = 80.0;

/// Whether a secret that somebody chose is one that somebody else would guess.
pub fn check_chosen(secret: &[u8]) -> Result<(), GuessableKey> {
    let squashed: Zeroizing<Vec<u8>> =
        Zeroizing::new(secret.iter().filter(|b| b.is_ascii_alphanumeric()).map(u8::to_ascii_lowercase).collect());
    let holds = |word: &str| squashed.windows(word.len()).any(|part| part == word.as_bytes());
    if PLACEHOLDERS.iter().any(|word| holds(word)) {
        return Err(GuessableKey::Placeholder);
    }
    let is_repeated =
        |length: usize| length < secret.len() && secret.iter().zip(&secret[length..]).all(|(a, b)| a == b);
    let longest_row = |by: i16| {
        let is_step = |a: &u8, b: &u8| i16::from(*b) - i16::from(*a) == by;
        secret.chunk_by(is_step).map(<[u8]>::len).max().unwrap_or(0)
    };
    if (1..=REPEATED_BYTES_MAX).any(is_repeated) || [1, 0, -1].into_iter().any(|by| longest_row(by) > ROW_BYTES_MAX) {
        return Err(GuessableKey::Pattern);
    }
    if entropy_bits(secret) < ENTROPY_BITS_MIN { Err(GuessableKey::Entropy) } else { Ok(()) }
}

/// Shannon's entropy of the bytes, times how many there are.
fn entropy_bits(secret: &[u8]) -> f64 {
    let mut counts = [0_u32; 256];
    for byte in secret {
        counts[usize::from(*byte)] += 1;
    }
    let length = f64::from(counts.iter().sum::<u32>());
    counts.into_iter().filter(|count| *count > 0).map(f64::from).map(|count| count * (length / count).log2()).sum()
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_secret_is_refused_and_none_is_printed() {
        assert!(SecretKey::new(Zeroizing::new(vec![7; 31])).is_err());
        let key = SecretKey::new(Zeroizing::new(b"correct horse battery staple 12345".to_vec())).unwrap();
        assert_eq!(format!("{key:?}"), "SecretKey(redacted)");
        assert_ne!(key.derive(b"one"), key.derive(b"other"));
    }

    /// RFC 5869, appendix A.1: the expansion step alone, its first block.
    #[test]
    fn derivation_is_the_expansion_of_hkdf() {
        let prk = hex::decode("077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5").unwrap();
        let info = hex::decode("f0f1f2f3f4f5f6f7f8f9").unwrap();
        let okm = hex::decode("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf").unwrap();
        assert_eq!(SecretKey::new(Zeroizing::new(prk)).unwrap().derive(&info).as_slice(), okm);
    }

    #[test]
    fn secrets_that_somebody_would_guess_are_refused_and_random_ones_taken() {
        use GuessableKey::{Entropy, Pattern, Placeholder};
        for (secret, expected) in [
            ("a".repeat(32), Err(Pattern)),
            (" ".repeat(64), Err(Pattern)),
            ("changeme".repeat(4), Err(Placeholder)),
            ("change-me-change-me-change-me-please".to_owned(), Err(Placeholder)),
            ("CHANGE_ME_9f86d081884c7d659a2feaa0c55ad015".to_owned(), Err(Placeholder)),
            ("your-secret-key-goes-here-32-bytes-long".to_owned(), Err(Placeholder)),
            ("django-insecure-3k$#v!x0q@w9e8r7t6y5u4".to_owned(), Err(Placeholder)),
            ("supersecretkeysupersecretkey123456".to_owned(), Err(Placeholder)),
            ("secret".repeat(6), Err(Pattern)),
            ("password".repeat(4), Err(Pattern)),
            ("0123456789".repeat(4), Err(Pattern)),
            ("abcdefghijklmnopqrstuvwxyz0123456789".to_owned(), Err(Pattern)),
            ("zyxwvutsrqponmlkjihgfedcba9876543210".to_owned(), Err(Pattern)),
            (format!("{}bcdefgh", "a".repeat(15)).repeat(2), Err(Entropy)),
            ("aabbaabbabababbabaabbbaaababbbab".to_owned(), Err(Entropy)),
            ("a secret of tests alone, 32 bytes".to_owned(), Ok(())),
            ("correct horse battery staple 12345".to_owned(), Ok(())),
            ("9f86d081884c7d659a2feaa0c55ad015".to_owned(), Ok(())),
            ("0123456789abcdef0123456789abcdef".to_owned(), Ok(())),
            ("31415926535897932384626433832795".to_owned(), Ok(())),
            ("n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg=".to_owned(), Ok(())),
        ] {
            assert_eq!(check_chosen(secret.as_bytes()), expected, "{secret}");
        }
        for _ in 0..1_000 {
            let random: [u8; 32] = crate::ambient::random();
            assert_eq!(check_chosen(&random), Ok(()), "{random:?}");
            assert_eq!(check_chosen(&hex::encode(random).as_bytes()[..32]), Ok(()), "{random:?}");
        }
    }
}
