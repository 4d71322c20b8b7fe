//! The kernel tests on another kernel: Debian's own, in an emulated machine.
//!
//! What the verifier accepts differs between kernels, and the newest is the most patient one. Emulation is slow but needs
//! neither KVM nor a disk: the tests, what they call and the modules travel in the initial RAM disk.

use crate::process::{cargo, check, find, output, step};
use crate::{ebpf, setup};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Which kernels, which tests.
#[derive(Debug, Args)]
pub struct Vm {
    /// Debian kernel package to boot, or one that depends on it, e.g. `linux-image-6.12-cloud-amd64`; may be given several
    /// times. Default: `linux-image-cloud-amd64`.
    #[arg(long = "kernel")]
    kernels: Vec<String>,
    /// Test program of the `tests` crate to run there; may be given several times.
    #[arg(long = "test", default_values_t = ["differential".to_owned(), "datapath".to_owned(), "vlan".to_owned(), "lane_wireguard".to_owned()])]
    tests: Vec<String>,
    /// Random cases of the differential test, which emulation makes slow.
    #[arg(long, default_value_t = 20_000)]
    cases: u32,
    /// Minutes until a machine that has not finished is given up.
    #[arg(long, default_value_t = 20)]
    minutes: u64,
}

/// Debian's kernel for machines in a cloud.
const DEFAULT: &str = "linux-image-cloud-amd64";
const PACKAGES: &[(&str, &str)] = &[
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("cpio", "cpio"),
    ("modprobe", "kmod"),
    ("nft", "nftables"),
    ("wg", "wireguard-tools"),
];
/// Programs that tests call.
const PROGRAMS: &[&str] = &["ip", "ethtool", "ping", "nft", "nsenter", "sysctl", "bash", "wg"];
const MODULES: &[&str] = &[
    "veth",
    "tun",
    "nf_tables",
    "nft_chain_nat",
    "nft_masq",
    "nft_ct",
    "8021q",
    "dummy",
    "bridge",
    "wireguard",
    "sch_ingress",
    "cls_bpf",
];
/// Begins the lines that this task reads from the machine's console.
const MARK: &str = "LANRAGE-VM";

/// The short form for CI: the relay's program against its model and between VLANs, and the lane's on kernel WireGuard, on the
/// oldest kernel that Debian supports. A kernel that cannot be downloaded is said, and is no failure of the program.
pub fn check_program(root: &Path) -> Result<()> {
    install_programs()?;
    let tests = ["differential", "vlan", "lane_wireguard"].map(str::to_owned).into();
    let vm = Vm { kernels: Vec::new(), tests, cases: 2_000, minutes: 10 };
    let image = match kernel_of(DEFAULT).and_then(|kernel| fetch(root, &kernel)) {
        Ok(image) => image,
        Err(error) => {
            eprintln!("!! {error:#}\n!! The kernel program was NOT tried on Debian's kernel.");
            return Ok(());
        }
    };
    let disk = pack(root, &image, &test_programs(root, &vm.tests)?)?;
    boot(&image, &disk, &vm)
}

/// Runs the tests on every kernel that was asked for.
pub fn run(root: &Path, vm: &Vm) -> Result<()> {
    install_programs()?;
    step("build the kernel programs", || ebpf::build(root).map(drop))?;
    let tests = step("build the tests", || test_programs(root, &vm.tests))?;
    let kernels = if vm.kernels.is_empty() { vec![DEFAULT.to_owned()] } else { vm.kernels.clone() };
    for kernel in kernels {
        let kernel = kernel_of(&kernel)?;
        let image = step(&format!("fetch {kernel}"), || fetch(root, &kernel))?;
        let disk = step("pack the RAM disk", || pack(root, &image, &tests))?;
        step(&format!("tests on {}", image.version), || boot(&image, &disk, vm))?;
    }
    Ok(())
}

fn install_programs() -> Result<()> {
    let missing: Vec<&str> =
        PACKAGES.iter().filter(|(program, _)| find(program).is_none()).map(|(_, package)| *package).collect();
    if missing.is_empty() { Ok(()) } else { setup::apt(&missing) }
}

/// The package that has the kernel: packages without a release in their name depend on the newest.
fn kernel_of(package: &str) -> Result<String> {
    let depends = output(Command::new("apt-cache").args(["depends", package]));
    let depends = depends
        .with_context(|| format!("apt-cache does not know {package}: `apt-get update`, or name another"))?;
    let name = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: linux-image-"));
    Ok(name.map_or_else(|| package.to_owned(), |release| format!("linux-image-{release}")))
}

/// An unpacked kernel package.
struct Image {
    version: String,
    dir: PathBuf,
}

impl Image {
    fn kernel(&self) -> PathBuf {
        self.dir.join("boot").join(format!("vmlinuz-{}", self.version))
    }
}

fn fetch(root: &Path, package: &str) -> Result<Image> {
    let version = package.strip_prefix("linux-image-").with_context(|| format!("{package} is no kernel"))?;
    let version = version.strip_suffix("-unsigned").unwrap_or(version);
    let work = root.join("target/vm").join(package);
    let image = Image { version: version.to_owned(), dir: work.join("root") };
    if image.kernel().exists() {
        return Ok(image);
    }
    fs::create_dir_all(&work)?;
    check(Command::new("apt-get").args(["-qq", "download", package]).current_dir(&work))?;
    let archive = fs::read_dir(&work)?.flatten().map(|entry| entry.path());
    let archive = archive.into_iter().find(|path| path.extension().is_some_and(|e| e == "deb"));
    let archive =
        archive.with_context(|| format!("apt-get downloaded no package into {}", work.display()))?;
    check(Command::new("dpkg-deb").arg("-x").args([&archive, &image.dir]))?;
    check(Command::new("depmod").arg("-b").arg(&image.dir).arg(version))?;
    Ok(image)
}

/// Test programs by name.
type Tests = Vec<(String, PathBuf)>;

fn test_programs(root: &Path, names: &[String]) -> Result<Tests> {
    let mut build = cargo(root);
    build.args(["test", "--package", "lanrage-tests", "--no-run"]);
    build.args(names.iter().flat_map(|name| ["--test", name]));
    check(&mut build)?;
    // A second, idle run says where the programs are.
    let said = build.output().context("cannot start cargo test")?;
    let said = String::from_utf8_lossy(&said.stderr);
    let find = |name: &String| {
        let line = said.lines().find(|line| line.contains(&format!("tests/{name}.rs (")))?;
        let path = line.split_once('(')?.1.strip_suffix(')')?;
        Some((name.clone(), root.join(path)))
    };
    names.iter().map(|name| find(name).with_context(|| format!("cargo built no test `{name}`"))).collect()
}

fn pack(root: &Path, image: &Image, tests: &Tests) -> Result<PathBuf> {
    let tree = root.join("target/vm/disk");
    if tree.exists() {
        fs::remove_dir_all(&tree)?;
    }
    for dir in ["bin", "proc", "sys", "dev", "run", "tmp", "etc", "root", "var"] {
        fs::create_dir_all(tree.join(dir))?;
    }
    symlink("/run", tree.join("var/run"))?;
    let busybox = find("busybox").context("busybox is missing")?;
    copy(&tree, &busybox, Path::new("/bin/busybox"))?;
    for program in PROGRAMS {
        let path = find(program).with_context(|| format!("`{program}` is missing here"))?;
        copy_program(&tree, &path)?;
    }
    for (_, program) in tests {
        copy_program(&tree, program)?;
    }
    for object in fs::read_dir(root.join("target/bpf"))?.flatten().filter(|entry| entry.path().is_file()) {
        copy(&tree, &object.path(), &object.path())?;
    }
    for module in modules(image)? {
        let place = module.strip_prefix(&image.dir).context("a module outside of its package")?;
        copy(&tree, &module, &Path::new("/").join(place))?;
    }
    let lists = Path::new("lib/modules").join(&image.version);
    for list in ["modules.order", "modules.builtin", "modules.builtin.modinfo"] {
        copy(&tree, &image.dir.join(&lists).join(list), &lists.join(list))?;
    }
    check(Command::new("depmod").arg("-b").arg(&tree).arg(&image.version))?;
    write_init(&tree, root, tests)?;
    let disk = root.join("target/vm/disk.cpio");
    let pack = format!("find . | cpio --quiet -o -H newc > {}", disk.display());
    check(Command::new("sh").args(["-c", &pack]).current_dir(&tree))?;
    Ok(disk)
}

fn copy(tree: &Path, from: &Path, to: &Path) -> Result<()> {
    let to = tree.join(to.strip_prefix("/").unwrap_or(to));
    if let Some(dir) = to.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::copy(from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
}

/// A program and the libraries that it is linked to, at the places they have here.
fn copy_program(tree: &Path, program: &Path) -> Result<()> {
    copy(tree, program, program)?;
    let libraries = output(Command::new("ldd").arg(program)).unwrap_or_default();
    for word in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
        copy(tree, Path::new(word), Path::new(word))?;
    }
    Ok(())
}

/// The modules that tests need, with all they depend on.
fn modules(image: &Image) -> Result<BTreeSet<PathBuf>> {
    let mut all = BTreeSet::new();
    for module in MODULES {
        let mut ask = Command::new(find("modprobe").context("modprobe is missing")?);
        ask.arg("-d").arg(&image.dir).args(["-S", &image.version, "--show-depends", module]);
        let Some(said) = output(&mut ask) else { bail!("{} has no module {module}", image.version) };
        // `insmod PATH OPTIONS`
        let paths = said.lines().filter_map(|line| line.strip_prefix("insmod ")?.split_whitespace().next());
        all.extend(paths.map(PathBuf::from));
    }
    Ok(all)
}

fn write_init(tree: &Path, root: &Path, tests: &Tests) -> Result<()> {
    let runs: String = tests
        .iter()
        .map(|(name, program)| {
            let program = program.display();
            format!("{program} --nocapture --test-threads=1; echo {MARK} {name} $?\n")
        })
        .collect();
    let path = std::env::join_paths([
        Path::new("/usr/sbin"),
        Path::new("/usr/bin"),
        Path::new("/sbin"),
        Path::new("/bin"),
    ])?;
    let init = format!(
        "#!/bin/busybox sh\n\
         /bin/busybox mkdir -p /usr/bin /usr/sbin /sbin /dev/pts {root}/tests\n\
         /bin/busybox --install -s /bin\n\
         export PATH={path} HOME=/root RUST_BACKTRACE=1\n\
         mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev\n\
         mount -t bpf bpf /sys/fs/bpf; mount -t cgroup2 cgroup2 /sys/fs/cgroup\n\
         mount -t tmpfs run /run; mkdir -p /run/netns\n\
         ip link set lo up\n\
         for module in {modules}; do modprobe $module; done\n\
         for word in $(cat /proc/cmdline); do case $word in LANRAGE_*) export $word;; esac; done\n\
         cd {root}/tests\n\
         {runs}\
         echo {MARK} end\n\
         poweroff -f\n",
        root = root.display(),
        path = path.display(),
        modules = MODULES.join(" "),
    );
    let file = tree.join("init");
    fs::write(&file, init)?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

fn boot(image: &Image, disk: &Path, vm: &Vm) -> Result<()> {
    let append = format!("console=ttyS0 panic=-1 loglevel=3 LANRAGE_DIFFERENTIAL_CASES={}", vm.cases);
    let mut machine = Command::new(find("qemu-system-x86_64").context("qemu-system-x86_64 is missing")?);
    machine.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "2048", "-nographic"]);
    machine.args(["-no-reboot", "-nic", "none", "-append", &append]);
    machine.arg("-kernel").arg(image.kernel()).arg("-initrd").arg(disk);
    let child = machine.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot start qemu")?;
    let results = watch(child, Duration::from_secs(vm.minutes * 60))?;
    for test in &vm.tests {
        let result = results.iter().find(|(name, _)| name == test);
        let (_, code) =
            result.with_context(|| format!("`{test}` did not run to its end on {}", image.version))?;
        ensure!(code == "0", "`{test}` failed on {} (exit code {code})", image.version);
    }
    Ok(())
}

/// Shows the console until the machine has ended; what each test ended with.
fn watch(mut machine: Child, patience: Duration) -> Result<Vec<(String, String)>> {
    let console = machine.stdout.take().context("no console")?;
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(console).split(b'\n').map_while(Result::ok) {
            let _ = sender.send(String::from_utf8_lossy(&line).trim_end().to_owned());
        }
    });
    let end = Instant::now() + patience;
    let mut results = Vec::new();
    loop {
        match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) => match line.strip_prefix(MARK).map(|rest| rest.split_whitespace().collect::<Vec<_>>())
            {
                Some(words) if words.len() == 2 => results.push((words[0].to_owned(), words[1].to_owned())),
                Some(_) => {}
                None => println!("   | {line}"),
            },
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                machine.kill()?;
                bail!("the machine did not finish in {} minutes (see --minutes)", patience.as_secs() / 60);
            }
        }
    }
    machine.wait()?;
    Ok(results)
}
