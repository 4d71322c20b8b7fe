//! The three namespaces that a row is measured in, and leaving nothing of them behind.

use crate::lab::interrupt::wait_for_signal;
use crate::lab::netns::Namespace;
use crate::veth::{Row, ifindex, mac_bytes, pass_object};
use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::net::Ipv4Addr;
use std::ops::Deref;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

const NAME: &str = "bench";
const LOCK: &str = "/run/lanrage-bench.lock";

/// Held while namespaces are being made, so that whoever cleans up sees all of them.
static CHANGE: Mutex<()> = Mutex::new(());

/// Only one benchmark at a time: two would measure each other, and share their namespaces. Held until the value is dropped.
pub fn lock() -> Result<File> {
    let file = File::create(LOCK).with_context(|| format!("cannot write {LOCK}"))?;
    file.try_lock().context("another benchmark is running: wait for its end")?;
    Ok(file)
}

/// `client -- relay -- peer`, with as many receive queues as asked for; gone when dropped.
#[derive(Debug)]
pub struct Bed {
    row: Row,
}

impl Bed {
    /// A fresh one.
    pub fn create(queues: usize) -> Result<Self> {
        let _nothing_is_half_made = CHANGE.lock().unwrap_or_else(PoisonError::into_inner);
        end_leftovers();
        let bed = Self { row: Row::create(NAME)? };
        let links = [(&bed.client, "a0"), (&bed.relay, "ra"), (&bed.relay, "rb"), (&bed.peer, "b0")];
        for (namespace, link) in links {
            let queues = queues.to_string();
            namespace
                .output(Command::new("ethtool").args(["-L", link, "rx", &queues, "tx", &queues]))
                .context("cannot set the number of queues")?;
        }
        // Network cards have receive offload on, a veth has not. And without a native program, only with it does a veth
        // take frames from the generator.
        bed.relay.output(Command::new("ethtool").args(["-K", "ra", "gro", "on"]))?;
        bed.fix_neighbours()?;
        Ok(bed)
    }

    /// Gives the client these addresses.
    pub fn add_sources(&self, addresses: impl Iterator<Item = Ipv4Addr>) -> Result<()> {
        let add = addresses.map(|address| format!("addr replace {address}/24 dev a0"));
        self.client.ip(&add.collect::<Vec<_>>().join("\n"))
    }

    /// Attaches the program that passes everything to the relay's ends.
    pub fn pass_at_relay(&self) -> Result<()> {
        let object = pass_object()?;
        let pass = |link| format!("link set dev {link} xdp obj {} sec xdp", object.display());
        self.relay.ip(&["ra", "rb"].map(pass).join("\n"))
    }

    /// MAC addresses from one interface to another, as they begin a frame.
    pub fn macs(&self, from: (&Namespace, &str), to: (&Namespace, &str)) -> Result<[u8; 12]> {
        let macs = [mac_bytes(to.0, to.1)?, mac_bytes(from.0, from.1)?].concat();
        <[u8; 12]>::try_from(macs).ok().context("two MAC addresses have 12 bytes")
    }

    /// Index of the client's interface.
    pub fn client_link(&self) -> Result<u32> {
        ifindex(&self.client, "a0")
    }
}

impl Deref for Bed {
    type Target = Row;
    fn deref(&self) -> &Row {
        &self.row
    }
}

/// From now on SIGINT and SIGTERM take the namespaces down, drop `last` and end this process.
pub fn take_down_when_interrupted(last: impl Send + 'static) {
    std::thread::spawn(move || {
        if wait_for_signal().is_err() {
            return; // then the signal ends the process as usual, and the next run cleans up
        }
        let _nothing_is_half_made = CHANGE.lock().unwrap_or_else(PoisonError::into_inner);
        eprintln!("\ninterrupted: cleaning up");
        end_leftovers();
        for namespace in namespaces() {
            if let Err(error) = namespace.delete() {
                eprintln!("error: {error:#}");
            }
        }
        drop(last);
        std::process::exit(130);
    });
}

fn namespaces() -> [Namespace; 4] {
    ["a", "r", "b", "lane"].map(|end| Namespace::named(format!("lr-{NAME}-{end}")))
}

/// Ends what lives in the benchmark's namespaces: nothing but what it started does.
fn end_leftovers() {
    for pid in namespaces().iter().flat_map(Namespace::processes).filter(|pid| *pid != std::process::id()) {
        if let Ok(pid) = i32::try_from(pid) {
            // It may have ended by itself.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}
