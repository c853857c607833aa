//! Users, the families of their refresh tokens, and from where they signed in.
//!
//! A family begins with a sign-in and is the chain of refresh tokens that follow from it. Token rows never change: which
//! token of a family may be used next is written in the family alone, so that two refreshes at once meet in one row.

use std::fmt;

use serde::{Deserialize, Serialize};
use shortener_crds::ids::SnowflakeId;

use super::format::{Format, Formats};
use super::{Key, Kind, StoreError, decode, decode_to_change, encode, encode_in};
use crate::ambient::UnixMs;
use crate::kv::{Kv, Transaction};

/// The version byte of every row here but a family's.
const VERSION: u8 = 1;
/// The version byte of a family: since 2 it says when it began, since 3 how its current token follows from the one before.
const FAMILY_VERSION: u8 = 3;
/// The version of a family in [`Format::FIRST`].
const FAMILY_VERSION_FIRST: u8 = 2;

/// A user's ID: a Snowflake, shown as a decimal string.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UserId(pub SnowflakeId);

/// A user, by its ID.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRow {
    /// As its owner wrote it.
    pub email: String,
    /// As its owner wrote it.
    pub full_name: Option<String>,
    /// In bcrypt's own notation.
    pub password_hash: String,
    /// When it registered.
    pub created_at: UnixMs,
}

/// SHA-256 of a refresh token: all of it that is stored.
pub type TokenDigest = [u8; 32];

/// A family of refresh tokens: random.
pub type FamilyId = [u8; 16];

/// Random bytes that a spent token and its successor have in common. They tell nothing without the spent token.
pub type SuccessorSalt = [u8; 16];

/// A refresh token, by its digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshTokenRow {
    /// Whose chain it is part of.
    pub family: FamilyId,
    /// When it is of no use any more, and its row may go.
    pub expires_at: UnixMs,
}

/// A family, by its ID. A family that is revoked has no row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshFamilyRow {
    /// Who signed in.
    pub user: UserId,
    /// The one token that may be used next; every other of the family is spent.
    pub current: TokenDigest,
    /// When the current token expires, and with it the family.
    pub expires_at: UnixMs,
    /// When its user signed in.
    pub began_at: UnixMs,
    /// When the current token was given out.
    pub current_since: UnixMs,
    /// What the current token was derived with from the token that was spent for it.
    pub salt: SuccessorSalt,
}

/// A keyed hash of a user and a network.
pub type KnownNetworkTag = [u8; 16];

/// A network that a user signed in from, by user and tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownNetworkRow {
    /// When it counts as any other again, and its row may go.
    pub until: UnixMs,
}

/// [`RefreshFamilyRow`] as version 2 wrote it.
#[derive(Serialize, Deserialize)]
struct RefreshFamilyRow2 {
    user: UserId,
    current: TokenDigest,
    expires_at: UnixMs,
    began_at: UnixMs,
}

/// [`RefreshFamilyRow`] as version 1 wrote it.
#[derive(Serialize, Deserialize)]
struct RefreshFamilyRow1 {
    user: UserId,
    current: TokenDigest,
    expires_at: UnixMs,
}

fn decode_family(bytes: &[u8]) -> Result<RefreshFamilyRow, StoreError> {
    // Before version 3 a successor was random: no salt leads to it, so that it is given out once.
    let (current_since, salt) = (UnixMs(0), [0; 16]);
    match bytes.first() {
        Some(&version) if version >= FAMILY_VERSION => decode(Kind::RefreshFamily, FAMILY_VERSION, bytes),
        Some(2) => {
            let RefreshFamilyRow2 { user, current, expires_at, began_at } = decode(Kind::RefreshFamily, 2, bytes)?;
            Ok(RefreshFamilyRow { user, current, expires_at, began_at, current_since, salt })
        }
        _ => {
            let RefreshFamilyRow1 { user, current, expires_at } = decode(Kind::RefreshFamily, VERSION, bytes)?;
            // When it began was not kept. It was before this, so that its end comes no later than that of one that begins now.
            Ok(RefreshFamilyRow { user, current, expires_at, began_at: expires_at, current_since, salt })
        }
    }
}

/// Reads a family that is going to be written back.
fn decode_family_to_change(bytes: &[u8], formats: &Formats) -> Result<RefreshFamilyRow, StoreError> {
    match bytes.first() {
        Some(&version) if version > FAMILY_VERSION => {
            decode_to_change(Kind::RefreshFamily, FAMILY_VERSION, bytes, formats)
        }
        _ => decode_family(bytes),
    }
}

/// Encodes a family. In the first format a token that is presented again gets no successor but a refusal: the row has no room for what
/// leads to it.
fn encode_family(format: Format, row: &RefreshFamilyRow) -> Vec<u8> {
    if format == Format::FIRST {
        let RefreshFamilyRow { user, current, expires_at, began_at, current_since: _, salt: _ } = *row;
        return encode(FAMILY_VERSION_FIRST, &RefreshFamilyRow2 { user, current, expires_at, began_at });
    }
    encode_in(format, FAMILY_VERSION, row)
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for UserRow {
    /// Without what is the person's own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserRow").field("created_at", &self.created_at).finish_non_exhaustive()
    }
}

fn user_key(id: u64) -> Vec<u8> {
    Key::of(Kind::User).spread(id).build()
}

fn email_key(normalised: &str) -> Vec<u8> {
    Key::of(Kind::UserByEmail).text(normalised).build()
}

fn token_key(digest: &TokenDigest) -> Vec<u8> {
    Key::of(Kind::RefreshToken).bytes(digest).build()
}

fn family_key(family: &FamilyId) -> Vec<u8> {
    Key::of(Kind::RefreshFamily).bytes(family).build()
}

fn known_network_key(user: Option<UserId>, tag: &KnownNetworkTag) -> Vec<u8> {
    Key::of(Kind::KnownNetwork).spread(user.map_or(0, |user| user.0.into())).bytes(tag).build()
}

/// Reads a user.
pub async fn user(kv: &Kv, id: UserId) -> Result<Option<UserRow>, StoreError> {
    user_at(kv, id.0.into()).await
}

/// Reads whose an e-mail address is, in its normalised spelling.
pub async fn user_id_of_email(kv: &Kv, normalised: &str) -> Result<Option<UserId>, StoreError> {
    let value = kv.get(&email_key(normalised)).await?;
    value.map(|bytes| decode(Kind::UserByEmail, VERSION, &bytes)).transpose()
}

/// Reads the user of an e-mail address, in its normalised spelling. An unknown address costs the same two reads as a known
/// one, so that the time tells nobody who has an account: ID 0 is nobody's.
pub async fn user_of_email(kv: &Kv, normalised: &str) -> Result<Option<(UserId, UserRow)>, StoreError> {
    let id = user_id_of_email(kv, normalised).await?;
    let row = user_at(kv, id.map_or(0, |id| id.0.into())).await?;
    Ok(id.zip(row))
}

async fn user_at(kv: &Kv, id: u64) -> Result<Option<UserRow>, StoreError> {
    let value = kv.get(&user_key(id)).await?;
    value.map(|bytes| decode(Kind::User, VERSION, &bytes)).transpose()
}

/// Writes a new user; the commit fails with `AlreadyExists` where the address or the ID is taken.
pub fn insert_user(transaction: &mut Transaction, id: UserId, normalised_email: &str, row: &UserRow) {
    transaction.insert(email_key(normalised_email), encode(VERSION, &id));
    transaction.insert(user_key(id.0.into()), encode(VERSION, row));
}

/// Whether `key`, as an `AlreadyExists` reports it, is that of an e-mail address.
pub fn is_email_key(key: &[u8]) -> bool {
    key.first() == Some(&(Kind::UserByEmail as u8))
}

/// Reads a refresh token and its family, as far as they exist.
pub async fn refresh_token(
    transaction: &Transaction,
    digest: &TokenDigest,
    formats: &Formats,
) -> Result<Option<(RefreshTokenRow, Option<RefreshFamilyRow>)>, StoreError> {
    let Some(bytes) = transaction.get(&token_key(digest)).await? else { return Ok(None) };
    let token: RefreshTokenRow = decode(Kind::RefreshToken, VERSION, &bytes)?;
    Ok(Some((token, family(transaction, &token.family, formats).await?)))
}

/// Gives the family its current token: begins the family, or spends the token that was current before.
pub fn put_current_token(transaction: &mut Transaction, format: Format, family: FamilyId, row: &RefreshFamilyRow) {
    let token = RefreshTokenRow { family, expires_at: row.expires_at };
    transaction.insert(token_key(&row.current), encode(VERSION, &token));
    transaction.put(family_key(&family), encode_family(format, row));
}

/// Reads a family, within a transaction that may change it.
pub async fn family(
    transaction: &Transaction,
    id: &FamilyId,
    formats: &Formats,
) -> Result<Option<RefreshFamilyRow>, StoreError> {
    let bytes = transaction.get(&family_key(id)).await?;
    bytes.map(|bytes| decode_family_to_change(&bytes, formats)).transpose()
}

/// Revokes a family: none of its tokens can be used any more.
pub fn delete_family(transaction: &mut Transaction, family: &FamilyId) {
    transaction.delete(family_key(family));
}

/// Reads until when a network is known. Nobody's costs the same read as somebody's, and is never known.
pub async fn known_network(kv: &Kv, user: Option<UserId>, tag: &KnownNetworkTag) -> Result<Option<UnixMs>, StoreError> {
    let value = kv.get(&known_network_key(user, tag)).await?;
    let row = value.map(|bytes| decode::<KnownNetworkRow>(Kind::KnownNetwork, VERSION, &bytes)).transpose()?;
    Ok(row.map(|row| row.until))
}

/// Writes that a user signed in from a network.
pub fn put_known_network(transaction: &mut Transaction, user: UserId, tag: &KnownNetworkTag, row: KnownNetworkRow) {
    transaction.put(known_network_key(Some(user), tag), encode(VERSION, &row));
}

/// The prefixes of the rows here that expire, for the sweeper to scan.
pub fn expiring_prefixes() -> [Vec<u8>; 3] {
    [Kind::RefreshToken, Kind::RefreshFamily, Kind::KnownNetwork].map(|kind| Key::of(kind).build())
}

/// Whether a row under one of [`expiring_prefixes`] may be deleted. Rows of other kinds never expire.
pub fn has_expired(key: &[u8], value: &[u8], now: UnixMs) -> Result<bool, StoreError> {
    let expires_at = match key.first() {
        Some(&kind) if kind == Kind::RefreshToken as u8 => {
            decode::<RefreshTokenRow>(Kind::RefreshToken, VERSION, value)?.expires_at
        }
        Some(&kind) if kind == Kind::RefreshFamily as u8 => decode_family(value)?.expires_at,
        Some(&kind) if kind == Kind::KnownNetwork as u8 => {
            decode::<KnownNetworkRow>(Kind::KnownNetwork, VERSION, value)?.until
        }
        _ => return Ok(false),
    };
    Ok(expires_at <= now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_of_the_first_version_is_read_and_ends_no_later_than_if_it_had_begun_when_it_expires() {
        let user = UserId(SnowflakeId::try_from(300).unwrap());
        let (current, expires_at) = ([2; 32], UnixMs(1_790_000_000_000));
        // As the first release wrote it: see the history of store/snapshots.
        let bytes = hex::decode(format!("01ac02{}80d8c1a28c34", "02".repeat(32))).unwrap();
        assert_eq!(bytes, encode(VERSION, &RefreshFamilyRow1 { user, current, expires_at }));
        let (current_since, salt) = (UnixMs(0), [0; 16]);
        let row = RefreshFamilyRow { user, current, expires_at, began_at: expires_at, current_since, salt };
        assert_eq!(decode_family(&bytes).ok(), Some(row));
        assert_eq!(decode_family(&encode_family(Format::NEWEST, &row)).ok(), Some(row));
        let much_newer = encode(FAMILY_VERSION + 2, &row);
        assert!(matches!(decode_family(&much_newer), Err(StoreError::Decode { version: Some(5), .. })));
    }

    #[test]
    fn a_family_is_written_as_the_format_says_and_the_next_version_is_read() {
        let user = UserId(SnowflakeId::try_from(300).unwrap());
        let (began_at, current_since) = (UnixMs(1), UnixMs(2));
        let row =
            RefreshFamilyRow { user, current: [2; 32], expires_at: UnixMs(9), began_at, current_since, salt: [7; 16] };
        let first = RefreshFamilyRow { current_since: UnixMs(0), salt: [0; 16], ..row };
        for (format, version, read) in [(Format::FIRST, 2, first), (Format::NEWEST, 3, row), (Format::NEXT, 4, row)] {
            let bytes = encode_family(format, &row);
            assert_eq!((bytes[0], decode_family(&bytes).ok()), (version, Some(read)));
        }
        let next = encode_family(Format::NEXT, &row);
        let (old, knows) = (Formats::up_to(Format::NEWEST), Formats::up_to(Format::NEXT));
        assert!(matches!(decode_family_to_change(&next, &old), Err(StoreError::NewerFormat(_))));
        assert_eq!(decode_family_to_change(&next, &knows).ok(), Some(row));
        assert_eq!(knows.written(), Format::NEXT);
    }

    #[test]
    fn a_family_of_the_second_version_is_read() {
        let user = UserId(SnowflakeId::try_from(300).unwrap());
        let (current, expires_at, began_at) = ([2; 32], UnixMs(1_790_000_000_000), UnixMs(1));
        // As that release wrote it: see the history of store/snapshots.
        let bytes = hex::decode(format!("02ac02{}80d8c1a28c3401", "02".repeat(32))).unwrap();
        assert_eq!(bytes, encode(2, &RefreshFamilyRow2 { user, current, expires_at, began_at }));
        let row = RefreshFamilyRow { user, current, expires_at, began_at, current_since: UnixMs(0), salt: [0; 16] };
        assert_eq!(decode_family(&bytes).ok(), Some(row));
    }
}
