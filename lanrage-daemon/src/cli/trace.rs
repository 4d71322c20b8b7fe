//! `lanrage trace`: what games ask everybody, how far it came at each member, and what helps where it did not.

use super::client::Client;
use super::failure::Failure;
use super::screen::{Screen, Style};
use super::show::NO_PARTY;
use super::table::{Cell, Table};
use super::terminal::Terminal;
use lanrage_common::api::{LaneConversation, LaneReceiver, LaneRung, Problem, Status};
use serde_json::json;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval, sleep};

const SECOND: Duration = Duration::from_secs(1);
/// Cures that are shown at once.
const MAX_ADVICE: usize = 8;

/// What was typed.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    pub(super) what: Option<String>,
    pub(super) once: bool,
    pub(super) json: bool,
}

/// Runs until `q`, Ctrl-C, or the end of whoever reads its output.
pub(super) async fn run(client: &Client, screen: &mut Screen<'_>, wish: &Wish) -> Result<u8, Failure> {
    let first = ask(client, wish).await?;
    if screen.is_terminal() && !wish.json && !wish.once {
        return watch(client, screen, wish, first).await;
    }
    print(screen, wish, &first);
    while !wish.once && !screen.is_closed() {
        sleep(SECOND).await;
        print(screen, wish, &ask(client, wish).await?);
    }
    Ok(0)
}

/// The conversations that were asked for; none while in no party.
async fn ask(client: &Client, wish: &Wish) -> Result<Option<Vec<LaneConversation>>, Failure> {
    let status = client.get::<Status>("/api/v1/status").await?.value;
    let Some(party) = status.party else { return Ok(None) };
    Ok(Some(party.lane.trace.into_iter().filter(|it| wish.is_of(it)).collect()))
}

impl Wish {
    fn is_of(&self, conversation: &LaneConversation) -> bool {
        let Some(what) = &self.what else { return true };
        let part = what.to_lowercase();
        match what.parse::<u16>() {
            Ok(port) => conversation.port == port,
            Err(_) => conversation.games.iter().any(|game| game.to_lowercase().contains(&part)),
        }
    }
}

fn print(screen: &mut Screen<'_>, wish: &Wish, found: &Option<Vec<LaneConversation>>) {
    if wish.json {
        return screen.line(json!(found.as_deref().unwrap_or_default()));
    }
    for line in lines(screen, wish, found.as_deref()) {
        screen.line(line);
    }
    if !wish.once {
        screen.line("");
    }
}

async fn watch(
    client: &Client,
    screen: &Screen<'_>,
    wish: &Wish,
    first: Option<Vec<LaneConversation>>,
) -> Result<u8, Failure> {
    let mut terminal = Terminal::take();
    let mut tick = interval(SECOND);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    Terminal::show(&lines(screen, wish, first.as_deref()));
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => return Ok(0),
            key = terminal.key() => if matches!(key, b'q' | b'Q' | 0x1b) { return Ok(0) },
            _ = tick.tick() => {
                let mut lines = lines(screen, wish, ask(client, wish).await?.as_deref());
                lines.truncate(Terminal::size().1.saturating_sub(1));
                Terminal::show(&lines);
            }
        }
    }
}

fn lines(screen: &Screen<'_>, wish: &Wish, found: Option<&[LaneConversation]>) -> Vec<String> {
    match found {
        None => vec![NO_PARTY.into()],
        Some([]) => vec![match &wish.what {
            Some(what) => format!(
                "Nothing seen of {what} yet. Open the game's list of local games, here or at a friend's; `lanrage trace` shows everything."
            ),
            None => "Nothing seen yet. Open the list of local games in a game, here or at a friend's.".into(),
        }],
        Some(conversations) => {
            table(conversations).lines(screen).into_iter().chain(advice(screen, conversations)).collect()
        }
    }
}

/// A line for each member that a conversation goes to.
fn table(conversations: &[LaneConversation]) -> Table {
    let mut table =
        Table::new(["GAME", "PORT", "TO", "FROM", "AT", "SEEN", "COPIED", "DELIVERED", "ANSWERED", ""]);
    for conversation in conversations {
        if conversation.receivers.is_empty() {
            table.row(row(conversation, None));
        }
        for receiver in &conversation.receivers {
            table.row(row(conversation, Some(receiver)));
        }
    }
    table
}

fn row(it: &LaneConversation, at: Option<&LaneReceiver>) -> [Cell; 10] {
    let game = match &it.games[..] {
        [] => "-".into(),
        [game] => game.clone(),
        [game, ..] => format!("{game}, or other"),
    };
    let dash = || "-".to_owned();
    let from = if it.own { "this device" } else { &it.name };
    let delivered = match (at, it.own) {
        (Some(at), _) => at.delivered.map_or_else(dash, |count| count.to_string()),
        (None, true) => dash(),
        (None, false) => it.seen.to_string(),
    };
    let (rung, missing) = at.map_or((it.rung, &it.missing), |at| (at.rung, &at.missing));
    let seen = if it.own { it.seen.to_string() } else { dash() };
    let copied = match (it.copied, it.dropped) {
        (0, _) if !it.own => dash(),
        (0, dropped) if dropped > 0 => "dropped".into(),
        (copied, _) => copied.to_string(),
    };
    [
        game.into(),
        it.port.to_string().into(),
        it.destination.to_string().into(),
        from.into(),
        at.map_or_else(|| if it.own { "nobody" } else { "this device" }.into(), |at| at.name.clone()).into(),
        seen.into(),
        copied.into(),
        delivered.into(),
        at.map_or_else(dash, |at| at.answered.to_string()).into(),
        verdict(rung, missing),
    ]
}

fn verdict(rung: LaneRung, missing: &Option<Problem>) -> Cell {
    match missing {
        None if rung == LaneRung::Answered => Cell::new("works", Style::Good),
        None => Cell::new("arrives", Style::Good),
        // a game that announces itself is not answered, and rightly so
        Some(problem) if problem.code == "not_answered" => Cell::new("arrives", Style::Dim),
        Some(problem) => Cell::new(problem.code.replace('_', " "), Style::Warn),
    }
}

/// What helps, each thing once.
fn advice(screen: &Screen<'_>, conversations: &[LaneConversation]) -> Vec<String> {
    let mut problems: Vec<&Problem> = Vec::new();
    for it in conversations {
        let at_members = it.receivers.iter().filter_map(|receiver| receiver.missing.as_ref());
        let own = it.missing.iter().filter(|_| it.receivers.is_empty());
        for problem in at_members.chain(own) {
            if !problems.iter().any(|known| known.message == problem.message) {
                problems.push(problem);
            }
        }
    }
    let mut lines = Vec::new();
    for problem in problems.iter().take(MAX_ADVICE) {
        let clean = |text: &str| text.chars().filter(|c| !c.is_control()).collect::<String>();
        lines.push(String::new());
        lines.push(format!("{} {}", screen.paint(Style::Warn, "*"), clean(&problem.message)));
        lines.push(format!("  {}", clean(&problem.fix)));
    }
    lines
}
