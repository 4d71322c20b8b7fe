//! `lanrage doctor`: what could stand in the way of playing, each with its cure.

use super::client::Client;
use super::failure::Failure;
use super::screen::{Screen, Style};
use super::table::{Cell, Table};
use lanrage_common::api::{DoctorAnswer, Finding, Level, Status};

/// Looks at everything. Fails when something keeps from playing.
pub(super) async fn run(client: &Client, screen: &mut Screen<'_>, json: bool) -> Result<u8, Failure> {
    let findings = match ask(client).await {
        Ok(findings) => findings,
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

async fn ask(client: &Client) -> Result<Vec<Finding>, Failure> {
    let version = client.get::<Status>("/api/v1/status").await?.value.version;
    let own = env!("CARGO_PKG_VERSION");
    if version != own {
        let what = format!("the daemon is version {version}, this program {own}");
        return Ok(vec![Finding::warning(
            "daemon",
            what,
            "restart the daemon: sudo systemctl restart lanrage",
        )]);
    }
    Ok(client.post::<DoctorAnswer>("/api/v1/doctor").await?.value.findings)
}

fn show(screen: &mut Screen<'_>, findings: &[Finding]) {
    let mut table = Table::new(["CHECK", "", "FOUND"]);
    for finding in findings {
        let mark = match finding.level {
            Level::Good => Cell::new("good", Style::Good),
            Level::Warning => Cell::new("warning", Style::Warn),
            Level::Bad => Cell::new("bad", Style::Bad),
        };
        table.row([(&finding.check).into(), mark, Cell::new(&finding.what, Style::Plain)]);
    }
    table.print(screen);
    for finding in findings {
        if let Some(fix) = &finding.fix {
            screen.line(format!("\n{}: {fix}", screen.paint(Style::Bold, &finding.check)));
        }
    }
}
