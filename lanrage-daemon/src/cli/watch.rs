//! Looking at the daemon's status, once or every second.

use super::client::{Answer, Client};
use super::failure::Failure;
use super::screen::{Screen, Style};
use lanrage_common::api::Status;
use std::time::Duration;

/// Between two looks.
const GAP: Duration = Duration::from_secs(1);

/// How a command looks at the status.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    /// Again and again, until nobody reads any more.
    pub(super) again: bool,
    pub(super) json: bool,
}

/// Shows the status or a part of it; `part` is its JSON. A person who watches is told when the daemon is away, and goes on
/// watching when it is back.
pub(super) async fn look(
    client: &Client,
    screen: &mut Screen<'_>,
    look: Look,
    part: impl Fn(&Answer<Status>) -> String,
    show: impl Fn(&mut Screen<'_>, &Status),
) -> Result<u8, Failure> {
    let Look { again, json } = look;
    let mut was_there = false;
    loop {
        let answer = client.get::<Status>("/api/v1/status").await;
        let may_wait = was_there && again && !json && screen.is_terminal();
        if again && !json && (answer.is_ok() || may_wait) {
            screen.begin_again();
        }
        match answer {
            Ok(answer) if json => screen.line(part(&answer)),
            Ok(answer) => show(screen, &answer.value),
            Err(failure) if may_wait => away(screen, &failure),
            Err(failure) => return Err(failure),
        }
        was_there = true;
        if !again || screen.is_closed() {
            return Ok(0);
        }
        tokio::time::sleep(GAP).await;
    }
}

fn away(screen: &mut Screen<'_>, failure: &Failure) {
    let (what, fix) = failure.lines();
    let mark = screen.paint(Style::Bad, "!");
    screen.line(format!("{mark} {what}"));
    fix.into_iter().for_each(|fix| screen.line(format!("  {fix}")));
    screen.line("  Waiting for it; Ctrl-C ends this.");
}
