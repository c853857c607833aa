//! Sessions: families of refresh tokens, from a sign-in to a sign-out.

use super::known_networks::KNOWN_FOR;
use super::refresh::{RefreshToken, Verdict, expiry, judge};
use super::{AccountError, Accounts, Network, TokenPair};
use crate::ambient::{self, UnixMs};
use crate::kv::KvError;
use crate::store::StoreError;
use crate::store::accounts::{self as rows, KnownNetworkRow, RefreshFamilyRow, SuccessorSalt, TokenDigest, UserId};

impl Accounts {
    /// Begins a family for a user who signed in from `network`.
    pub(super) async fn begin_session(&self, user: UserId, network: Network) -> Result<TokenPair, AccountError> {
        let now = self.parts.clock.now();
        let refresh_token = RefreshToken::random();
        let (family, current): (_, TokenDigest) = (ambient::random(), refresh_token.digest());
        let expires_at = expiry(now, self.parts.refresh_lifetime, now);
        // Nothing was spent for the first token, so that its salt leads nowhere.
        let salt = ambient::random();
        let row = RefreshFamilyRow { user, current, expires_at, began_at: now, current_since: now, salt };
        let Network { tag, is_to_be_written, .. } = network;
        let formats = &self.parts.formats;
        let begun = self.parts.kv.transact(|mut transaction| async move {
            rows::put_current_token(&mut transaction, formats.written(), family, &row);
            if is_to_be_written {
                let until = now.plus(KNOWN_FOR);
                rows::put_known_network(&mut transaction, user, &tag, KnownNetworkRow { until });
            }
            Ok::<_, KvError>((transaction, ()))
        });
        begun.await?;
        tracing::info!(%user, "signed in");
        self.pair(user, refresh_token, now)
    }

    /// Gives the next pair for a refresh token, and spends it. Those that present the same token at once, or again within
    /// [`GRACE`](super::refresh::GRACE), get the same refresh token, until somebody uses that.
    pub async fn refresh(&self, refresh_token: &str) -> Result<TokenPair, AccountError> {
        let presented = RefreshToken::parse(refresh_token).ok_or(AccountError::RefreshToken)?;
        let _turn = self.turns.of(&presented.digest()).await;
        let (salt, now) = (ambient::random(), self.parts.clock.now());
        match self.rotate(&presented, salt, now).await? {
            Verdict::Current { user, .. } => {
                tracing::info!(%user, "a session was refreshed");
                self.pair(user, presented.successor(&salt), now)
            }
            Verdict::Repeated { user, salt } => {
                tracing::info!(%user, "a session was refreshed again, with the token that it was given before");
                self.pair(user, presented.successor(&salt), now)
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

    /// Judges `presented` and does what follows from it, in one transaction. `salt` leads to its successor, if it is current.
    async fn rotate(
        &self,
        presented: &RefreshToken,
        salt: SuccessorSalt,
        now: UnixMs,
    ) -> Result<Verdict, AccountError> {
        let (lifetime, digest) = (self.parts.refresh_lifetime, presented.digest());
        let next = presented.successor(&salt).digest();
        let formats = &self.parts.formats;
        let rotated = self.parts.kv.transact(|mut transaction| async move {
            let verdict = judge(presented, rows::refresh_token(&transaction, &digest, formats).await?, now);
            match verdict {
                Verdict::Current { user, family, began_at } => {
                    let expires_at = expiry(now, lifetime, began_at);
                    let row = RefreshFamilyRow { user, current: next, expires_at, began_at, current_since: now, salt };
                    rows::put_current_token(&mut transaction, formats.written(), family, &row);
                }
                Verdict::Spent { family, .. } => rows::delete_family(&mut transaction, &family),
                Verdict::Repeated { .. } | Verdict::Worthless => {}
            }
            Ok::<_, AccountError>((transaction, verdict))
        });
        match rotated.await {
            Err(AccountError::Store(StoreError::Kv(KvError::Undetermined))) => self.read_back(presented, now).await,
            known => known,
        }
    }

    /// After a commit of unknown outcome: a successor is there, whoever wrote it, or the commit did not take place.
    async fn read_back(&self, presented: &RefreshToken, now: UnixMs) -> Result<Verdict, AccountError> {
        let rows = rows::refresh_token(&self.parts.kv.begin().await?, &presented.digest(), &self.parts.formats).await?;
        match judge(presented, rows, now) {
            verdict @ Verdict::Repeated { .. } => Ok(verdict),
            _ => Err(KvError::Undetermined.into()),
        }
    }

    /// Signs out: revokes the token's family. What is no token of ours, or not any more, is signed out already.
    pub async fn logout(&self, refresh_token: &str) -> Result<(), AccountError> {
        let Some(token) = RefreshToken::parse(refresh_token) else { return Ok(()) };
        let digest = token.digest();
        let formats = &self.parts.formats;
        let revoked = self.parts.kv.transact(|mut transaction| async move {
            let found = rows::refresh_token(&transaction, &digest, formats).await?;
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

    fn pair(&self, user: UserId, refresh_token: RefreshToken, now: UnixMs) -> Result<TokenPair, AccountError> {
        let access_token = self.parts.tokens.issue(user, now, ambient::random()).map_err(AccountError::Signing)?;
        Ok(TokenPair { access_token, refresh_token, expires_in: self.parts.tokens.lifetime() })
    }
}
