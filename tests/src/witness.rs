//! Load that counts every answer and waits for none: a request is sent when it is due, whatever became of those before it, and its time counts
//! from then. A client that waits for its answers asks less when a service is slow, and so sees less of it.
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use reqwest::header::{CONNECTION, HeaderValue};
use reqwest::redirect::Policy;
use serde::{Deserialize, Serialize};
use shortener_node::ambient::{Clock, random};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::client::POOL_IDLE_TIMEOUT;

/// A request that is not answered by then has failed.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long a create that failed waits for its second attempt.
const RETRY_PAUSE: Duration = Duration::from_secs(2);
/// What of a URL stands for something else in each request.
const RANDOM: &str = "{random}";

/// What is asked, and how.
#[derive(Clone, Debug)]
pub enum Ask {
    /// Follows links, in turn, on connections that are kept. A `{random}` in one is another code each time.
    Kept(Vec<String>),
    /// The same on a new connection each time.
    Fresh(Vec<String>),
    /// Makes links at this service, each with an `Idempotency-Key`, on connections that are kept. A failed one is sent once more with its key, two seconds later.
    Create(String),
}

/// What became of the requests that were due in one second.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Second {
    /// The second since 1970.
    pub at: i64,
    /// How many there were.
    pub due: u64,
    /// Answers by status, failures by reason. Of a create that was sent twice both, such as `201 after 503: The store is busy.`.
    pub outcomes: BTreeMap<String, u64>,
    /// How many took so many milliseconds, counted from when they were due.
    pub latencies_ms: BTreeMap<u64, u64>,
    /// The codes of the links that were made.
    pub created: Vec<String>,
}

impl Second {
    /// Whether all of its requests have an outcome.
    pub fn is_complete(&self) -> bool {
        self.outcomes.values().sum::<u64>() >= self.due
    }
}

/// The seconds so far, by number.
pub type Seconds = Arc<Mutex<BTreeMap<i64, Second>>>;

/// Asks so often a second until it is told to stop, and waits for the last answers.
pub async fn ask(ask: Ask, per_second: u32, seconds: Seconds, stop: CancellationToken) -> Result<()> {
    let builder = reqwest::Client::builder()
        .redirect(Policy::none())
        .no_proxy()
        .timeout(ANSWER_WITHIN)
        .pool_idle_timeout(POOL_IDLE_TIMEOUT);
    let client = match ask {
        // The server closes it, then: whoever closes cannot use the port again for a minute, and has but so many of them.
        Ask::Fresh(_) => {
            builder.default_headers([(CONNECTION, HeaderValue::from_static("close"))].into_iter().collect())
        }
        Ask::Kept(_) | Ask::Create(_) => builder,
    };
    let client = client.build().context("making a client")?;
    let (clock, ask, mut asked) = (Clock::system(), Arc::new(ask), JoinSet::new());
    for number in 0_u32.. {
        let due = Duration::from_secs(1) * number / per_second;
        let wait = tokio::time::sleep(due.saturating_sub(clock.monotonic()));
        if stop.run_until_cancelled(wait).await.is_none() {
            break;
        }
        let (client, ask, seconds, clock) = (client.clone(), Arc::clone(&ask), Arc::clone(&seconds), clock.clone());
        // Late, when this machine is: the wait for it is part of what a client sees.
        let at = second(&clock);
        in_second(&seconds, at, |second| second.due += 1);
        asked.spawn(async move {
            let Outcome { said, created } = outcome(&client, &ask, number).await;
            let took = u64::try_from(clock.monotonic().saturating_sub(due).as_millis()).unwrap_or(u64::MAX);
            in_second(&seconds, at, |second| {
                *second.outcomes.entry(said).or_default() += 1;
                *second.latencies_ms.entry(took).or_default() += 1;
                second.created.extend(created);
            });
        });
        while asked.try_join_next().is_some() {}
    }
    asked.join_all().await;
    Ok(())
}

/// The second since 1970.
pub fn second(clock: &Clock) -> i64 {
    i64::try_from(clock.now().0 / 1_000).unwrap_or(i64::MAX)
}

fn in_second(seconds: &Seconds, at: i64, change: impl FnOnce(&mut Second)) {
    let mut seconds = seconds.lock().unwrap_or_else(PoisonError::into_inner);
    change(seconds.entry(at).or_insert_with(|| Second { at, ..Second::default() }));
}

struct Outcome {
    said: String,
    created: Option<String>,
}

async fn outcome(client: &reqwest::Client, ask: &Ask, number: u32) -> Outcome {
    match ask {
        Ask::Kept(urls) | Ask::Fresh(urls) => {
            let url = urls.iter().cycle().nth(usize::try_from(number).unwrap_or(0) % urls.len().max(1));
            let url = url.map(|url| url.replace(RANDOM, &random_code())).unwrap_or_default();
            // Nobody is one address: unknown codes are limited by it.
            let address = Ipv4Addr::from(random::<4>()).to_string();
            let answer = client.get(url).header("X-Forwarded-For", address).send().await;
            Outcome { said: told(answer.map(|answer| answer.status())), created: None }
        }
        Ask::Create(service) => {
            let url = format!("{service}/api/v1/urls");
            let key = format!("{:032x}", u128::from_be_bytes(random()));
            let first = create(client, &url, &key).await;
            if first.created.is_some() {
                return first;
            }
            tokio::time::sleep(RETRY_PAUSE).await;
            let second = create(client, &url, &key).await;
            Outcome { said: format!("{} after {}", second.said, first.said), ..second }
        }
    }
}

/// Of the characters that codes have; too many of them to be one of ours.
pub fn random_code() -> String {
    hex::encode(random::<4>())
}

async fn create(client: &reqwest::Client, url: &str, key: &str) -> Outcome {
    let body = serde_json::json!({ "original_url": "https://www.example.com/witnessed" });
    let send = async {
        let answer = client.post(url).header("Idempotency-Key", key).json(&body).send().await?;
        let status = answer.status();
        // Who stands before the nodes answers in other words.
        let body: serde_json::Value = serde_json::from_slice(&answer.bytes().await?).unwrap_or_default();
        let text = |field: &str| body[field].as_str().map(str::to_owned);
        Ok((status, text("short_code").filter(|_| status == 201), text("detail")))
    };
    match send.await {
        Ok((status, Some(created), _)) => Outcome { said: told(Ok(status)), created: Some(created) },
        Ok((status, None, why)) => {
            Outcome { said: format!("{}: {}", status.as_u16(), why.unwrap_or_default()), created: None }
        }
        Err(error) => Outcome { said: told(Err(error)), created: None },
    }
}

fn told(answer: reqwest::Result<reqwest::StatusCode>) -> String {
    match answer {
        Ok(status) => status.as_u16().to_string(),
        Err(error) if error.is_timeout() => format!("no answer within {ANSWER_WITHIN:?}"),
        Err(error) => {
            let mut cause: &dyn std::error::Error = &error;
            while let Some(deeper) = cause.source() {
                cause = deeper;
            }
            cause.to_string()
        }
    }
}
