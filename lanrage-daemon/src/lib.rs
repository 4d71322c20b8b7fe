//! LANrage's I/O: sockets, kernel programs, storage and interfaces around the pure cores of `lanrage-common`.

pub mod api;
#[cfg(target_os = "linux")]
mod bpf;
mod carrier;
pub mod cli;
mod clock;
pub mod config;
pub mod control;
pub mod datapath;
mod discord;
mod doctor;
mod files;
pub mod games;
mod gateway;
mod http;
pub mod lane;
pub mod log;
mod mods;
mod netcheck;
pub mod peer;
pub mod platform;
pub mod relay;
pub mod roles;
pub mod servers;
pub mod settings;
pub mod shutdown;
mod support;
