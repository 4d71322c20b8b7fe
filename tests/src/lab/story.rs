//! Stories of people at the web page: a browser in a machine's network, against the daemons of a lab (`web/browser`).
//!
//! A story can order what happens to daemons: it writes a file into a directory, and reads the answer beside it.

use super::process::program;
use super::role::Role;
use super::running::Lab;
use anyhow::{Context, Result, bail};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Between two looks for orders.
const STEP: Duration = Duration::from_millis(20);

/// Plays a story at the machine of `role`, whose page is on its loopback. Screenshots go to target/ui.
pub fn play(lab: &mut Lab, role: Role, story: &str) -> Result<()> {
    let web = repository()?.join("web");
    let shots = repository()?.join("target/ui");
    fs::create_dir_all(&shots)?;
    let orders = lab.socket(role).with_file_name("orders");
    fs::create_dir_all(&orders)?;
    let about = orders.join("lab.json");
    fs::write(&about, describe(lab, &shots, &orders)?)?;
    let mut vitest = Command::new(web.join("node_modules/.bin/vitest"));
    vitest.args(["run", "--config", "vitest.browser.config.ts", story]).current_dir(&web);
    vitest.env("LANRAGE_UI_LAB", &about).env("NO_COLOR", "1");
    let mut story_teller = lab.namespace(role).spawn(&mut vitest)?;
    let status = loop {
        obey(lab, &orders)?;
        match story_teller.try_wait()? {
            Some(status) => break status,
            None => std::thread::sleep(STEP),
        }
    };
    if !status.success() {
        bail!("{story}: see above; screenshots are in {}", shots.display());
    }
    Ok(())
}

fn repository() -> Result<PathBuf> {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).context("no repository")
}

fn roles(lab: &Lab) -> impl Iterator<Item = Role> + '_ {
    let peers = lab.peers().iter().map(|peer| Role::Peer(peer.n));
    peers.chain([Role::Relay, Role::Control])
}

/// What a story has to know (`web/browser/lab.ts`).
fn describe(lab: &Lab, shots: &Path, orders: &Path) -> Result<String> {
    let sockets: BTreeMap<_, _> = roles(lab).map(|role| (role.to_string(), lab.socket(role))).collect();
    let mut networks: BTreeMap<_, _> =
        roles(lab).map(|role| (role.to_string(), lab.namespace(role).name().to_owned())).collect();
    networks.insert("net".into(), lab.topology().net().name().to_owned());
    let about = json!({
        "lanrage": program("lanrage")?, "sockets": sockets, "networks": networks, "shots": shots, "orders": orders,
    });
    Ok(about.to_string())
}

/// Does what was ordered since the last look.
fn obey(lab: &mut Lab, orders: &Path) -> Result<()> {
    for entry in fs::read_dir(orders)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "order") {
            let order = fs::read_to_string(&path)?;
            fs::remove_file(&path)?;
            let outcome = carry_out(lab, &order).err().map(|error| format!("{error:#}")).unwrap_or_default();
            let answer = path.with_extension("done");
            let unfinished = path.with_extension("tmp");
            fs::write(&unfinished, outcome)?;
            fs::rename(unfinished, answer)?;
        }
    }
    Ok(())
}

fn carry_out(lab: &mut Lab, order: &str) -> Result<()> {
    let Some((verb, name)) = order.split_once(' ') else { bail!("{order:?} is no order") };
    let role = roles(lab).find(|role| role.to_string() == name);
    let role = role.with_context(|| format!("nobody is called {name}"))?;
    let state = lab.socket(role).with_file_name("state");
    match verb {
        "kill" => lab.kill(role),
        "start" => lab.restart(role),
        // as on a machine that never had LANrage
        "forget" => fs::remove_dir_all(&state).context("cannot remove its state"),
        "forget-key" => fs::remove_file(state.join("ui-token")).context("cannot remove its page's key"),
        _ => bail!("nobody knows how to {verb}"),
    }
}
