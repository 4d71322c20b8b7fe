//! Loading kernel programs: what the relay's and the lane's have in common.

use aya::Ebpf;
use aya::maps::MapError;
use aya::programs::ProgramError;
use std::io;

/// The program could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The daemon was built without it.
    #[error("this daemon was built without eBPF")]
    NotBuilt,
    /// The kernel says who may.
    #[error("no permission to load kernel programs")]
    NotPermitted,
    /// The verifier's log, or the system call that failed.
    #[error("the kernel refused the program: {0}")]
    Refused(String),
}

impl LoadError {
    /// What helps. `oldest` is the first Linux release that takes the program.
    pub fn fix(&self, oldest: &str) -> String {
        match self {
            Self::NotBuilt => "run `cargo xtask build-ebpf`, then build the daemon again".into(),
            Self::NotPermitted => {
                "run as root, or grant CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, then restart".into()
            }
            Self::Refused(_) => format!("needs Linux {oldest} or newer; on such a kernel please report this"),
        }
    }
}

/// A map of the object, by name.
pub fn take<M>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, LoadError>
where
    M: TryFrom<aya::maps::Map, Error = MapError>,
{
    let map =
        ebpf.take_map(name).ok_or_else(|| LoadError::Refused(format!("the object has no map `{name}`")))?;
    M::try_from(map).map_err(|error| LoadError::Refused(format!("map `{name}`: {error}")))
}

/// A load error with everything below it, the verifier's log included.
pub fn refused<E: std::error::Error + 'static>(error: &E) -> LoadError {
    match find_io(error).and_then(io::Error::raw_os_error) {
        Some(libc::EPERM | libc::EACCES) if !has_verifier_log(error) => LoadError::NotPermitted,
        _ => LoadError::Refused(chain(error)),
    }
}

/// The verifier also refuses with EACCES, but then says why.
fn has_verifier_log(error: &(dyn std::error::Error + 'static)) -> bool {
    matches!(error.downcast_ref::<ProgramError>(), Some(ProgramError::LoadError { verifier_log, .. })
        if !verifier_log.to_string().trim().is_empty())
}

fn find_io<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a io::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io);
        }
        if let Some(ProgramError::LoadError { io_error, .. }) = error.downcast_ref::<ProgramError>() {
            return Some(io_error);
        }
        next = error.source();
    }
    None
}

/// The number of the system call's error, if there is one.
pub fn os_error(error: &ProgramError) -> io::Error {
    match find_io(error).and_then(io::Error::raw_os_error) {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::other(chain(error)),
    }
}

/// An error with its causes.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}
