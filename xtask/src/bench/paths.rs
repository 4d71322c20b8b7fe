//! Figures of paths that change and die, from the simulation in `lanrage-common`.

use crate::process::{cargo, check, step};
use anyhow::{Context, Result};
use clap::Parser;
use std::fs;
use std::path::{Path, PathBuf};

const BEGIN: &str = "<!-- paths: written by `cargo xtask bench paths --docs docs` -->";
const END: &str = "<!-- end of paths -->";
/// The test writes there, a line for each row.
const VARIABLE: &str = "LANRAGE_FIGURES";

/// Paths that change and die, in the simulation.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench paths")]
pub struct Paths {
    /// Also write the figures there.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the table into benchmarks.md of this directory.
    #[arg(long, value_name = "DIR")]
    docs: Option<PathBuf>,
}

/// Runs the simulation and tells.
pub fn run(root: &Path, paths: &Paths) -> Result<()> {
    let file = root.join("target/paths.tsv");
    if file.exists() {
        fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
    }
    step("simulate paths", || {
        let test = ["test", "--package", "lanrage-common", "--lib", "path::tests"];
        check(cargo(root).args(test).env(VARIABLE, &file))
    })?;
    let text = fs::read_to_string(&file).context("the simulation wrote no figures")?;
    let rows = parse(&text)?;
    println!("\n{}", markdown(&rows));
    if let Some(path) = &paths.json {
        fs::write(path, json(&rows)).with_context(|| format!("cannot write {}", path.display()))?;
    }
    paths.docs.as_deref().map_or(Ok(()), |docs| write_page(docs, &rows))
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    place: u32,
    what: String,
    runs: u32,
    reached: u32,
    median_ms: u32,
    p99_ms: u32,
    most_ms: u32,
}

fn parse(text: &str) -> Result<Vec<Row>> {
    let mut rows = text.lines().map(row).collect::<Result<Vec<_>>>()?;
    rows.sort();
    Ok(rows)
}

fn row(line: &str) -> Result<Row> {
    let bad = || format!("not a row of figures: {line:?}");
    let fields: Vec<&str> = line.split('\t').collect();
    let [place, what, runs, reached, median, p99, most] = fields[..] else { anyhow::bail!(bad()) };
    let number = |text: &str| text.parse::<u32>().with_context(bad);
    Ok(Row {
        place: number(place)?,
        what: what.to_owned(),
        runs: number(runs)?,
        reached: number(reached)?,
        median_ms: number(median)?,
        p99_ms: number(p99)?,
        most_ms: number(most)?,
    })
}

fn markdown(rows: &[Row]) -> String {
    let head = "| what happens | runs | came about | median | p99 | most |\n|---|--:|--:|--:|--:|--:|\n";
    rows.iter().fold(head.to_owned(), |table, row| {
        let Row { what, runs, reached, median_ms, p99_ms, most_ms, .. } = row;
        table + &format!("| {what} | {runs} | {reached} | {median_ms} ms | {p99_ms} ms | {most_ms} ms |\n")
    })
}

/// The names of rows are plain text, so that nothing needs to be escaped but what Rust escapes too.
fn json(rows: &[Row]) -> String {
    let objects = rows.iter().map(|row| {
        let Row { what, runs, reached, median_ms, p99_ms, most_ms, .. } = row;
        format!(
            "  {{\"what\": {what:?}, \"runs\": {runs}, \"reached\": {reached}, \"median_ms\": {median_ms}, \
             \"p99_ms\": {p99_ms}, \"most_ms\": {most_ms}}}"
        )
    });
    format!("[\n{}\n]\n", objects.collect::<Vec<_>>().join(",\n"))
}

fn write_page(docs: &Path, rows: &[Row]) -> Result<()> {
    let page = docs.join("benchmarks.md");
    let text = fs::read_to_string(&page).with_context(|| format!("cannot read {}", page.display()))?;
    let place = || format!("{} has no place for the figures: {BEGIN} … {END}", page.display());
    let (before, rest) = text.split_once(BEGIN).with_context(place)?;
    let (_, after) = rest.split_once(END).with_context(place)?;
    let text = format!("{before}{BEGIN}\n\n{}\n{END}{after}", markdown(rows));
    fs::write(&page, text).with_context(|| format!("cannot write {}", page.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_in_order_whatever_order_they_were_measured_in() {
        let rows = parse("2\tdies\t100\t99\t280\t370\t380\n1\tdirect\t8\t8\t1\t2\t3\n").unwrap();
        assert_eq!((rows[0].what.as_str(), rows[1].reached), ("direct", 99));
        assert!(markdown(&rows).ends_with("| dies | 100 | 99 | 280 ms | 370 ms | 380 ms |\n"));
        assert!(
            json(&rows).contains("{\"what\": \"direct\", \"runs\": 8, \"reached\": 8, \"median_ms\": 1,")
        );
        assert!(parse("1\tdirect\n").is_err() && parse("x\ta\t1\t1\t1\t1\t1\n").is_err());
    }
}
