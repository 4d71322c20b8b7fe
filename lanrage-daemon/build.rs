//! Rebuilds the daemon when the web UI changes. Nothing is generated here.

use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // A path that does not exist would make every build start over; the creation of `dist` touches its parent.
    let watched = ["../web/dist", "../web"].into_iter().find(|path| Path::new(path).exists());
    if let Some(path) = watched {
        println!("cargo::rerun-if-changed={path}");
    }
}
