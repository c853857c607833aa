//! Short codes: numbers of `[0, 62^n)` written with n Base62 digits.
//!
//! The digits are `0-9A-Za-z`, in ASCII order, so that codes of one length sort as their numbers do.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The Base62 digits in ascending order, which is their ASCII order.
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The longest code, in digits.
const LENGTH_MAX: usize = 10;

/// How many digits a code has: 6 to 10. Each length is a space of its own, with blocks, claims and a mark of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct CodeLength(u8);

/// A number that is no code length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a code has 6 to 10 characters, not {0}")]
pub struct CodeLengthError(u8);

impl CodeLength {
    /// Seven digits: 3,521,614,606,208 codes.
    pub const DEFAULT: Self = Self(7);

    /// All lengths, shortest first.
    pub fn all() -> impl Iterator<Item = Self> {
        (6..=10).map(Self)
    }

    /// How many codes of this length there are: 62^n.
    pub fn codes(self) -> u64 {
        62_u64.pow(u32::from(self.0))
    }

    /// The number of digits.
    pub fn digits(self) -> usize {
        usize::from(self.0)
    }
}

impl Default for CodeLength {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl TryFrom<u8> for CodeLength {
    type Error = CodeLengthError;

    fn try_from(digits: u8) -> Result<Self, CodeLengthError> {
        if (6..=10).contains(&digits) { Ok(Self(digits)) } else { Err(CodeLengthError(digits)) }
    }
}

impl From<CodeLength> for u8 {
    fn from(length: CodeLength) -> Self {
        length.0
    }
}

impl fmt::Display for CodeLength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A minted code: 6 to 10 Base62 digits. Custom aliases are a wider set and a type of their own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShortCode {
    /// ASCII digits; zero beyond the length.
    text: [u8; LENGTH_MAX],
    length: CodeLength,
}

/// Why a text or a number is no short code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShortCodeError {
    /// Too short or too long.
    #[error("a short code has 6 to 10 characters")]
    Length,
    /// A character that is no Base62 digit.
    #[error("a short code has only letters and digits")]
    Digit,
    /// The number does not fit into the digits.
    #[error("{number} has no code of {length} characters")]
    TooLarge {
        /// The number.
        number: u64,
        /// The length asked for.
        length: CodeLength,
    },
}

impl ShortCode {
    /// The code that writes `number` with `length` digits.
    pub fn from_number(number: u64, length: CodeLength) -> Result<Self, ShortCodeError> {
        if number >= length.codes() {
            return Err(ShortCodeError::TooLarge { number, length });
        }
        let mut text = [0; LENGTH_MAX];
        let mut rest = number;
        for place in text[..length.digits()].iter_mut().rev() {
            *place = DIGITS[usize::try_from(rest % 62).unwrap_or_default()];
            rest /= 62;
        }
        Ok(Self { text, length })
    }

    /// The number that the digits write.
    pub fn number(&self) -> u64 {
        self.as_str().bytes().filter_map(digit_value).fold(0, |number, digit| number * 62 + digit)
    }

    /// How many digits it has.
    pub fn length(&self) -> CodeLength {
        self.length
    }

    /// The code as text.
    pub fn as_str(&self) -> &str {
        // Only ASCII digits are ever put in, so this never falls back.
        str::from_utf8(&self.text[..self.length.digits()]).unwrap_or_default()
    }
}

/// What an ASCII character is worth as a Base62 digit.
fn digit_value(character: u8) -> Option<u64> {
    match character {
        b'0'..=b'9' => Some(u64::from(character - b'0')),
        b'A'..=b'Z' => Some(u64::from(character - b'A') + 10),
        b'a'..=b'z' => Some(u64::from(character - b'a') + 36),
        _ => None,
    }
}

impl FromStr for ShortCode {
    type Err = ShortCodeError;

    fn from_str(code: &str) -> Result<Self, ShortCodeError> {
        let length = u8::try_from(code.len()).map_err(|_| ShortCodeError::Length)?;
        let length = CodeLength::try_from(length).map_err(|_| ShortCodeError::Length)?;
        if !code.bytes().all(|character| digit_value(character).is_some()) {
            return Err(ShortCodeError::Digit);
        }
        let mut text = [0; LENGTH_MAX];
        text[..length.digits()].copy_from_slice(code.as_bytes());
        Ok(Self { text, length })
    }
}

impl fmt::Display for ShortCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for ShortCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ShortCode({})", self.as_str())
    }
}

impl AsRef<str> for ShortCode {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl From<ShortCode> for String {
    fn from(code: ShortCode) -> Self {
        code.as_str().to_owned()
    }
}

impl Serialize for ShortCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ShortCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(number: u64, digits: u8, code: &str) {
        let length = CodeLength::try_from(digits).expect("a length");
        let written = ShortCode::from_number(number, length).expect("in the domain");
        assert_eq!((written.as_str(), written.number()), (code, number));
        assert_eq!(code.parse(), Ok(written));
    }

    #[test]
    fn numbers_and_codes_are_one_to_one() {
        check(0, 6, "000000");
        check(61, 7, "000000z");
        check(62, 7, "0000010");
        check(62_u64.pow(7) - 1, 7, "zzzzzzz");
        check(62_u64.pow(10) - 1, 10, "zzzzzzzzzz");
    }

    #[test]
    fn what_is_no_code_is_refused() {
        for (text, error) in [
            ("", ShortCodeError::Length),
            ("abcde", ShortCodeError::Length),
            ("abcdefghijk", ShortCodeError::Length),
            ("abc-ef", ShortCodeError::Digit),
            ("abcd f", ShortCodeError::Digit),
            ("äbcde", ShortCodeError::Digit),
        ] {
            assert_eq!(text.parse::<ShortCode>(), Err(error), "{text}");
        }
        let number = 62_u64.pow(7);
        let length = CodeLength::DEFAULT;
        assert_eq!(ShortCode::from_number(number, length), Err(ShortCodeError::TooLarge { number, length }));
        assert_eq!(
            (CodeLength::try_from(5), CodeLength::try_from(11)),
            (Err(CodeLengthError(5)), Err(CodeLengthError(11)))
        );
    }

    #[test]
    fn codes_sort_as_their_numbers() {
        let codes: Vec<_> = [0, 9, 10, 35, 36, 61, 62, 62 * 62]
            .map(|number| ShortCode::from_number(number, CodeLength::DEFAULT).expect("in the domain").to_string())
            .into();
        assert!(codes.is_sorted(), "{codes:?}");
    }
}
