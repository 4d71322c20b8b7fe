//! What a machine needs to build and test LANrage, and installing it.

use crate::ebpf;
use crate::process::{cargo, check, find, is_root, output, step};
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::Command;

/// Something that must be there.
struct Need {
    what: &'static str,
    /// Debian packages that bring it.
    packages: &'static [&'static str],
    present: fn() -> bool,
}

const NEEDS: &[Need] = &[
    Need { what: "C compiler", packages: &["build-essential"], present: || has("cc") },
    Need { what: "nftables", packages: &["nftables"], present: || has("nft") },
    Need { what: "iproute2", packages: &["iproute2"], present: || has("ip") },
    Need { what: "ethtool", packages: &["ethtool"], present: || has("ethtool") },
    Need { what: "ping", packages: &["iputils-ping"], present: || has("ping") },
    Need { what: "coturn's tools", packages: &["coturn"], present: || has("turnutils_natdiscovery") },
    Need { what: "miniupnpd", packages: &["miniupnpd", "miniupnpd-nftables"], present: || has("miniupnpd") },
    Need {
        what: "a plain WireGuard client",
        packages: &["wireguard-tools", "wireguard-go"],
        present: || has("wg-quick") && has("wireguard-go"),
    },
    Need { what: "socat", packages: &["socat"], present: || has("socat") },
    Need { what: "systemd-analyze", packages: &["systemd"], present: || has("systemd-analyze") },
    Need { what: "curl", packages: &["curl"], present: || has("curl") },
    Need { what: "Chocolate Doom", packages: &["chocolate-doom"], present: || has_game("chocolate-server") },
    Need {
        what: "ioquake3 server",
        packages: &["ioquake3-server"],
        present: || exists("/usr/lib/ioquake3/ioq3ded"),
    },
    Need { what: "a map for ioquake3", packages: &["openarena-085-data"], present: || exists(MAP) },
    Need { what: "quakestat", packages: &["qstat"], present: || has("quakestat") },
    Need { what: "Freeciv server", packages: &["freeciv-server"], present: || has_game("freeciv-server") },
    Need {
        what: "Freeciv client",
        packages: &["freeciv-client-gtk3"],
        present: || has_game("freeciv-gtk3.22"),
    },
    Need {
        what: "X server for it",
        packages: &["xvfb", "xdotool"],
        present: || has("Xvfb") && has("xdotool"),
    },
    Need {
        what: "avahi",
        packages: &["avahi-daemon", "avahi-utils"],
        present: || has_daemon("avahi-daemon") && has("avahi-browse"),
    },
    Need { what: "dbus", packages: &["dbus"], present: || has("dbus-daemon") },
    Need { what: "Node.js 18 or later", packages: &["nodejs"], present: has_node },
    Need { what: "npm", packages: &["npm"], present: || has("npm") },
    Need { what: "Chromium", packages: &["chromium"], present: || has("chromium") },
];

const BPF_PACKAGES: &[&str] = &["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf", "llvm-22-dev"];
const BPF_CORE: &str = "/usr/lib/rustlib/bpfel-unknown-none";
const LLVM: &str = "/usr/lib/llvm-22/bin";
/// Oldest Node.js that builds the web UI.
const NODE_MAJOR: u32 = 18;

/// Packages that start a server of this name.
const SERVERS: [&str; 2] = ["coturn", "avahi-daemon"];
const MAP: &str = "/usr/share/games/openarena/baseoa/pak6-patch085.pk3";

/// What setup found or made.
#[derive(Debug, Clone, Copy)]
pub struct Machine {
    /// Whether the kernel programs can be built.
    pub ebpf: bool,
}

/// Installs what is missing. Kernel programs are the only thing that may stay impossible.
pub fn run(root: &Path) -> Result<Machine> {
    let missing: Vec<&Need> = NEEDS.iter().filter(|need| !(need.present)()).collect();
    for need in NEEDS {
        let state = if (need.present)() { "ok" } else { "MISSING" };
        println!("   {:<22} {state}", need.what);
    }
    if !missing.is_empty() {
        let packages: Vec<&str> = missing.iter().flat_map(|need| need.packages).copied().collect();
        step("install what is missing", || apt(&packages))?;
        if let Some(need) = NEEDS.iter().find(|need| !(need.present)()) {
            bail!("{} is still missing after the installation of {}", need.what, need.packages.join(", "));
        }
    }
    let ebpf = kernel_toolchain(root);
    Ok(Machine { ebpf })
}

/// Gets a toolchain for the kernel programs, or says loudly what it means that there is none.
fn kernel_toolchain(root: &Path) -> bool {
    let result =
        if ebpf::find().is_ok() { Ok(()) } else { step("install a BPF toolchain", || install_bpf(root)) };
    match result.and_then(|()| ebpf::find().map_err(|missing| anyhow::anyhow!("{}", join(&missing)))) {
        Ok(toolchain) => {
            println!("   {:<22} ok ({toolchain:?})", "BPF toolchain");
            true
        }
        Err(error) => {
            eprintln!("\n!! The kernel programs cannot be built: {error:#}");
            eprintln!(
                "!! Everything else works, but a relay built here forwards in USERSPACE, several times slower."
            );
            eprintln!("!! Install what is named above and run `cargo xtask setup` again.\n");
            false
        }
    }
}

fn join(missing: &[ebpf::Missing]) -> String {
    missing.iter().map(ebpf::Missing::to_string).collect::<Vec<_>>().join("\n")
}

fn install_bpf(root: &Path) -> Result<()> {
    let distro =
        Path::new(BPF_CORE).is_dir() || apt(BPF_PACKAGES).inspect_err(|e| println!("   {e:#}")).is_ok();
    let features: &[&str] = if distro {
        &["--no-default-features", "--features", "llvm-22"]
    } else {
        find("rustup").context("there is no rustup either, for a nightly compiler")?;
        let nightly = ["toolchain", "install", "nightly", "--profile", "minimal", "--component", "rust-src"];
        check(Command::new("rustup").args(nightly))?;
        &[]
    };
    if find("bpf-linker").is_some() {
        return Ok(());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::iter::once(LLVM.into()).chain(std::env::split_paths(&path));
    let mut install = cargo(root);
    install.args(["install", "bpf-linker", "--locked"]).args(features);
    check(install.env("PATH", std::env::join_paths(dirs)?))
}

/// Installs Debian packages, or says how to.
pub fn apt(packages: &[&str]) -> Result<()> {
    let command = format!("apt-get install -y --no-install-recommends {}", packages.join(" "));
    if find("apt-get").is_none() {
        bail!("this system has no apt-get: install what these Debian packages hold: {}", packages.join(", "));
    }
    if !is_root() {
        bail!("some packages are missing; install them, then try again:\n    sudo {command}");
    }
    println!("   {command}");
    let apt = |arguments: &[&str]| {
        check(
            Command::new("apt-get")
                .args(["-qq", "-o", "Dpkg::Use-Pty=0"])
                .args(arguments)
                .env("DEBIAN_FRONTEND", "noninteractive"),
        )
    };
    apt(&["update"])?;
    apt(&[&["install", "-y", "--no-install-recommends"], packages].concat())?;
    // Debian starts what it installs; tests leave no server running. Without systemd there is none.
    for server in SERVERS.iter().filter(|server| packages.contains(server) && find("systemctl").is_some()) {
        let _ = check(Command::new("systemctl").args(["disable", "--now", server]));
    }
    Ok(())
}

/// Installs a cargo program that is missing.
pub fn cargo_program(root: &Path, program: &str) -> Result<()> {
    if find(program).is_some() {
        return Ok(());
    }
    step(&format!("install {program}"), || check(cargo(root).args(["install", program, "--locked"])))
}

fn has(program: &str) -> bool {
    find(program).is_some()
}

fn has_game(program: &str) -> bool {
    exists(&format!("/usr/games/{program}"))
}

fn has_daemon(program: &str) -> bool {
    has(program) || exists(&format!("/usr/sbin/{program}"))
}

fn exists(path: &str) -> bool {
    Path::new(path).exists()
}

fn has_node() -> bool {
    let version = output(Command::new("node").arg("--version")).unwrap_or_default();
    let major = version.trim().trim_start_matches('v').split('.').next().and_then(|major| major.parse().ok());
    major.is_some_and(|major: u32| major >= NODE_MAJOR)
}
