//! What a peer keeps on disk: its keys, its port and its party, so that it comes back by itself.

use crate::gateway::Registry;
use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lanrage_common::firewall::Policy;
use lanrage_common::identity::{Device, PartySecret};
use lanrage_common::party::PartyState;
use rand_core::OsRng;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

const DEVICE_KEY: &str = "device.key";
const PORT: &str = "tunnel-port";
const PARTY: &str = "party.json";
const GATEWAY_KEY: &str = "gateway.key";
const GATEWAY: &str = "gateway.json";
const FIREWALL: &str = "firewall.json";
const DAMAGED_PARTY: &str = "party.json.damaged";

/// The party as it survives a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredParty {
    /// Origin of its control server.
    pub control: String,
    /// The party's secret.
    #[serde(with = "secret")]
    pub secret: PartySecret,
    /// Membership, members and relays.
    pub state: PartyState,
    /// Whether the tunnel is meant to be up.
    pub up: bool,
    /// The last ticket for each relay: with them a restarted peer is bound again while the control server is away.
    #[serde(default)]
    pub tickets: BTreeMap<String, StoredTicket>,
}

/// A ticket for a relay, good for some minutes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredTicket {
    /// The sealed ticket, base64url.
    #[serde(with = "base64url")]
    pub ticket: Vec<u8>,
    /// Its session key, base64url.
    #[serde(with = "base64url")]
    pub session_key: [u8; 32],
    /// Unix seconds.
    pub expires: u64,
}

impl std::fmt::Debug for StoredTicket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredTicket").field("expires", &self.expires).finish_non_exhaustive()
    }
}

mod base64url {
    use super::*;

    pub(super) fn serialize<S: serde::Serializer>(bytes: impl AsRef<[u8]>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&URL_SAFE_NO_PAD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>, T: TryFrom<Vec<u8>>>(
        from: D,
    ) -> Result<T, D::Error> {
        let bytes = URL_SAFE_NO_PAD.decode(String::deserialize(from)?).map_err(serde::de::Error::custom)?;
        bytes.try_into().map_err(|_| serde::de::Error::custom("wrong number of bytes"))
    }
}

mod secret {
    use super::*;

    pub(super) fn serialize<S: serde::Serializer>(secret: &PartySecret, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&URL_SAFE_NO_PAD.encode(secret.as_bytes()))
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<PartySecret, D::Error> {
        let text = String::deserialize(from)?;
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(serde::de::Error::custom)?;
        <[u8; 32]>::try_from(bytes)
            .map(PartySecret::from)
            .map_err(|_| serde::de::Error::custom("a party's secret has 32 bytes"))
    }
}

/// The peer's files in the state directory.
#[derive(Debug, Clone)]
pub struct Store {
    directory: PathBuf,
}

impl Store {
    /// Uses `directory`, making it (0700) when it is missing.
    pub fn open(directory: &Path) -> anyhow::Result<Self> {
        make_private_directory(directory).with_context(|| {
            format!(
                "cannot create the state directory {}: run as root, or set `state_dir`",
                directory.display()
            )
        })?;
        Ok(Self { directory: directory.into() })
    }

    /// This device's keys; made at first use. A damaged file is an error: a new identity would lose the party.
    pub fn device(&self) -> anyhow::Result<Device> {
        let path = self.directory.join(DEVICE_KEY);
        match fs::read(&path) {
            Ok(bytes) => match <&[u8; 64]>::try_from(bytes.as_slice()) {
                Ok(bytes) => Ok(Device::from_bytes(bytes)),
                Err(_) => bail!(
                    "{} is damaged ({} bytes instead of 64): restore it from a backup, or delete it to become a new device",
                    path.display(),
                    bytes.len()
                ),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let device = Device::generate(&mut OsRng);
                self.write(DEVICE_KEY, &device.to_bytes())?;
                Ok(device)
            }
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// The key by which plain WireGuard clients know this gateway; made at first use. A damaged file is an error: they would
    /// not know another one.
    pub fn gateway_key(&self) -> anyhow::Result<[u8; 32]> {
        let path = self.directory.join(GATEWAY_KEY);
        match fs::read(&path) {
            Ok(bytes) => bytes.as_slice().try_into().map_err(|_| {
                anyhow::anyhow!(
                    "{} is damaged: restore it from a backup, or delete it and add all devices anew",
                    path.display()
                )
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let key = x25519_dalek::StaticSecret::random_from_rng(OsRng).to_bytes();
                self.write(GATEWAY_KEY, &key)?;
                Ok(key)
            }
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// The devices of the gateway.
    pub fn gateway_devices(&self) -> anyhow::Result<Option<Registry>> {
        let path = self.directory.join(GATEWAY);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .with_context(|| format!("{} is damaged", path.display())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Keeps the devices of the gateway.
    pub fn save_gateway_devices(&self, registry: &Registry) -> anyhow::Result<()> {
        self.write(GATEWAY, &serde_json::to_vec_pretty(registry)?)
    }

    /// The tunnel's port of the last run.
    pub fn port(&self) -> Option<u16> {
        fs::read_to_string(self.directory.join(PORT)).ok()?.trim().parse().ok()
    }

    /// Keeps the tunnel's port.
    pub fn save_port(&self, port: u16) -> anyhow::Result<()> {
        self.write(PORT, format!("{port}\n").as_bytes())
    }

    /// The party of the last run. A damaged file is an error, and moved away, so that a new party does not overwrite it.
    pub fn party(&self) -> anyhow::Result<Option<StoredParty>> {
        let path = self.directory.join(PARTY);
        match fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(party) => Ok(Some(party)),
                Err(error) => {
                    let kept = self.set_aside(&path)?;
                    Err(error).context(format!(
                        "{} was damaged: it is {} now",
                        path.display(),
                        kept.display()
                    ))
                }
            },
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// What was said about the party firewall. A damaged file counts as none: the configuration then holds.
    pub fn firewall(&self) -> Policy {
        let path = self.directory.join(FIREWALL);
        let Ok(bytes) = fs::read(&path) else { return Policy::default() };
        serde_json::from_slice(&bytes).unwrap_or_else(|error| {
            tracing::warn!(%error, "{} is damaged: say again what it said, with `lanrage firewall`", path.display());
            Policy::default()
        })
    }

    /// Keeps what was said about the party firewall.
    pub fn save_firewall(&self, said: &Policy) -> anyhow::Result<()> {
        self.write(FIREWALL, &serde_json::to_vec_pretty(said)?)
    }

    fn set_aside(&self, path: &Path) -> anyhow::Result<PathBuf> {
        let kept = self.directory.join(DAMAGED_PARTY);
        fs::rename(path, &kept).with_context(|| {
            format!("{} is damaged, and cannot be renamed to {}", path.display(), kept.display())
        })?;
        Ok(kept)
    }

    /// Keeps the party.
    pub fn save_party(&self, party: &StoredParty) -> anyhow::Result<()> {
        self.write(PARTY, &serde_json::to_vec_pretty(party)?)
    }

    /// Keeps a newer roster: replaced as a whole too, but not waited for until it is on the disk, because packets wait
    /// meanwhile. The control server has it again after a power failure.
    pub fn save_roster(&self, party: &StoredParty) -> anyhow::Result<()> {
        self.replace(PARTY, &serde_json::to_vec_pretty(party)?, false)
    }

    /// Forgets the party.
    pub fn forget_party(&self) -> anyhow::Result<()> {
        match fs::remove_file(self.directory.join(PARTY)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).context("cannot delete the party's file")
            }
            _ => Ok(()),
        }
    }

    /// Replaces a file as a whole: after a crash there is the old one or the new one.
    fn write(&self, name: &str, content: &[u8]) -> anyhow::Result<()> {
        self.replace(name, content, true)
    }

    fn replace(&self, name: &str, content: &[u8], sync: bool) -> anyhow::Result<()> {
        let path = self.directory.join(name);
        let temporary = self.directory.join(format!(".{name}.new"));
        write_private(&temporary, content, sync)
            .and_then(|()| fs::rename(&temporary, &path))
            .with_context(|| format!("cannot write {}: is the disk full?", path.display()))
    }
}

fn make_private_directory(directory: &Path) -> std::io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}

fn write_private(path: &Path, content: &[u8], sync: bool) -> std::io::Result<()> {
    let _ = fs::remove_file(path); // a left-over could have other rights
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(content)?;
    if sync { file.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lanrage_common::firewall::Mode;
    use lanrage_common::identity::{Fingerprint, PartyId};
    use lanrage_common::protocol::{Membership, Party};
    use std::os::unix::fs::PermissionsExt as _;

    fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("state")).unwrap();
        (directory, store)
    }

    fn party(device: &Device) -> StoredParty {
        let party = Party {
            id: PartyId([1; 16]),
            name: "Friday".into(),
            subnet: "10.66.0.0/16".parse().unwrap(),
            host: device.key(),
            epoch: 1,
        };
        let membership = Membership { party, address: "10.66.0.1".parse().unwrap() };
        let state = PartyState {
            membership,
            host: Fingerprint([2; 16]),
            seq: Some(3),
            members: vec![],
            relays: vec![],
        };
        let ticket = StoredTicket { ticket: vec![1; 141], session_key: [2; 32], expires: 9 };
        StoredParty {
            control: "http://192.0.2.1:8667".into(),
            secret: [9; 32].into(),
            state,
            up: true,
            tickets: BTreeMap::from([("vm".into(), ticket)]),
        }
    }

    #[test]
    fn everything_comes_back() {
        let (_guard, store) = store();
        let device = store.device().unwrap();
        assert_eq!(store.device().unwrap().key(), device.key());
        assert_eq!((store.port(), store.party().unwrap()), (None, None));
        store.save_port(4242).unwrap();
        store.save_party(&party(&device)).unwrap();
        assert_eq!(store.port(), Some(4242));
        assert_eq!(store.party().unwrap(), Some(party(&device)));
        let said = Policy { mode: Some(Mode::Open), words: Vec::new() };
        assert_eq!(store.firewall(), Policy::default());
        store.save_firewall(&said).unwrap();
        assert_eq!(store.firewall(), said);
        fs::write(store.directory.join(FIREWALL), b"{").unwrap();
        assert_eq!(store.firewall(), Policy::default());
        store.forget_party().unwrap();
        store.forget_party().unwrap();
        assert_eq!(store.party().unwrap(), None);
    }

    #[test]
    fn the_gateways_key_stays_and_damage_is_named() {
        let (_guard, store) = store();
        let key = store.gateway_key().unwrap();
        assert_eq!(store.gateway_key().unwrap(), key);
        assert!(store.gateway_devices().unwrap().is_none());
        let registry = Registry::load(&store, PartyId([1; 16]));
        registry.save(&store).unwrap();
        assert_eq!(store.gateway_devices().unwrap(), Some(registry));
        fs::write(store.directory.join(GATEWAY), b"{").unwrap();
        assert!(store.gateway_devices().is_err());
        assert_eq!(Registry::load(&store, PartyId([1; 16])).devices(), []);
        fs::write(store.directory.join(GATEWAY_KEY), b"short").unwrap();
        assert!(store.gateway_key().unwrap_err().to_string().contains("damaged"));
    }

    #[test]
    fn only_the_owner_can_read() {
        let (_guard, store) = store();
        let device = store.device().unwrap();
        store.save_party(&party(&device)).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&store.directory), 0o700);
        assert_eq!(mode(&store.directory.join(DEVICE_KEY)), 0o600);
        assert_eq!(mode(&store.directory.join(PARTY)), 0o600);
    }

    #[test]
    fn damage_is_named_and_not_overwritten() {
        let (_guard, store) = store();
        fs::write(store.directory.join(DEVICE_KEY), b"short").unwrap();
        assert!(store.device().unwrap_err().to_string().contains("5 bytes instead of 64"));
        assert_eq!(fs::read(store.directory.join(DEVICE_KEY)).unwrap(), b"short");
        fs::write(store.directory.join(PARTY), b"{").unwrap();
        assert!(store.party().unwrap_err().to_string().contains("party.json.damaged now"));
        store.save_party(&party(&Device::generate(&mut OsRng))).unwrap();
        assert!(store.party().unwrap().is_some());
        assert_eq!(fs::read(store.directory.join(DAMAGED_PARTY)).unwrap(), b"{");
        fs::write(store.directory.join(PORT), b"x").unwrap();
        assert_eq!(store.port(), None);
    }

    #[test]
    fn an_interrupted_write_leaves_the_old_state() {
        let (_guard, store) = store();
        let device = store.device().unwrap();
        store.save_party(&party(&device)).unwrap();
        fs::write(store.directory.join(".party.json.new"), b"{ half").unwrap();
        assert_eq!(store.party().unwrap(), Some(party(&device)));
        store.save_party(&StoredParty { up: false, ..party(&device) }).unwrap();
        assert!(!store.party().unwrap().unwrap().up);
    }
}
