//! Attaches the program for a moment, to know instead of to suppose.

use super::interface::Interface;
use super::refusal;
use crate::datapath::xdp::{Hook, Program};
use lanrage_common::api::RelayMode;
use serde::Serialize;

/// What came of one attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trial {
    /// On which interface.
    pub interface: String,
    /// At which hook.
    pub mode: RelayMode,
    /// Whether the interface accepted.
    pub accepted: bool,
    /// What it said otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What helps then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// Loads the program, attaches it natively, then generically if that was refused, and detaches it at once. Without
/// addresses the program passes everything. An interface that has a program already is left alone.
pub fn attach(interface: &Interface) -> anyhow::Result<Vec<Trial>> {
    if let Some(program) = &interface.program {
        anyhow::bail!(
            "{} has an XDP program already (number {}); stop the relay that holds it, then try",
            interface.name,
            program.id
        );
    }
    let mut program = Program::load(2)?;
    let mut trials = Vec::new();
    for (hook, mode) in [(Hook::Native, RelayMode::XdpNative), (Hook::Generic, RelayMode::XdpGeneric)] {
        let result = program.attach(interface.index, hook);
        program.detach(interface.index);
        let code = result.as_ref().err().map(std::io::Error::raw_os_error);
        let accepted = result.is_ok();
        trials.push(Trial {
            interface: interface.name.clone(),
            mode,
            accepted,
            fix: code.map(|code| {
                refusal::fix(&interface.name, interface.mtu, interface.driver.as_deref(), hook, code)
            }),
            error: result.err().map(|error| error.to_string()),
        });
        if accepted {
            break;
        }
    }
    Ok(trials)
}
