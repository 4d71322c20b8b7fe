//! What a lab has made, on disk, so that any later process can use it or take it down.

use super::process::Process;
use super::site::Site;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{Error, ErrorKind};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// Holds one directory a lab.
pub const ROOT: &str = "/run/lanrage-lab";
const FILE: &str = "lab.json";

/// A lab, planned or running.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    /// Of the lab.
    pub name: String,
    /// Network namespaces, by exact name.
    pub namespaces: Vec<String>,
    /// The relay's `relay.mode` setting.
    pub relay_mode: String,
    /// Who carries peers' group packets.
    pub lane: String,
    /// What they carry besides: `peer.lane_services`.
    #[serde(default)]
    pub lane_services: Vec<String>,
    /// Whether there is a second relay.
    #[serde(default)]
    pub spare_relay: bool,
    /// Impaired links, as they are written.
    #[serde(default)]
    pub links: Vec<String>,
    /// What the relay shows the control server.
    pub relay_token: String,
    /// In order of their numbers, from 1.
    pub peers: Vec<Peer>,
    /// Daemons that were started, by role.
    pub processes: BTreeMap<String, Process>,
}

/// A peer of the lab.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Peer {
    /// From 1.
    pub n: u8,
    /// For people.
    pub name: String,
    /// Its router, and what else is between it and the internet.
    pub site: Site,
    /// Its address in the party, once it is in one.
    pub overlay: Option<Ipv4Addr>,
}

/// Where a lab of this name keeps its files.
pub fn directory(name: &str) -> PathBuf {
    Path::new(ROOT).join(name)
}

/// Where the relay of a lab of this name keeps links and maps.
pub fn pin_dir(name: &str) -> PathBuf {
    PathBuf::from(format!("/sys/fs/bpf/lanrage-lab-{name}"))
}

impl State {
    /// Claims the lab's directory; an error if a lab of this name is up.
    pub fn claim(&self) -> Result<PathBuf> {
        let dir = directory(&self.name);
        // another lab that goes down may remove the directory of all labs in between
        let create = || std::fs::create_dir_all(ROOT).and_then(|()| std::fs::create_dir(&dir));
        let is_gone = |error: &Error| error.kind() == ErrorKind::NotFound;
        match create().or_else(|error| if is_gone(&error) { create() } else { Err(error) }) {
            Ok(()) => self.save().map(|()| dir),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => bail!(
                "the lab {:?} is already up: use it, take it down with `cargo xtask lab down{}`, or start another \
                 with --name",
                self.name,
                name_flag(&self.name)
            ),
            Err(error) => Err(error).with_context(|| format!("cannot create {}", dir.display())),
        }
    }

    /// Reads the state of a lab; none if there is no such lab.
    pub fn load(name: &str) -> Result<Option<Self>> {
        let file = directory(name).join(FILE);
        match std::fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .with_context(|| format!("{} is damaged", file.display())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
        }
    }

    /// Writes it, whole or not at all.
    pub fn save(&self) -> Result<()> {
        let file = directory(&self.name).join(FILE);
        let staged = file.with_extension("new");
        std::fs::write(&staged, serde_json::to_vec_pretty(self)?)
            .and_then(|()| std::fs::rename(&staged, &file))
            .with_context(|| format!("cannot write {}", file.display()))
    }
}

/// How to name a lab on the command line.
pub fn name_flag(name: &str) -> String {
    if name == "default" { String::new() } else { format!(" --name {name}") }
}
