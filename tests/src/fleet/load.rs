//! Clients that never stop asking: some create, some follow what was created. Each takes the nodes in turn.
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;
use shortener_node::ambient::{Clock, random};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Fleet;
use super::history::{Acknowledged, History};
use crate::client::{Answer, Client};

/// What a person's browser calls itself: its clicks count.
pub const BROWSER: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
/// The shortest pause between two requests of one client.
const PAUSE: Duration = Duration::from_millis(4);
/// The longest.
const PAUSE_MAX: Duration = Duration::from_millis(50);
/// How many times as long as its last answer took a client pauses: the load is to show faults, not to wear out two cores, however slow
/// they are.
const PAUSE_OF_ANSWER: u32 = 3;
/// How often a create is sent again with its key before it is given up.
const REPEATS_MAX: u32 = 200;

/// Of so many creates one is sent again although it was answered.
const REPLAYED_OF: u64 = 8;

/// A load that runs until it is stopped.
#[derive(Debug)]
pub struct Load {
    clients: JoinSet<()>,
    stop: CancellationToken,
}

impl Load {
    /// Starts so many clients of each kind.
    pub fn start(fleet: &Arc<Fleet>, history: &Arc<History>, creators: usize, followers: usize) -> Self {
        let (mut clients, stop) = (JoinSet::new(), CancellationToken::new());
        for number in 0..creators {
            clients.spawn(create(fleet.clone(), history.clone(), stop.clone(), number));
        }
        for number in 0..followers {
            clients.spawn(follow(fleet.clone(), history.clone(), stop.clone(), number));
        }
        Self { clients, stop }
    }

    /// Ends it: each client finishes what it asked.
    pub async fn stop(&mut self) -> Result<()> {
        self.stop.cancel();
        while let Some(ended) = self.clients.join_next().await {
            ended.context("a client ended badly")?;
        }
        Ok(())
    }
}

/// Creates links. One whose answer did not come is asked for again with the same key, at another node; and of those whose answer
/// came some are too, as by a client that lost it: it must be told of the same link.
async fn create(fleet: Arc<Fleet>, history: Arc<History>, stop: CancellationToken, number: usize) {
    let clock = Clock::system();
    let mut turn = number;
    for link in 0_u64.. {
        if stop.is_cancelled() {
            return;
        }
        let began = clock.monotonic();
        let target = format!("https://www.example.com/{number}/{link}");
        let key = hex(random::<16>());
        let mut ask = async |kind: &str| {
            turn += 1;
            let client = fleet.client(turn).await.with_header("Idempotency-Key", &key);
            let begun = clock.monotonic();
            let answer = client.post("/api/v1/urls", &json!({ "original_url": target })).await;
            note(&history, kind, answer.as_ref().ok(), clock.monotonic().saturating_sub(begun));
            answer
        };
        for attempt in 0..REPEATS_MAX {
            let answer = ask(if attempt == 0 { "create" } else { "create again" }).await;
            match answer {
                Ok(answer) if answer.status == 201 => match Acknowledged::from_answer(&answer) {
                    Ok(made) => {
                        history.acknowledged(made.clone());
                        if link % REPLAYED_OF == 0 {
                            expect_replay(&history, &made, ask("create replayed").await);
                        }
                        break;
                    }
                    Err(error) => history.wrong(format!("{error:#}")),
                },
                Ok(answer) if answer.status < 500 => {
                    history.wrong(format!("a create was answered with {}: {}", answer.status, answer.text()));
                    break;
                }
                _ => tokio::time::sleep(PAUSE * 5).await,
            }
        }
        tokio::time::sleep(pause_after(clock.monotonic().saturating_sub(began))).await;
    }
}

/// How long a client pauses after an answer.
fn pause_after(took: Duration) -> Duration {
    took.saturating_mul(PAUSE_OF_ANSWER).clamp(PAUSE, PAUSE_MAX)
}

/// A create that is sent again after it was acknowledged tells of the same link, or fails.
fn expect_replay(history: &History, made: &Acknowledged, answer: Result<Answer>) {
    let Ok(answer) = answer else { return };
    if answer.status < 500 && !Acknowledged::from_answer(&answer).is_ok_and(|told| told == *made) {
        history.wrong(format!("{made:?}, asked for again, was answered with {}: {}", answer.status, answer.text()));
    }
}

/// Follows links that were acknowledged. One that is not there, or leads elsewhere, is wrong; 503 is counted.
async fn follow(fleet: Arc<Fleet>, history: Arc<History>, stop: CancellationToken, number: usize) {
    let clock = Clock::system();
    let mut turn = number;
    while !stop.is_cancelled() {
        turn += 1;
        let mut took = Duration::ZERO;
        let chosen = usize::from(u16::from_be_bytes(random()));
        if let Some(link) = history.link(chosen) {
            let client: Client = fleet.client(turn).await.with_header("User-Agent", BROWSER);
            let begun = clock.monotonic();
            let answer = client.get(&link.path).await;
            took = clock.monotonic().saturating_sub(begun);
            note(&history, "redirect", answer.as_ref().ok(), took);
            match answer {
                Ok(answer) if answer.status == 302 && answer.header("location") == Some(&link.target) => {}
                Ok(answer) if answer.status >= 500 => {}
                Ok(answer) => {
                    let location = answer.header("location").unwrap_or_default();
                    history.wrong(format!("{link:?} was answered with {} {location}", answer.status));
                }
                Err(_) => {}
            }
        }
        tokio::time::sleep(pause_after(took)).await;
    }
}

fn note(history: &History, kind: &str, answer: Option<&Answer>, took: Duration) {
    match answer {
        Some(answer) => history.answered(&format!("{kind} {}", answer.status), took),
        None => history.answered(&format!("{kind} unanswered"), took),
    }
}

fn hex(bytes: [u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(bytes))
}
