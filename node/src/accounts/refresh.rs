//! Refresh tokens: 256 random bits that are used once, and what is to be done when one is presented.
//!
//! Each refresh spends its token and gives the next of its family. Two tabs that refresh at once, or a client whose answer
//! was lost, present a spent token again: for [`GRACE`], and while its successor is unused, they get that same successor.
//! It is derived from the spent token and a random salt that the family keeps, so that no token is stored. Presented later,
//! or after its successor was spent, a spent token was copied, by whom cannot be told: the family is revoked (RFC 9700 §4.14.2).

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::secret_key::hmac_sha256;
use crate::ambient::{self, UnixMs};
use crate::store::accounts::{FamilyId, RefreshFamilyRow, RefreshTokenRow, SuccessorSalt, TokenDigest, UserId};

/// 256 bits in base64url without padding.
const REFRESH_TOKEN_CHARS: usize = 43;

/// The longest that a session goes on, however often it is refreshed: then its user signs in again. As long as the longest
/// `REFRESH_TOKEN_EXPIRE_DAYS`, so that no token promises more.
pub const SESSION_MAX: Duration = Duration::from_hours(365 * 24);

/// How long a spent token still gives its successor, if that is unused.
pub const GRACE: Duration = Duration::from_secs(30);

/// What successors are derived for. A spent token is the key, so that a salt alone leads to no token.
const SUCCESSOR_LABEL: &[u8] = b"shortener refresh token successor v1";

/// A refresh token in clear, as it goes to its owner and comes back. Wiped from memory when dropped; never printed.
#[derive(Clone)]
pub struct RefreshToken(Zeroizing<String>);

/// What a presented token is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is its family's current token: spend it and give the next one.
    Current {
        /// Whose it is.
        user: UserId,
        /// The family to go on with.
        family: FamilyId,
        /// When it began.
        began_at: UnixMs,
    },
    /// It was spent a moment ago, for a token that nobody has used: give that one again.
    Repeated {
        /// Whose it is.
        user: UserId,
        /// What its successor is derived with.
        salt: SuccessorSalt,
    },
    /// It was spent before: revoke the family.
    Spent {
        /// Whose it was.
        user: UserId,
        /// The family to revoke.
        family: FamilyId,
    },
    /// Unknown, expired or revoked: nothing is to be done.
    Worthless,
}

impl RefreshToken {
    /// A new token.
    pub(super) fn random() -> Self {
        let bits = Zeroizing::new(ambient::random::<32>());
        Self(Zeroizing::new(URL_SAFE_NO_PAD.encode(bits.as_slice())))
    }

    /// The token that is given for this one where the family keeps `salt`: 256 bits that only this token and `salt` lead to.
    pub(super) fn successor(&self, salt: &SuccessorSalt) -> Self {
        let bits = Zeroizing::new(hmac_sha256(self.0.as_bytes(), &[SUCCESSOR_LABEL, salt]));
        Self(Zeroizing::new(URL_SAFE_NO_PAD.encode(bits.as_slice())))
    }

    /// Takes a token as a client sent it; `None` when no token of ours looks like it.
    pub(super) fn parse(raw: &str) -> Option<Self> {
        let well_formed = raw.len() == REFRESH_TOKEN_CHARS && URL_SAFE_NO_PAD.decode(raw).map(Zeroizing::new).is_ok();
        well_formed.then(|| Self(Zeroizing::new(raw.to_owned())))
    }

    /// What is stored of it. No salt and no slow hash: there is no guessing 256 random bits.
    pub(super) fn digest(&self) -> TokenDigest {
        Sha256::digest(self.0.as_bytes()).into()
    }

    /// The token in clear, for the answer to its owner and nowhere else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefreshToken(redacted)")
    }
}

/// Judges a token by its rows.
pub(super) fn judge(
    presented: &RefreshToken,
    rows: Option<(RefreshTokenRow, Option<RefreshFamilyRow>)>,
    now: UnixMs,
) -> Verdict {
    let Some((token, Some(row))) = rows else { return Verdict::Worthless };
    let RefreshFamilyRow { user, current, expires_at, began_at, current_since, salt } = row;
    let family = token.family;
    if current == presented.digest() {
        return if token.expires_at <= now { Verdict::Worthless } else { Verdict::Current { user, family, began_at } };
    }
    // A clock that is behind that of the node that gave the successor out counts as no time.
    let is_repeated = now.since(current_since) < GRACE && current == presented.successor(&salt).digest();
    match is_repeated {
        true if expires_at <= now => Verdict::Worthless,
        true => Verdict::Repeated { user, salt },
        // Whatever its age: nobody who keeps to the protocol has it any more.
        false => Verdict::Spent { user, family },
    }
}

/// When a token expires that is given out now in a session that began at `began_at`.
pub(super) fn expiry(now: UnixMs, lifetime: Duration, began_at: UnixMs) -> UnixMs {
    now.plus(lifetime).min(began_at.plus(SESSION_MAX))
}
