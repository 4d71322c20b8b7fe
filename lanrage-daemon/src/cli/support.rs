//! `lanrage bundle` and `lanrage log`: for whoever helps.

use super::client::Client;
use super::failure::Failure;
use super::screen::Screen;
use lanrage_common::api::{LogAnswer, SupportBundle};
use serde_json::json;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Writes the bundle to a new file: one that is there is not overwritten.
pub(super) async fn bundle(
    client: &Client,
    screen: &mut Screen<'_>,
    file: Option<PathBuf>,
    json: bool,
) -> Result<u8, Failure> {
    let bundle = client.get::<SupportBundle>("/api/v1/bundle").await?.value;
    let text = serde_json::to_string_pretty(&bundle).map_err(|error| Failure::Broken(error.to_string()))?;
    if file.as_deref() == Some(Path::new("-")) {
        screen.line(text);
        return Ok(0);
    }
    let file = file.unwrap_or_else(named_by_time);
    write(&file, &text).map_err(|error| {
        Failure::Local(
            format!("cannot write {}: {error}", file.display()),
            "name another file: lanrage bundle FILE".into(),
        )
    })?;
    if json {
        screen.line(json!({ "file": file }));
    } else {
        screen.line(format!("{}: read it before you send it to whoever helps you.", file.display()));
    }
    Ok(0)
}

pub(super) async fn log(client: &Client, screen: &mut Screen<'_>, json: bool) -> Result<u8, Failure> {
    let answer = client.get::<LogAnswer>("/api/v1/log").await?;
    if json {
        screen.line(&answer.text);
    } else {
        for line in &answer.value.lines {
            screen.line(line.chars().filter(|c| !c.is_control() || *c == '\t').collect::<String>());
        }
    }
    Ok(0)
}

fn named_by_time() -> PathBuf {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    format!("lanrage-support-{seconds}.json").into()
}

fn write(file: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).open(file)?.write_all(text.as_bytes())
}
