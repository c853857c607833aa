//! What lies in the store: every kind of row, its key and its encoding.
//!
//! A key is one prefix byte for its [`Kind`], then its parts in an order-preserving encoding ([`Key`]). A value is one
//! version byte and then postcard; an old version stays readable for ever. A new version only adds fields at the end, so that a program
//! reads the version after its own as well: it leaves out what it does not know. Such a row it never writes back. Which version is
//! written is a matter of the keyspace's [`mod@format`]. Rows are defined in one file a subject below this one; nothing outside `store`
//! builds a key.

pub mod accounts;
pub mod allocation;
pub mod clicks;
pub mod domains;
pub mod format;
#[cfg(test)]
mod frozen;
pub mod idempotency;
pub mod invalidations;
pub mod keyspace;
pub mod links;
pub mod search;
pub mod takedowns;

use std::ops::Range;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::kv::{KvError, prefix_range};
use format::{Format, Formats, NewerFormat};

/// Every kind of row. The byte leads the key and never changes its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// The keyspace's identity, its permutation key and format version: one row.
    Keyspace = b'a',
    /// Which boot took a block: (code length, block).
    Claim = b'b',
    /// The highest block ever claimed plus one: (code length).
    HighWaterMark = b'c',
    /// Whose a worker ID is and until when: (worker ID).
    Worker = b'd',
    /// A link: (domain, code).
    Link = b'e',
    /// Where a link is, by its ID: (bit-reversed ID).
    LinkById = b'f',
    /// A user's links, newest first: (bit-reversed user, inverted link ID).
    LinkByOwner = b'g',
    /// The first answer to an idempotency key: (hash of caller and key).
    Idempotency = b'h',
    /// A user: (bit-reversed ID).
    User = b'i',
    /// Whose an e-mail address is: (normalised address).
    UserByEmail = b'j',
    /// A refresh token: (SHA-256 of the token).
    RefreshToken = b'k',
    /// A family of refresh tokens: (family).
    RefreshFamily = b'l',
    /// A raw click: (spread, day, boot, counter).
    Click = b'm',
    /// Clicks of all time: (domain, code, shard).
    ClickTotal = b'n',
    /// Clicks of a day: (domain, code, day, shard).
    ClickDay = b'o',
    /// Clicks of an hour: (domain, code, hour, shard).
    ClickHour = b'p',
    /// The salt that visitors of a day are hashed with: (day).
    VisitorSalt = b'q',
    /// Where the store's files were when it was last opened: one row.
    Place = b'r',
    /// That a link was changed, until caches that nodes share know it: (domain, code).
    Invalidation = b's',
    /// A network that a user signed in from: (bit-reversed user, keyed hash).
    KnownNetwork = b't',
    /// That a host or a code is blocked: (host), or (domain, code).
    Takedown = b'u',
    /// A link that no segment of its owner's search index covers as it is: (bit-reversed user, inverted link ID).
    Unindexed = b'v',
    /// The head and the segments of a user's search index: (bit-reversed user, number).
    SearchIndex = b'w',
    /// Which domain a host means: (host).
    Domain = b'x',
}

/// Every kind, with the name that it has in a backup.
pub const KINDS: [(Kind, &str); 24] = [
    (Kind::Keyspace, "keyspace"),
    (Kind::Claim, "claim"),
    (Kind::HighWaterMark, "high_water_mark"),
    (Kind::Worker, "worker"),
    (Kind::Link, "link"),
    (Kind::LinkById, "link_by_id"),
    (Kind::LinkByOwner, "link_by_owner"),
    (Kind::Idempotency, "idempotency"),
    (Kind::User, "user"),
    (Kind::UserByEmail, "user_by_email"),
    (Kind::RefreshToken, "refresh_token"),
    (Kind::RefreshFamily, "refresh_family"),
    (Kind::Click, "click"),
    (Kind::ClickTotal, "click_total"),
    (Kind::ClickDay, "click_day"),
    (Kind::ClickHour, "click_hour"),
    (Kind::VisitorSalt, "visitor_salt"),
    (Kind::Place, "place"),
    (Kind::Invalidation, "invalidation"),
    (Kind::KnownNetwork, "known_network"),
    (Kind::Takedown, "takedown"),
    (Kind::Unindexed, "unindexed"),
    (Kind::SearchIndex, "search_index"),
    (Kind::Domain, "domain"),
];

impl Kind {
    /// The kind of a key, if it is one that this release knows.
    pub fn of_key(key: &[u8]) -> Option<Self> {
        let byte = *key.first()?;
        KINDS.into_iter().map(|(kind, _)| kind).find(|kind| *kind as u8 == byte)
    }

    /// Its name in a backup.
    pub fn name(self) -> &'static str {
        KINDS.into_iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| name)
    }

    /// Where all rows of this kind lie.
    pub fn rows(self) -> Range<Vec<u8>> {
        prefix_range(Key::of(self).build())
    }
}

/// The first key after `key`: where the page after the one that ends with `key` begins.
pub fn key_after(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

/// Builds a key: parts appended in order sort as their tuples would.
#[derive(Clone, Debug)]
pub struct Key(Vec<u8>);

impl Key {
    /// The prefix of all rows of one kind.
    pub fn of(kind: Kind) -> Self {
        Self(vec![kind as u8])
    }

    /// A string without NUL, ended by one, so that no string is another's prefix.
    #[must_use]
    pub fn text(mut self, part: &str) -> Self {
        debug_assert!(!part.as_bytes().contains(&0), "text parts hold no NUL");
        self.0.extend_from_slice(part.as_bytes());
        self.0.push(0);
        self
    }

    /// An unsigned number in big-endian order.
    #[must_use]
    pub fn number(mut self, part: u64) -> Self {
        self.0.extend_from_slice(&part.to_be_bytes());
        self
    }

    /// A time-ordered number with its bits reversed: neighbours in time land far apart, so no region takes all writes.
    #[must_use]
    pub fn spread(self, part: u64) -> Self {
        self.number(part.reverse_bits())
    }

    /// A number in descending order.
    #[must_use]
    pub fn descending(self, part: u64) -> Self {
        self.number(!part)
    }

    /// Bytes of a fixed length.
    #[must_use]
    pub fn bytes(mut self, part: &[u8]) -> Self {
        self.0.extend_from_slice(part);
        self
    }

    /// The finished key.
    pub fn build(self) -> Vec<u8> {
        self.0
    }
}

/// Why a read or a write of the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The key-value engine failed.
    #[error("the store failed")]
    Kv(#[from] KvError),
    /// The keyspace has rows that this program does not know.
    #[error(transparent)]
    NewerFormat(#[from] NewerFormat),
    /// A row has the version after the one that this program knows: it is read, and not written back.
    #[error("a {kind:?} row was written by a newer release (version {version})")]
    NewerRow {
        /// The row's kind.
        kind: Kind,
        /// Its version.
        version: u8,
    },
    /// A restore of this keyspace was begun and not finished.
    #[error("a backup was restored here in part; restore it into an empty keyspace and use that")]
    HalfRestored,
    /// A row is not what its kind says: written by a much newer release, or damaged.
    #[error("a {kind:?} row does not decode (version byte {version:?})")]
    Decode {
        /// The row's kind.
        kind: Kind,
        /// The version byte found, if the row has one.
        version: Option<u8>,
    },
}

/// Encodes a value: the version byte, then postcard.
pub(crate) fn encode<T: Serialize>(version: u8, value: &T) -> Vec<u8> {
    // Rows are plain data: postcard fails only on maps and sequences of unknown length, which none of them has.
    postcard::to_extend(value, vec![version]).unwrap_or_default()
}

/// Encodes a value that has `version` in the newest format.
pub(crate) fn encode_in<T: Serialize>(format: Format, version: u8, value: &T) -> Vec<u8> {
    if format < Format::NEXT {
        return encode(version, value);
    }
    let mut bytes = encode(version + 1, value);
    bytes.push(FIELD_OF_NEXT);
    bytes
}

/// The field that rows of [`Format::NEXT`] have at their end.
const FIELD_OF_NEXT: u8 = 1;

/// Decodes a value that has `version`, or the version after, for reading only.
pub(crate) fn decode<T: DeserializeOwned>(kind: Kind, version: u8, bytes: &[u8]) -> Result<T, StoreError> {
    let undecodable = || StoreError::Decode { kind, version: bytes.first().copied() };
    let (found, body) = bytes.split_first().ok_or_else(undecodable)?;
    if *found != version && Some(*found) != version.checked_add(1) {
        return Err(undecodable());
    }
    // What the next version has at its end is left out.
    postcard::from_bytes(body).map_err(|_| undecodable())
}

/// Decodes a value that has `version` in the newest format and is going to be written back. A row of the next format proves that the
/// keyspace is in it: a program that knows it writes it from then on, and any other one leaves the row alone.
pub(crate) fn decode_to_change<T: DeserializeOwned>(
    kind: Kind,
    version: u8,
    bytes: &[u8],
    formats: &Formats,
) -> Result<T, StoreError> {
    if bytes.first().copied() == version.checked_add(1) {
        formats.see(Format::NEXT)?;
    }
    decode(kind, version, bytes)
}

/// Decodes a value that is going to be written back and has the same version in all formats that this program knows.
pub(crate) fn decode_own<T: DeserializeOwned>(kind: Kind, version: u8, bytes: &[u8]) -> Result<T, StoreError> {
    match bytes.first() {
        Some(found) if Some(*found) == version.checked_add(1) => Err(StoreError::NewerRow { kind, version: *found }),
        _ => decode(kind, version, bytes),
    }
}
