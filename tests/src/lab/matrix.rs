//! Pairs of routers, each pair a party of two: what can be expected, what comes about, and what the way there costs.

pub mod expect;
mod pair;
pub mod report;

use super::running::{Lab, Options, down};
use super::site::Site;
use anyhow::{Context, Result, bail};
use report::{Matrix, Row};
use std::fmt;
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::PoisonError;

/// Name of the lab.
pub const LAB: &str = "matrix";
/// Pairs that run at once: more of them would wait for the processor, not for each other's packets.
const AT_ONCE: usize = 6;

/// Routers that the whole matrix pairs, each with each, and each with itself.
const KINDS: [&str; 13] = [
    "none",
    "eim",
    "eim+eif+random",
    "eim+adf+random",
    "eim+apdf+random",
    "adm+adf+sequential",
    "apdm+apdf+preserving",
    "apdm+apdf+sequential",
    "apdm+apdf+sequential:4",
    "apdm+apdf+random",
    "eim/cgn:eim+eif+random",
    "none/dual",
    "udp-blocked",
];

/// The pairs of the quick form: every verdict at least once.
const QUICK: [(&str, &str); 15] = [
    ("none", "none"),
    ("none", "apdm+apdf+random"),
    ("eim", "eim"),
    ("eim+apdf+random", "eim+apdf+random"),
    ("eim+eif+random", "apdm+apdf+random"),
    ("eim+adf+random", "apdm+apdf+sequential"),
    ("eim+apdf+random", "apdm+apdf+sequential"),
    ("eim+apdf+random", "apdm+apdf+random"),
    ("apdm+apdf+sequential", "apdm+apdf+sequential"),
    ("apdm+apdf+random", "apdm+apdf+random"),
    ("eim/cgn:eim+eif+random", "eim"),
    ("eim", "with:1"),
    ("apdm+apdf+random/dual", "eim/dual"),
    ("eim", "udp-blocked"),
    ("udp-blocked", "udp-blocked"),
];

/// Two routers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    /// Of the member that founds the party.
    pub a: Site,
    /// Of the one that joins.
    pub b: Site,
}

impl Pair {
    /// The second site when the first is peer `first` of the lab.
    fn second(&self, first: u8) -> Site {
        self.b.home.map_or(self.b, |_| Site::with(first))
    }
}

impl FromStr for Pair {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let Some((a, b)) = text.split_once(',') else {
            bail!("{text:?} is not a pair: write two router kinds, e.g. eim,apdm+apdf+sequential");
        };
        let pair = Self { a: a.parse()?, b: b.parse()? };
        if pair.a.home.is_some() || pair.b.home.is_some_and(|owner| owner != 1) {
            bail!("{text:?}: only the second of a pair can be at the home of the first, as with:1");
        }
        Ok(pair)
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.a, self.b)
    }
}

/// The pairs of the whole matrix.
pub fn all() -> Result<Vec<Pair>> {
    let kinds = KINDS.iter().map(|kind| kind.parse()).collect::<Result<Vec<Site>>>()?;
    let pairs = (0..kinds.len()).flat_map(|a| (a..kinds.len()).map(move |b| (a, b)));
    Ok(pairs.map(|(a, b)| Pair { a: kinds[a], b: kinds[b] }).collect())
}

/// The pairs of the quick form.
pub fn quick() -> Result<Vec<Pair>> {
    QUICK.iter().map(|(a, b)| Ok(Pair { a: a.parse()?, b: b.parse()? })).collect()
}

/// Runs pairs, several at once, in labs of this name; `tell` hears of each as it finishes.
pub fn run(name: &str, pairs: &[Pair], tell: impl Fn(&Row) + Sync) -> Result<Matrix> {
    let mut rows = Vec::new();
    for batch in pairs.chunks(AT_ONCE) {
        for (pair, row) in batch.iter().zip(run_batch(name, batch, &tell)?) {
            // pairs that run at once share the machine's cores: who has missed has a second try alone
            let again = if row.is_missed() { run_batch(name, &[*pair], &tell)?.pop() } else { None };
            rows.push(again.unwrap_or(row));
        }
    }
    Ok(Matrix::new(rows))
}

/// Gone when dropped.
struct Stage(Lab);

impl Drop for Stage {
    fn drop(&mut self) {
        if let Err(error) = down(&self.0.state().name) {
            eprintln!("cannot take the matrix's lab down: {error:#}");
        }
    }
}

fn run_batch(name: &str, pairs: &[Pair], tell: &(impl Fn(&Row) + Sync)) -> Result<Vec<Row>> {
    let sites: Vec<Site> =
        (0..).zip(pairs).flat_map(|(at, pair)| [pair.a, pair.second(2 * at + 1)]).collect();
    let stage = Stage(Lab::up(&Options::new(name, &sites))?);
    let rows = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let play = |at: usize, pair: Pair| {
            let row = pair::play(&stage.0, pair, [2 * at + 1, 2 * at + 2])
                .with_context(|| format!("the pair {pair}"))?;
            tell(&row);
            rows.lock().unwrap_or_else(PoisonError::into_inner).push((at, row));
            Ok(())
        };
        let threads: Vec<_> =
            pairs.iter().enumerate().map(|(at, pair)| scope.spawn(move || play(at, *pair))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect::<Result<Vec<()>>>()
    })?;
    let mut rows = rows.into_inner().unwrap_or_else(PoisonError::into_inner);
    rows.sort_by_key(|(at, _)| *at);
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect::verdict;
    use std::collections::BTreeSet;

    #[test]
    fn the_quick_form_has_every_verdict_of_the_whole() {
        let verdicts = |pairs: Vec<Pair>| -> BTreeSet<&str> {
            pairs.into_iter().map(|pair| expect::word(verdict(pair.a, pair.b))).collect()
        };
        assert_eq!(all().unwrap().len(), KINDS.len() * (KINDS.len() + 1) / 2);
        let lacking: Vec<_> =
            verdicts(all().unwrap()).difference(&verdicts(quick().unwrap())).copied().collect();
        assert!(lacking.is_empty(), "{lacking:?}");
    }

    #[test]
    fn pairs_are_written_as_they_are_read() {
        let pair: Pair = "eim,apdm+apdf+sequential:4".parse().unwrap();
        assert_eq!(pair.to_string(), "eim,apdm+apdf+sequential:4");
        for text in ["eim", "with:1,eim", "eim,with:2"] {
            assert!(text.parse::<Pair>().is_err(), "{text}");
        }
    }
}
