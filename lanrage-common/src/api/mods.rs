//! Mods that members share.

use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// Who shares what, as their machines answered just now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModsAnswer {
    /// In the order of members.
    pub shares: Vec<ModShare>,
    /// Shares whose list of files is not taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedShare>,
}

/// What a member shares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModShare {
    /// The member's name.
    pub member: String,
    /// Its overlay address.
    pub address: Ipv4Addr,
    /// What it calls the folder.
    pub name: String,
    /// SHA-256 over the list of files, hexadecimal: the same means the same mods.
    pub id: String,
    /// Files.
    pub files: u64,
    /// Bytes of all files together.
    pub bytes: u64,
    /// Files that may be programs.
    pub programs: u64,
}

/// A share that cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedShare {
    /// The member's name.
    pub member: String,
    /// What is wrong with it.
    pub why: String,
}
