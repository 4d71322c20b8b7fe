//! The control server role, and the client by which peers and relays talk to one.
//!
//! [`start`] runs a server: `http` accepts connections, `app` holds the routes, `auth` the logins, `hub` the parties
//! and their members' connections, `store` the database. The rules themselves are [`lanrage_common::control`].

pub mod client;
pub mod link;
pub mod origin;

mod app;
mod auth;
mod error;
mod http;
mod hub;
mod landing;
mod limits;
mod member_socket;
mod metrics;
mod relay_socket;
mod relays;
mod server;
mod store;

pub use server::{ControlHandle, ControlView, start};
