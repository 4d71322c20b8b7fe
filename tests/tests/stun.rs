//! What coturn's tools say about NATs when they ask a LANrage relay. Needs root and the package coturn.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use anyhow::{Context, Result, ensure};
use lanrage_tests::lab::nat::NatKind;
use lanrage_tests::lab::process::{self, Process, wait_until};
use lanrage_tests::lab::topology::{NIC, RELAY_ADDRESS, Topology, peer_address, wan};
use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// The relay's second address; the internet's router knows the way.
const ALTERNATE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const PATIENCE: Duration = Duration::from_secs(20);

/// A relay on the internet with two addresses, and one machine behind a router.
struct Lab {
    topology: Topology,
    dir: TempDir,
    relay: Option<Process>,
}

impl Lab {
    fn start(name: &str, nat: NatKind, mode: &str) -> Result<Self> {
        ensure!(nix::unistd::geteuid().is_root(), "this test makes network namespaces: run it as root");
        let lab = Self { topology: Topology::new(name, 1)?, dir: tempfile::tempdir()?, relay: None };
        lab.topology.build(&[nat])?;
        lab.topology.relay().ip(&format!("addr add {ALTERNATE}/32 dev {NIC}"))?;
        lab.topology.net().ip(&format!("route add {ALTERNATE}/32 via {RELAY_ADDRESS}"))?;
        lab.run(mode)
    }

    fn run(mut self, mode: &str) -> Result<Self> {
        let dir = self.dir.path();
        let config = dir.join("lanrage.toml");
        fs::write(
            &config,
            format!(
                "role = 'relay'\nstate_dir = '{0}/state'\nsocket = '{0}/socket'\n[relay]\n\
                 listen = '{RELAY_ADDRESS}:3478'\nalternate_address = '{ALTERNATE}'\nalternate_port = 3479\nmode = '{mode}'\n\
                 control = 'http://127.0.0.1:9'\ntoken = 'nobody-asks-for-this-token'\npin_dir = ''\n",
                dir.display()
            ),
        )?;
        let log = dir.join("log");
        self.relay = Some(process::start(&self.topology.relay(), &config, &log)?);
        // the tool sends one request: when that is lost, it waits for ever
        let answers =
            || self.ask(2, "turnutils_stunclient", &[]).is_ok_and(|said| said.contains("reflexive"));
        let is_ready = wait_until(PATIENCE, answers);
        ensure!(is_ready, "the relay does not answer:\n{}", process::tail(&log, 30));
        Ok(self)
    }

    /// What a tool on the machine behind the router prints, given so many seconds.
    fn ask(&self, seconds: u32, tool: &str, arguments: &[&str]) -> Result<String> {
        let relay = RELAY_ADDRESS.to_string();
        let mut command = Command::new("timeout");
        command.args([&seconds.to_string(), tool]).args(arguments).arg(relay);
        let output = self.topology.peer(1).run(|| command.output())?;
        let output = output.with_context(|| format!("cannot start {tool}: install the package coturn"))?;
        Ok(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(relay) = self.relay.take() {
            relay.end(PATIENCE).unwrap();
        }
        for namespace in self.topology.namespaces() {
            namespace.delete().unwrap();
        }
    }
}

/// What both tools print for a router of this kind, by `relay.mode`.
fn check(name: &str, nat: NatKind, mode: &str, mapping: &str, filtering: &str) -> Result<()> {
    let lab = Lab::start(name, nat, mode)?;
    let (own, _) = peer_address(1, nat);
    let seen = if nat == NatKind::None { own } else { wan(1, 2) };
    let client = lab.ask(30, "turnutils_stunclient", &["-f"])?;
    for expected in [
        format!("UDP reflexive addr: {seen}:"),
        format!("Response origin: : {RELAY_ADDRESS}:3478"),
        format!("Other addr: : {ALTERNATE}:3479"),
    ] {
        ensure!(client.contains(&expected), "turnutils_stunclient does not say {expected:?}:\n{client}");
    }
    for (what, expected) in [("-m", mapping), ("-f", filtering), ("-mP", mapping)] {
        let said = lab.ask(30, "turnutils_natdiscovery", &["-L", &own.to_string(), "-l", "45000", what])?;
        ensure!(said.contains(expected), "turnutils_natdiscovery {what} does not say {expected:?}:\n{said}");
    }
    Ok(())
}

const STRICT: &str = "NAT with Address and Port Dependent Filtering!";

#[test]
fn tools_see_a_nat_with_endpoint_independent_mapping() -> Result<()> {
    check("stuneim", NatKind::Eim, "auto", "NAT with Endpoint Independent Mapping!", STRICT)
}

#[test]
fn tools_see_the_same_when_the_daemon_answers_alone() -> Result<()> {
    check("stunuser", NatKind::Eim, "userspace", "NAT with Endpoint Independent Mapping!", STRICT)
}

#[test]
fn tools_see_a_symmetric_nat() -> Result<()> {
    check("stunsym", NatKind::Symmetric, "auto", "NAT with Address and Port Dependent Mapping!", STRICT)
}

#[test]
fn tools_see_that_there_is_no_nat() -> Result<()> {
    let open = "NAT with Endpoint Independent Filtering!";
    check("stunnone", NatKind::None, "auto", "No NAT! (Endpoint Independent Mapping)", open)
}
