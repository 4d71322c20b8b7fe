//! A lab with its daemons.

use super::impairment::ImpairedLink;
use super::interrupt;
use super::nat::NatKind;
use super::netns::{Namespace, command_output};
use super::process::{self, Process, wait_until};
use super::role::Role;
use super::site::Site;
use super::state::{self, Peer, State};
use super::topology::Topology;
use anyhow::{Context, Result, bail};
use lanrage_common::api::Status;
use nix::sys::signal::Signal;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How long a daemon may take to start.
const START: Duration = Duration::from_secs(20);
/// How long it may take to stop by itself.
const STOP: Duration = Duration::from_secs(7);
/// Lines of a log shown when its daemon fails.
const TAIL: usize = 20;
const NAMES: [&str; 8] = ["ana", "ben", "cleo", "dan", "eva", "finn", "gus", "hana"];

/// What to build.
#[derive(Debug, Clone)]
pub struct Options {
    /// Tells labs that run side by side apart.
    pub name: String,
    /// One a peer.
    pub sites: Vec<Site>,
    /// `auto`, `xdp-native`, `xdp-generic` or `userspace`.
    pub relay_mode: String,
    /// Whether there is a second relay.
    pub spare_relay: bool,
    /// Links with delay, jitter, loss or reordering.
    pub links: Vec<ImpairedLink>,
    /// Who carries peers' group packets: `auto`, `kernel` or `userspace`.
    pub lane: String,
    /// What they carry besides: `peer.lane_services`.
    pub lane_services: Vec<String>,
}

impl Options {
    /// A lab with the best relay mode that works.
    pub fn new(name: &str, sites: &[impl Into<Site> + Copy]) -> Self {
        Self {
            name: name.into(),
            sites: sites.iter().map(|site| (*site).into()).collect(),
            relay_mode: "auto".into(),
            spare_relay: false,
            links: Vec::new(),
            lane: "auto".into(),
            lane_services: Vec::new(),
        }
    }
}

/// A running lab. Dropping the value leaves it running.
#[derive(Debug)]
pub struct Lab {
    topology: Topology,
    dir: PathBuf,
    state: State,
}

impl Lab {
    /// Builds the network and starts all daemons; on failure nothing is left behind.
    pub fn up(options: &Options) -> Result<Self> {
        require_root()?;
        let peers = u8::try_from(options.sites.len()).unwrap_or(u8::MAX);
        let topology = Topology::new(&options.name, peers)?
            .with_spare_relay(options.spare_relay)
            .with_sites(&options.sites)?
            .with_links(&options.links)?;
        let state = plan(options, &topology);
        let dir = state.claim()?;
        let mut lab = Self { topology, dir, state };
        match lab.start_everything() {
            Ok(()) => Ok(lab),
            Err(error) => {
                down(&options.name).context("cleaning up after a failed start")?;
                Err(error)
            }
        }
    }

    /// The lab of this name.
    pub fn open(name: &str) -> Result<Self> {
        require_root()?;
        let Some(state) = State::load(name)? else {
            bail!("no lab {name:?} is up: start one with `cargo xtask lab up{}`", state::name_flag(name));
        };
        let sites: Vec<Site> = state.peers.iter().map(|peer| peer.site).collect();
        let links = state.links.iter().map(|link| link.parse()).collect::<Result<Vec<ImpairedLink>>>()?;
        let topology = Topology::new(name, u8::try_from(sites.len())?)?
            .with_spare_relay(state.spare_relay)
            .with_sites(&sites)?
            .with_links(&links)?;
        Ok(Self { topology, dir: state::directory(name), state })
    }

    /// What it is made of.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Its network.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Its peers.
    pub fn peers(&self) -> &[Peer] {
        &self.state.peers
    }

    /// The role that `text` names.
    pub fn role(&self, text: &str) -> Result<Role> {
        Role::parse(text, &self.state)
    }

    /// The namespace in which a role runs.
    pub fn namespace(&self, role: Role) -> Namespace {
        role.namespace(&self.topology)
    }

    /// The local API's socket of a role.
    pub fn socket(&self, role: Role) -> PathBuf {
        self.role_dir(role).join("lanrage.sock")
    }

    /// What a role's daemon has printed.
    pub fn log(&self, role: Role) -> PathBuf {
        self.role_dir(role).join("log")
    }

    /// The `lanrage` command, talking to a role's daemon.
    pub fn lanrage(&self, role: Role, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(process::program("lanrage")?);
        process::without_settings(&mut command).arg("--socket").arg(self.socket(role)).args(arguments);
        Ok(command)
    }

    /// What `lanrage` prints, or its complaint.
    pub fn lanrage_output(&self, role: Role, arguments: &[&str]) -> Result<String> {
        command_output(&mut self.lanrage(role, arguments)?)
    }

    /// A daemon's own status.
    pub fn daemon_status(&self, role: Role) -> Result<Status> {
        let text = self.lanrage_output(role, &["status", "--json"])?;
        serde_json::from_str(&text).with_context(|| format!("`lanrage status --json` of {role}: {text}"))
    }

    /// Gives a peer's home another router.
    pub fn change_nat(&mut self, n: u8, nat: NatKind) -> Result<()> {
        self.topology.change_nat(n, nat)?;
        let home = self.state.peers[usize::from(n - 1)].site.home.unwrap_or(n);
        self.state.peers[usize::from(home - 1)].site.nat = nat;
        self.save_sites()
    }

    fn save_sites(&mut self) -> Result<()> {
        let sites: Vec<Site> = self.state.peers.iter().map(|peer| peer.site).collect();
        self.topology = self.topology.clone().with_sites(&sites)?;
        self.state.save()
    }

    /// Impairs a link otherwise.
    pub fn change_link(&mut self, link: &ImpairedLink) -> Result<()> {
        self.topology.change_link(link)?;
        let prefix = format!("{}=", link.link);
        for known in self.state.links.iter_mut().filter(|known| known.starts_with(&prefix)) {
            *known = link.to_string();
        }
        self.state.save()
    }

    /// Remembers a peer's address in the party.
    pub fn set_overlay(&mut self, n: u8, address: std::net::Ipv4Addr) -> Result<()> {
        self.state.peers[usize::from(n - 1)].overlay = Some(address);
        self.state.save()
    }

    /// Starts all peers' daemons again, to carry these services as well.
    pub fn change_lane_services(&mut self, services: &[&str]) -> Result<()> {
        self.state.lane_services = services.iter().map(ToString::to_string).collect();
        self.state.save()?;
        (1..=self.state.peers.len()).try_for_each(|n| self.restart(Role::Peer(u8::try_from(n)?)))
    }

    /// Kills a role's daemon as a crash would.
    pub fn kill(&mut self, role: Role) -> Result<()> {
        let process = self.process(role).with_context(|| format!("{role} does not run"))?;
        process.signal(Signal::SIGKILL)?;
        if !process.wait(STOP) {
            bail!("{role} survives SIGKILL");
        }
        Ok(())
    }

    /// Starts a role's daemon again; one that still runs is stopped first.
    pub fn restart(&mut self, role: Role) -> Result<()> {
        if let Some(process) = self.process(role) {
            process.end(STOP)?;
        }
        self.start(role)
    }

    /// A role's process, if it runs.
    pub fn process(&self, role: Role) -> Option<Process> {
        self.state.processes.get(&role.to_string()).copied().filter(|process| process.is_alive())
    }

    fn start_everything(&mut self) -> Result<()> {
        {
            let _change = interrupt::change();
            self.topology.build_sites()?;
        }
        accept_kernel_packets(&self.topology)?;
        self.start(Role::Control)?;
        self.start(Role::Relay)?;
        if self.state.spare_relay {
            self.start(Role::SpareRelay)?;
        }
        (1..=self.state.peers.len()).try_for_each(|n| self.start(Role::Peer(u8::try_from(n)?)))
    }

    /// Starts a role's daemon and waits until it answers.
    fn start(&mut self, role: Role) -> Result<()> {
        let dir = self.role_dir(role);
        std::fs::create_dir_all(&dir)?;
        std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o700))?;
        let config = dir.join("lanrage.toml");
        std::fs::write(&config, self.config(role))
            .with_context(|| format!("cannot write {}", config.display()))?;
        let process = self.launch(role, &config)?;
        let answers = || self.daemon_status(role).is_ok_and(|status| is_ready(role, &status));
        if wait_until(START, || !process.is_alive() || answers()) && process.is_alive() {
            return Ok(());
        }
        let what = if process.is_alive() { "does not answer" } else { "has ended" };
        bail!("the daemon of {role} {what}; its last words:\n{}", process::tail(&self.log(role), TAIL))
    }

    fn launch(&mut self, role: Role, config: &Path) -> Result<Process> {
        let _change = interrupt::change();
        let process = process::start(&self.namespace(role), config, &self.log(role))?;
        self.state.processes.insert(role.to_string(), process);
        self.state.save()?;
        Ok(process)
    }

    fn config(&self, role: Role) -> String {
        let dir = self.role_dir(role);
        let (socket, state_dir) = (self.socket(role), dir.join("state"));
        format!(
            "state_dir = '{}'\nsocket = '{}'\n{}",
            state_dir.display(),
            socket.display(),
            role.settings(&self.state)
        )
    }

    fn role_dir(&self, role: Role) -> PathBuf {
        self.dir.join(role.to_string())
    }
}

fn plan(options: &Options, topology: &Topology) -> State {
    let peers = (1..).zip(&options.sites).map(|(n, site)| {
        let name = NAMES.get(usize::from(n - 1)).map_or_else(|| format!("peer{n}"), |name| (*name).into());
        Peer { n, name, site: *site, overlay: None }
    });
    State {
        name: options.name.clone(),
        namespaces: topology.namespaces().iter().map(|namespace| namespace.name().into()).collect(),
        relay_mode: options.relay_mode.clone(),
        spare_relay: options.spare_relay,
        links: options.links.iter().map(ToString::to_string).collect(),
        lane: options.lane.clone(),
        lane_services: options.lane_services.clone(),
        relay_token: format!("{:032x}", rand::random::<u128>()),
        peers: peers.collect(),
        processes: Default::default(),
    }
}

fn is_ready(role: Role, status: &Status) -> bool {
    match role {
        Role::Control => status.roles.iter().any(|role| role == "control"),
        Role::Relay | Role::SpareRelay => status.relay.is_some(),
        Role::Peer(_) => status.device.is_some(),
    }
}

/// A veth end takes what an XDP program sends back to it only if it has an XDP program itself; GRO alone lets packets
/// wait until something else wakes the receiver. `ip -n` would hide bpffs from itself, so `ip` runs inside.
fn accept_kernel_packets(topology: &Topology) -> Result<()> {
    let lab = process::program("lanrage-lab")?;
    let pass = lab.with_file_name("../bpf/xdp-pass");
    if !pass.exists() {
        return Ok(()); // no kernel programs were built, so the relay forwards in userspace
    }
    let (namespace, link) = topology.beyond_relay();
    let mut ip = Command::new("ip");
    ip.args(["link", "set", "dev", &link, "xdpdrv", "obj"]).arg(pass).args(["sec", "xdp"]);
    namespace.output(&mut ip).map(drop)
}

/// Takes a lab down, however far it got; whether there was one.
pub fn down(name: &str) -> Result<bool> {
    require_root()?;
    let dir = state::directory(name);
    if !dir.exists() {
        return Ok(false);
    }
    if let Some(state) = State::load(name)? {
        for process in state.processes.values() {
            process.signal(Signal::SIGTERM)?;
        }
        for process in state.processes.values() {
            process.end(STOP)?;
        }
        for namespace in state.namespaces.into_iter().map(Namespace::named) {
            namespace.clear()?;
        }
    }
    remove_pins(name)?;
    std::fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    let _ = std::fs::remove_dir(state::ROOT); // stays while another lab is up
    Ok(true)
}

/// What the lab's relay keeps in the kernel for its next start; there will be none.
fn remove_pins(name: &str) -> Result<()> {
    let dir = state::pin_dir(name);
    match std::fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

fn require_root() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the lab makes network namespaces and needs root: run it with sudo");
    }
    Ok(())
}
