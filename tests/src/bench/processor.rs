//! How much processor time goes by, whatever it goes to.
//!
//! `/proc/stat` samples: on a machine whose packets are forwarded in softirqs between two ticks it misses most of them. So a
//! thread of the lowest scheduling class (`SCHED_IDLE`) on each core does nothing but read the clock: what passes between
//! two readings that follow each other at once was left over, every longer gap was somebody else's. The kernel's
//! processing of packets, its interrupts and what the hypervisor takes all count as used.

use super::generator::pin_to;
use crate::lab::netns::command_output;
use anyhow::{Context, Result};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A gap no longer than this is the reading itself.
const READING: Duration = Duration::from_nanos(700);
/// The scheduling group of this process's session.
const GROUP: &str = "/proc/self/autogroup";
/// Readings between two reports.
const READINGS: u32 = 1_000;

/// The threads; they end when this is dropped.
#[derive(Debug)]
pub struct Spinners {
    stop: Arc<AtomicBool>,
    left_over: Vec<Arc<AtomicU64>>,
    threads: Vec<JoinHandle<()>>,
}

/// A moment, to measure from.
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    at: Instant,
    left_over: u64,
}

impl Mark {
    /// How long ago it was.
    pub fn elapsed(self) -> Duration {
        self.at.elapsed()
    }
}

impl Spinners {
    /// Starts one a core.
    pub fn start() -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut spinners = Self { stop, left_over: Vec::new(), threads: Vec::new() };
        for core in 0..cores() {
            spinners.spawn(core)?;
        }
        Ok(spinners)
    }

    fn spawn(&mut self, core: usize) -> Result<()> {
        let (sender, lowered) = std::sync::mpsc::channel();
        let (stop, left_over) = (Arc::clone(&self.stop), Arc::new(AtomicU64::new(0)));
        self.left_over.push(Arc::clone(&left_over));
        let work = move || {
            pin_to(core);
            let ready = lower();
            let go = ready.is_ok();
            let _ = sender.send(ready);
            if go {
                spin(&stop, &left_over);
            }
        };
        self.threads.push(std::thread::Builder::new().name("bench-idle".into()).spawn(work)?);
        lowered.recv().context("a thread ended early")?
    }

    /// Now.
    pub fn mark(&self) -> Mark {
        let left_over = self.left_over.iter().map(|core| core.load(Ordering::Relaxed)).sum();
        Mark { at: Instant::now(), left_over }
    }

    /// Processor seconds used since.
    pub fn used_since(&self, mark: Mark) -> f64 {
        let now = self.mark();
        let all = (now.at - mark.at).as_secs_f64() * cores() as f64;
        (all - (now.left_over - mark.left_over) as f64 / 1e9).max(0.0)
    }
}

impl Drop for Spinners {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Cores of this machine.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// This process goes before everything else as long as this lives, so that what runs beside it takes little of what is
/// measured. Each clone ends it.
#[derive(Debug, Clone)]
pub struct Precedence {
    was: String,
}

impl Precedence {
    /// Takes it.
    pub fn take() -> Result<Self> {
        let own = std::process::id().to_string();
        command_output(Command::new("renice").args(["-n", "-20", "-p", &own]))?;
        let group = std::fs::read_to_string(GROUP).unwrap_or_default();
        let was = group.rsplit_once("nice ").map_or("", |(_, nice)| nice.trim()).to_owned();
        if !was.is_empty() {
            // Where sessions are scheduled as groups, a process is nice to its own session only.
            std::fs::write(GROUP, "-20").with_context(|| format!("cannot write {GROUP}"))?;
        }
        Ok(Self { was })
    }
}

impl Drop for Precedence {
    fn drop(&mut self) {
        if !self.was.is_empty() {
            // The session may have ended.
            let _ = std::fs::write(GROUP, &self.was);
        }
    }
}

/// Gives the calling thread what nobody else wants.
fn lower() -> Result<()> {
    let thread = nix::unistd::gettid().to_string();
    command_output(Command::new("chrt").args(["--idle", "--pid", "0", &thread])).map(drop)
}

fn spin(stop: &AtomicBool, left_over: &AtomicU64) {
    let mut last = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let mut sum = Duration::ZERO;
        for _ in 0..READINGS {
            let now = Instant::now();
            let gap = now - last;
            if gap < READING {
                sum += gap;
            }
            last = now;
        }
        left_over.fetch_add(sum.as_nanos() as u64, Ordering::Relaxed);
    }
}
