//! Reads the layers, checks each value where it was written, and merges them.

use super::keys::{self, Keys};
use super::{Config, DEFAULT_FILE, validate};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};

const PREFIX: &str = "LANRAGE_";
/// Variables with this prefix that are not settings.
const RESERVED: [&str; 3] = ["LANRAGE_CONFIG", "LANRAGE_LOG", "LANRAGE_LOG_FORMAT"];

/// Where settings come from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// A file that must exist; without it [`DEFAULT_FILE`], which may be missing.
    pub file: Option<PathBuf>,
    /// Environment variables; others than `LANRAGE_…` are ignored.
    pub environment: Vec<(String, String)>,
    /// Flags: how it was written, key, value.
    pub flags: Vec<(String, String, String)>,
}

impl Sources {
    /// The process's own environment and the given flags.
    pub fn from_process(file: Option<PathBuf>, flags: Vec<(String, String, String)>) -> Self {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self { file, environment, flags }
    }

    fn file_or_default(&self) -> (PathBuf, bool) {
        let named = self.file.clone().or_else(|| {
            self.environment.iter().find(|(name, _)| name == "LANRAGE_CONFIG").map(|(_, path)| path.into())
        });
        let required = named.is_some();
        (named.unwrap_or_else(|| DEFAULT_FILE.into()), required)
    }
}

/// A configuration and where its non-default settings were made.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What counts.
    pub config: Config,
    /// The file that was read, if there was one.
    pub file: Option<PathBuf>,
    /// Dotted key → place.
    pub origins: BTreeMap<String, String>,
}

/// One thing wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// File and line, variable or flag.
    pub place: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// Everything wrong with the configuration, one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(pub Vec<Complaint>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, complaint) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{complaint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// One value as somebody wrote it.
#[derive(Debug)]
struct Setting {
    place: String,
    key: String,
    value: Value,
}

/// Reads and checks all layers; every complaint is reported, not only the first.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
    let path = settings_file(&load_with(sources, None)?.config.state_dir);
    // Not ours to read: then the daemon, which reads it, is not ours either.
    let text = read(&path, false).ok().flatten();
    load_with(sources, text.as_deref().map(|text| (path.as_path(), text)))
}

/// The same, with other settings than those in the settings file.
pub(crate) fn load_with(sources: &Sources, settings: Option<(&Path, &str)>) -> Result<Loaded, ConfigError> {
    let (path, required) = sources.file_or_default();
    let text = read(&path, required).map_err(|complaint| ConfigError(vec![complaint]))?;
    let mut layers = Layers::default();
    if let Some(text) = &text {
        layers.add_file(&path, text);
    }
    if let Some((path, text)) = settings {
        layers.add_file(path, text);
    }
    layers.add_environment(&sources.environment);
    layers.add_flags(&sources.flags);
    layers.finish(text.is_some().then_some(path))
}

/// What was changed by the web UI or `lanrage set`; the daemon writes it.
pub(crate) fn settings_file(state_dir: &Path) -> PathBuf {
    state_dir.join("settings.toml")
}

fn read(path: &Path, required: bool) -> Result<Option<String>, Complaint> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !required => Ok(None),
        Err(error) => Err(Complaint {
            place: path.display().to_string(),
            message: format!(
                "cannot read the configuration file: {error}; check the path and its permissions"
            ),
        }),
    }
}

/// Collects settings and complaints of all layers.
#[derive(Debug)]
struct Layers {
    keys: Keys,
    tree: Value,
    origins: BTreeMap<String, String>,
    complaints: Vec<Complaint>,
}

impl Default for Layers {
    fn default() -> Self {
        let (keys, tree) = (keys::known(), keys::defaults());
        Self { keys, tree, origins: BTreeMap::new(), complaints: Vec::new() }
    }
}

impl Layers {
    fn add_file(&mut self, path: &Path, text: &str) {
        let parsed = DeTable::parse(text).map(|tree| tree.into_inner());
        match parsed.and_then(|tree| Ok((tree, text.parse::<toml::Table>()?))) {
            Ok((tree, values)) => self.add_table(&FileText { path, text }, "", &tree, &values),
            Err(error) => {
                let line = error.span().map_or(1, |span| line_of(text, span.start));
                self.complain(format!("{} line {line}", path.display()), error.message().to_owned());
            }
        }
    }

    fn add_table(&mut self, file: &FileText, prefix: &str, tree: &DeTable, values: &toml::Table) {
        for (name, node) in tree {
            let key = keys::join(prefix, name.get_ref());
            let place = format!("{} line {}", file.path.display(), line_of(file.text, name.span().start));
            let Some(value) = values.get(name.get_ref().as_ref()) else { continue };
            match (node.get_ref(), value) {
                (DeValue::Table(tree), toml::Value::Table(values))
                    if !self.keys.contains_key(&key) && !values.is_empty() =>
                {
                    self.add_table(file, &key, tree, values);
                }
                (_, toml::Value::Table(values))
                    if values.is_empty() && keys::is_section(&self.keys, &key) => {}
                _ => match serde_json::to_value(value) {
                    Ok(value) => self.apply(Setting { place, key, value }),
                    Err(error) => self.complain(place, format!("`{key}`: {error}")),
                },
            }
        }
    }

    fn add_environment(&mut self, environment: &[(String, String)]) {
        for (name, text) in environment {
            let Some(rest) = name.strip_prefix(PREFIX) else { continue };
            let key = rest.to_lowercase().replace("__", ".");
            if RESERVED.contains(&name.as_str()) || !self.is_meant_as_setting(&key) {
                continue;
            }
            let place = format!("environment variable {name}");
            self.apply(Setting { place, value: self.typed(&key, text), key });
        }
    }

    /// Container platforms set variables such as `LANRAGE_SERVICE_HOST` for a service named lanrage: those are not
    /// typing errors.
    fn is_meant_as_setting(&self, key: &str) -> bool {
        key.contains('.')
            || self.keys.contains_key(key)
            || keys::nearest(&self.keys, key)
                .is_some_and(|(known, alike)| alike > 0.75 && !known.contains('.'))
    }

    fn add_flags(&mut self, flags: &[(String, String, String)]) {
        for (flag, key, text) in flags {
            let value = self.typed(key, text);
            self.apply(Setting { place: format!("flag {flag}"), key: key.clone(), value });
        }
    }

    /// Text has no types, so the default's type decides.
    fn typed(&self, key: &str, text: &str) -> Value {
        match self.keys.get(key) {
            Some(Value::Null) if text.is_empty() => Value::Null,
            Some(Value::Array(_)) => text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(|item| Value::String(item.to_owned()))
                .collect(),
            Some(Value::Number(_) | Value::Bool(_)) => {
                serde_json::from_str(text.trim()).unwrap_or_else(|_| text.into())
            }
            _ => text.into(),
        }
    }

    fn apply(&mut self, setting: Setting) {
        let Setting { place, key, value } = setting;
        if !self.keys.contains_key(&key) {
            let message = self.unknown(&key);
            return self.complain(place, message);
        }
        let mut changed = self.tree.clone();
        if let Some(slot) = changed.pointer_mut(&format!("/{}", key.replace('.', "/"))) {
            *slot = value.clone();
        }
        match Config::deserialize_tree(&changed) {
            Ok(_) => {
                self.tree = changed;
                self.origins.insert(key, place);
            }
            Err(cause) => {
                let example = keys::example(&self.keys, &key);
                self.complain(
                    place,
                    format!("`{key}` = {value}: {cause}; expected something like {example}"),
                );
            }
        }
    }

    fn unknown(&self, key: &str) -> String {
        if keys::is_section(&self.keys, key) {
            return format!("`{key}` is a section: write [{key}] and its keys below it");
        }
        match keys::nearest(&self.keys, key) {
            Some((known, alike)) if alike > 0.3 => format!("unknown key `{key}`: did you mean `{known}`?"),
            _ => format!("unknown key `{key}`: the keys are listed in docs/configuration.md"),
        }
    }

    fn complain(&mut self, place: String, message: String) {
        self.complaints.push(Complaint { place, message });
    }

    fn finish(mut self, file: Option<PathBuf>) -> Result<Loaded, ConfigError> {
        let config = Config::deserialize_tree(&self.tree).unwrap_or_default();
        for (key, message) in validate::check(&config) {
            let place = self.origins.get(key).cloned().unwrap_or_else(|| "default".into());
            self.complain(place, format!("`{key}`: {message}"));
        }
        if !self.complaints.is_empty() {
            return Err(ConfigError(self.complaints));
        }
        Ok(Loaded { config, file, origins: self.origins })
    }
}

impl Config {
    fn deserialize_tree(tree: &Value) -> Result<Self, serde_json::Error> {
        serde::Deserialize::deserialize(tree)
    }
}

struct FileText<'a> {
    path: &'a Path,
    text: &'a str,
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
