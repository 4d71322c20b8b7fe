//! Who shares mods.

use super::fetch::{FetchError, Source};
use futures_util::{StreamExt as _, stream};
use lanrage_common::api::{MemberStatus, ModShare, ModsAnswer, PartyStatus, RefusedShare};
use lanrage_common::mods::{Manifest, PORT};

/// Members asked at once: a list of files may have 16 MiB.
const ASKED_AT_ONCE: usize = 8;
/// What may be a program: mods run on the machine of who takes them.
const PROGRAMS: [&str; 12] =
    ["exe", "dll", "so", "dylib", "bat", "cmd", "ps1", "sh", "jar", "py", "msi", "scr"];

/// Asks every other member that is there.
pub(crate) async fn shares(party: &PartyStatus) -> ModsAnswer {
    let others = party.members.iter().filter(|member| !member.is_self && member.online).cloned();
    let asked: Vec<_> = others.map(ask).collect();
    let mut answers = stream::iter(asked).buffered(ASKED_AT_ONCE);
    let mut all = ModsAnswer::default();
    while let Some((member, answer)) = answers.next().await {
        match answer {
            Ok(share) => all.shares.push(share),
            Err(error @ FetchError::BadManifest(_)) => {
                all.refused.push(RefusedShare { member, why: error.to_string() });
            }
            Err(_) => {}
        }
    }
    all
}

async fn ask(member: MemberStatus) -> (String, Result<ModShare, FetchError>) {
    let answer =
        async { Ok(summary(&member, &Source::new((member.address, PORT).into())?.manifest().await?)) };
    let answer = answer.await;
    (member.name, answer)
}

fn summary(member: &MemberStatus, manifest: &Manifest) -> ModShare {
    let programs = manifest.files.iter().filter(|file| is_program(&file.path)).count();
    ModShare {
        member: member.name.clone(),
        address: member.address,
        name: manifest.name.clone(),
        id: manifest.id().to_string(),
        files: manifest.files.len() as u64,
        bytes: manifest.total(),
        programs: programs as u64,
    }
}

/// Whether a file may be a program, by its name.
pub(crate) fn is_program(path: &str) -> bool {
    path.rsplit_once('.').is_some_and(|(_, ending)| PROGRAMS.contains(&ending.to_lowercase().as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_known() {
        assert!(is_program("bin/Mod.DLL") && is_program("x.sh"));
        assert!(!is_program("maps/q3dm17.pk3") && !is_program("dll"));
    }
}
