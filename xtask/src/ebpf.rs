//! Builds the kernel programs with whichever BPF toolchain the machine has.
//!
//! Two are supported; `LANRAGE_BPF_TOOLCHAIN=distro|nightly` forces one.
//! * *distro*: a distribution's rustc that ships `core` prebuilt for BPF (Debian: `rustc-web`, `libstd-rust-web-dev-bpf`).
//! * *nightly*: rustup's nightly with `rust-src`, which compiles `core` itself.

use anyhow::{Context, Result, bail, ensure};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "bpfel-unknown-none";
const DISTRO_CORE: &str = "/usr/lib/rustlib/bpfel-unknown-none";
const LINK_FLAGS: &str = "-C linker=bpf-linker -C debuginfo=2 -C link-arg=--btf";
/// Lets a program read a packet's fields where they lie. What it keeps on its stack may become misaligned as well, which
/// the kernel refuses, so only programs have it that read packets directly.
const PACKET_FLAG: &str = "-C link-arg=--cpu-features=+allows-misaligned-mem-access";
/// Programs that read packets directly, each in its own object `target/bpf/<name>`.
const PACKET_PROGRAMS: [&str; 3] = ["lanrage-ebpf", "xdp-pass", "xdp-bench"];
/// Programs that read packets by the kernel's helpers, or none.
const HELPER_PROGRAMS: [&str; 2] = ["lanrage-lane", "lanrage-run"];

/// A compiler that can emit BPF.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Toolchain {
    /// `/usr/bin/cargo` with a prebuilt BPF `core`.
    Distro,
    /// rustup nightly with `-Z build-std=core`.
    Nightly,
}

/// The built objects.
#[derive(Debug, Clone)]
pub struct Objects {
    /// The relay's data path.
    pub relay: PathBuf,
    /// A program that passes everything: `ip link set dev X xdp obj FILE sec xdp`.
    pub pass: PathBuf,
}

/// What a machine lacks, with the command that installs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// What is not there.
    pub what: String,
    /// The command to run.
    pub install: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is missing; install it with:\n    {}", self.what, self.install)
    }
}

/// Builds all kernel programs into `target/bpf` of the workspace at `root`.
pub fn build(root: &Path) -> Result<Objects> {
    let toolchain = match find() {
        Ok(toolchain) => toolchain,
        Err(missing) => {
            let list: Vec<String> = missing.iter().map(Missing::to_string).collect();
            bail!("cannot build the kernel programs:\n{}", list.join("\n"));
        }
    };
    check_llvm(toolchain)?;
    let out = target_dir(root).join("bpf");
    std::fs::create_dir_all(&out).with_context(|| format!("cannot create {}", out.display()))?;
    let packet_flags = format!("{LINK_FLAGS} {PACKET_FLAG}");
    let parts: [(&str, &[&str], &str); 2] =
        [("bpf-build", &PACKET_PROGRAMS, &packet_flags), ("bpf-build-helpers", &HELPER_PROGRAMS, LINK_FLAGS)];
    for (dir, programs, flags) in parts {
        let build_dir = target_dir(root).join(dir);
        let status = cargo(toolchain, root, &build_dir, programs, flags)
            .status()
            .with_context(|| format!("cannot start the {toolchain:?} cargo for the kernel programs"))?;
        ensure!(status.success(), "the kernel programs did not compile (see above)");
        for name in programs {
            publish(&build_dir.join(TARGET).join("bpf").join(name), &out.join(name))?;
        }
    }
    Ok(Objects { relay: out.join(PACKET_PROGRAMS[0]), pass: out.join(PACKET_PROGRAMS[1]) })
}

/// The toolchain to use, or everything that would have to be installed for one.
pub fn find() -> Result<Toolchain, Vec<Missing>> {
    let mut missing = Vec::new();
    if linker().is_none() {
        missing.push(missing_linker());
    }
    let toolchain = choose();
    match toolchain {
        Some(toolchain) if missing.is_empty() => Ok(toolchain),
        Some(_) => Err(missing),
        None => {
            missing.insert(0, missing_compiler());
            Err(missing)
        }
    }
}

fn choose() -> Option<Toolchain> {
    match std::env::var("LANRAGE_BPF_TOOLCHAIN").as_deref() {
        Ok("distro") => has_distro().then_some(Toolchain::Distro),
        Ok("nightly") => has_nightly().then_some(Toolchain::Nightly),
        _ if has_distro() => Some(Toolchain::Distro),
        _ => has_nightly().then_some(Toolchain::Nightly),
    }
}

fn has_distro() -> bool {
    Path::new(DISTRO_CORE).is_dir() && Path::new("/usr/bin/cargo").exists()
}

fn has_nightly() -> bool {
    output(Command::new("rustup").args(["component", "list", "--toolchain", "nightly", "--installed"]))
        .is_some_and(|list| list.lines().any(|line| line.starts_with("rust-src")))
}

fn missing_compiler() -> Missing {
    let debian = Path::new("/etc/debian_version").exists();
    let install = if debian {
        "apt-get install -y rustc-web cargo-web libstd-rust-web-dev-bpf llvm-22-dev"
    } else {
        "rustup toolchain install nightly --component rust-src"
    };
    Missing { what: "a Rust compiler for BPF".into(), install: install.into() }
}

fn missing_linker() -> Missing {
    Missing {
        what: "bpf-linker".into(),
        install: "PATH=/usr/lib/llvm-22/bin:$PATH cargo install bpf-linker --locked --no-default-features \
                  --features llvm-22"
            .into(),
    }
}

fn cargo(toolchain: Toolchain, root: &Path, build_dir: &Path, programs: &[&str], flags: &str) -> Command {
    let mut command = match toolchain {
        Toolchain::Distro => {
            let mut command = Command::new("/usr/bin/cargo");
            command.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
            command
        }
        Toolchain::Nightly => {
            let mut command = Command::new("rustup");
            command.args(["run", "nightly", "cargo"]).env_remove("RUSTC");
            command
        }
    };
    command.current_dir(root).args(["build", "--package", "lanrage-ebpf", "--profile", "bpf"]);
    command.args(["--target", TARGET]).arg("--target-dir").arg(build_dir);
    command.args(programs.iter().flat_map(|name| ["--bin", name]));
    if toolchain == Toolchain::Nightly {
        command.args(["-Z", "build-std=core"]);
    }
    // Cargo hands its own settings down to `cargo xtask`; a nested build must not inherit them.
    for inherited in ["CARGO", "RUSTUP_TOOLCHAIN", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER", "RUSTDOC"] {
        command.env_remove(inherited);
    }
    command.env("RUSTFLAGS", flags).env("PATH", path_with_llvm());
    command
}

/// rustc's bitcode must be readable by the LLVM in bpf-linker: same major version.
fn check_llvm(toolchain: Toolchain) -> Result<()> {
    let mut rustc = match toolchain {
        Toolchain::Distro => Command::new("/usr/bin/rustc"),
        Toolchain::Nightly => {
            let mut command = Command::new("rustup");
            command.args(["run", "nightly", "rustc"]);
            command
        }
    };
    let version = output(rustc.arg("-vV")).context("cannot ask rustc for its version")?;
    let compiler = version.lines().find_map(|line| line.strip_prefix("LLVM version: ")).and_then(major);
    let linker = linker().as_deref().and_then(linker_llvm);
    if let (Some(compiler), Some(linker)) = (compiler, linker) {
        ensure!(
            compiler == linker,
            "rustc uses LLVM {compiler} but bpf-linker was built with LLVM {linker}; rebuild it with:\n    \
             PATH=/usr/lib/llvm-{compiler}/bin:$PATH cargo install bpf-linker --locked --force \
             --no-default-features --features llvm-{compiler}"
        );
    }
    Ok(())
}

/// LLVM's major version from the name of the shared library; `None` when it is linked statically.
fn linker_llvm(linker: &Path) -> Option<u32> {
    let bytes = std::fs::read(linker).ok()?;
    ["libLLVM.so.", "libLLVM-"].iter().find_map(|name| {
        let at = bytes.windows(name.len()).position(|window| window == name.as_bytes())?;
        let digits = &bytes[at + name.len()..];
        let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
        std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
    })
}

fn major(version: &str) -> Option<u32> {
    version.split('.').next()?.parse().ok()
}

fn linker() -> Option<PathBuf> {
    std::env::split_paths(&path_with_llvm()).map(|dir| dir.join("bpf-linker")).find(|file| file.is_file())
}

/// PATH with LLVM's tools first and cargo's own directory last, where `cargo install` puts bpf-linker.
fn path_with_llvm() -> std::ffi::OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(std::env::home_dir()?.join(".cargo")));
    let dirs = std::iter::once(PathBuf::from("/usr/lib/llvm-22/bin"))
        .chain(std::env::split_paths(&path))
        .chain(home.map(|home| home.join("bin")));
    std::env::join_paths(dirs).unwrap_or(path)
}

fn target_dir(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir))
}

/// Copies an object only when it differs, so that an unchanged program does not rebuild the daemon that embeds it.
fn publish(from: &Path, to: &Path) -> Result<()> {
    let object = std::fs::read(from).with_context(|| format!("the build left no {}", from.display()))?;
    ensure!(
        object.windows(5).any(|window| window == b".BTF\0"),
        "{} has no BTF: this bpf-linker dropped it; reinstall bpf-linker",
        from.display()
    );
    if std::fs::read(to).is_ok_and(|old| old == object) {
        return Ok(());
    }
    let staged = to.with_extension("new");
    std::fs::write(&staged, object).with_context(|| format!("cannot write {}", staged.display()))?;
    std::fs::rename(&staged, to).with_context(|| format!("cannot write {}", to.display()))
}

fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
