//! The matrix for programs, for the terminal and for docs/benchmarks.md.

use super::expect;
use crate::lab::flow::Passage;
use crate::lab::site::Site;
use anyhow::{Context, Result};
use lanrage_common::nat::{How, Verdict};
use serde::{Serialize, Serializer};
use std::fmt::{self, Write as _};
use std::path::Path;

const BEGIN: &str = "<!-- matrix: written by `cargo xtask lab matrix --docs docs` -->";
const END: &str = "<!-- end of matrix -->";

/// One pair and what came of it. The serialised fields are a documented interface.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// The founder's router.
    pub a: Site,
    /// The other's router.
    pub b: Site,
    /// What the product says of such a pair.
    #[serde(serialize_with = "word")]
    pub verdict: Verdict,
    /// The path at the end: `direct`, `relay`, `tls` or `none`.
    pub path: &'static str,
    /// From joining until both ends talk directly; absent when they never do.
    pub direct_ms: Option<u64>,
    /// What a game lost from its first arrival on, the switch to the direct path included, both ways together.
    #[serde(rename = "lost_on_switch", serialize_with = "lost")]
    pub passage: Passage,
}

fn word<S: Serializer>(verdict: &Verdict, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(expect::word(*verdict))
}

fn lost<S: Serializer>(passage: &Passage, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(passage.lost)
}

impl Row {
    /// Whether a direct path is possible.
    pub fn is_possible(&self) -> bool {
        self.verdict.how().is_some()
    }

    /// Whether it needs no luck to talk directly, and does not. Many probes miss a random port in one or two of a thousand
    /// searches.
    pub fn is_missed(&self) -> bool {
        let is_sure = !matches!(self.verdict.how(), None | Some(How::Birthday));
        is_sure && self.path != "direct"
    }

    fn cells(&self) -> [String; 7] {
        let time = self.direct_ms.map_or("-".into(), |time| format!("{time} ms"));
        let Passage { lost, duplicates, sent, .. } = self.passage;
        [
            self.a.to_string(),
            self.b.to_string(),
            expect::word(self.verdict).into(),
            self.path.into(),
            time,
            format!("{lost} of {sent}"),
            duplicates.to_string(),
        ]
    }
}

/// The line above [`Row`]s.
pub const HEADER: [&str; 7] = ["A", "B", "VERDICT", "PATH", "DIRECT AFTER", "LOST", "DOUBLED"];

/// A line of the table.
pub fn line<T: fmt::Display>(cells: [T; 7]) -> String {
    let [a, b, verdict, path, time, lost, doubled] = cells;
    format!("{a:<24} {b:<24} {verdict:<10} {path:<7} {time:>12} {lost:>12} {doubled:>8}")
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&line(self.cells()))
    }
}

/// All pairs.
#[derive(Debug, Clone, Serialize)]
pub struct Matrix {
    /// In the order asked for.
    pub pairs: Vec<Row>,
    /// Pairs for which the verdict is a direct path.
    pub possible: usize,
    /// Of these, those that reached it.
    pub reached: usize,
}

impl Matrix {
    /// Counts.
    pub fn new(pairs: Vec<Row>) -> Self {
        let possible = pairs.iter().filter(|row| row.is_possible()).count();
        let reached = pairs.iter().filter(|row| row.is_possible() && row.path == "direct").count();
        Self { pairs, possible, reached }
    }

    /// Pairs that need no luck to talk directly, and do not.
    pub fn missed(&self) -> impl Iterator<Item = &Row> {
        self.pairs.iter().filter(|row| row.is_missed())
    }

    /// The sentence below the table.
    pub fn summary(&self) -> String {
        let mut times: Vec<u64> = self.pairs.iter().filter_map(|row| row.direct_ms).collect();
        times.sort_unstable();
        let at = |share: usize| times.get((times.len() * share / 100).min(times.len().saturating_sub(1)));
        let time = |share| at(share).map_or("-".into(), |time| format!("{time} ms"));
        let lost: u64 = self.pairs.iter().map(|row| row.passage.lost).sum();
        let doubled: u64 = self.pairs.iter().map(|row| row.passage.duplicates).sum();
        format!(
            "{} of {} possible direct paths reached, half of them within {}, 95 % within {}; {lost} packets lost, \
             {doubled} doubled.",
            self.reached,
            self.possible,
            time(50),
            time(95)
        )
    }

    /// Puts the table into benchmarks.md of this directory.
    pub fn write_page(&self, docs: &Path, machine: &str) -> Result<()> {
        let page = docs.join("benchmarks.md");
        let text =
            std::fs::read_to_string(&page).with_context(|| format!("cannot read {}", page.display()))?;
        let place = || format!("{} has no place for the matrix: {BEGIN} … {END}", page.display());
        let (before, rest) = text.split_once(BEGIN).with_context(place)?;
        let (_, after) = rest.split_once(END).with_context(place)?;
        let text = format!("{before}{BEGIN}\n\n{machine}\n\n{}\n{END}{after}", self.markdown());
        std::fs::write(&page, text).with_context(|| format!("cannot write {}", page.display()))
    }

    fn markdown(&self) -> String {
        let mut text = format!("{}\n\n", self.summary());
        text += "| A | B | verdict | path | direct after | lost | doubled |\n|---|---|---|---|--:|--:|--:|\n";
        for row in &self.pairs {
            let [a, b, rest @ ..] = row.cells();
            let _ = writeln!(text, "| `{a}` | `{b}` | {} |", rest.join(" | "));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(a: &str, b: &str, direct_ms: Option<u64>) -> Row {
        let (a, b): (Site, Site) = (a.parse().unwrap(), b.parse().unwrap());
        let path = if direct_ms.is_some() { "direct" } else { "relay" };
        let passage = Passage { sent: 9, early: 1, lost: 2, duplicates: 0 };
        Row { a, b, verdict: expect::verdict(a, b), path, direct_ms, passage }
    }

    #[test]
    fn programs_get_exactly_what_is_documented() {
        let matrix = Matrix::new(vec![
            row("eim", "eim", Some(700)),
            row("eim", "symmetric", None),
            row("symmetric", "symmetric", None),
        ]);
        assert_eq!(
            serde_json::to_string(&matrix).unwrap(),
            r#"{"pairs":[{"a":"eim","b":"eim","verdict":"punch","path":"direct","direct_ms":700,"lost_on_switch":2},{"a":"eim","b":"symmetric","verdict":"birthday","path":"relay","direct_ms":null,"lost_on_switch":2},{"a":"symmetric","b":"symmetric","verdict":"relay","path":"relay","direct_ms":null,"lost_on_switch":2}],"possible":2,"reached":1}"#
        );
        assert!(matrix.summary().starts_with("1 of 2 possible"), "{}", matrix.summary());
        assert_eq!(matrix.missed().count(), 0, "a birthday is luck");
        assert_eq!(Matrix::new(vec![row("eim", "eim", None)]).missed().count(), 1);
    }

    #[test]
    fn the_page_keeps_what_is_around_the_table() {
        let docs = tempfile::tempdir().unwrap();
        let page = docs.path().join("benchmarks.md");
        std::fs::write(&page, format!("before\n{BEGIN}\nold\n{END}\nafter\n")).unwrap();
        Matrix::new(vec![row("eim", "eim", Some(700))]).write_page(docs.path(), "a machine").unwrap();
        let text = std::fs::read_to_string(&page).unwrap();
        assert!(
            text.starts_with("before\n") && text.ends_with("\nafter\n") && !text.contains("old"),
            "{text}"
        );
        assert!(text.contains("| `eim` | `eim` | punch | direct | 700 ms | 2 of 9 | 0 |"), "{text}");
    }
}
