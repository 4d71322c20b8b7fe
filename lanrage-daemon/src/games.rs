//! What is known of games: how their LAN lists are filled, which ports they play on, and what a party can do for them.
//!
//! One TOML file a game; its name without `.toml` is the game's id. Those in `games/` of this crate are built in; files
//! of the same name in [`DIRECTORY`] replace them, others there are added. The tests play every built-in profile that a
//! LAN can carry through a party: see `docs/games.md`.

mod check;
mod profile;
mod running;
mod value;

pub use check::parse;
pub use profile::{
    Announcement, Class, Discovery, Evidence, ProcessNames, Profile, Reply, Sender, ServerQuery, Support,
};
pub use running::{Running, watch};
pub use value::{GamePorts, Payload, Ports, Protocol, Target};

use lanrage_common::servers::{Known, Query};
use rust_embed::RustEmbed;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// Where users put profiles of their own.
pub const DIRECTORY: &str = "/etc/lanrage/games";
/// No profile is longer; whatever is longer is not one.
const MAX_FILE: u64 = 64 * 1024;
/// Ports that one search may try: the longest known tries 201.
const MAX_PORTS: usize = 256;
/// Ports at which a game's server may be asked.
const MAX_QUERIES: usize = 64;
/// Programs that run others, in lower case: only what they are started with tells a game.
const INTERPRETERS: [&str; 8] =
    ["java", "java.exe", "javaw.exe", "mono", "dotnet", "dotnet.exe", "wine", "python3"];
/// Largest UDP payload (RFC 768) in an IPv4 packet.
const MAX_PAYLOAD: usize = 65_507;

#[derive(RustEmbed)]
#[folder = "games/"]
struct BuiltIn;

/// A file that is no profile, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{file}: {why}")]
pub struct Unusable {
    /// The file.
    pub file: String,
    /// What is wrong with it.
    pub why: String,
}

/// All profiles, by id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Games {
    /// By id.
    pub games: BTreeMap<String, Profile>,
    /// Files that are left out.
    pub unusable: Vec<Unusable>,
}

impl Games {
    /// Those that are built in.
    pub fn built_in() -> Self {
        let mut games = Self::default();
        for file in BuiltIn::iter() {
            let text = BuiltIn::get(&file).map(|content| content.data.into_owned()).unwrap_or_default();
            games.add(&file, &String::from_utf8_lossy(&text));
        }
        games
    }

    /// Those that are built in, and the user's in `directory`, which may be missing.
    pub fn with_directory(directory: &Path) -> Self {
        let mut games = Self::built_in();
        let Ok(entries) = std::fs::read_dir(directory) else { return games };
        let mut files: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
        files.sort();
        for file in files {
            match read(&file) {
                Ok(text) => games.add(&file.to_string_lossy(), &text),
                Err(why) => games.unusable.push(Unusable { file: file.display().to_string(), why }),
            }
        }
        games
    }

    /// Names of games that search or announce themselves at a UDP port.
    pub fn at_port(&self, port: u16) -> impl Iterator<Item = &str> {
        let is_there =
            move |discovery: &Discovery| discovery.ports.iter().any(|ports| ports.0.contains(&port));
        let there = self.games.values().filter(move |game| game.discovery.as_ref().is_some_and(is_there));
        there.map(|game| game.name.as_str())
    }

    /// Ports where a server may be asked, with the game's id and how; the first game at a port is the one.
    pub fn queries(&self) -> BTreeMap<(u16, bool), (String, Query)> {
        let mut ports = BTreeMap::new();
        for (id, game) in &self.games {
            let Some(query) = &game.query else { continue };
            for port in query.ports.iter().flat_map(|ports| ports.0.clone()) {
                let at = (port, query.protocol.is_tcp());
                ports.entry(at).or_insert_with(|| (id.clone(), query.protocol));
            }
        }
        ports
    }

    /// What hosts announce by themselves, by the UDP port that it goes to.
    pub fn beacons(&self) -> BTreeMap<u16, Vec<Known>> {
        let mut ports = BTreeMap::<u16, Vec<Known>>::new();
        for (id, game) in &self.games {
            let (Some(beacon), Some(played)) = (&game.beacon, game.ports.first()) else { continue };
            let known = Known {
                game: id.clone(),
                format: beacon.format,
                is_tcp: played.protocol == Protocol::Tcp,
                port: *played.ports.0.start(),
            };
            for port in beacon.ports.iter().flat_map(|ports| ports.0.clone()) {
                ports.entry(port).or_default().push(known.clone());
            }
        }
        ports
    }

    /// The name of the game with that id, if it is known.
    pub fn name(&self, id: &str) -> Option<&str> {
        self.games.get(id).map(|game| game.name.as_str())
    }

    fn add(&mut self, file: &str, text: &str) {
        let id = Path::new(file).file_stem().unwrap_or_default().to_string_lossy().into_owned();
        match parse(&id, text) {
            Ok(profile) => {
                self.games.insert(id, profile);
            }
            Err(why) => self.unusable.push(Unusable { file: file.into(), why }),
        }
    }
}

/// Reads and checks one file; its name is the game's id.
pub fn check_file(file: &Path) -> Result<(String, Profile), Unusable> {
    let id = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let profile = read(file).and_then(|text| parse(&id, &text));
    profile.map(|profile| (id, profile)).map_err(|why| Unusable { file: file.display().to_string(), why })
}

fn read(file: &Path) -> Result<String, String> {
    match std::fs::metadata(file) {
        Ok(data) if data.len() > MAX_FILE => Err(format!("it is longer than {MAX_FILE} bytes")),
        Ok(_) => std::fs::read_to_string(file).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

impl Discovery {
    /// All ports that packets go to, in order.
    pub fn port_list(&self) -> Vec<u16> {
        self.ports.iter().flat_map(|ports| ports.0.clone()).collect()
    }

    /// Whether a packet has the same port at both ends.
    fn is_same_port(&self) -> bool {
        self.source_port.is_some_and(|source| self.ports.iter().any(|ports| ports.0.contains(&source)))
    }
}

#[cfg(test)]
mod tests;
