//! Mods that members give each other: the same files in everybody's folder.
//!
//! It all happens in the command line's process, with the rights of who runs it: the daemon may not read people's
//! folders, and no folder is offered longer than its command runs. The tunnel proves who is at an address of the party.

mod fetch;
mod folder;
mod server;

pub(crate) use fetch::{FetchError, Source};
pub(crate) use folder::{Folder, Presence};
pub(crate) use server::serve;

#[cfg(test)]
mod tests;
