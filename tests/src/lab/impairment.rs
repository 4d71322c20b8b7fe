//! What a bad link does to packets: delay, jitter, loss, reordering; the same again for the same seed.

use anyhow::{Context, Result, bail, ensure};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use std::f64::consts::TAU;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// How impairments are written; all parts may be left out.
pub const SYNTAX: &str =
    "delay:MS+jitter:MS+loss:PERCENT+reorder:PERCENT+seed:NUMBER (e.g. delay:20+jitter:3+loss:0.5)";
/// Longest delay and jitter.
const MAX_MS: f64 = 10_000.0;
/// A reordered packet comes this much later, and lets the others pass.
const HELD_BACK: Duration = Duration::from_millis(10);

/// Of one direction of a link.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Impairment {
    /// On average, milliseconds.
    pub delay_ms: f64,
    /// Standard deviation of the delay, milliseconds. Packets keep their order, as in a queue.
    pub jitter_ms: f64,
    /// Packets that never arrive, percent.
    pub loss: f64,
    /// Packets that others overtake, percent.
    pub reorder: f64,
    /// All chance follows from it.
    pub seed: u64,
}

impl FromStr for Impairment {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut read = Self::default();
        for word in text.split('+') {
            let (name, value) = word.split_once(':').unwrap_or((word, ""));
            let number = |most: f64| -> Result<f64> {
                let number = value.parse().ok().filter(|number| (0.0..=most).contains(number));
                number.with_context(|| format!("{word:?}: the number must be 0 to {most}"))
            };
            match name {
                "delay" => read.delay_ms = number(MAX_MS)?,
                "jitter" => read.jitter_ms = number(MAX_MS)?,
                "loss" => read.loss = number(100.0)?,
                "reorder" => read.reorder = number(100.0)?,
                "seed" => read.seed = value.parse().with_context(|| format!("{word:?} has no number"))?,
                _ => bail!("a link has no {word:?}: write {SYNTAX}"),
            }
        }
        Ok(read)
    }
}

impl fmt::Display for Impairment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { delay_ms, jitter_ms, loss, reorder, seed } = self;
        write!(f, "delay:{delay_ms}+jitter:{jitter_ms}+loss:{loss}+reorder:{reorder}+seed:{seed}")
    }
}

/// Which link is impaired how, e.g. `w1=delay:20`.
#[derive(Debug, Clone, PartialEq)]
pub struct ImpairedLink {
    /// `wN` (access link of peer N), `hN` (its home), `ctl`, `rly` or `rly2`.
    pub link: String,
    /// Both directions, each with chance of its own.
    pub impairment: Impairment,
}

impl FromStr for ImpairedLink {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (link, impairment) = text.split_once('=').context("write LINK=IMPAIRMENT, e.g. w1=delay:20")?;
        let numbered = link.strip_prefix(['w', 'h']).is_some_and(|n| n.parse::<u8>().is_ok());
        ensure!(
            numbered || ["ctl", "rly", "rly2"].contains(&link),
            "there is no link {link:?}: write w1 (access of peer 1), h1 (its home), ctl, rly or rly2"
        );
        Ok(Self { link: link.into(), impairment: impairment.parse()? })
    }
}

impl fmt::Display for ImpairedLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.link, self.impairment)
    }
}

/// One direction of a link, which decides on packets in their order.
#[derive(Debug)]
pub struct Direction {
    impairment: Impairment,
    dice: ChaCha8Rng,
    last: Option<Instant>,
}

impl Direction {
    /// Two directions with one seed have different chance.
    pub fn new(impairment: Impairment, is_back: bool) -> Self {
        let mut dice = ChaCha8Rng::seed_from_u64(impairment.seed);
        dice.set_stream(is_back.into());
        Self { impairment, dice, last: None }
    }

    /// When the next packet arrives; none when it is lost.
    pub fn arrival(&mut self, now: Instant) -> Option<Instant> {
        let Impairment { delay_ms, jitter_ms, loss, reorder, .. } = self.impairment;
        // always four draws, so that a packet's chance does not depend on those before it
        let [lost, passed, radius, angle] = [(); 4].map(|()| self.dice.gen_range(0.0..1.0f64));
        // Box and Muller, cut at four deviations
        let normal = (-2.0 * (1.0 - radius).ln()).sqrt() * (TAU * angle).cos();
        let delay = (delay_ms + jitter_ms * normal.clamp(-4.0, 4.0)).max(0.0);
        let due = now + Duration::from_secs_f64(delay / 1000.0);
        if lost * 100.0 < loss {
            return None;
        }
        if passed * 100.0 < reorder {
            return Some(due + HELD_BACK);
        }
        let due = self.last.map_or(due, |last| due.max(last));
        self.last = Some(due);
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PACKETS: u32 = 20_000;
    const APART: Duration = Duration::from_millis(50);

    /// Delays in milliseconds of packets sent evenly; none = lost.
    fn delays(text: &str, is_back: bool) -> Vec<Option<f64>> {
        let mut direction = Direction::new(text.parse().unwrap(), is_back);
        let start = Instant::now();
        (0..PACKETS)
            .map(|n| {
                let sent = start + APART * n;
                direction.arrival(sent).map(|due| (due - sent).as_secs_f64() * 1000.0)
            })
            .collect()
    }

    #[test]
    fn delay_and_jitter_are_as_asked() {
        let delays: Vec<f64> = delays("delay:40+jitter:5+seed:1", false).into_iter().flatten().collect();
        let mean = delays.iter().sum::<f64>() / delays.len() as f64;
        let variance = delays.iter().map(|delay| (delay - mean).powi(2)).sum::<f64>() / delays.len() as f64;
        assert!((mean - 40.0).abs() < 0.2, "mean {mean}");
        assert!((variance.sqrt() - 5.0).abs() < 0.2, "deviation {}", variance.sqrt());
        assert!(delays.iter().all(|delay| (20.0..=60.0).contains(delay)));
    }

    #[test]
    fn loss_and_reordering_are_as_often_as_asked() {
        let delays = delays("delay:5+loss:2+reorder:3+seed:2", false);
        let lost = delays.iter().filter(|delay| delay.is_none()).count();
        let late = delays.iter().flatten().filter(|delay| **delay > 10.0).count();
        assert!((lost as f64 / f64::from(PACKETS) - 0.02).abs() < 0.004, "{lost} lost");
        assert!((late as f64 / f64::from(PACKETS) - 0.03).abs() < 0.005, "{late} late");
    }

    #[test]
    fn jitter_alone_keeps_the_order() {
        let mut direction = Direction::new("delay:10+jitter:10".parse().unwrap(), false);
        let start = Instant::now();
        let due: Vec<Instant> =
            (0..1000).filter_map(|n| direction.arrival(start + Duration::from_millis(n))).collect();
        assert!(due.is_sorted());
        let mut direction = Direction::new("reorder:10".parse().unwrap(), false);
        let due: Vec<Instant> =
            (0..1000).filter_map(|n| direction.arrival(start + Duration::from_millis(n))).collect();
        assert!(!due.is_sorted());
    }

    #[test]
    fn a_seed_replays_and_directions_differ() {
        let text = "delay:10+jitter:3+loss:10+reorder:5";
        assert_eq!(delays(&format!("{text}+seed:4"), false), delays(&format!("{text}+seed:4"), false));
        assert_ne!(delays(&format!("{text}+seed:4"), false), delays(&format!("{text}+seed:4"), true));
        assert_ne!(delays(&format!("{text}+seed:4"), false), delays(&format!("{text}+seed:5"), false));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "delay", "delay:-1", "loss:101", "delay:NaN", "speed:1", "seed:-1"] {
            assert!(text.parse::<Impairment>().is_err(), "{text}");
        }
        for text in ["w1", "x=delay:1", "w=delay:1", "w1=speed:1"] {
            assert!(text.parse::<ImpairedLink>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn links_are_read_as_written(delay_ms in 0.0..10_000.0f64, loss in 0.0..100.0f64, seed: u64, text in ".{0,40}") {
            let impairment = Impairment { delay_ms, jitter_ms: delay_ms / 3.0, loss, reorder: loss / 7.0, seed };
            let link = ImpairedLink { link: "h12".into(), impairment };
            prop_assert_eq!(link.to_string().parse::<ImpairedLink>().unwrap(), link);
            let _ = text.parse::<ImpairedLink>();
        }
    }
}
