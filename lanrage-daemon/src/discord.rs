//! Messages for a channel of Discord: what happens in the party goes to the webhook that the settings name, and nowhere else.

use crate::peer::PeerStatus;
use crate::settings::Desk;
use crate::shutdown::Shutdown;
use lanrage_common::discord::News;
use reqwest::header::RETRY_AFTER;
use reqwest::{Client, Response, StatusCode};
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

const PATIENCE: Duration = Duration::from_secs(10);
/// After an answer that is not understood, and the longest that Discord may ask for.
const WAIT: Duration = Duration::from_secs(60);
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// Tells from now on, in a task that ends with the peer.
pub fn start(status: watch::Receiver<PeerStatus>, desk: Arc<Desk>, shutdown: Shutdown) {
    tokio::spawn(async move {
        let mut channel = Channel::default();
        tokio::select! {
            () = shutdown.requested() => {}
            () = channel.follow(status, &desk) => {}
        }
    });
}

#[derive(Debug, Default)]
struct Channel {
    news: News,
    client: Option<Client>,
    /// Said once, until a message has arrived.
    has_complained: bool,
}

impl Channel {
    async fn follow(&mut self, mut status: watch::Receiver<PeerStatus>, desk: &Desk) {
        loop {
            let due = self.news.poll_timeout();
            let timer = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = status.changed() => if changed.is_err() { return },
                () = timer => {}
            }
            let now = Instant::now();
            self.look(&status.borrow_and_update(), now);
            self.news.handle_timeout(now);
            if let (Some(text), Some(webhook)) = (self.news.poll_output(), desk.webhook())
                && let Err(wait) = self.send(&webhook, &text).await
            {
                self.news.handle_refused(wait, Instant::now());
            }
        }
    }

    fn look(&mut self, status: &PeerStatus, now: Instant) {
        let games = &status.games;
        let own: Vec<String> =
            games.running.iter().filter(|_| games.shared).map(|game| game.name.clone()).collect();
        self.news.handle_status(status.party.as_ref().filter(|_| status.up), &own, now);
    }

    /// Sends one message; or says how long to wait before the next.
    async fn send(&mut self, webhook: &str, text: &str) -> Result<(), Duration> {
        // nobody is called by what somebody's device is named
        let message = json!({ "content": text, "allowed_mentions": { "parse": [] } });
        let client = match &self.client {
            Some(client) => client,
            None => self.client.insert(client().map_err(|_| WAIT)?),
        };
        let answer = client.post(webhook).json(&message).send().await;
        let (why, wait) = match answer {
            Ok(answer) if answer.status().is_success() => {
                self.has_complained = false;
                return Ok(());
            }
            Ok(answer) => (format!("it answers {}", answer.status()), wait(&answer)),
            // the address is a secret
            Err(error) => (error.without_url().to_string(), WAIT),
        };
        if !std::mem::replace(&mut self.has_complained, true) {
            tracing::warn!(
                why,
                "Discord does not take messages: check discord.webhook, and whether the channel still has it"
            );
        }
        Err(wait)
    }
}

fn client() -> reqwest::Result<Client> {
    Client::builder()
        .user_agent(concat!("lanrage/", env!("CARGO_PKG_VERSION")))
        .timeout(PATIENCE)
        .redirect(reqwest::redirect::Policy::none())
        .build()
}

fn wait(answer: &Response) -> Duration {
    let asked = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse::<f64>().ok());
    match (answer.status(), asked) {
        (StatusCode::TOO_MANY_REQUESTS, Some(seconds)) => {
            Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT)
        }
        _ => WAIT,
    }
}
