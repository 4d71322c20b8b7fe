//! `lanrage relay top`: asks every second and shows the difference.

use super::board;
use super::rates::Rates;
use crate::cli::client::Client;
use crate::cli::failure::Failure;
use crate::cli::screen::Screen;
use crate::cli::terminal::Terminal;
use lanrage_common::api::RelayDetail;
use serde_json::json;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval, sleep};

const SECOND: Duration = Duration::from_secs(1);
const REQUEST: &str = "/api/v1/relay";

/// What was typed.
#[derive(Debug, Clone, Copy)]
pub(in crate::cli) struct Top {
    pub(in crate::cli) once: bool,
    pub(in crate::cli) members: usize,
    pub(in crate::cli) json: bool,
}

/// Runs until `q`, Ctrl-C, or the end of whoever reads its output.
pub(in crate::cli) async fn run(client: &Client, screen: &mut Screen<'_>, top: Top) -> Result<u8, Failure> {
    let first = ask(client).await?;
    if top.once {
        sleep(SECOND).await;
        print(screen, top, &Rates::between(&first, &ask(client).await?));
        return Ok(0);
    }
    if screen.is_terminal() && !top.json {
        return watch(client, screen, top, first).await;
    }
    let mut last = first;
    while !screen.is_closed() {
        sleep(SECOND).await;
        let now = ask(client).await?;
        print(screen, top, &Rates::between(&last, &now));
        last = now;
    }
    Ok(0)
}

async fn ask(client: &Client) -> Result<RelayDetail, Failure> {
    Ok(client.get::<RelayDetail>(REQUEST).await?.value)
}

/// For pipes: a block a second, or a line of JSON.
fn print(screen: &mut Screen<'_>, top: Top, rates: &Rates) {
    if top.json {
        return screen.line(json!(rates));
    }
    for line in board::lines(rates, screen, screen.width(), None, top.members) {
        screen.line(line);
    }
    if !top.once {
        screen.line("");
    }
}

async fn watch(client: &Client, screen: &Screen<'_>, top: Top, first: RelayDetail) -> Result<u8, Failure> {
    let mut terminal = Terminal::take();
    let mut last = first;
    let mut tick = interval(SECOND);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick.tick().await;
    Terminal::show(&["One second…".into()]);
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => return Ok(0),
            key = terminal.key() => if matches!(key, b'q' | b'Q' | 0x1b) { return Ok(0) },
            _ = tick.tick() => match ask(client).await {
                Ok(now) => {
                    let (width, height) = Terminal::size();
                    let rates = Rates::between(&last, &now);
                    Terminal::show(&board::lines(&rates, screen, width, Some(height - 1), top.members));
                    last = now;
                }
                // it may be restarting
                Err(Failure::NotRunning(_)) => Terminal::show(&["The relay is not running; waiting for it. q quits.".into()]),
                Err(failure) => return Err(failure),
            }
        }
    }
}
