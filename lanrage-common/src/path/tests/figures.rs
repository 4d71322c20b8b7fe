//! Figures of the simulation for docs/benchmarks.md: `cargo xtask bench paths` collects them from the tests.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::time::Duration;

/// What was measured over many runs.
#[derive(Debug)]
pub struct Figures {
    /// Place in the table.
    pub place: u32,
    pub what: &'static str,
    pub runs: usize,
    /// Of those runs that came to it, sorted.
    pub times: Vec<Duration>,
}

impl Figures {
    pub fn new(place: u32, what: &'static str, outcomes: impl IntoIterator<Item = Option<Duration>>) -> Self {
        let outcomes: Vec<Option<Duration>> = outcomes.into_iter().collect();
        let mut times: Vec<Duration> = outcomes.iter().flatten().copied().collect();
        times.sort();
        let figures = Self { place, what, runs: outcomes.len(), times };
        figures.record();
        figures
    }

    /// This share of the times, in hundredths, is not above it.
    pub fn at(&self, share: usize) -> Duration {
        let last = self.times.len().saturating_sub(1);
        self.times.get((self.times.len() * share / 100).min(last)).copied().unwrap_or_default()
    }

    pub fn most(&self) -> Duration {
        self.at(100)
    }

    /// One line, fields between tabs: place, what, runs, reached, then median, 99th hundredth and most in milliseconds.
    fn record(&self) {
        let ms = |share| self.at(share).as_millis();
        let (what, runs, reached) = (self.what, self.runs, self.times.len());
        let line =
            format!("{}\t{what}\t{runs}\t{reached}\t{}\t{}\t{}\n", self.place, ms(50), ms(99), ms(100));
        print!("{line}");
        if let Some(path) = std::env::var_os("LANRAGE_FIGURES") {
            let file = OpenOptions::new().create(true).append(true).open(&path);
            file.and_then(|mut file| file.write_all(line.as_bytes())).expect("LANRAGE_FIGURES is writable");
        }
    }
}
