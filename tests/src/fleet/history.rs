//! What clients saw of a fleet: every answer by kind, and every link that was acknowledged.
use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::stream::{self, StreamExt, TryStreamExt};
use serde_json::Value;

use super::Fleet;
use crate::client::{Answer, Client};

/// Links looked for at once.
const CHECKS_AT_ONCE: usize = 32;

/// A link whose creation was answered with 201.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    /// `/code`.
    pub path: String,
    /// Where it leads.
    pub target: String,
    /// Its Snowflake ID.
    pub id: String,
}

impl Acknowledged {
    /// What an answer to a create says.
    pub fn from_answer(answer: &Answer) -> Result<Self> {
        let link: Value = answer.json()?;
        let text = |name: &str| link[name].as_str().map(str::to_owned).with_context(|| format!("a link has {name}"));
        Ok(Self { path: format!("/{}", text("short_code")?), target: text("original_url")?, id: text("id")? })
    }
}

/// What was seen.
#[derive(Debug, Default)]
pub struct History(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    acknowledged: Vec<Acknowledged>,
    /// Only so many of them are followed.
    followed: Option<usize>,
    answers: BTreeMap<String, u64>,
    slowest: BTreeMap<String, Duration>,
    wrong: Vec<String>,
}

impl History {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of an acknowledged link.
    pub fn acknowledged(&self, link: Acknowledged) {
        self.seen().acknowledged.push(link);
    }

    /// Takes note of an answer of this kind, such as `redirect 302`, and of how long it took.
    pub fn answered(&self, kind: &str, took: Duration) {
        let mut seen = self.seen();
        *seen.answers.entry(kind.to_owned()).or_default() += 1;
        let slowest = seen.slowest.entry(kind.to_owned()).or_default();
        *slowest = took.max(*slowest);
    }

    /// Takes note of what must never be.
    pub fn wrong(&self, what: String) {
        self.seen().wrong.push(what);
    }

    /// How many answers were of a kind that begins so.
    pub fn count(&self, kind: &str) -> u64 {
        self.seen().answers.iter().filter(|(found, _)| found.starts_with(kind)).map(|(_, count)| count).sum()
    }

    /// The longest that an answer of such a kind took.
    pub fn slowest(&self, kind: &str) -> Duration {
        let seen = self.seen();
        seen.slowest
            .iter()
            .filter(|(found, _)| found.starts_with(kind))
            .map(|(_, took)| *took)
            .max()
            .unwrap_or_default()
    }

    /// A link that was acknowledged, chosen by `number`.
    pub fn link(&self, number: usize) -> Option<Acknowledged> {
        let seen = self.seen();
        let followed = seen.followed.unwrap_or(usize::MAX).min(seen.acknowledged.len());
        let index = number.checked_rem(followed)?;
        seen.acknowledged.get(index).cloned()
    }

    /// Has only the first so many links chosen from now on; none: all.
    pub fn follow_only(&self, first: Option<usize>) {
        self.seen().followed = first;
    }

    /// The first so many links.
    pub fn first(&self, links: usize) -> Vec<Acknowledged> {
        self.seen().acknowledged.iter().take(links).cloned().collect()
    }

    /// How many links were acknowledged.
    pub fn links(&self) -> usize {
        self.seen().acknowledged.len()
    }

    /// One line of all that was seen, for people.
    pub fn summary(&self) -> String {
        let seen = self.seen();
        let kinds = seen.answers.iter().map(|(kind, count)| {
            let slowest = seen.slowest.get(kind).copied().unwrap_or_default();
            format!("{kind}: {count} (slowest {} ms)", slowest.as_millis())
        });
        kinds.collect::<Vec<_>>().join(", ")
    }

    /// Nothing that must never be was seen; no code and no ID was given out twice; each acknowledged link is at every node.
    pub async fn check(&self, fleet: &Fleet) -> Result<()> {
        self.check_at(fleet, fleet.len()).await
    }

    /// The same, looking for the links at the first `nodes` nodes.
    pub async fn check_at(&self, fleet: &Fleet, nodes: usize) -> Result<()> {
        let (links, wrong) = {
            let seen = self.seen();
            (seen.acknowledged.clone(), seen.wrong.clone())
        };
        ensure!(wrong.is_empty(), "{} answers were wrong, the first: {}", wrong.len(), wrong[0]);
        let (mut codes, mut ids) = (HashSet::new(), HashSet::new());
        for link in &links {
            ensure!(codes.insert(&link.path), "{} was given out twice", link.path);
            ensure!(ids.insert(&link.id), "the ID {} was given out twice", link.id);
        }
        for node in 0..nodes {
            let client = fleet.client(node).await;
            let checks = stream::iter(&links).map(|link| expect_redirect(&client, link));
            checks.buffer_unordered(CHECKS_AT_ONCE).try_for_each(|()| async { Ok(()) }).await?;
        }
        Ok(())
    }
}

async fn expect_redirect(client: &Client, link: &Acknowledged) -> Result<()> {
    let answer = client.get(&link.path).await?.expect_status(302).with_context(|| format!("{link:?} is lost"))?;
    ensure!(answer.header("location") == Some(&link.target), "{link:?} leads to {:?}", answer.header("location"));
    Ok(())
}
