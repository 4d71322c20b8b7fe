//! The support bundle: what somebody needs who helps, and nothing that opens or impersonates anything.

mod redact;

pub(crate) use redact::Redaction;

use crate::log;
use lanrage_common::api::{Finding, Setting, Settings, Status, SupportBundle};
use std::time::{SystemTime, UNIX_EPOCH};

const ABOUT: &str = "LANrage support bundle. It holds no keys, tokens, invites or party secrets, and public addresses \
                     only by number. Names of members, addresses in the party and in home networks are in it: read it \
                     before you send it.";

/// Puts everything together, without `secrets` and what looks like one.
pub(crate) fn bundle(
    status: &Status,
    doctor: Vec<Finding>,
    settings: Settings,
    secrets: &[&str],
) -> SupportBundle {
    let mut redaction = Redaction::new(secrets);
    let made_at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    SupportBundle {
        about: ABOUT.into(),
        version: status.version.clone(),
        system: system(),
        made_at,
        status: redaction.value(serde_json::to_value(status).unwrap_or_default()),
        doctor: doctor.into_iter().map(|finding| redacted(finding, &mut redaction)).collect(),
        settings: Settings {
            settings: settings
                .settings
                .into_iter()
                .map(|setting| Setting { value: redaction.value(setting.value), ..setting })
                .collect(),
        },
        log: log::last().iter().map(|line| redaction.text(line)).collect(),
    }
}

fn redacted(finding: Finding, redaction: &mut Redaction<'_>) -> Finding {
    let what = redaction.text(&finding.what);
    Finding { what, fix: finding.fix.map(|fix| redaction.text(&fix)), ..finding }
}

fn system() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let release = read("/etc/os-release");
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("unknown system");
    let kernel = read("/proc/sys/kernel/osrelease");
    format!(
        "{}, {} {}, {}",
        name.trim_matches('"'),
        std::env::consts::OS,
        kernel.trim(),
        std::env::consts::ARCH
    )
}
