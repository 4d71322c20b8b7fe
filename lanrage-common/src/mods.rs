//! Mods that a member shares: which files, and what is in them.
//!
//! A [`Manifest`] comes from another member, who may be careless or hostile. Nothing of it is used before
//! [`Manifest::parse`] has found it harmless: every path stays inside the folder it is put into, on every operating
//! system, no two of them mean the same file anywhere, and sizes are bounded.

mod digest;
mod path;

pub use digest::Digest;
pub use path::{BadPath, check_path};

use crate::protocol::is_valid_name;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;

/// Where a member offers its mods, TCP, at its address in the party.
pub const PORT: u16 = 41870;
/// Bytes of a manifest.
pub const MAX_MANIFEST: usize = 16 << 20;
/// Files of a manifest.
pub const MAX_FILES: usize = 50_000;
/// Bytes of all files together.
pub const MAX_TOTAL: u64 = 1 << 40;

/// A file: its place in the folder, and what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModFile {
    /// Relative, with `/` between its parts.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of its content.
    pub sha256: Digest,
}

/// All files of a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Shown to people.
    pub name: String,
    /// By path, each once.
    pub files: Vec<ModFile>,
}

/// Why a manifest is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadManifest {
    /// Not what a manifest looks like.
    #[error("it is not a list of mods ({0})")]
    Malformed(String),
    /// Longer than [`MAX_MANIFEST`], more than [`MAX_FILES`] or [`MAX_TOTAL`].
    #[error("it is too big: at most {MAX_FILES} files and 1 TiB are taken")]
    TooBig,
    /// The name cannot be shown.
    #[error("its name cannot be shown")]
    Name,
    /// A path that leads elsewhere, or that some operating system does not have.
    #[error("it names the file {0:?}: {1}")]
    Path(String, BadPath),
    /// Two paths that are the same file where case does not matter, or a file where another path has a folder.
    #[error("it names the file {0:?} twice")]
    Twice(String),
}

impl Manifest {
    /// A manifest of these files, sorted by path.
    pub fn new(name: String, mut files: Vec<ModFile>) -> Result<Self, BadManifest> {
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let manifest = Self { name, files };
        manifest.check()?;
        Ok(manifest)
    }

    /// What another member says it has.
    pub fn parse(bytes: &[u8]) -> Result<Self, BadManifest> {
        if bytes.len() > MAX_MANIFEST {
            return Err(BadManifest::TooBig);
        }
        let Self { name, files } =
            serde_json::from_slice(bytes).map_err(|error| BadManifest::Malformed(error.to_string()))?;
        Self::new(name, files)
    }

    /// Bytes of all files.
    pub fn total(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// The same for the same files, whatever the folder's name: SHA-256 over each file's path, size and SHA-256, each
    /// followed by a zero byte, in the order of the paths' bytes; the size in decimal, the SHA-256 in hexadecimal.
    pub fn id(&self) -> Digest {
        let mut hasher = Sha256::new();
        for file in &self.files {
            hasher.update(format!("{}\0{}\0{}\0", file.path, file.size, file.sha256));
        }
        Digest(hasher.finalize().into())
    }

    fn check(&self) -> Result<(), BadManifest> {
        if !is_valid_name(&self.name) {
            return Err(BadManifest::Name);
        }
        let total = self.files.iter().try_fold(0_u64, |sum, file| sum.checked_add(file.size));
        if self.files.len() > MAX_FILES || total.is_none_or(|total| total > MAX_TOTAL) {
            return Err(BadManifest::TooBig);
        }
        let mut known = BTreeSet::new();
        for file in &self.files {
            check_path(&file.path).map_err(|why| BadManifest::Path(file.path.clone(), why))?;
            if !known.insert(file.path.to_lowercase()) {
                return Err(BadManifest::Twice(file.path.clone()));
            }
        }
        for file in &self.files {
            let lower = file.path.to_lowercase();
            if lower.match_indices('/').any(|(at, _)| known.contains(&lower[..at])) {
                return Err(BadManifest::Twice(file.path.clone()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
