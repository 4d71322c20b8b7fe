//! `lanrage doctor`: what could stand in the way of playing, each with its cure.

mod checks;
mod host;

use super::client::Client;
use super::failure::Failure;
use super::screen::{Screen, Style};
use super::table::{Cell, Table};
use lanrage_common::api::Status;
use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Level {
    /// As it should be.
    Good,
    /// Works, but could be better.
    Warning,
    /// Keeps from playing.
    Bad,
}

/// What one check says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// What was looked at: a stable name.
    pub check: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was found.
    pub what: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Finding {
    pub(super) fn good(check: &'static str, what: impl Into<String>) -> Self {
        Self { check, level: Level::Good, what: what.into(), fix: None }
    }

    pub(super) fn warning(check: &'static str, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, level: Level::Warning, what: what.into(), fix: Some(fix.into()) }
    }

    pub(super) fn bad(check: &'static str, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, level: Level::Bad, what: what.into(), fix: Some(fix.into()) }
    }
}

/// Looks at everything. Fails when something keeps from playing.
pub(super) async fn run(client: &Client, screen: &mut Screen<'_>, json: bool) -> Result<u8, Failure> {
    let findings = match client.get::<Status>("/api/v1/status").await {
        Ok(answer) => look(&answer.value).await,
        Err(failure) => {
            let (what, fix) = failure.lines();
            let fix = fix.unwrap_or_else(|| "look at its log: journalctl -u lanrage".into());
            vec![Finding::bad("daemon", what, fix)]
        }
    };
    let is_bad = findings.iter().any(|finding| finding.level == Level::Bad);
    if json {
        screen.line(serde_json::json!({ "findings": findings }));
    } else {
        show(screen, &findings);
    }
    Ok(u8::from(is_bad))
}

async fn look(status: &Status) -> Vec<Finding> {
    let mut findings = checks::all(status);
    findings.extend(host::all(status).await);
    findings
}

fn show(screen: &mut Screen<'_>, findings: &[Finding]) {
    let mut table = Table::new(["CHECK", "", "FOUND"]);
    for finding in findings {
        let mark = match finding.level {
            Level::Good => Cell::new("good", Style::Good),
            Level::Warning => Cell::new("warning", Style::Warn),
            Level::Bad => Cell::new("bad", Style::Bad),
        };
        table.row([finding.check.into(), mark, Cell::new(&finding.what, Style::Plain)]);
    }
    table.print(screen);
    for finding in findings {
        if let Some(fix) = &finding.fix {
            screen.line(format!("\n{}: {fix}", screen.paint(Style::Bold, finding.check)));
        }
    }
}
