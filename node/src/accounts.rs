//! Accounts: register, sign in, stay signed in, sign out.
//!
//! Takes what a request holds, already parsed from JSON; gives users and tokens. An access token is believed by its
//! signature alone until it expires, 30 minutes at most after a sign-out; a refresh token is looked up each time.

pub mod email;
pub mod password;
pub mod password_pool;
pub mod refresh;
pub mod secret_key;
#[cfg(test)]
mod tests;
pub mod token;
mod weak_passwords;

use std::fmt;
use std::time::Duration;

use shortener_crds::ids::SnowflakeId;

use self::email::{Email, EmailError};
use self::password::{Password, PasswordError, PasswordHash};
use self::password_pool::{PasswordPool, PasswordPoolError};
use self::refresh::{RefreshToken, Verdict, expiry, judge};
use self::token::{AccessToken, AccessTokens, TokenError};
use crate::ambient::{self, Clock, UnixMs};
use crate::kv::{Kv, KvError};
use crate::store::StoreError;
use crate::store::accounts::{self as rows, RefreshFamilyRow, TokenDigest, UserId, UserRow};

/// The longest full name, in characters.
pub const FULL_NAME_CHARS_MAX: usize = 200;

/// Gives the next Snowflake ID; `None` while the node has none to give.
pub type MintId = Box<dyn Fn() -> Option<SnowflakeId> + Send + Sync>;

/// A user as the API shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// Its ID.
    pub id: UserId,
    /// Its address, as its owner wrote it.
    pub email: String,
    /// Its name, if it gave one.
    pub full_name: Option<String>,
    /// When it registered.
    pub created_at: UnixMs,
}

/// What a sign-in or a refresh gives.
#[derive(Debug)]
pub struct TokenPair {
    /// For the `Authorization` header.
    pub access_token: AccessToken,
    /// For the next pair, once.
    pub refresh_token: RefreshToken,
    /// How long the access token lives.
    pub expires_in: Duration,
}

/// Why an account's request was refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// `email` is no address.
    #[error(transparent)]
    Email(#[from] EmailError),
    /// `password` may not become a password.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// `full_name` is too long or holds control characters.
    #[error("a full name has at most {FULL_NAME_CHARS_MAX} characters, none of them a control character")]
    FullName,
    /// The address has an account.
    #[error("this e-mail address is registered already")]
    EmailTaken,
    /// No account has this address and password. Which of the two is wrong is not told.
    #[error("the e-mail address or the password is wrong")]
    Credentials,
    /// The refresh token is unknown, expired, spent or revoked. Which of them is not told.
    #[error("the refresh token is not valid: sign in again")]
    RefreshToken,
    /// The user of a valid token is not there.
    #[error("this user does not exist")]
    UnknownUser,
    /// The password was neither hashed nor verified.
    #[error(transparent)]
    PasswordPool(#[from] PasswordPoolError),
    /// The node has no IDs to give at the moment.
    #[error("no ID is at hand for a new user")]
    NoIds,
    /// The new access token could not be signed.
    #[error("signing an access token failed")]
    Signing(#[source] TokenError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<KvError> for AccountError {
    fn from(error: KvError) -> Self {
        Self::Store(error.into())
    }
}

/// The use cases.
pub struct Accounts {
    kv: Kv,
    clock: Clock,
    mint_id: MintId,
    passwords: PasswordPool,
    tokens: AccessTokens,
    refresh_lifetime: Duration,
}

impl Accounts {
    /// Refresh tokens live for `refresh_lifetime`, each; a family for as long as it is used, up to
    /// [`SESSION_MAX`](refresh::SESSION_MAX).
    pub fn new(
        kv: Kv,
        clock: Clock,
        mint_id: MintId,
        passwords: PasswordPool,
        tokens: AccessTokens,
        refresh_lifetime: Duration,
    ) -> Self {
        Self { kv, clock, mint_id, passwords, tokens, refresh_lifetime }
    }

    /// Makes a new user.
    pub async fn register(
        &self,
        email: &str,
        password: Password,
        full_name: Option<&str>,
    ) -> Result<User, AccountError> {
        let email = Email::parse(email)?;
        password.check_new()?;
        let full_name = full_name.map(checked_full_name).transpose()?.flatten();
        // Asked here as well as by the insert, so that a taken address does not cost a hash.
        if rows::user_id_of_email(&self.kv, email.as_normalised()).await?.is_some() {
            return Err(AccountError::EmailTaken);
        }
        let hash = self.passwords.hash(password).await?;
        let id = (self.mint_id)().map(UserId).ok_or(AccountError::NoIds)?;
        let row = UserRow {
            email: email.as_shown().to_owned(),
            full_name,
            password_hash: hash.into(),
            created_at: self.clock.now(),
        };
        self.insert(id, &email, &row).await?;
        tracing::info!(user = %id, "registered");
        Ok(shown(id, row))
    }

    async fn insert(&self, id: UserId, email: &Email, row: &UserRow) -> Result<(), AccountError> {
        let inserted = self
            .kv
            .transact(|mut transaction| async move {
                rows::insert_user(&mut transaction, id, email.as_normalised(), row);
                Ok::<_, KvError>((transaction, ()))
            })
            .await;
        match inserted {
            Ok(()) => Ok(()),
            // Nobody else has this ID: if the address leads to it, the transaction was committed and its answer lost.
            Err(KvError::Undetermined | KvError::AlreadyExists { .. })
                if rows::user_id_of_email(&self.kv, email.as_normalised()).await? == Some(id) =>
            {
                Ok(())
            }
            Err(KvError::AlreadyExists { key }) if rows::is_email_key(&key) => Err(AccountError::EmailTaken),
            Err(error) => Err(error.into()),
        }
    }

    /// Signs in: begins a family of refresh tokens.
    pub async fn login(&self, email: &str, password: Password) -> Result<TokenPair, AccountError> {
        let found = match Email::parse(email) {
            Ok(email) => rows::user_of_email(&self.kv, email.as_normalised()).await?,
            Err(_) => None,
        };
        let hash = found.as_ref().map(|(_, user)| PasswordHash::from(user.password_hash.clone()));
        let fits = self.passwords.verify(password, hash).await?;
        let Some((id, _)) = found.as_ref().filter(|_| fits) else {
            // Of which account, if it is one's: the address itself is nobody's to read in a log.
            let user = found.map(|(id, _)| id.to_string());
            tracing::info!(user, "a sign-in was refused");
            return Err(AccountError::Credentials);
        };
        let (user, now) = (*id, self.clock.now());
        let refresh_token = RefreshToken::random();
        let (family, current): (_, TokenDigest) = (ambient::random(), refresh_token.digest());
        let expires_at = expiry(now, self.refresh_lifetime, now);
        let row = RefreshFamilyRow { user, current, expires_at, began_at: now };
        let begun = self.kv.transact(|mut transaction| async move {
            rows::put_current_token(&mut transaction, family, &row);
            Ok::<_, KvError>((transaction, ()))
        });
        begun.await?;
        tracing::info!(%user, "signed in");
        self.pair(user, refresh_token, now)
    }

    /// Gives the next pair for a refresh token, and spends it. Of two that present the same token at once, one gets its
    /// pair; the other counts as having presented a spent one.
    pub async fn refresh(&self, refresh_token: &str) -> Result<TokenPair, AccountError> {
        let presented = RefreshToken::parse(refresh_token).ok_or(AccountError::RefreshToken)?.digest();
        let (next, now) = (RefreshToken::random(), self.clock.now());
        match self.rotate(presented, next.digest(), now).await? {
            Verdict::Current { user, .. } => {
                tracing::info!(%user, "a session was refreshed");
                self.pair(user, next, now)
            }
            Verdict::Spent { user, .. } => {
                tracing::warn!(%user, "a spent refresh token was presented; its family is revoked");
                Err(AccountError::RefreshToken)
            }
            Verdict::Worthless => {
                tracing::info!("a refresh was refused");
                Err(AccountError::RefreshToken)
            }
        }
    }

    /// Judges `presented` and does what follows from it, in one transaction.
    async fn rotate(&self, presented: TokenDigest, next: TokenDigest, now: UnixMs) -> Result<Verdict, AccountError> {
        let lifetime = self.refresh_lifetime;
        let rotated = self.kv.transact(|mut transaction| async move {
            let verdict = judge(&presented, rows::refresh_token(&transaction, &presented).await?, now);
            match verdict {
                Verdict::Current { user, family, began_at } => {
                    let expires_at = expiry(now, lifetime, began_at);
                    let row = RefreshFamilyRow { user, current: next, expires_at, began_at };
                    rows::put_current_token(&mut transaction, family, &row);
                }
                Verdict::Spent { family, .. } => rows::delete_family(&mut transaction, &family),
                Verdict::Worthless => {}
            }
            Ok::<_, AccountError>((transaction, verdict))
        });
        match rotated.await {
            Err(AccountError::Store(StoreError::Kv(KvError::Undetermined))) => self.read_back(next, now).await,
            known => known,
        }
    }

    /// After a commit of unknown outcome: only that commit can have written `next`, so its being current tells.
    async fn read_back(&self, next: TokenDigest, now: UnixMs) -> Result<Verdict, AccountError> {
        let rows = rows::refresh_token(&self.kv.begin().await?, &next).await?;
        match judge(&next, rows, now) {
            verdict @ Verdict::Current { .. } => Ok(verdict),
            _ => Err(KvError::Undetermined.into()),
        }
    }

    /// Signs out: revokes the token's family. What is no token of ours, or not any more, is signed out already.
    pub async fn logout(&self, refresh_token: &str) -> Result<(), AccountError> {
        let Some(token) = RefreshToken::parse(refresh_token) else { return Ok(()) };
        let digest = token.digest();
        let revoked = self.kv.transact(|mut transaction| async move {
            let found = rows::refresh_token(&transaction, &digest).await?;
            if let Some((token, _)) = &found {
                rows::delete_family(&mut transaction, &token.family);
            }
            let user = found.and_then(|(_, family)| family).map(|family| family.user);
            Ok::<_, AccountError>((transaction, user))
        });
        if let Some(user) = revoked.await? {
            tracing::info!(%user, "signed out");
        }
        Ok(())
    }

    /// The user of a verified access token.
    pub async fn me(&self, id: UserId) -> Result<User, AccountError> {
        let row = rows::user(&self.kv, id).await?.ok_or(AccountError::UnknownUser)?;
        Ok(shown(id, row))
    }

    /// Whose access token this is, by its signature alone: no store is asked.
    pub fn verify_access(&self, token: &str) -> Result<UserId, TokenError> {
        self.tokens.verify(token, self.clock.now())
    }

    fn pair(&self, user: UserId, refresh_token: RefreshToken, now: UnixMs) -> Result<TokenPair, AccountError> {
        let access_token = self.tokens.issue(user, now, ambient::random()).map_err(AccountError::Signing)?;
        Ok(TokenPair { access_token, refresh_token, expires_in: self.tokens.lifetime() })
    }
}

impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accounts").field("tokens", &self.tokens).finish_non_exhaustive()
    }
}

impl fmt::Debug for User {
    /// Without what is the person's own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "User({})", self.id)
    }
}

fn shown(id: UserId, row: UserRow) -> User {
    let UserRow { email, full_name, password_hash: _, created_at } = row;
    User { id, email, full_name, created_at }
}

/// The name without spaces around it; an empty one is none.
fn checked_full_name(raw: &str) -> Result<Option<String>, AccountError> {
    let name = raw.trim();
    if name.chars().count() > FULL_NAME_CHARS_MAX || name.chars().any(char::is_control) {
        return Err(AccountError::FullName);
    }
    Ok((!name.is_empty()).then(|| name.to_owned()))
}
