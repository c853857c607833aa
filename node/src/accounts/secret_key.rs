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
}
