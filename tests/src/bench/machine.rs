//! What the figures were measured on, and how busy it was.

use crate::lab::netns::command_output;
use serde::Serialize;
use std::fs;
use std::process::Command;

/// The machine.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// The day, in UTC.
    pub date: String,
    /// Kernel release.
    pub kernel: String,
    /// Processor model.
    pub cpu: String,
    /// Cores.
    pub cores: usize,
    /// Runnable processes on average over the minute before.
    pub load_before: f64,
    /// The same at the end; the benchmark itself is one to two.
    pub load_after: f64,
}

impl Machine {
    /// This machine, now.
    pub fn look() -> Self {
        let cpuinfo = read("/proc/cpuinfo");
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
        Self {
            date: today(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            cpu: model.unwrap_or("unknown").to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            load_before: load(),
            load_after: 0.0,
        }
    }
}

/// Runnable processes on average over the last minute.
pub fn load() -> f64 {
    read("/proc/loadavg").split_whitespace().next().and_then(|load| load.parse().ok()).unwrap_or(0.0)
}

fn today() -> String {
    command_output(Command::new("date").args(["--utc", "--iso-8601"])).unwrap_or_default().trim().to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
