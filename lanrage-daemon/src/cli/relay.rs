//! `lanrage relay`: what its operator asks.

mod board;
#[cfg(target_os = "linux")]
mod check;
mod rates;
mod status;
mod top;

pub(super) use status::run as status;
pub(super) use top::{Top, run as top};

use super::arguments::Check;
use super::failure::Failure;
use super::screen::Screen;

/// Explains this host, without a daemon.
#[cfg(target_os = "linux")]
pub(super) async fn check(screen: &mut Screen<'_>, check: &Check, json: bool) -> Result<u8, Failure> {
    check::run(screen, check, json).await
}

/// There is nothing to explain elsewhere.
#[cfg(not(target_os = "linux"))]
pub(super) async fn check(_: &mut Screen<'_>, _: &Check, _: bool) -> Result<u8, Failure> {
    let what = "only Linux can forward in the kernel; a relay here forwards in userspace";
    Err(Failure::Local(what.into(), "run the relay on Linux".into()))
}
