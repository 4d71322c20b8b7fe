//! Mods that members give each other: the same files in everybody's folder.
//!
//! Files are read and written in the command line's process, with the rights of who runs it: the daemon may not touch
//! people's folders, and no folder is offered longer than its command runs. The daemon only looks at who shares what
//! (docs/adr/0026-mods-are-fetched-by-people.md). The tunnel proves who is at an address of the party.

mod fetch;
mod folder;
mod server;
mod shares;

pub(crate) use fetch::{FetchError, Source};
pub(crate) use folder::{Folder, Presence};
pub(crate) use server::serve;
pub(crate) use shares::{is_program, shares};

#[cfg(test)]
mod tests;
