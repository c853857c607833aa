//! One line of a backup, as JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::ambient::UnixMs;
use crate::store::Kind;

/// The version of the format.
const VERSION: u32 = 1;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Line {
    /// The first.
    Header {
        /// Of the format: 1.
        #[serde(deserialize_with = "this_version")]
        version: u32,
        /// The identity of the keyspace that was backed up, in hexadecimal digits.
        keyspace: String,
        /// When, RFC 3339.
        taken_at: String,
    },
    /// One a row.
    Row {
        /// The kind's name, for whoever reads it.
        kind: String,
        /// In base64.
        key: String,
        /// In base64: the version byte, and what it says.
        value: String,
    },
    /// The last.
    End {
        /// How many there are.
        rows: u64,
        /// Of all lines before this one with their ends, in hexadecimal digits.
        sha256: String,
    },
}

fn this_version<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let version = u32::deserialize(deserializer)?;
    if version == VERSION { Ok(version) } else { Err(serde::de::Error::custom("another version")) }
}

impl Line {
    pub(super) fn header(identity: u128, now: UnixMs) -> Self {
        Self::Header { version: VERSION, keyspace: format!("{identity:032x}"), taken_at: now.to_string() }
    }

    pub(super) fn row(key: &[u8], value: &[u8]) -> Self {
        let kind = Kind::of_key(key).map_or("", Kind::name).to_owned();
        Self::Row { kind, key: STANDARD.encode(key), value: STANDARD.encode(value) }
    }
}

/// The bytes of a key or a value.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}
