//! Whose programs listen on this machine.

#[cfg(target_os = "linux")]
#[path = "programs/linux.rs"]
mod imp;
#[cfg(not(target_os = "linux"))]
#[path = "programs/other.rs"]
mod imp;

pub use imp::owner;
