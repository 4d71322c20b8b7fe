//! Paths that stay inside a folder, and mean one file on every operating system.

/// Bytes of a path.
const MAX_PATH: usize = 1024;
/// Bytes of one part of it: what Linux, macOS and Windows take.
const MAX_PART: usize = 255;
/// Parts of it.
const MAX_PARTS: usize = 32;
/// What Windows takes for something else in a name.
const SPECIAL: &[char] = &['<', '>', ':', '"', '|', '?', '*', '\\'];
/// Devices on Windows, in every folder and with every extension.
const DEVICES: [&str; 4] = ["con", "prn", "aux", "nul"];
/// What LANrage keeps in a folder while it fetches.
pub(super) const RESERVED: &str = ".lanrage";

/// Why a path is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// It leads out of the folder, or is no relative path.
    #[error("it does not stay in the folder")]
    Escapes,
    /// Too long, or too many folders deep.
    #[error("it is too long")]
    TooLong,
    /// Windows does not have such a name, or takes it for another.
    #[error("Windows cannot have such a file: rename it")]
    Unportable,
    /// LANrage's own.
    #[error("names that begin with .lanrage are LANrage's own")]
    Reserved,
}

/// Whether a path is relative, stays inside the folder, and is the same file on Linux, macOS and Windows.
pub fn check_path(path: &str) -> Result<(), BadPath> {
    if path.len() > MAX_PATH || path.split('/').count() > MAX_PARTS {
        return Err(BadPath::TooLong);
    }
    path.split('/').try_for_each(check_part)
}

fn check_part(part: &str) -> Result<(), BadPath> {
    if matches!(part, "" | "." | "..") {
        return Err(BadPath::Escapes);
    }
    if part.len() > MAX_PART {
        return Err(BadPath::TooLong);
    }
    let is_unportable = part.ends_with(['.', ' '])
        || part.starts_with(' ')
        || part.contains(|c: char| c.is_control() || SPECIAL.contains(&c))
        || is_device(part);
    if is_unportable {
        return Err(BadPath::Unportable);
    }
    if part.to_lowercase().starts_with(RESERVED) {
        return Err(BadPath::Reserved);
    }
    Ok(())
}

fn is_device(part: &str) -> bool {
    let stem = part.split('.').next().unwrap_or_default().trim_end().to_lowercase();
    let is_port = (stem.starts_with("com") || stem.starts_with("lpt"))
        && stem[3..].chars().count() == 1
        && stem[3..].contains(|c: char| c.is_ascii_digit() || "¹²³".contains(c));
    DEVICES.contains(&stem.as_str()) || is_port
}
