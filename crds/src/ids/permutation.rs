//! A keyed bijection of `[0, N)`, which makes codes out of consecutive code IDs: they cannot be enumerated or counted, and they
//! spread evenly over the store.
//!
//! It is a Feistel network with cycle walking, the "generalized Feistel cipher" of J. Black and P. Rogaway, *Ciphers with Arbitrary
//! Finite Domains* (CT-RSA 2002): `[0, N)` lies in `[0, a²)` with `a = ⌈√N⌉`; a number is a pair of digits of base a; each round adds a
//! pseudorandom function of one digit to the other, modulo a; and what falls into `[N, a²)` goes round again. With a that tight,
//! fewer than one in 10^5 numbers goes round a second time. As in NIST SP 800-38G (FF1) there are 10 rounds and the round function is AES with the
//! round's number and the domain in its block; here one AES call is enough, because a digit fits into 32 bits. AES-256 costs about 10 ns
//! with the processor's instructions, so a permutation costs a fraction of a microsecond, and a few without them.

use std::fmt;

use aes::Aes256;
use aes::cipher::{BlockCipherEncrypt, KeyInit};

use crate::ids::{CodeLength, ShortCode};

/// Feistel rounds, as many as FF1 has.
const ROUNDS: u32 = 10;

/// The secret of a keyspace's permutation: 256 random bits, drawn once with the keyspace. It never changes, or codes would repeat.
#[derive(Clone, PartialEq, Eq)]
pub struct PermutationKey([u8; 32]);

impl PermutationKey {
    /// The key with these bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes, to be stored in the keyspace record and nowhere else.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for PermutationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PermutationKey(secret)")
    }
}

/// A pseudorandom permutation of `[0, N)`.
#[derive(Clone)]
pub struct Permutation {
    cipher: Aes256,
    domain: u64,
    /// ⌈√N⌉: the base of the two digits.
    base: u64,
}

impl Permutation {
    /// The permutation of `[0, domain)` under `key`. Each domain has one of its own.
    pub fn new(key: &PermutationKey, domain: u64) -> Self {
        let root = domain.isqrt();
        let base = if root * root < domain { root + 1 } else { root };
        Self { cipher: Aes256::new(&key.0.into()), domain, base }
    }

    /// Where `plain` goes; nothing outside the domain goes anywhere.
    pub fn encrypt(&self, plain: u64) -> Option<u64> {
        self.walk(plain, Self::forward)
    }

    /// What went to `permuted`: the inverse of [`Self::encrypt`].
    pub fn decrypt(&self, permuted: u64) -> Option<u64> {
        self.walk(permuted, Self::backward)
    }

    /// Applies a bijection of `[0, a²)` until it comes back into the domain. It always does: a cycle that leaves returns.
    fn walk(&self, start: u64, step: fn(&Self, (u64, u64)) -> (u64, u64)) -> Option<u64> {
        if start >= self.domain {
            return None;
        }
        let mut pair = (start / self.base, start % self.base);
        loop {
            pair = step(self, pair);
            // At most a² - 1, and a is at most 2^32: this never overflows.
            let number = pair.0 * self.base + pair.1;
            if number < self.domain {
                return Some(number);
            }
        }
    }

    fn forward(&self, (mut left, mut right): (u64, u64)) -> (u64, u64) {
        for round in 0..ROUNDS {
            (left, right) = (right, (left + self.round(round, right)) % self.base);
        }
        (left, right)
    }

    fn backward(&self, (mut left, mut right): (u64, u64)) -> (u64, u64) {
        for round in (0..ROUNDS).rev() {
            (left, right) = ((right + self.base - self.round(round, left)) % self.base, left);
        }
        (left, right)
    }

    /// The round function: AES of (domain, round, digit), reduced modulo a. 64 bits are reduced to at most 30 for the
    /// longest code, so that the bias of the reduction is below 2^-34.
    fn round(&self, round: u32, digit: u64) -> u64 {
        round_word(&self.cipher, self.domain, round, digit) % self.base
    }
}

/// 64 pseudorandom bits of a round: the first half of AES of (domain, round, digit).
fn round_word(cipher: &Aes256, domain: u64, round: u32, digit: u64) -> u64 {
    let mut block = [0; 16];
    block[..8].copy_from_slice(&domain.to_be_bytes());
    // Ten rounds need four bits, and a digit at most 32: they share a word without meeting.
    block[8..].copy_from_slice(&(u64::from(round) << 32 | digit).to_be_bytes());
    let mut block = block.into();
    cipher.encrypt_block(&mut block);
    let output: [u8; 16] = block.into();
    let (low, _) = output.split_at(8);
    low.iter().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

impl fmt::Debug for Permutation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permutation").field("domain", &self.domain).finish_non_exhaustive()
    }
}

/// Turns code IDs of one length into codes, and back.
#[derive(Clone, Debug)]
pub struct CodePermutation {
    code_length: CodeLength,
    permutation: Permutation,
}

impl CodePermutation {
    /// The keyspace's permutation for codes of this length.
    pub fn new(key: &PermutationKey, code_length: CodeLength) -> Self {
        Self { code_length, permutation: Permutation::new(key, code_length.codes()) }
    }

    /// The code of a code ID; none for a number that is no code ID of this length.
    pub fn code(&self, code_id: u64) -> Option<ShortCode> {
        let number = self.permutation.encrypt(code_id)?;
        ShortCode::from_number(number, self.code_length).ok()
    }

    /// The code ID of a code; none for a code of another length.
    pub fn code_id(&self, code: ShortCode) -> Option<u64> {
        if code.length() == self.code_length { self.permutation.decrypt(code.number()) } else { None }
    }
}

/// A keyed bijection of all 64-bit numbers: what it makes of an ID tells neither the ID's time nor its neighbours.
///
/// It is the same network on the whole domain: two digits of base 2^32, added without carry, and no number goes round twice.
/// The domain, 2^64, stands as zero in the block of the round function, where no other permutation has a zero.
#[derive(Clone)]
pub struct IdPermutation(Aes256);

impl IdPermutation {
    /// The permutation of `key`. Each use of one has a key of its own.
    pub fn new(key: &PermutationKey) -> Self {
        Self(Aes256::new(&key.0.into()))
    }

    /// Where `plain` goes.
    pub fn encrypt(&self, plain: u64) -> u64 {
        let (mut left, mut right) = halves(plain);
        for round in 0..ROUNDS {
            (left, right) = (right, left ^ self.round(round, right));
        }
        joined(left, right)
    }

    /// What went to `permuted`: the inverse of [`Self::encrypt`].
    pub fn decrypt(&self, permuted: u64) -> u64 {
        let (mut left, mut right) = halves(permuted);
        for round in (0..ROUNDS).rev() {
            (left, right) = (right ^ self.round(round, left), left);
        }
        joined(left, right)
    }

    fn round(&self, round: u32, digit: u32) -> u32 {
        halves(round_word(&self.0, 0, round, digit.into())).1
    }
}

impl fmt::Debug for IdPermutation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdPermutation(secret)")
    }
}

/// The high and the low half of a number.
fn halves(number: u64) -> (u32, u32) {
    let [h1, h2, h3, h4, l1, l2, l3, l4] = number.to_be_bytes();
    (u32::from_be_bytes([h1, h2, h3, h4]), u32::from_be_bytes([l1, l2, l3, l4]))
}

fn joined(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> PermutationKey {
        PermutationKey::new([seed; 32])
    }

    #[test]
    fn nothing_outside_the_domain_is_permuted() {
        let permutation = Permutation::new(&key(1), 1000);
        assert_eq!(
            (permutation.encrypt(1000), permutation.decrypt(1000), permutation.encrypt(u64::MAX)),
            (None, None, None)
        );
        assert_eq!(Permutation::new(&key(1), 0).encrypt(0), None);
    }

    #[test]
    fn the_largest_domain_does_not_overflow() {
        let permutation = Permutation::new(&key(1), u64::MAX);
        for plain in [0, 1, 1 << 32, u64::MAX - 1] {
            let there = permutation.encrypt(plain).expect("in the domain");
            assert_eq!(permutation.decrypt(there), Some(plain));
        }
    }

    #[test]
    fn the_permutation_never_changes_between_releases() {
        // These codes are out in the world: if this fails, new codes may repeat them. They were computed with OpenSSL's AES
        // and a second implementation of the network.
        let codes = |length: u8| {
            let permutation = CodePermutation::new(&key(42), CodeLength::try_from(length).expect("a length"));
            [0, 1, 2, 65_536].map(|id| permutation.code(id).expect("in the domain").to_string())
        };
        assert_eq!(codes(6), ["aSzCVk", "aEGzzO", "EQy1eI", "vz7YoC"]);
        assert_eq!(codes(7), ["ErOEvqK", "BceKZDr", "IRX3H7s", "GPifkLK"]);
        assert_eq!(codes(10), ["Xz9yJyDyB1", "km2yJVIHkx", "kunkHFZLjG", "eMYuK9Ux5u"]);
    }

    #[test]
    fn the_permutation_of_ids_never_changes_between_releases() {
        // Clients keep these IDs. They were computed with OpenSSL's AES and a second implementation of the network.
        let ids = IdPermutation::new(&key(42));
        let permuted = [0, 1, 7_350_249_120_423_936, u64::MAX].map(|id| ids.encrypt(id));
        assert_eq!(
            permuted,
            [172_580_748_305_550_309, 6_046_902_353_401_519_992, 1_328_405_456_715_914_175, 6_388_722_046_959_002_625]
        );
    }

    #[test]
    fn no_print_shows_the_key() {
        let permutation = CodePermutation::new(&key(42), CodeLength::DEFAULT);
        let ids = IdPermutation::new(&key(42));
        for printed in [format!("{:?}", key(42)), format!("{permutation:?}"), format!("{ids:?}")] {
            assert!(!printed.contains("42"), "{printed}");
        }
    }
}
