//! Says before the start what would fail later, and how to cure it.

use crate::config::{Config, Role};
use anyhow::Context as _;
use std::path::Path;

const TUN: &str = "/dev/net/tun";
/// Number of CAP_NET_ADMIN in `linux/capability.h`.
const CAP_NET_ADMIN: u32 = 12;

/// Fails with one line that says what is missing for `role`.
pub(super) fn check(role: Role, config: &Config) -> anyhow::Result<()> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    match role {
        Role::Peer | Role::All => {
            check_peer(effective_capabilities(&status), Path::new(TUN), &config.peer.interface)
        }
        // A relay without capabilities forwards in userspace and says so itself.
        Role::Relay | Role::Control => Ok(()),
    }
}

fn check_peer(capabilities: Option<u64>, tun: &Path, interface: &str) -> anyhow::Result<()> {
    if capabilities.is_some_and(|set| set & (1 << CAP_NET_ADMIN) == 0) {
        anyhow::bail!(
            "the peer role needs CAP_NET_ADMIN to create {interface}: start it with sudo, or by systemd with \
             AmbientCapabilities=CAP_NET_ADMIN"
        );
    }
    if cfg!(target_os = "linux") && !tun.exists() {
        anyhow::bail!(
            "{} is missing, so {interface} cannot be created: run `modprobe tun`; in a container add \
             --device {TUN} --cap-add NET_ADMIN",
            tun.display()
        );
    }
    Ok(())
}

/// Of this process; unknown where there is no procfs.
fn effective_capabilities(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// Creates the state directory, readable by its owner only.
pub(super) fn prepare_state_dir(path: &Path) -> anyhow::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).with_context(|| {
        format!("cannot create {}: run as root (sudo) or choose another --state-dir", path.display())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_from_procfs_text() {
        let status = "Name:\tx\nCapPrm:\t0000000000000000\nCapEff:\t0000000000001000\n";
        assert_eq!(effective_capabilities(status), Some(1 << CAP_NET_ADMIN));
        assert_eq!(effective_capabilities(""), None);
    }

    #[test]
    fn missing_pieces_are_named_with_their_cure() {
        let here = Path::new("/");
        let error = check_peer(Some(0), here, "lanrage0").unwrap_err().to_string();
        assert!(error.contains("CAP_NET_ADMIN") && error.contains("sudo"), "{error}");
        let error =
            check_peer(Some(u64::MAX), Path::new("/nonexistent"), "lanrage0").unwrap_err().to_string();
        assert!(error.contains("modprobe tun"), "{error}");
        check_peer(Some(u64::MAX), here, "lanrage0").unwrap();
        check_peer(None, here, "lanrage0").unwrap();
    }

    #[test]
    fn state_directory_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/state");
        prepare_state_dir(&path).unwrap();
        prepare_state_dir(&path).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        }
    }
}
