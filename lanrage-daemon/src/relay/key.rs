//! The key that seals tickets for this relay: made once, told only to the control server.

use crate::files;
use anyhow::Context as _;
use rand_core::{OsRng, RngCore as _};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

const FILE: &str = "relay-ticket-key";

/// The key in `state_dir`, made with mode 0600 at first use.
pub(super) fn load_or_create(state_dir: &Path) -> anyhow::Result<[u8; 32]> {
    let path = state_dir.join(FILE);
    match fs::read(&path) {
        Ok(bytes) => bytes.try_into().map_err(|bytes: Vec<u8>| {
            anyhow::anyhow!(
                "{} is damaged ({} bytes instead of 32): delete it and restart; members then bind anew",
                path.display(),
                bytes.len()
            )
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => create(state_dir, &path).with_context(|| {
            format!("cannot write {}: check that the directory is writable", path.display())
        }),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn create(state_dir: &Path, path: &Path) -> io::Result<[u8; 32]> {
    fs::create_dir_all(state_dir)?;
    let mut key = [0; 32];
    OsRng.fill_bytes(&mut key);
    files::replace_private(path, &key)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_stays_the_same_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let key = load_or_create(dir.path()).unwrap();
        assert_eq!(load_or_create(dir.path()).unwrap(), key);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn a_damaged_key_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), b"short").unwrap();
        let error = load_or_create(dir.path()).unwrap_err().to_string();
        assert!(error.contains("relay-ticket-key") && error.contains("delete it"), "{error}");
    }
}
