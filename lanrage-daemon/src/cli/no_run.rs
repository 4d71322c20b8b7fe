//! Only Linux can make single programs use the party.

use super::client::Client;
use super::failure::Failure;
use super::screen::Screen;
use std::ffi::OsString;

/// Says so.
pub(super) async fn run(_: &Client, _: &mut Screen<'_>, _: &[OsString], _: bool) -> Result<u8, Failure> {
    let what = "only Linux can make single programs use the party".into();
    Err(Failure::Local(what, "start the game as usual: most need nothing else".into()))
}
