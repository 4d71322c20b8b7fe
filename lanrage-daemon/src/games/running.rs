//! Which of the known games run on this machine, by the names of their programs; never by ports, which games share.

use super::{Games, INTERPRETERS, Profile};
use crate::platform::processes::{Change, Processes, Program};
use std::collections::{BTreeSet, HashMap};
use std::thread;
use tokio::sync::watch;

/// What runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Running {
    /// Ids of their profiles.
    pub games: BTreeSet<String>,
    /// Why programs are only looked at every two seconds; none when the system tells of them.
    pub polled: Option<String>,
}

/// Programs' names, and what they are of.
#[derive(Debug, Default)]
struct Index {
    /// As the system writes them.
    native: HashMap<String, String>,
    /// Windows' programs, also where Wine runs them, in lower case.
    windows: HashMap<String, String>,
    arguments: HashMap<String, String>,
}

impl Index {
    fn new(games: &Games) -> Self {
        let mut index = Self::default();
        for (id, Profile { processes, .. }) in &games.games {
            let Some(processes) = processes else { continue };
            let native = if cfg!(target_os = "macos") { &processes.macos } else { &processes.linux };
            index.native.extend(native.iter().map(|name| (name.clone(), id.clone())));
            index.windows.extend(processes.windows.iter().map(|name| (name.to_lowercase(), id.clone())));
            index.arguments.extend(processes.arguments.iter().map(|text| (text.clone(), id.clone())));
        }
        index
    }

    fn recognise(&self, program: &Program) -> Option<&str> {
        let named = |name: &String| self.native.get(name).or_else(|| self.windows.get(&name.to_lowercase()));
        let found = program.names.iter().find_map(named);
        found.or_else(|| self.interpreted(program)).map(String::as_str)
    }

    fn interpreted(&self, program: &Program) -> Option<&String> {
        let is_interpreter = |name: &String| INTERPRETERS.contains(&name.to_lowercase().as_str());
        program.names.iter().any(is_interpreter).then_some(())?;
        program.arguments.iter().skip(1).find_map(|text| self.arguments.get(text))
    }
}

/// Watches from now on, in a thread that ends when nobody looks any more.
pub fn watch(games: &Games) -> watch::Receiver<Running> {
    let index = Index::new(games);
    let (sender, receiver) = watch::channel(Running::default());
    let work = move || follow(&index, &sender);
    if let Err(error) = thread::Builder::new().name("games".into()).spawn(work) {
        tracing::warn!(%error, "cannot watch which games run: there are too many threads on this machine");
    }
    receiver
}

fn follow(index: &Index, sender: &watch::Sender<Running>) {
    let (mut processes, polled) = Processes::open();
    if let Some(reason) = &polled {
        tracing::debug!(reason, "programs are looked at every two seconds");
    }
    let find_all = |processes: &Processes| -> HashMap<u32, String> {
        let found =
            processes.all().filter_map(|(pid, program)| Some((pid, index.recognise(&program)?.to_owned())));
        found.collect()
    };
    let mut found = find_all(&processes);
    while !sender.is_closed() {
        let games = found.values().cloned().collect();
        sender.send_if_modified(|running| {
            let fresh = Running { games, polled: polled.clone() };
            let is_changed = *running != fresh;
            *running = fresh;
            is_changed
        });
        match processes.wait() {
            None => {}
            Some(Change::All) => found = find_all(&processes),
            Some(Change::Ended(pid)) => drop(found.remove(&pid)),
            Some(Change::Looks(pid)) => {
                let program = processes.program(pid);
                match program.as_ref().and_then(|program| index.recognise(program)) {
                    Some(id) => drop(found.insert(pid, id.to_owned())),
                    None => drop(found.remove(&pid)),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    const MINE: &str = "name = \"Mine\"\nsupport = \"direct-ip\"\nsource = \"own\"\nevidence = \"write-up\"\nports = [\"udp/7777\"]\n\
        [processes]\nlinux = [\"mine\"]\nwindows = [\"Mine Game.exe\"]\narguments = [\"org.mine.Main\"]\nsource = \"own\"\n";

    fn program(names: &[&str], arguments: &[&str]) -> Program {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Program { names: owned(names), arguments: owned(arguments) }
    }

    #[test]
    fn games_are_known_by_the_names_of_their_programs() {
        let games =
            Games { games: [("mine".to_owned(), parse("mine", MINE).unwrap())].into(), ..Games::default() };
        let index = Index::new(&games);
        for (names, arguments, is_mine) in [
            (&["mine"][..], &["mine"][..], true),
            (&["MINE"], &["MINE"], false),
            (&["wine64-preloader", "MINE GAME.EXE"], &["Z:\\MINE GAME.EXE"], true),
            (&["java"], &["java", "-cp", "x", "org.mine.Main"], true),
            (&["java"], &["java", "org.mine.Main2"], false),
            (&["grep"], &["grep", "org.mine.Main"], false),
            (&["nano"], &["nano", "mine"], false),
        ] {
            let found = index.recognise(&program(names, arguments));
            assert_eq!(found, is_mine.then_some("mine"), "{names:?} {arguments:?}");
        }
    }

    #[test]
    fn a_game_that_starts_is_seen_and_seen_to_end() {
        let directory = tempfile::tempdir().unwrap();
        let binary = directory.path().join("mine");
        std::fs::copy("/bin/sleep", &binary).unwrap();
        let games =
            Games { games: [("mine".to_owned(), parse("mine", MINE).unwrap())].into(), ..Games::default() };
        let receiver = watch(&games);
        let is = |expected: bool| {
            let begun = std::time::Instant::now();
            while receiver.borrow().games.contains("mine") != expected {
                assert!(begun.elapsed().as_secs() < 40, "{:?}", receiver.borrow());
                thread::sleep(std::time::Duration::from_millis(20));
            }
        };
        let mut child = std::process::Command::new(&binary).arg("60").spawn().unwrap();
        is(true);
        child.kill().unwrap();
        child.wait().unwrap();
        is(false);
    }
}
