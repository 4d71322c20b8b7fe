//! `bench ui`: what the web page costs while it shows sixteen members, all of them daemons of the lab.

use super::lane::{LAB, LabEnd};
use super::machine::{self, Machine};
use crate::lab::nat::NatKind;
use crate::lab::role::Role;
use crate::lab::running::{Lab, Options, down};
use crate::lab::story;
use anyhow::{Context, Result};
use serde::Serialize;
use std::fmt;

/// Members of the party.
const MEMBERS: usize = 16;

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    machine: Machine,
    /// As `web/browser/busy.test.ts` writes them.
    figures: serde_json::Value,
}

/// Forms the party and lets a browser look at it.
pub fn run() -> Result<Report> {
    let mut machine = Machine::look();
    down(LAB)?;
    let _end = LabEnd;
    let mut lab = Lab::up(&Options::new(LAB, &[NatKind::Eim; MEMBERS]))?;
    let figures = measure(&mut lab)?;
    machine.load_after = machine::load();
    Ok(Report { machine, figures })
}

fn measure(lab: &mut Lab) -> Result<serde_json::Value> {
    lab.form_party()?;
    lab.wait_for_paths()?;
    story::play(lab, Role::Peer(1), "busy")?;
    let file = lab.socket(Role::Peer(1)).with_file_name("orders").join("figures.json");
    let text = std::fs::read_to_string(&file).with_context(|| format!("no figures in {}", file.display()))?;
    Ok(serde_json::from_str(&text)?)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { date, kernel, cpu, cores, load_before, .. } = &self.machine;
        writeln!(f, "{date}, Linux {kernel}, {cores} cores of {cpu}, load before {load_before:.1}\n")?;
        for (name, value) in self.figures.as_object().into_iter().flatten() {
            writeln!(f, "{:<28} {value}", name.replace('_', " "))?;
        }
        Ok(())
    }
}
