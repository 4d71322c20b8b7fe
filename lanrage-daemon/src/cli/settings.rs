//! `lanrage settings`: what can be changed while the daemon runs.

use super::client::Client;
use super::failure::Failure;
use super::screen::{Screen, Style};
use super::table::{Cell, Table};
use lanrage_common::api::{Effect, Setting, Settings, SettingsRequest};
use serde_json::Value;

const REQUEST: &str = "/api/v1/settings";
/// Typed instead of a value.
const UNSET: &str = "unset";

/// Shows all settings, or changes one.
pub(super) async fn run(
    client: &Client,
    screen: &mut Screen<'_>,
    change: Option<(String, String)>,
    json: bool,
) -> Result<u8, Failure> {
    let Some((key, text)) = change else {
        let answer = client.get::<Settings>(REQUEST).await?;
        if json {
            screen.line(&answer.text);
        } else {
            show(screen, &answer.value);
        }
        return Ok(0);
    };
    let request = SettingsRequest { changes: [(key.clone(), value(&text))].into() };
    let answer = client.send::<Settings>(REQUEST, &request).await?;
    if json {
        screen.line(&answer.text);
        return Ok(0);
    }
    if let Some(setting) = answer.value.settings.iter().find(|setting| setting.key == key) {
        let when = if setting.pending { "when the daemon is started again" } else { "now" };
        screen.line(format!("{key} = {} counts {when}.", setting.value));
    }
    Ok(0)
}

/// What looks like a number, a truth or a list is one; everything else is text.
fn value(text: &str) -> Value {
    if text == UNSET {
        return Value::Null;
    }
    let typed = serde_json::from_str(text).ok();
    typed
        .filter(|value| matches!(value, Value::Bool(_) | Value::Number(_) | Value::Array(_)))
        .unwrap_or_else(|| text.into())
}

fn show(screen: &mut Screen<'_>, settings: &Settings) {
    let mut table = Table::new(["SETTING", "VALUE", "A CHANGE COUNTS", ""]);
    for setting in &settings.settings {
        let value = if setting.value.is_null() { "-".into() } else { setting.value.to_string() };
        table.row([(&setting.key).into(), value.into(), effect(setting.effect).into(), note(setting)]);
    }
    table.print(screen);
    screen.line("\nChange one: lanrage settings KEY VALUE");
}

fn effect(effect: Effect) -> &'static str {
    match effect {
        Effect::Live => "at once",
        Effect::Reconnect => "at once; the tunnel is down for a moment",
        Effect::Restart => "at the next start",
    }
}

fn note(setting: &Setting) -> Cell {
    match (&setting.locked, setting.pending) {
        (Some(place), _) => Cell::new(format!("fixed by {place}"), Style::Dim),
        (None, true) => Cell::new("not at work yet", Style::Warn),
        (None, false) => Cell::new("", Style::Plain),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_what_they_look_like() {
        for (text, meant) in [
            ("true", json!(true)),
            ("1400", json!(1400)),
            ("[\"a:1\"]", json!(["a:1"])),
            ("unset", json!(null)),
            ("null", json!("null")),
            ("Ana", json!("Ana")),
            ("\"Ana\"", json!("\"Ana\"")),
        ] {
            assert_eq!(value(text), meant);
        }
    }
}
