//! Load that counts every answer and waits for none: a request is sent whenever it is due, whatever became of those before it. A client
//! that waits for its answers asks less when a service is slow, and so sees less of it.
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use reqwest::redirect::Policy;
use shortener_node::ambient::{Clock, random};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

/// A request that is not answered by then has failed.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// What is asked, and how.
#[derive(Clone, Debug)]
pub enum Ask {
    /// Follows a link on connections that are kept.
    Kept(String),
    /// Follows a link on a new connection each time.
    Fresh(String),
    /// Makes links, each with an `Idempotency-Key`, on connections that are kept. A failed one is sent once more with its key.
    Create(String),
}

/// A load that runs until it is stopped.
#[derive(Debug)]
pub struct Witness {
    asking: JoinHandle<()>,
    stop: CancellationToken,
    seen: Seen,
}

/// Answers by status, and failures by reason.
type Seen = Arc<Mutex<BTreeMap<String, u64>>>;

impl Witness {
    /// Asks so often a second.
    pub fn start(ask: Ask, per_second: u32) -> Result<Self> {
        let builder = reqwest::Client::builder().redirect(Policy::none()).timeout(ANSWER_WITHIN);
        let builder = match ask {
            Ask::Fresh(_) => builder.pool_max_idle_per_host(0),
            Ask::Kept(_) | Ask::Create(_) => builder,
        };
        let client = builder.build().context("making a client")?;
        let (stop, seen) = (CancellationToken::new(), Seen::default());
        let asking = tokio::spawn(ask_in_time(client, ask, per_second, seen.clone(), stop.clone()));
        Ok(Self { asking, stop, seen })
    }

    /// How many answers there are so far.
    pub fn answers(&self) -> u64 {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }

    /// Ends it, waits for the last answers, and tells what was seen.
    pub async fn stop(self) -> Result<BTreeMap<String, u64>> {
        self.stop.cancel();
        self.asking.await.context("the load ended badly")?;
        Ok(self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

async fn ask_in_time(client: reqwest::Client, ask: Ask, per_second: u32, seen: Seen, stop: CancellationToken) {
    let (clock, mut asked) = (Clock::system(), JoinSet::new());
    for number in 0_u32.. {
        let due = Duration::from_secs(1) * number / per_second;
        let wait = tokio::time::sleep(due.saturating_sub(clock.monotonic()));
        if stop.run_until_cancelled(wait).await.is_none() {
            break;
        }
        let (client, ask, seen) = (client.clone(), ask.clone(), seen.clone());
        asked.spawn(async move {
            let outcome = outcome(&client, &ask).await;
            *seen.lock().unwrap_or_else(PoisonError::into_inner).entry(outcome).or_default() += 1;
        });
        while asked.try_join_next().is_some() {}
    }
    asked.join_all().await;
}

async fn outcome(client: &reqwest::Client, ask: &Ask) -> String {
    match ask {
        Ask::Kept(url) | Ask::Fresh(url) => told(client.get(url).send().await),
        Ask::Create(url) => {
            let key = format!("{:032x}", u128::from_be_bytes(random()));
            let body = serde_json::json!({ "original_url": "https://www.example.com/witnessed" });
            let send = async || told(client.post(url).header("Idempotency-Key", &key).json(&body).send().await);
            match send().await {
                first if first == "201" => first,
                first => format!("{} after {first}", send().await),
            }
        }
    }
}

fn told(answer: reqwest::Result<reqwest::Response>) -> String {
    match answer {
        Ok(answer) => answer.status().as_u16().to_string(),
        Err(error) => {
            let mut cause: &dyn std::error::Error = &error;
            while let Some(deeper) = cause.source() {
                cause = deeper;
            }
            cause.to_string()
        }
    }
}
