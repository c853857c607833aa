//! Access tokens: JWTs that this service alone issues and accepts, held to RFC 8725 (best current practices) and shaped
//! as RFC 9068 asks (`at+jwt`).
//!
//! Pure: takes the key, the token and `now`, gives the user. Whatever this service would not have written itself is
//! refused before any signature is computed: one algorithm, one header shape, one set of claims, each exactly once. So
//! there is no algorithm to confuse, no key to point elsewhere, and no extension to overlook.

#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use super::secret_key::{SecretKey, hmac_sha256};
use crate::ambient::UnixMs;
use crate::store::accounts::UserId;

/// The longest token that is looked at, in bytes. Ours are around 400, and grow with `BASE_URL` only.
pub const ACCESS_TOKEN_BYTES_MAX: usize = 4096;

/// The longest life of any access token. It is not the configured one, so that nodes agree on a token while that changes.
pub const ACCESS_LIFETIME_MAX: Duration = Duration::from_hours(24);

/// How far ahead of ours the clock of the node that issued a token may be. Expiry knows no leeway: there a skewed clock
/// only makes a token's life that much longer or shorter.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(30);

/// What access tokens are for (`aud`): this API, and nothing else that may be signed with the same issuer's name.
const AUDIENCE: &str = "shortener-api";

/// The type that tells an access token from any other JWT (RFC 8725 §3.11, RFC 9068 §2.1).
const TYPE: &str = "at+jwt";

/// What the signing key is derived for.
const KEY_LABEL: &[u8] = b"shortener access token signing key v1";

/// An access token in clear, as it goes to its owner. Wiped from memory when dropped; never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessToken(String);

/// Why an access token is refused. None of it is for the client, which learns only that the token is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Over [`ACCESS_TOKEN_BYTES_MAX`].
    #[error("the access token is too long")]
    TooLong,
    /// Not three parts of unpadded base64url.
    #[error("the access token is not a JWT in its compact form")]
    Malformed,
    /// A header that this service does not write: another algorithm or type, or a member too many.
    #[error("the access token's header is not ours")]
    Header,
    /// Signed with a key that is not, or no longer, in use.
    #[error("the access token names an unknown key")]
    UnknownKey,
    /// The signature does not fit, or the claims are not those that this service writes.
    #[error("the access token's signature or claims do not hold")]
    Invalid,
    /// Past its `exp`.
    #[error("the access token has expired")]
    Expired,
    /// Issued or valid in the future, or for longer than [`ACCESS_LIFETIME_MAX`].
    #[error("the access token's times do not fit together")]
    Times,
}

/// Issues and verifies access tokens.
pub struct AccessTokens {
    issuer: String,
    lifetime: Duration,
    signing: Key,
    previous: Option<Key>,
    validation: Validation,
}

/// A derived key in the two forms that the JWT library wants, and its public name.
struct Key {
    id: String,
    encoding: EncodingKey,
    decoding: DecodingKey,
}

/// The whole header. Every member is checked, and none besides them may be there: no `crit`, no `jku`, `jwk`, `x5u`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnHeader {
    alg: String,
    typ: String,
    kid: String,
}

/// The whole payload; times are in seconds since 1970. Serde refuses a claim that is missing, there twice, of another
/// type or unknown.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    iat: u64,
    nbf: u64,
    exp: u64,
    jti: String,
}

impl AccessTokens {
    /// `issuer` is `BASE_URL`; tokens live for `lifetime`, at most [`ACCESS_LIFETIME_MAX`]; `previous` is a key that
    /// rotated out and is still accepted.
    pub fn new(issuer: String, lifetime: Duration, secret: &SecretKey, previous: Option<&SecretKey>) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_issuer(&[&issuer]);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "nbf", "iss", "aud", "sub"]);
        // Times are checked below against the `now` that we are given: the library asks the machine's clock.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        let lifetime = lifetime.min(ACCESS_LIFETIME_MAX);
        Self { issuer, lifetime, signing: Key::new(secret), previous: previous.map(Key::new), validation }
    }

    /// How long a token lives.
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// A token for `user`. `token_id` is random and makes two tokens of one second differ.
    pub fn issue(&self, user: UserId, now: UnixMs, token_id: [u8; 16]) -> Result<AccessToken, TokenError> {
        let now_s = now.0 / 1000;
        let claims = Claims {
            iss: self.issuer.clone(),
            aud: AUDIENCE.to_owned(),
            sub: user.to_string(),
            iat: now_s,
            nbf: now_s,
            exp: now_s + self.lifetime.as_secs(),
            jti: hex::encode(token_id),
        };
        let mut header = Header::new(Algorithm::HS256);
        header.typ = Some(TYPE.to_owned());
        header.kid = Some(self.signing.id.clone());
        jsonwebtoken::encode(&header, &claims, &self.signing.encoding).map(AccessToken).map_err(|_| TokenError::Invalid)
    }

    /// Whose token this is.
    pub fn verify(&self, token: &str, now: UnixMs) -> Result<UserId, TokenError> {
        if token.len() > ACCESS_TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong);
        }
        let key = self.key_of(&own_header(token)?)?;
        let claims = jsonwebtoken::decode::<Claims>(token, &key.decoding, &self.validation)
            .map_err(|_| TokenError::Invalid)?
            .claims;
        check_times(&claims, now)?;
        // An ID has one spelling only: no sign, no leading zero.
        claims.sub.parse().map(UserId).map_err(|_| TokenError::Invalid)
    }

    fn key_of(&self, header: &OwnHeader) -> Result<&Key, TokenError> {
        if header.alg != "HS256" || header.typ != TYPE {
            return Err(TokenError::Header);
        }
        let keys = std::iter::once(&self.signing).chain(&self.previous);
        keys.into_iter().find(|key| key.id == header.kid).ok_or(TokenError::UnknownKey)
    }
}

impl Key {
    fn new(secret: &SecretKey) -> Self {
        let key = secret.derive(KEY_LABEL);
        Self {
            // A digest of the key, so that it says nothing about it and is the same on every node.
            id: hex::encode(&hmac_sha256(b"shortener key id v1", &[key.as_slice()])[..8]),
            encoding: EncodingKey::from_secret(key.as_slice()),
            decoding: DecodingKey::from_secret(key.as_slice()),
        }
    }
}

/// The header of a token of exactly three parts in the alphabet of base64url.
fn own_header(token: &str) -> Result<OwnHeader, TokenError> {
    let is_part = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let mut parts = token.split('.');
    let (Some(header), Some(claims), Some(signature), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(TokenError::Malformed);
    };
    if ![header, claims, signature].into_iter().all(is_part) {
        return Err(TokenError::Malformed);
    }
    let header = URL_SAFE_NO_PAD.decode(header).map_err(|_| TokenError::Malformed)?;
    serde_json::from_slice(&header).map_err(|_| TokenError::Header)
}

fn check_times(claims: &Claims, now: UnixMs) -> Result<(), TokenError> {
    let (now_s, latest_start_s) = (now.0 / 1000, now.plus(CLOCK_SKEW_MAX).0 / 1000);
    if claims.exp <= now_s {
        return Err(TokenError::Expired);
    }
    let lifetime_holds =
        claims.exp.checked_sub(claims.iat).is_some_and(|life_s| life_s <= ACCESS_LIFETIME_MAX.as_secs());
    if claims.nbf > latest_start_s || claims.iat > latest_start_s || !lifetime_holds {
        return Err(TokenError::Times);
    }
    Ok(())
}

impl AccessToken {
    /// The token in clear, for the answer to its owner and nowhere else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Drop for AccessToken {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessToken(redacted)")
    }
}

impl fmt::Debug for AccessTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AccessTokens({})", self.issuer)
    }
}
