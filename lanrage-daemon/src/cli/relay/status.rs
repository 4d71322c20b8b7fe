//! `lanrage relay status`: the relay's totals.

use super::board::scaled;
use crate::cli::client::Client;
use crate::cli::failure::Failure;
use crate::cli::screen::{Screen, Style};
use crate::cli::show;
use crate::cli::table::{Cell, Table};
use lanrage_common::api::{ReasonCount, RelayDetail};

pub(in crate::cli) async fn run(client: &Client, screen: &mut Screen<'_>, json: bool) -> Result<u8, Failure> {
    let answer = client.get::<RelayDetail>("/api/v1/relay").await?;
    if json {
        screen.line(&answer.text);
    } else {
        print(screen, &answer.value);
    }
    Ok(0)
}

fn print(screen: &mut Screen<'_>, detail: &RelayDetail) {
    let region = if detail.region.is_empty() { String::new() } else { format!(" in {}", detail.region) };
    show::fact(screen, "Name", &format!("{}{region}", detail.name));
    show::relay_lines(screen, &detail.status);
    let (members, flows) = (detail.max_bindings, detail.max_flows);
    show::fact(screen, "Room", &format!("{members} members, {flows} flows"));
    screen.line("");
    let mut table = Table::new(["BY", "REASON", "PACKETS", "WHAT IT MEANS"]);
    for (plane, reasons) in [("kernel", &detail.kernel), ("daemon", &detail.userspace)] {
        for ReasonCount { name, what, packets, .. } in reasons.iter().filter(|reason| reason.packets > 0) {
            let what = Cell::new(what.trim_end_matches('.'), Style::Dim);
            table.row([plane.into(), name.into(), scaled(*packets as f64).into(), what]);
        }
    }
    table.print(screen);
    show::problems(screen, &detail.status.problems);
}
