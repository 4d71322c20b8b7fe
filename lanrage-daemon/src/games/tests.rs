//! Profiles: those that are built in, those of users, and what is refused.

use super::*;
use lanrage_common::firewall::{Port, Transport, service};
use lanrage_common::servers::Beacon;

const GOOD: &str = r#"
name = "My game"
support = "lan-list"
source = "a capture of my own"
evidence = "write-up"
ports = ["udp/7777", "tcp/7000-7010"]

[discovery]
classes = ["A", "H"]
sender = "client"
to = ["broadcast"]
ports = ["7777-7779"]
payload = '\xff\\?'
reply = "unicast"
"#;

#[test]
fn every_built_in_profile_is_good() {
    let games = Games::built_in();
    assert_eq!(games.unusable, []);
    assert!(games.games.len() > 50, "{}", games.games.len());
    let quake = games.games["quake-3"].discovery.as_ref().unwrap();
    assert_eq!(quake.port_list(), [27960, 27961, 27962, 27963]);
    assert_eq!(quake.payload.as_ref().unwrap().0, b"\xff\xff\xff\xffgetinfo xxx");
}

#[test]
fn a_game_on_the_port_of_a_service_says_how_its_host_opens_it() {
    let mut found = 0;
    for (id, game) in &Games::built_in().games {
        for ports in game
            .ports
            .iter()
            .filter(|_| game.support == Support::LanList || game.support == Support::DirectIp)
        {
            let transport = match ports.protocol {
                Protocol::Udp => Transport::Udp,
                Protocol::Tcp => Transport::Tcp,
            };
            if service(Port { transport, number: *ports.ports.0.start() }).is_some() && game.service.is_none()
            {
                found += 1;
                let word = format!("`lanrage firewall allow {ports}`");
                assert!(game.note.as_ref().is_some_and(|note| note.contains(&word)), "{id}: {word}");
            }
        }
    }
    assert!(found > 0, "there is one at least");
}

#[test]
fn profiles_survive_being_written_and_read() {
    for (id, profile) in Games::built_in().games {
        let text = toml::to_string(&profile).unwrap();
        assert_eq!(parse(&id, &text).as_ref(), Ok(&profile), "{text}");
    }
}

#[test]
fn games_are_known_by_the_port_where_they_search() {
    let games = Games::built_in();
    let at = |port| games.at_port(port).collect::<Vec<_>>();
    assert!(at(6112).contains(&"Warcraft III") && at(6112).len() > 1, "{:?}", at(6112));
    assert_eq!(at(1), Vec::<&str>::new());
}

#[test]
fn a_port_where_servers_are_asked_belongs_to_one_game() {
    let queries = Games::built_in().queries();
    assert_eq!(queries[&(27960, false)], ("quake-3".into(), Query::Quake3));
    assert_eq!(queries[&(25565, true)], ("minecraft-java".into(), Query::MinecraftJava));
    assert!(queries.len() < 64, "{}", queries.len());
    let asked = |ports: &str| format!("{GOOD}[query]\nprotocol = \"source\"\nports = [{ports}]\n");
    assert!(parse("mine", &asked("\"7777\"")).is_ok());
    for wrong in ["", "\"1-65\"", "\"1-65535\", \"1-65535\""] {
        assert!(parse("mine", &asked(wrong)).unwrap_err().contains("[query]"), "{wrong}");
    }
}

#[test]
fn a_program_is_of_one_game() {
    let mut seen = std::collections::BTreeMap::new();
    for (id, profile) in Games::built_in().games {
        let Some(ProcessNames { linux, windows, arguments, .. }) = profile.processes else { continue };
        let windows = windows.iter().map(|name| name.to_lowercase());
        for name in linux.into_iter().chain(windows).chain(arguments) {
            let other = seen.insert(name.clone(), id.clone());
            assert!(other.is_none_or(|other| other == id), "{name} of {id}");
        }
    }
    assert!(seen.len() > 100, "{}", seen.len());
}

#[test]
fn announcements_are_known_by_their_ports() {
    let beacons = Games::built_in().beacons();
    let formats = |port: u16| beacons[&port].iter().map(|known| known.format).collect::<Vec<_>>();
    assert_eq!(formats(4445), [Beacon::MinecraftJava]);
    assert_eq!(formats(6112), [Beacon::DawnOfWar, Beacon::Warcraft3]);
    assert_eq!(formats(4556), [Beacon::Freeciv], "where servers answer");
    assert!(beacons[&4445][0].is_tcp && !beacons[&34196][0].is_tcp && beacons[&34196][0].port == 34197);
    let heard = |ports: &str| format!("{GOOD}[beacon]\nformat = \"factorio\"\nports = [{ports}]\n");
    assert!(parse("mine", &heard("\"7777\"")).is_ok());
    assert!(parse("mine", &heard("")).unwrap_err().contains("[beacon]"));
    let nowhere = heard("\"7777\"").replace("ports = [\"udp/7777\", \"tcp/7000-7010\"]", "");
    assert!(parse("mine", &nowhere).unwrap_err().contains("[beacon] needs `ports`"));
}

#[test]
fn a_users_profile_replaces_the_built_in_one_and_a_broken_one_is_named() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("quake-3.toml"), GOOD).unwrap();
    std::fs::write(dir.path().join("mine.toml"), GOOD).unwrap();
    std::fs::write(dir.path().join("broken.toml"), "name = 1").unwrap();
    std::fs::write(dir.path().join("notes.txt"), "no profile").unwrap();
    let games = Games::with_directory(dir.path());
    assert_eq!(games.games["quake-3"].name, "My game");
    assert_eq!(games.games["mine"].discovery.as_ref().unwrap().payload.as_ref().unwrap().0, b"\xff\\?");
    assert_eq!(games.games.len(), Games::built_in().games.len() + 1);
    let [unusable] = &games.unusable[..] else { panic!("{:?}", games.unusable) };
    assert!(unusable.file.ends_with("broken.toml"), "{unusable}");
    assert_eq!(Games::with_directory(Path::new("/nowhere")), Games::built_in());
}

#[test]
fn every_title_of_the_first_lanrage_has_an_answer() {
    let (games, mut answers) = (Games::built_in().games, std::collections::BTreeMap::<_, usize>::new());
    for title in include_str!("first_lanrage.txt").lines() {
        let meant = |fits: fn(&str, &str) -> bool| {
            games.values().find(|game| game.titles.iter().chain([&game.name]).any(|name| fits(name, title)))
        };
        let exact = meant(|name, title| name == title);
        let support = exact.or_else(|| meant(|name, title| name.contains(title))).expect(title).support;
        *answers.entry(support).or_default() += 1;
    }
    assert_eq!(answers.values().sum::<usize>(), 135);
    let documented = include_str!("../../../docs/games.md");
    for (support, count) in answers {
        let row = format!("| `{}` | {count} |", support.word());
        assert!(documented.contains(&row), "docs/games.md lacks {row}");
    }
}

#[test]
fn a_complaint_names_the_line() {
    for (from, to, complaint) in [
        ("evidence =", "proof =", "line 5, column 1: unknown field `proof`"),
        ("support = \"lan-list\"", "support = \"direct-ip\"", "line 3: only support"),
        ("\"7777-7779\"", "\"1-300\"", "line 12: `ports` are more"),
        ("\"7777-7779\"", "\"0\"", "line 12, column 9: \"0\" is neither"),
        ("sender = \"client\"", "sender = \"host\"", "line 10: class A has"),
        ("payload", "ttl = 0\npayload", "line 13: `ttl` is 0"),
        ("[discovery]", "[processes]\nsource = \"x\"\n[discovery]", "line 8: `processes` names no"),
        ("name = \"My game\"", "name = \"My game", "line 2, column "),
    ] {
        let error = parse("mine", &GOOD.replace(from, to)).unwrap_err();
        assert!(error.starts_with(complaint), "{to}: {error}");
    }
}

#[test]
fn what_makes_no_sense_is_refused_with_the_key_to_blame() {
    parse("mine", GOOD).unwrap();
    for (from, to, complaint) in [
        ("support = \"lan-list\"", "support = \"direct-ip\"", "[discovery]"),
        ("evidence =", "proof =", "proof"),
        ("\"broadcast\"", "\"10.0.0.1\"", "multicast group"),
        ("\"broadcast\"", "\"239.1.2.3\"", "class D"),
        ("\"7777-7779\"", "\"7779-7777\"", "two ports"),
        ("\"7777-7779\"", "\"1-300\"", "256"),
        ("\"7777-7779\"", "\"0\"", "neither a port"),
        (r"\xff\\?", r"\xf", "backslash"),
        (r"\xff\\?", r"\n", "backslash"),
        ("\"udp/7777\"", "\"7777\"", "udp/ or tcp/"),
        ("[\"A\", \"H\"]", "[\"A\", \"C\"]", "class C"),
        ("sender = \"client\"", "sender = \"host\"", "class A"),
        ("reply = \"unicast\"", "reply = \"tcp\"", "reply_port"),
        ("name = \"My game\"", "name = \" \"", "`name`"),
    ] {
        let text = GOOD.replace(from, to);
        assert_ne!(text, GOOD, "{from}");
        let error = parse("mine", &text).expect_err(to);
        assert!(error.contains(complaint), "{to}: {error}");
    }
    for id in ["", "Mine", "../mine", "a b", &"x".repeat(41)] {
        assert!(parse(id, GOOD).is_err(), "{id:?}");
    }
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in ".{0,200}") {
        let _ = parse("mine", &text);
        let _ = Payload::try_from(text.clone());
        let _ = GamePorts::try_from(text.clone());
        let _ = Target::try_from(text);
    }
}
