//! Names drawn at random from 128 bits, so that no two are ever drawn alike: of one process, and of one keyspace.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A text that is not 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an ID of 128 bits is 32 hexadecimal digits")]
pub struct RandomIdError;

/// A newtype of 128 random bits, shown and written as JSON as 32 hexadecimal digits.
macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u128);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = RandomIdError;

            fn from_str(text: &str) -> Result<Self, RandomIdError> {
                digits(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() { serializer.collect_str(self) } else { self.0.serialize(serializer) }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
                } else {
                    u128::deserialize(deserializer).map(Self)
                }
            }
        }
    };
}

random_id! {
    /// The name of one process of a node, drawn once at its start and never stored by it: what restarts is another boot.
    BootId
}

random_id! {
    /// The name of one keyspace, drawn when the first node finds the store empty and kept there ever after.
    KeyspaceId
}

fn digits(text: &str) -> Result<u128, RandomIdError> {
    if text.len() != 32 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(RandomIdError);
    }
    u128::from_str_radix(text, 16).map_err(|_| RandomIdError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_text_reads_back() {
        for boot in [BootId(0), BootId(0xff), BootId(u128::MAX)] {
            assert_eq!((boot.to_string().len(), boot.to_string().parse()), (32, Ok(boot)));
        }
        for text in ["", "ff", "+0000000000000000000000000000000", "g0000000000000000000000000000000"] {
            assert_eq!(text.parse::<BootId>(), Err(RandomIdError), "{text}");
        }
    }
}
