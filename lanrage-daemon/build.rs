//! Embeds the kernel programs of relay, lane and `lanrage run`: those that `LANRAGE_EBPF_OBJECT`, `LANRAGE_LANE_OBJECT` and
//! `LANRAGE_RUN_OBJECT` name, else those in `target/bpf`, else nothing, which is a supported build that does everything in
//! userspace and says so. Rebuilds when these objects, the web UI or the games' profiles change.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=games");
    watch_web();
    println!("cargo::rerun-if-env-changed=CARGO_TARGET_DIR");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    for (variable, name) in [
        ("LANRAGE_EBPF_OBJECT", "lanrage-ebpf"),
        ("LANRAGE_LANE_OBJECT", "lanrage-lane"),
        ("LANRAGE_RUN_OBJECT", "lanrage-run"),
    ] {
        println!("cargo::rerun-if-env-changed={variable}");
        let object = match env::var_os(variable) {
            Some(none) if none == "none" => Vec::new(),
            Some(path) => chosen(variable, Path::new(&path)),
            None => built(&bpf_dir(), name),
        };
        fs::write(out.join(name), object).expect("OUT_DIR is writable");
    }
}

/// rust-embed reads `web/dist` at compile time. A path that does not exist would make every build start over; the creation
/// of `dist` touches its parent.
fn watch_web() {
    let watched = ["../web/dist", "../web"].into_iter().find(|path| Path::new(path).exists());
    if let Some(path) = watched {
        println!("cargo::rerun-if-changed={path}");
    }
}

fn chosen(variable: &str, path: &Path) -> Vec<u8> {
    println!("cargo::rerun-if-changed={}", path.display());
    fs::read(path).unwrap_or_else(|error| panic!("{variable}={}: {error}", path.display()))
}

/// Watching the directory instead of the file notices an object that appears later, and costs nothing until then:
/// cargo reruns a build script on every build while a watched file is missing.
fn built(dir: &Path, name: &str) -> Vec<u8> {
    if fs::create_dir_all(dir).is_ok() {
        println!("cargo::rerun-if-changed={}", dir.display());
    }
    fs::read(dir.join(name)).unwrap_or_default()
}

fn bpf_dir() -> PathBuf {
    let workspace = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("..");
    let target =
        env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), |dir| workspace.join(dir));
    target.join("bpf")
}
