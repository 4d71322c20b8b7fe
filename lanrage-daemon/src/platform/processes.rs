//! Programs that start and end on this machine. Where the system tells, it is heard at once; elsewhere all programs are
//! looked at every two seconds.

#[cfg(target_os = "linux")]
#[path = "processes/linux.rs"]
mod imp;
#[cfg(not(target_os = "linux"))]
#[path = "processes/other.rs"]
mod imp;

pub use imp::Processes;

/// A program at work, as far as this machine tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Program {
    /// Names it goes by, without their directories: its file's, and what it calls itself.
    pub names: Vec<String>,
    /// What it was started with, the first one being itself.
    pub arguments: Vec<String>,
}

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// This program may be another now.
    Looks(u32),
    /// This program has ended.
    Ended(u32),
    /// Anything may have changed.
    All,
}
