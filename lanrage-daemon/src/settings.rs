//! Settings that can be changed while the daemon runs: checked as those of the configuration are, kept in
//! `state_dir/settings.toml`, and either at work at once or marked as waiting for the next start.
//!
//! The file is a layer between the configuration file and the environment. So a switch that is moved wins over the file
//! that a package brought, and what an operator fixed by a variable or a flag is shown as fixed.

use crate::config::{Config, ConfigError, Loaded, PeerConfig, Sources, load_with, settings_file};
use crate::files;
use anyhow::Context as _;
use lanrage_common::api::{Effect, Setting, Settings, SettingsRequest};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What can be changed, and when it counts. Keys of roles that do not run are left out.
const KEYS: &[(&str, Effect)] = &[
    ("peer.name", Effect::Reconnect),
    ("peer.port_mapping", Effect::Live),
    ("peer.lane", Effect::Live),
    ("peer.mtu", Effect::Reconnect),
    ("peer.control", Effect::Live),
    ("peer.stun_servers", Effect::Live),
    ("peer.share_game", Effect::Live),
    ("peer.qos", Effect::Live),
    ("peer.lane_services", Effect::Live),
    ("discord.presence", Effect::Live),
    ("discord.client_id", Effect::Live),
    ("discord.party_name", Effect::Live),
    ("discord.webhook", Effect::Live),
    ("gateway.lan", Effect::Live),
    ("gateway.alias_range", Effect::Live),
    ("gateway.listen", Effect::Live),
    ("relay.mode", Effect::Restart),
    ("relay.region", Effect::Restart),
    ("relay.max_mbit_per_s", Effect::Restart),
    ("relay.max_packets_per_s", Effect::Restart),
    ("log.filter", Effect::Restart),
];

/// What is set and never shown.
const SECRETS: &[&str] = &["discord.webhook"];
/// Shown instead.
const HIDDEN: &str = "(set, and not shown)";

const HEADING: &str = "# Written by LANrage when somebody changes a setting in the web UI or with `lanrage settings`.\n\
                       # It wins over lanrage.toml; delete it to go back to what that says.\n\n";

/// The settings of a running daemon.
#[derive(Debug)]
pub struct Desk {
    sources: Sources,
    file: PathBuf,
    roles: Vec<String>,
    /// What the start put in where nothing is set: the control server next door, and how others reach it.
    next_door: PeerConfig,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// As the next start would find it.
    next: Loaded,
    /// What the daemon works with.
    running: Config,
}

/// A change that was refused.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// There is no such setting here.
    #[error("there is no setting `{0}` here: `lanrage settings` lists those that can be changed")]
    Unknown(String),
    /// It is fixed elsewhere.
    #[error("`{key}` is fixed by {place}: change it there")]
    Locked {
        /// Which.
        key: String,
        /// Where.
        place: String,
    },
    /// The value cannot be.
    #[error("{0}")]
    Invalid(String),
    /// The file could not be written.
    #[error("{0}")]
    NotKept(String),
}

impl Desk {
    /// For a daemon that runs `roles` with what `loaded` says, completed to `started`.
    pub fn new(sources: Sources, loaded: Loaded, started: &Config, roles: &[&str]) -> Self {
        let file = settings_file(&loaded.config.state_dir);
        let running = loaded.config.clone();
        let next_door = match running.peer.control {
            Some(_) => PeerConfig::default(),
            None => started.peer.clone(),
        };
        let roles = roles.iter().map(|role| (*role).to_owned()).collect();
        Self { sources, file, roles, next_door, state: Mutex::new(State { next: loaded, running }) }
    }

    /// All that can be changed, as it is.
    pub fn settings(&self) -> Settings {
        let state = self.lock();
        let (next, running) = (tree(&state.next.config), tree(&state.running));
        let describe = |(key, effect): (&str, Effect)| Setting {
            key: key.into(),
            value: shown(key, at(&next, key)),
            effect,
            pending: at(&next, key) != at(&running, key),
            locked: locked(&state.next, key),
        };
        Settings { settings: self.keys().map(describe).collect() }
    }

    /// What would count after a change that is in order.
    pub fn preview(&self, request: &SettingsRequest) -> Result<Config, Refused> {
        Ok(self.with(&self.lock(), request)?.1.config)
    }

    /// Changes what is asked for and keeps it; gives the configuration of which the live part is to be put to work.
    pub fn change(&self, request: &SettingsRequest) -> Result<Config, Refused> {
        let mut state = self.lock();
        let (text, next) = self.with(&state, request)?;
        files::replace_private(&self.file, text.as_bytes())
            .with_context(|| {
                format!("cannot write {}; check that its directory is writable", self.file.display())
            })
            .map_err(|error| Refused::NotKept(format!("{error:#}")))?;
        state.next = next;
        Ok(self.completed(state.next.config.clone()))
    }

    /// The file and the configuration after a change.
    fn with(&self, state: &State, request: &SettingsRequest) -> Result<(String, Loaded), Refused> {
        for key in request.changes.keys() {
            if !self.keys().any(|(known, _)| known == key) {
                return Err(Refused::Unknown(key.clone()));
            }
            if let Some(place) = locked(&state.next, key) {
                return Err(Refused::Locked { key: key.clone(), place });
            }
        }
        let text = render(&merged(read(&self.file), &request.changes))?;
        let next = load_with(&self.sources, Some((&self.file, &text)))
            .map_err(|error| Refused::Invalid(plain(&error)))?;
        Ok((text, next))
    }

    fn completed(&self, mut config: Config) -> Config {
        if config.peer.control.is_none() {
            config.peer.control.clone_from(&self.next_door.control);
            config.peer.invite_origin = config.peer.invite_origin.or(self.next_door.invite_origin.clone());
        }
        config
    }

    /// Everything of the peer is at work as it was changed.
    pub fn note_at_work(&self) {
        let mut state = self.lock();
        state.running.peer = state.next.config.peer.clone();
        state.running.discord = state.next.config.discord.clone();
        state.running.gateway = state.next.config.gateway.clone();
    }

    /// Where a channel of Discord takes messages, if it is to hear of the party. A secret.
    pub fn webhook(&self) -> Option<String> {
        self.lock().next.config.discord.webhook.clone()
    }

    /// What the daemon works with.
    pub fn running(&self) -> Config {
        self.lock().running.clone()
    }

    fn keys(&self) -> impl Iterator<Item = (&'static str, Effect)> + '_ {
        let is_here = |key: &str| {
            let section = key.split('.').next().unwrap_or_default();
            // the gateway and Discord are parts of the peer
            let role = if matches!(section, "gateway" | "discord") { "peer" } else { section };
            section == "log" || self.roles.iter().any(|known| known == role)
        };
        KEYS.iter().copied().filter(move |(key, _)| is_here(key))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn shown(key: &str, value: Value) -> Value {
    if value.is_null() || !SECRETS.contains(&key) { value } else { HIDDEN.into() }
}

/// Places that win over the settings file.
fn locked(loaded: &Loaded, key: &str) -> Option<String> {
    let place = loaded.origins.get(key)?;
    (place.starts_with("environment variable ") || place.starts_with("flag ")).then(|| place.clone())
}

fn tree(config: &Config) -> Value {
    serde_json::to_value(config).unwrap_or_default()
}

fn at(tree: &Value, key: &str) -> Value {
    tree.pointer(&format!("/{}", key.replace('.', "/"))).cloned().unwrap_or_default()
}

/// What the settings file holds by dotted key.
fn read(file: &Path) -> BTreeMap<String, Value> {
    let table: toml::Table =
        std::fs::read_to_string(file).ok().and_then(|text| text.parse().ok()).unwrap_or_default();
    let sections = table.into_iter().filter_map(|(section, keys)| Some((section, keys.as_table()?.clone())));
    sections
        .flat_map(|(section, keys)| {
            keys.into_iter().map(move |(key, value)| (format!("{section}.{key}"), value))
        })
        .filter_map(|(key, value)| Some((key, serde_json::to_value(value).ok()?)))
        .collect()
}

fn merged(mut kept: BTreeMap<String, Value>, changes: &BTreeMap<String, Value>) -> BTreeMap<String, Value> {
    kept.extend(changes.iter().map(|(key, value)| (key.clone(), value.clone())));
    kept.retain(|key, value| !value.is_null() && KEYS.iter().any(|(known, _)| known == key));
    kept
}

fn render(settings: &BTreeMap<String, Value>) -> Result<String, Refused> {
    let mut tree = BTreeMap::<&str, toml::Table>::new();
    for (key, value) in settings {
        let Some((section, name)) = key.split_once('.') else { continue };
        let value = toml::Value::try_from(value)
            .map_err(|error| Refused::Invalid(format!("`{key}` = {value}: {error}")))?;
        tree.entry(section).or_default().insert(name.into(), value);
    }
    let text = toml::to_string(&tree).map_err(|error| Refused::Invalid(error.to_string()))?;
    Ok(format!("{HEADING}{text}"))
}

/// Complaints without the line of a file that nobody wrote by hand.
fn plain(error: &ConfigError) -> String {
    error.0.iter().map(|complaint| complaint.message.as_str()).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn desk(dir: &Path, flags: &[(&str, &str)]) -> Desk {
        let config = dir.join("lanrage.toml");
        std::fs::write(&config, format!("state_dir = '{}'\n[peer]\nname = 'Ana'\n", dir.display())).unwrap();
        let flags =
            flags.iter().map(|(key, value)| ("--set".into(), (*key).into(), (*value).into())).collect();
        let sources = Sources { file: Some(config), environment: Vec::new(), flags };
        let loaded = crate::config::load(&sources).unwrap();
        let mut started = loaded.config.clone();
        started.peer.control = Some("http://127.0.0.1:8667".into());
        Desk::new(sources, loaded, &started, &["peer"])
    }

    fn change(desk: &Desk, key: &str, value: Value) -> Result<Config, Refused> {
        desk.change(&SettingsRequest { changes: [(key.to_owned(), value)].into() })
    }

    fn shown(desk: &Desk, key: &str) -> Setting {
        desk.settings().settings.into_iter().find(|setting| setting.key == key).unwrap()
    }

    #[test]
    fn a_secret_is_kept_and_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let desk = desk(dir.path(), &[]);
        let webhook = "https://discord.com/api/webhooks/1/abc";
        assert!(shown(&desk, "discord.webhook").value.is_null());
        change(&desk, "discord.webhook", json!(webhook)).unwrap();
        assert_eq!(
            (shown(&desk, "discord.webhook").value, desk.webhook()),
            (json!(HIDDEN), Some(webhook.into()))
        );
        for wrong in ["http://discord.com/abc", "http://127.0.0.1.example/abc", "ftp://a/abc", "abc", HIDDEN]
        {
            let error = change(&desk, "discord.webhook", json!(wrong)).unwrap_err().to_string();
            assert!(error.contains("https address") && !error.contains("abc"), "{wrong}: {error}");
        }
        change(&desk, "discord.webhook", json!("http://127.0.0.1:80/abc")).unwrap();
        change(&desk, "discord.webhook", Value::Null).unwrap();
        assert_eq!(desk.webhook(), None);
        for id in [json!(1_234_567_890_123_456_789_u64), json!("1234567890123456789")] {
            change(&desk, "discord.client_id", id).unwrap();
            assert_eq!(shown(&desk, "discord.client_id").value, "1234567890123456789");
        }
        assert!(change(&desk, "discord.client_id", json!("Ana")).is_err());
    }

    #[test]
    fn a_change_wins_over_the_file_and_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let running = desk(dir.path(), &[]);
        assert_eq!(shown(&running, "peer.name").value, "Ana");
        let config = change(&running, "peer.name", json!("Zoë \"Z\" \\ ok")).unwrap();
        assert!(shown(&running, "peer.name").pending, "nobody has put it to work yet");
        assert_eq!(
            config.peer.control.as_deref(),
            Some("http://127.0.0.1:8667"),
            "what the start put in stays"
        );
        assert!(shown(&running, "peer.control").value.is_null());
        running.note_at_work();
        assert!(!shown(&running, "peer.name").pending);
        change(&running, "log.filter", json!("debug")).unwrap();
        assert!(shown(&running, "log.filter").pending, "until the next start");

        let restarted = desk(dir.path(), &[]);
        assert_eq!(shown(&restarted, "peer.name").value, "Zoë \"Z\" \\ ok");
        assert!(!shown(&restarted, "log.filter").pending);
        change(&restarted, "peer.name", Value::Null).unwrap();
        assert_eq!(shown(&restarted, "peer.name").value, "Ana", "back to the file");
        assert_eq!(shown(&restarted, "log.filter").value, "debug", "others stay");
    }

    #[test]
    fn what_cannot_be_is_refused_and_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let desk = desk(dir.path(), &[("peer.mtu", "1400")]);
        let before = desk.settings();
        for (key, value, part) in [
            ("peer.name", json!(" x"), "peer.name"),
            ("peer.name", json!(7), "peer.name"),
            ("peer.lane", json!("magic"), "peer.lane"),
            ("peer.control", json!("ftp://x"), "peer.control"),
            ("peer.stun_servers", json!(["nowhere"]), "stun"),
            ("peer.port_mapping", json!({"a": 1}), "peer.port_mapping"),
            ("peer.mtu", json!(1300), "flag --set"),
            ("peer.lane_services", json!(["radio"]), "peer.lane_services"),
            ("gateway.lan", json!(["a/b"]), "interface name"),
            ("gateway.lan", json!(["a", "b", "c", "d", "e"]), "too many"),
            ("gateway.alias_range", json!("10.0.0.9-10.0.0.2"), "no range"),
            ("state_dir", json!("/tmp"), "no setting"),
            ("relay.mode", json!("userspace"), "no setting"),
            ("ui_allow_remote", json!(true), "no setting"),
            ("peer.name\nx", json!("x"), "no setting"),
        ] {
            let error = change(&desk, key, value).unwrap_err().to_string();
            assert!(error.contains(part), "{key}: {error}");
        }
        assert_eq!(desk.settings(), before);
        assert!(!dir.path().join("settings.toml").exists());
    }
}
