//! Accounts: register, sign in, stay signed in, sign out.
//!
//! Takes what a request holds, already parsed from JSON; gives users and tokens. An access token is believed by its
//! signature alone until it expires, 30 minutes at most after a sign-out; a refresh token is looked up each time.

pub mod email;
pub mod fair_queue;
pub mod known_networks;
pub mod password;
pub mod password_pool;
pub mod refresh;
pub mod secret_key;
mod sessions;
#[cfg(test)]
mod tests;
pub mod token;
mod turns;
mod weak_passwords;

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use prometheus::IntCounter;
use shortener_crds::ids::SnowflakeId;

use self::email::{Email, EmailError};
use self::fair_queue::Lane;
use self::known_networks::{KNOWN_FOR, NetworkTags, is_to_be_renewed};
use self::password::{Password, PasswordError, PasswordHash};
use self::password_pool::{Asker, PasswordPool, PasswordPoolError};
use self::refresh::RefreshToken;
use self::token::{AccessToken, AccessTokens, TokenError};
use self::turns::Turns;
use self::weak_passwords::own_words;
use crate::ambient::{Clock, UnixMs};
use crate::kv::{Kv, KvError};
use crate::limits::guesses::GuessLimits;
use crate::store::StoreError;
use crate::store::accounts::{self as rows, KnownNetworkRow, KnownNetworkTag, UserId, UserRow};
use crate::store::format::Formats;

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
    /// Strangers guess at this account's password: come back after this time.
    #[error("too many passwords were tried for this account")]
    TooManyGuesses(Duration),
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

/// What [`Accounts`] are made of.
pub struct AccountsParts {
    /// The store.
    pub kv: Kv,
    /// The clock.
    pub clock: Clock,
    /// Where IDs come from.
    pub mint_id: MintId,
    /// Where passwords are hashed.
    pub passwords: PasswordPool,
    /// Issues access tokens.
    pub tokens: AccessTokens,
    /// Refresh tokens live for so long, each; a family for as long as it is used, up to [`SESSION_MAX`](refresh::SESSION_MAX).
    pub refresh_lifetime: Duration,
    /// The service's own host names: they are no passwords.
    pub hosts: Vec<String>,
    /// What rows are written as.
    pub formats: Formats,
    /// Hashes networks.
    pub network_tags: NetworkTags,
    /// Slows guesses at one account.
    pub guesses: GuessLimits,
    /// Counts those that were slowed.
    pub guesses_slowed: IntCounter,
}

/// The use cases.
pub struct Accounts {
    parts: AccountsParts,
    turns: Turns,
}

/// A network, as it is kept of the user who signs in from there.
struct Network {
    /// As it is written today.
    tag: KnownNetworkTag,
    /// Until when it is known, under that tag or the one from before the key was changed.
    known_until: Option<UnixMs>,
    is_to_be_written: bool,
}

impl Accounts {
    /// On these parts.
    pub fn new(parts: AccountsParts) -> Self {
        Self { parts, turns: Turns::new() }
    }

    /// Makes a new user, who asks from `address`.
    pub async fn register(
        &self,
        email: &str,
        password: Password,
        full_name: Option<&str>,
        address: IpAddr,
    ) -> Result<User, AccountError> {
        let email = Email::parse(email)?;
        password.check_new(&own_words(&email, full_name, &self.parts.hosts))?;
        let full_name = full_name.map(checked_full_name).transpose()?.flatten();
        // Asked here as well as by the insert, so that a taken address does not cost a hash.
        if rows::user_id_of_email(&self.parts.kv, email.as_normalised()).await?.is_some() {
            return Err(AccountError::EmailTaken);
        }
        let asker = Asker { address, lane: Lane::Registration };
        let hash = self.parts.passwords.hash(password, asker).await?;
        let id = (self.parts.mint_id)().map(UserId).ok_or(AccountError::NoIds)?;
        let row = UserRow {
            email: email.as_shown().to_owned(),
            full_name,
            password_hash: hash.into(),
            created_at: self.parts.clock.now(),
        };
        self.insert(id, &email, &row, address).await?;
        tracing::info!(user = %id, "registered");
        Ok(shown(id, row))
    }

    async fn insert(&self, id: UserId, email: &Email, row: &UserRow, address: IpAddr) -> Result<(), AccountError> {
        let network = self.parts.network_tags.of_user(Some(id), address);
        let until = row.created_at.plus(KNOWN_FOR);
        let inserted = self
            .parts
            .kv
            .transact(|mut transaction| async move {
                rows::insert_user(&mut transaction, id, email.as_normalised(), row);
                rows::put_known_network(&mut transaction, id, &network, KnownNetworkRow { until });
                Ok::<_, KvError>((transaction, ()))
            })
            .await;
        match inserted {
            Ok(()) => Ok(()),
            // Nobody else has this ID: if the address leads to it, the transaction was committed and its answer lost.
            Err(KvError::Undetermined | KvError::AlreadyExists { .. })
                if rows::user_id_of_email(&self.parts.kv, email.as_normalised()).await? == Some(id) =>
            {
                Ok(())
            }
            Err(KvError::AlreadyExists { key }) if rows::is_email_key(&key) => Err(AccountError::EmailTaken),
            Err(error) => Err(error.into()),
        }
    }

    /// Signs in from `address`: begins a family of refresh tokens.
    pub async fn login(&self, email: &str, password: Password, address: IpAddr) -> Result<TokenPair, AccountError> {
        let parsed = Email::parse(email).ok();
        let found = match &parsed {
            Some(email) => rows::user_of_email(&self.parts.kv, email.as_normalised()).await?,
            None => None,
        };
        let user = found.as_ref().map(|(id, _)| *id);
        let network = self.network(user, address).await?;
        let is_known = network.known_until.is_some_and(|until| until > self.parts.clock.now());
        let account = self.parts.network_tags.of_account(parsed.as_ref().map_or(email, Email::as_normalised));
        if !is_known
            && let Err(wait) = self.parts.guesses.take(account, self.parts.network_tags.of_network(address)).await
        {
            self.parts.guesses_slowed.inc();
            tracing::warn!(user = user.map(|id| id.to_string()), "guesses at an account's password are slowed");
            return Err(AccountError::TooManyGuesses(wait));
        }
        let hash = found.map(|(_, row)| PasswordHash::from(row.password_hash));
        let asker = Asker { address, lane: if is_known { Lane::Known } else { Lane::Login } };
        let fits = self.parts.passwords.verify(password, hash, asker).await;
        if !is_known && !matches!(fits, Ok(false)) {
            // It was right, or nobody looked at it.
            self.parts.guesses.forgive(account).await;
        }
        let fits = fits?;
        let Some(user) = user.filter(|_| fits) else {
            // Of which account, if it is one's: the address itself is nobody's to read in a log.
            tracing::info!(user = user.map(|id| id.to_string()), "a sign-in was refused");
            return Err(AccountError::Credentials);
        };
        self.begin_session(user, network).await
    }

    /// The network of `address`, with what is known of it. Nobody's costs the same reads as somebody's.
    async fn network(&self, user: Option<UserId>, address: IpAddr) -> Result<Network, AccountError> {
        let AccountsParts { kv, network_tags, .. } = &self.parts;
        let tag = network_tags.of_user(user, address);
        let known_until = rows::known_network(kv, user, &tag).await?;
        let is_to_be_written = is_to_be_renewed(known_until, self.parts.clock.now());
        let known_until = match (known_until, network_tags.of_user_before(user, address)) {
            (None, Some(tag)) => rows::known_network(kv, user, &tag).await?,
            (known_until, _) => known_until,
        };
        Ok(Network { tag, known_until, is_to_be_written })
    }

    /// The user of a verified access token.
    pub async fn me(&self, id: UserId) -> Result<User, AccountError> {
        let row = rows::user(&self.parts.kv, id).await?.ok_or(AccountError::UnknownUser)?;
        Ok(shown(id, row))
    }

    /// Whose access token this is, by its signature alone: no store is asked.
    pub fn verify_access(&self, token: &str) -> Result<UserId, TokenError> {
        self.parts.tokens.verify(token, self.parts.clock.now())
    }
}

impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accounts").field("tokens", &self.parts.tokens).finish_non_exhaustive()
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
