//! Commands that need no daemon.

use super::arguments::Arguments;
use super::failure::Failure;
use super::screen::Screen;
use super::table::Table;
use crate::config::{self, Loaded, Sources};
use clap::CommandFactory as _;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

pub(super) fn check_config(
    screen: &mut Screen<'_>,
    file: Option<PathBuf>,
    json: bool,
) -> Result<u8, Failure> {
    let loaded = config::load(&Sources::from_process(file, Vec::new()))
        .map_err(|error| Failure::Local(error.to_string(), "correct it and check again".into()))?;
    let tree = redacted(&loaded);
    if json {
        screen.line(json!({ "file": loaded.file, "config": tree, "origins": loaded.origins }));
        return Ok(0);
    }
    let file = loaded.file.as_ref().map_or("no configuration file".into(), |file| file.display().to_string());
    screen.line(format!("{file}: good, {} settings differ from the defaults", loaded.origins.len()));
    if !loaded.origins.is_empty() {
        screen.line("");
        let mut table = Table::new(["KEY", "VALUE", "FROM"]);
        for (key, place) in &loaded.origins {
            let value = tree.pointer(&format!("/{}", key.replace('.', "/"))).unwrap_or(&Value::Null);
            table.row([key.into(), value.to_string().into(), place.into()]);
        }
        table.print(screen);
    }
    Ok(0)
}

/// The configuration without its secrets.
fn redacted(loaded: &Loaded) -> Value {
    let mut shown = loaded.config.clone();
    for secret in [&mut shown.control.relay_token, &mut shown.relay.token, &mut shown.discord.webhook] {
        *secret = secret.take().map(|_| "(secret)".into());
    }
    serde_json::to_value(shown).unwrap_or_default()
}

pub(super) fn completions(screen: &mut Screen<'_>, shell: clap_complete::Shell) {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "lanrage", &mut script);
    screen.line(String::from_utf8_lossy(&script).trim_end());
}

/// One page for each command, as `man lanrage-relay-check` finds them.
pub(super) fn manual(screen: &mut Screen<'_>, dir: &Path, json: bool) -> Result<u8, Failure> {
    let pages = dir.join("man1");
    let written = std::fs::create_dir_all(&pages)
        .and_then(|()| clap_mangen::generate_to(Arguments::command(), &pages))
        .and_then(|()| Ok(std::fs::read_dir(&pages)?.count()));
    let count = written.map_err(|error| {
        Failure::Local(
            format!("cannot write to {}: {error}", pages.display()),
            "use sudo, or name a directory".into(),
        )
    })?;
    if json {
        screen.line(json!({ "directory": pages, "pages": count }));
    } else {
        screen.line(format!("{count} pages in {}: `man lanrage` shows the first", pages.display()));
    }
    Ok(0)
}
