//! `lanrage mods`: the same mods for everybody. Runs with the rights of who types it; the daemon only tells who is there.

use super::arguments::Mods;
use super::client::Client;
use super::failure::Failure;
use super::screen::{Screen, Style};
use super::table::{Cell, Table, size};
use crate::mods::{FetchError, Folder, Presence, Source, is_program, serve, shares};
use crate::shutdown;
use lanrage_common::api::{MemberStatus, PartyStatus, RefusedShare, Status};
use lanrage_common::members;
use lanrage_common::mods::{Manifest, ModFile, PORT};
use lanrage_common::protocol::MAX_NAME;
use serde_json::json;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tokio::net::TcpListener;

/// Names in a list before it is cut.
const SHOWN: usize = 20;

pub(super) async fn run(
    client: &Client,
    screen: &mut Screen<'_>,
    command: Mods,
    json: bool,
) -> Result<u8, Failure> {
    let status = client.get::<Status>("/api/v1/status").await?.value;
    let party = status.party.ok_or_else(|| {
        Failure::Local(
            "this device is in no party".into(),
            "join one by its invite link: lanrage join LINK".into(),
        )
    })?;
    match command {
        Mods::Share { dir, name } => share(screen, &party, &dir, name, json).await,
        Mods::List => list(screen, &party, json).await,
        Mods::Check { member, dir } => compare(screen, &party, &member, &dir, json).await,
        Mods::Get { member, dir, replace } => get(screen, &party, &member, (&dir, replace), json).await,
    }
}

async fn share(
    screen: &mut Screen<'_>,
    party: &PartyStatus,
    dir: &Path,
    name: Option<String>,
    json: bool,
) -> Result<u8, Failure> {
    let name = name.unwrap_or_else(|| name_of(dir));
    let own = SocketAddr::from((party.address, PORT));
    let listener = TcpListener::bind(own).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => Failure::Local(
            "this machine shares mods already".into(),
            "end the other `lanrage mods share` first: one folder at a time".into(),
        ),
        _ => Failure::Local(
            format!("cannot listen on {own}: {error}"),
            "is the tunnel up? `lanrage up` takes it up".into(),
        ),
    })?;
    let folder = Folder::open(dir).map_err(|error| unreadable(dir, &error))?;
    let survey = folder.survey().map_err(|error| unreadable(dir, &error))?;
    let manifest = Manifest::new(name, survey.files).map_err(|bad| {
        Failure::Local(
            format!("{} cannot be shared: {bad}", dir.display()),
            "mend that, or share a folder inside it; --name gives it another name".into(),
        )
    })?;
    if json {
        screen.line(json!({
            "name": manifest.name, "id": manifest.id(), "files": manifest.files.len(), "bytes": manifest.total(),
            "left_out": survey.left_out.iter().map(|(path, why)| json!({ "path": path, "why": why }))
                .collect::<Vec<_>>(),
        }));
    } else {
        for (path, why) in &survey.left_out {
            let mark = screen.paint(Style::Warn, "left out:");
            screen.line(format!("{mark} {}: {why}", printable(path)));
        }
        screen.line(format!("Sharing {} with {:?}. Ctrl-C ends it.", describe(&manifest), party.name));
        let me = party.members.iter().find(|member| member.is_self).map_or("YOU", |me| &me.name);
        screen.line(format!("Friends take it with: lanrage mods get {me:?} FOLDER"));
    }
    let (trigger, shutdown) = shutdown::channel();
    let serving = serve(listener, party.subnet, (folder, &manifest), shutdown);
    tokio::pin!(serving);
    tokio::select! {
        served = &mut serving => served.map_err(|error| Failure::Broken(error.to_string()))?,
        _ = tokio::signal::ctrl_c() => trigger.request(),
    }
    Ok(0)
}

async fn list(screen: &mut Screen<'_>, party: &PartyStatus, json: bool) -> Result<u8, Failure> {
    let found = shares(party).await;
    if json {
        screen.line(json!(found));
        return Ok(0);
    }
    for RefusedShare { member, why } in &found.refused {
        let mark = screen.paint(Style::Bad, "!");
        screen.line(format!("{mark} {}", printable(&format!("{member} {why}"))));
    }
    if found.shares.is_empty() {
        screen.line("Nobody shares mods. `lanrage mods share FOLDER` does.");
        return Ok(0);
    }
    let mut table = Table::new(["MEMBER", "NAME", "FILES", "PROGRAMS", "SIZE", "ID"]);
    for share in &found.shares {
        table.row([
            share.member.as_str().into(),
            share.name.as_str().into(),
            share.files.to_string().into(),
            programs(share.programs),
            size(share.bytes).into(),
            share.id[..12].into(),
        ]);
    }
    table.print(screen);
    Ok(0)
}

/// What can do more than be played with.
fn programs(count: u64) -> Cell {
    if count == 0 { Cell::new("-", Style::Dim) } else { Cell::new(count.to_string(), Style::Warn) }
}

/// What a folder has of a member's mods.
struct Comparison {
    manifest: Manifest,
    same: usize,
    missing: Vec<ModFile>,
    different: Vec<ModFile>,
}

impl Comparison {
    fn new(manifest: Manifest, folder: &Folder, dir: &Path) -> Result<Self, Failure> {
        let (mut same, mut missing, mut different) = (0, Vec::new(), Vec::new());
        for file in &manifest.files {
            match folder.presence(file).map_err(|error| unreadable(&dir.join(&file.path), &error))? {
                Presence::Same => same += 1,
                Presence::Missing => missing.push(file.clone()),
                Presence::Different => different.push(file.clone()),
            }
        }
        Ok(Self { manifest, same, missing, different })
    }

    fn to_json(&self, fetched: &[ModFile]) -> serde_json::Value {
        let paths = |files: &[ModFile]| files.iter().map(|file| file.path.clone()).collect::<Vec<_>>();
        json!({
            "name": self.manifest.name, "id": self.manifest.id(), "files": self.manifest.files.len(),
            "same": self.same, "missing": paths(&self.missing), "different": paths(&self.different),
            "fetched": paths(fetched),
        })
    }

    fn print(&self, screen: &mut Screen<'_>) {
        screen.line(format!("{}: {} are here already.", describe(&self.manifest), self.same));
        for (word, files) in [("missing", &self.missing), ("different", &self.different)] {
            let word = screen.paint(Style::Warn, word);
            for file in files.iter().take(SHOWN) {
                screen.line(format!("{word} {} ({})", printable(&file.path), size(file.size)));
            }
            if files.len() > SHOWN {
                screen.line(format!("{word} and {} more", files.len() - SHOWN));
            }
        }
    }
}

async fn compare(
    screen: &mut Screen<'_>,
    party: &PartyStatus,
    member: &str,
    dir: &Path,
    json: bool,
) -> Result<u8, Failure> {
    let (_, manifest) = offered_by(party, member).await?;
    let folder = Folder::open(dir).map_err(|error| unreadable(dir, &error))?;
    let comparison = Comparison::new(manifest, &folder, dir)?;
    let is_same = comparison.missing.is_empty() && comparison.different.is_empty();
    match json {
        true => screen.line(comparison.to_json(&[])),
        false => {
            comparison.print(screen);
            screen.line(if is_same {
                "The same."
            } else {
                "Not the same: `lanrage mods get` brings what lacks."
            });
        }
    }
    Ok(u8::from(!is_same))
}

async fn get(
    screen: &mut Screen<'_>,
    party: &PartyStatus,
    member: &str,
    (dir, replace): (&Path, bool),
    json: bool,
) -> Result<u8, Failure> {
    let (source, manifest) = offered_by(party, member).await?;
    let folder = Folder::create(dir).map_err(|error| unreadable(dir, &error))?;
    let comparison = Comparison::new(manifest, &folder, dir)?;
    if !json {
        comparison.print(screen);
    }
    let mut wanted = comparison.missing.clone();
    if replace {
        wanted.extend(comparison.different.iter().cloned());
    }
    fetch_all(screen, member, (&source, &folder), &wanted, json).await?;
    let kept = if replace { 0 } else { comparison.different.len() };
    if json {
        screen.line(comparison.to_json(&wanted));
    } else if kept > 0 {
        screen.line(format!("{kept} files that differ were kept; --replace takes {member}'s instead."));
    } else {
        screen.line(format!("{} has the same files as {member}'s.", dir.display()));
    }
    Ok(u8::from(kept > 0))
}

async fn fetch_all(
    screen: &mut Screen<'_>,
    member: &str,
    (source, folder): (&Source, &Folder),
    wanted: &[ModFile],
    json: bool,
) -> Result<(), Failure> {
    let programs = wanted.iter().filter(|file| is_program(&file.path)).count();
    if programs > 0 && !json {
        let mark = screen.paint(Style::Warn, "careful:");
        screen.line(format!("{mark} {programs} of them are programs; they can do what you can do."));
    }
    let total: u64 = wanted.iter().map(|file| file.size).sum();
    let share = |done: u64| (done * 100).checked_div(total).unwrap_or(100);
    let mut done = 0;
    for file in wanted {
        let path = printable(&file.path);
        let tell = |bytes| {
            let before = share(done);
            done += bytes;
            if share(done) > before {
                screen.progress(&format!("{:>3} % of {}: {path}", share(done), size(total)));
            }
        };
        let fetched = source.fetch(file, folder, tell).await;
        screen.end_progress();
        fetched.map_err(|error| failed(member, &error))?;
        if !json {
            screen.line(format!("{:>3} % {path}", share(done)));
        }
    }
    folder.finish().map_err(|error| {
        Failure::Local(format!("cannot tidy up: {error}"), "delete .lanrage-partial in the folder".into())
    })
}

async fn offered_by(party: &PartyStatus, wanted: &str) -> Result<(Source, Manifest), Failure> {
    let member = members::resolve(others(party), wanted.trim()).map_err(Failure::Refused)?;
    manifest_of(member).await.map_err(|error| failed(&member.name, &error))
}

async fn manifest_of(member: &MemberStatus) -> Result<(Source, Manifest), FetchError> {
    let source = Source::new((member.address, PORT).into())?;
    let manifest = source.manifest().await?;
    Ok((source, manifest))
}

fn others(party: &PartyStatus) -> impl Iterator<Item = &MemberStatus> {
    party.members.iter().filter(|member| !member.is_self)
}

fn failed(member: &str, error: &FetchError) -> Failure {
    let cure = match error {
        FetchError::SharesNothing => "they share with: lanrage mods share FOLDER".to_owned(),
        FetchError::Unreachable(_) => {
            format!("lanrage ping {member:?} tells more; what has come so far is kept")
        }
        FetchError::BadManifest(_) | FetchError::Altered(_) => "do not take mods from there".to_owned(),
        FetchError::Refused(..) => {
            "try again when they share it anew; what has come so far is kept".to_owned()
        }
        FetchError::Storing(..) => "look at the folder's rights and at the room on its disk".to_owned(),
    };
    Failure::Local(format!("{member} {error}"), cure)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Local(format!("{}: {error}", path.display()), "name a folder that you may read".into())
}

fn describe(manifest: &Manifest) -> String {
    let Manifest { name, files, .. } = manifest;
    format!(
        "{name:?} ({} files, {}, id {})",
        files.len(),
        size(manifest.total()),
        &manifest.id().to_string()[..12]
    )
}

fn name_of(dir: &Path) -> String {
    let full: PathBuf = dir.canonicalize().unwrap_or_else(|_| dir.into());
    let name = full.file_name().unwrap_or(full.as_os_str()).to_string_lossy().into_owned();
    name.chars().take(MAX_NAME).collect::<String>().trim().to_owned()
}

/// Paths come from other people.
fn printable(path: &str) -> String {
    path.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_gives_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let mods = dir.path().join("baseoa mods");
        std::fs::create_dir(&mods).unwrap();
        assert_eq!(name_of(&mods.join(".")), "baseoa mods");
    }
}
