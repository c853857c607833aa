//! Making a link: one transaction, insert-if-absent, begun again with another code when that is taken.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use super::alias;
use super::request::{LinkRequest, NewLink};
use super::{LinkError, Links};
use crate::ambient::UnixMs;
use crate::kv::{KvError, Transaction};
use crate::minter::MintError;
use crate::store::StoreError;
use crate::store::accounts::UserId;
use crate::store::format::Format;
use crate::store::idempotency::{IdempotencyRow, IdempotencySecret, first_answer, former_hashes, remember_answer};
use crate::store::links::{self as rows, LinkAddress, LinkRow};

/// How often a create mints again when its code or ID is taken. A clash with an alias is rare (62^7 codes), two in a row
/// rarer still; more than this many mean that the store was rolled back and the node must not go on guessing.
pub(super) const MINTS_MAX: usize = 16;
/// How long an idempotency key is remembered.
const IDEMPOTENCY_TTL: Duration = Duration::from_hours(24);

/// An `Idempotency-Key` and who sent it with what.
#[derive(Clone)]
pub struct Idempotency {
    caller: String,
    key: String,
    body: Bytes,
}

impl Idempotency {
    /// `caller` tells users and addresses apart; `body` is the request as it was sent.
    pub fn new(caller: &str, key: &str, body: &Bytes) -> Self {
        Self { caller: caller.to_owned(), key: key.to_owned(), body: body.clone() }
    }

    fn hashed(&self, secret: &IdempotencySecret) -> Hashed {
        let (key, request) = secret.hashes(&self.caller, &self.key, &self.body);
        Hashed { key, request, former: former_hashes(&self.caller, &self.key, &self.body) }
    }
}

impl fmt::Debug for Idempotency {
    /// Without what is the caller's own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Idempotency").finish_non_exhaustive()
    }
}

/// What the store knows of an [`Idempotency`].
struct Hashed {
    key: Vec<u8>,
    request: [u8; 32],
    /// By which an older program knows it.
    former: (Vec<u8>, [u8; 32]),
}

impl Links {
    /// Makes a link for `owner`. With an idempotency key that was used before, gives the link as it was made then.
    pub async fn shorten(
        &self,
        owner: Option<UserId>,
        request: LinkRequest,
        idempotency: Option<Idempotency>,
    ) -> Result<(LinkAddress, LinkRow), LinkError> {
        let secret = || self.minter.idempotency_secret();
        let idempotency = idempotency.map(|sent| secret().map(|secret| sent.hashed(&secret))).transpose()?;
        // Before anything is checked: what was fine then may be refused by now, as an expiry that has passed.
        if let Some(first) = self.answered(idempotency.as_ref()).await? {
            return Ok(first);
        }
        let served = self.domains.now()?;
        let new = request.check(self.rules(&served), self.clock.now())?;
        for _ in 0..MINTS_MAX {
            let (at, row) = self.draft(owner, &new)?;
            let made = self
                .kv
                .transact(async |txn| insert(txn, self.formats.written(), &at, &row, idempotency.as_ref()).await)
                .await;
            match made {
                Ok((at, row)) => {
                    // The code may have been asked for before it was there, and is then remembered as unknown.
                    self.cache.forget(new.domain.index(), &at.code);
                    self.tell_of_created(&at, &row);
                    return Ok((at, row));
                }
                Err(LinkError::Store(StoreError::Kv(KvError::AlreadyExists { key }))) => {
                    // The same request, sent again before its first answer, may have come first.
                    if let Some(first) = self.answered(idempotency.as_ref()).await? {
                        return Ok(first);
                    }
                    let there = rows::read_link(&self.kv.snapshot().await?, &at.domain, &at.code).await?;
                    if there.as_ref().is_some_and(|there| there.id == row.id) {
                        // Our own, by an attempt whose answer was lost.
                        self.cache.forget(new.domain.index(), &at.code);
                        self.tell_of_created(&at, &row);
                        return Ok((at, row));
                    }
                    self.explain_clash(&new, &at, &key, there)?;
                }
                Err(LinkError::Store(StoreError::Kv(KvError::Undetermined))) => {
                    return self.read_back(&new, at, row).await;
                }
                Err(error) => return Err(error),
            }
        }
        Err(LinkError::MintClashes)
    }

    /// After a commit whose fate is not known: the link if it is there. If it is not, it may yet come; then nobody can say.
    async fn read_back(
        &self,
        new: &NewLink,
        at: LinkAddress,
        row: LinkRow,
    ) -> Result<(LinkAddress, LinkRow), LinkError> {
        self.cache.forget(new.domain.index(), &at.code);
        let there = rows::read_link(&self.kv.snapshot().await?, &at.domain, &at.code).await?;
        match there.is_some_and(|there| there.id == row.id) {
            true => {
                self.tell_of_created(&at, &row);
                Ok((at, row))
            }
            false => Err(KvError::Undetermined.into()),
        }
    }

    /// Leaves a link that was just made in the cache that nodes share: whoever makes one looks at it next. Tells the search index.
    fn tell_of_created(&self, at: &LinkAddress, row: &LinkRow) {
        self.lists.was_written(row);
        if let Some(shared) = &self.shared {
            shared.created(at.clone(), self.shared_link(row), row.is_alias);
        }
    }

    /// What the idempotency key was answered before, if it was.
    async fn answered(&self, idempotency: Option<&Hashed>) -> Result<Option<(LinkAddress, LinkRow)>, LinkError> {
        let Some(idempotency) = idempotency else { return Ok(None) };
        let txn = self.kv.begin().await?;
        repeated(&txn, idempotency, self.clock.now()).await
    }

    fn draft(&self, owner: Option<UserId>, new: &NewLink) -> Result<(LinkAddress, LinkRow), LinkError> {
        let code = match &new.alias {
            Some(alias) => alias.as_str().to_owned(),
            None => self.unreserved_code()?,
        };
        let now = self.clock.now();
        let at = LinkAddress { domain: new.domain.id().to_owned(), code };
        let row = LinkRow {
            id: self.minter.next_id()?.into(),
            owner,
            target: new.target.as_str().to_owned(),
            status: new.status.as_u16(),
            title: new.title.clone(),
            tags: new.tags.clone(),
            is_active: true,
            expires_at: new.expires_at,
            created_at: now,
            updated_at: now,
            version: 1,
            is_alias: new.alias.is_some(),
            is_deleted: false,
        };
        Ok((at, row))
    }

    /// The next code that does not happen to spell a word that the service keeps for itself.
    fn unreserved_code(&self) -> Result<String, MintError> {
        loop {
            let code = self.minter.next_code()?.to_string();
            if !alias::is_reserved(&code) {
                return Ok(code);
            }
        }
    }

    /// An insert found its key taken: an alias is somebody's, or a deleted link's; a minted code may have been taken by an alias, and minting
    /// moves on. Anything else must never happen and is counted before it is hidden by moving on.
    fn explain_clash(
        &self,
        new: &NewLink,
        at: &LinkAddress,
        key: &[u8],
        there: Option<LinkRow>,
    ) -> Result<(), LinkError> {
        let taken_code = *key == *rows::link_key(&at.domain, &at.code);
        if taken_code && new.alias.is_some() {
            let was_used = there.is_some_and(|there| there.is_deleted);
            return Err(if was_used { LinkError::AliasUsed } else { LinkError::AliasTaken });
        }
        if !(taken_code && there.is_some_and(|row| row.is_alias)) {
            tracing::error!("a minted ID was taken already: was the store rolled back?");
            self.metrics.mint_clashes.inc();
        }
        Ok(())
    }
}

/// The first answer to an idempotency key, which must have come with the same request.
async fn repeated(
    txn: &Transaction,
    Hashed { key, request, former: (former_key, former_request) }: &Hashed,
    now: UnixMs,
) -> Result<Option<(LinkAddress, LinkRow)>, LinkError> {
    for (key, request) in [(key, request), (former_key, former_request)] {
        match first_answer(txn, key, now).await? {
            Some(first) if first.request != *request => return Err(LinkError::KeyReused),
            Some(first) => return Ok(Some((first.at, first.link))),
            None => {}
        }
    }
    Ok(None)
}

/// Within one transaction: the first answer if the key has one, else the new link and the key's answer.
async fn insert(
    mut txn: Transaction,
    format: Format,
    at: &LinkAddress,
    row: &LinkRow,
    idempotency: Option<&Hashed>,
) -> Result<(Transaction, (LinkAddress, LinkRow)), LinkError> {
    if let Some(idempotency) = idempotency {
        if let Some(first) = repeated(&txn, idempotency, row.created_at).await? {
            return Ok((txn, first));
        }
        let Hashed { key, request, former: _ } = idempotency;
        let expires_at = row.created_at.plus(IDEMPOTENCY_TTL);
        let answer = IdempotencyRow { request: *request, at: at.clone(), link: row.clone(), expires_at };
        remember_answer(&mut txn, key.clone(), &answer);
    }
    rows::insert_link(&mut txn, format, at, row);
    Ok((txn, (at.clone(), row.clone())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ambient::Clock;
    use crate::kv::Kv;
    use crate::kv::embedded::Embedded;
    use crate::store::keyspace::KeyspaceRow;

    const NOW: UnixMs = UnixMs(1_790_000_000_000);

    /// Rolled out, a release meets the rows of the one before.
    #[tokio::test]
    async fn an_answer_of_an_older_program_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let kv = Kv::Embedded(Embedded::open(directory.path(), Clock::manual(NOW)).unwrap());
        let secret =
            IdempotencySecret::of(&KeyspaceRow { identity: 1, permutation_key: [3; 32], format: Format::NEWEST });
        let hashed = |body: &'static str| Idempotency::new("203.0.113.9", "key", &Bytes::from(body)).hashed(&secret);
        let at = LinkAddress { domain: String::new(), code: "q3XfZ0a".to_owned() };
        let link = LinkRow {
            id: 7,
            owner: None,
            target: "https://example.com/".to_owned(),
            status: 302,
            title: None,
            tags: Vec::new(),
            is_active: true,
            expires_at: None,
            created_at: NOW,
            updated_at: NOW,
            version: 1,
            is_alias: false,
            is_deleted: false,
        };
        let (key, request) = hashed("{}").former;
        let row = IdempotencyRow { request, at: at.clone(), link: link.clone(), expires_at: NOW.plus(IDEMPOTENCY_TTL) };
        let mut txn = kv.begin().await.unwrap();
        remember_answer(&mut txn, key, &row);
        txn.commit().await.unwrap();

        let txn = kv.begin().await.unwrap();
        assert_eq!(repeated(&txn, &hashed("{}"), NOW).await.unwrap(), Some((at, link)));
        assert!(matches!(repeated(&txn, &hashed("{ }"), NOW).await, Err(LinkError::KeyReused)));
        assert!(repeated(&txn, &hashed("{}"), NOW.plus(IDEMPOTENCY_TTL)).await.unwrap().is_none());
    }
}
