//! Unmodified games and programs of Debian find each other in a party, by their own means. Needs root, and what
//! `cargo xtask setup` installs.
#![allow(clippy::unwrap_used)]

mod support;

use lanrage_common::api::GameServer;
use lanrage_tests::lab::nat::NatKind::Eim;
use lanrage_tests::lab::netns::Namespace;
use lanrage_tests::lab::process::{tail, wait_until};
use lanrage_tests::lab::role::Role;
use lanrage_tests::lab::running::Options;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use support::TestLab;
use tempfile::TempDir;

/// Games load for seconds on a busy machine.
const PATIENCE: Duration = Duration::from_secs(45);

/// A program of a game, ended with the value.
struct Program {
    child: Child,
    log: PathBuf,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("── {}\n{}", self.log.display(), tail(&self.log, 15));
        }
    }
}

/// Where one member plays, and a directory for its games.
struct Player {
    place: Namespace,
    address: Ipv4Addr,
    home: TempDir,
}

impl Player {
    fn new(lab: &TestLab, n: u8) -> Self {
        let home = tempfile::tempdir().unwrap();
        // some games refuse to run as root
        fs::set_permissions(home.path(), PermissionsExt::from_mode(0o777)).unwrap();
        Self { place: lab.namespace(Role::Peer(n)), address: lab.overlay(n).unwrap(), home }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    /// A program of this player's.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).env("HOME", self.home.path()).current_dir(self.home.path());
        command
    }

    fn start(&self, name: &str, command: &mut Command) -> Program {
        let log = self.path(&format!("{name}.log"));
        let out = File::create(&log).unwrap();
        command.stdin(Stdio::piped()).stdout(out.try_clone().unwrap()).stderr(out);
        Program { child: self.place.spawn(command).unwrap(), log }
    }

    /// What a program prints until it ends, whatever it thinks of the outcome.
    fn ask(&self, command: &mut Command) -> String {
        let output = self.place.run(|| command.output()).unwrap().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

fn contains(file: &Path, text: &str) -> bool {
    fs::read(file).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(text))
}

#[test]
fn unmodified_games_find_each_other() {
    let options = Options { lane_services: vec!["mdns".into()], ..Options::new("real", &[Eim, Eim]) };
    let lab = TestLab::party_with(options);
    let [ana, ben] = [1, 2].map(|n| Player::new(&lab, n));
    // all load while the first are asked
    let world = announce_world(&lab, &ben);
    let [quake, _doom, _freeciv] = [quake_server(&ben), doom_server(&ben), freeciv_server(&ben)];
    let _avahi = avahi(&ana, &ben);
    let freeciv = FreecivClient::start(&ana);
    doom_is_found(&ana, &ben);
    quake_is_found(&ana, &ben);
    service_is_found(&ana, &ben);
    freeciv.joins_what_it_finds(&lab, &ana, &ben);
    server_is_listed_while_it_runs(&lab, quake);
    let is_forgotten = || [1, 2].iter().all(|n| announced(&lab, *n, "minecraft-java").is_none());
    assert!(wait_until(PATIENCE, is_forgotten), "{world}: {:?}", listed(&lab, 1));
}

/// A dedicated server of ioquake3 with one of OpenArena's maps.
fn quake_server(host: &Player) -> Program {
    let game = host.path("party");
    fs::create_dir(&game).unwrap();
    fs::write(game.join("default.cfg"), "// nothing\n").unwrap();
    symlink("/usr/share/games/openarena/baseoa/pak6-patch085.pk3", game.join("maps.pk3")).unwrap();
    for file in fs::read_dir("/usr/lib/ioquake3/baseq3").unwrap() {
        let file = file.unwrap();
        symlink(file.path(), game.join(file.file_name())).unwrap();
    }
    let (home, write) = (host.path(""), host.path("quake"));
    let (home, write) = (home.to_str().unwrap(), write.to_str().unwrap());
    let settings = [
        ["com_basegame", "party"],
        ["fs_basepath", home],
        ["fs_homepath", write],
        ["vm_game", "0"],
        ["bot_enable", "0"],
        ["dedicated", "1"],
        ["sv_hostname", "Ben"],
    ];
    let mut command = host.command(&["/usr/lib/ioquake3/ioq3ded"]);
    for [name, value] in settings {
        command.args(["+set", name, value]);
    }
    host.start("quake", command.args(["+map", "oa_minia"]))
}

/// `quakestat` asks everybody (+ in front of the address) and lists who answers.
fn quake_is_found(client: &Player, host: &Player) {
    let wanted = format!("Q3S,{}:27960,Ben,oa_minia,", host.address);
    let mut list = String::new();
    let is_listed = || {
        list = client.ask(&mut client.command(&["quakestat", "-raw", ",", "-q3s", "+255.255.255.255"]));
        list.contains(&wanted)
    };
    let found = wait_until(PATIENCE, is_listed);
    assert!(found, "{wanted} is not in\n{list}");
    assert_eq!(list.matches(&wanted).count(), 1, "{list}");
}

/// What `lanrage servers` tells at a peer.
fn listed(lab: &TestLab, n: u8) -> Vec<GameServer> {
    serde_json::from_str(&lab.lanrage_output(Role::Peer(n), &["servers", "--json"]).unwrap()).unwrap()
}

fn announced(lab: &TestLab, n: u8, game: &str) -> Option<GameServer> {
    listed(lab, n).into_iter().find(|server| server.game == game)
}

/// A world that was opened to LAN says so by itself, as often as the game does, and both lists have it.
fn announce_world(lab: &TestLab, host: &Player) -> SocketAddrV4 {
    let game = host.place.play(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))).unwrap().unwrap();
    let world = SocketAddrV4::new(host.address, 50_123);
    let is_listed = || {
        game.send_to(b"[MOTD]Ben - New World[/MOTD][AD]50123[/AD]", (Ipv4Addr::new(224, 0, 2, 60), 4445))
            .unwrap();
        let is_there = |n| announced(lab, n, "minecraft-java").is_some_and(|server| server.address == world);
        is_there(1) && is_there(2)
    };
    assert!(wait_until(PATIENCE, is_listed), "{:?}", listed(lab, 1));
    let [at_ana, at_ben] = [1, 2].map(|n| announced(lab, n, "minecraft-java").unwrap());
    assert_eq!(
        (at_ana.name.as_str(), at_ana.players, at_ana.protocol.as_str()),
        ("Ben - New World", None, "tcp")
    );
    assert_eq!(
        (at_ana.own, at_ben.own, at_ana.host.as_str()),
        (false, true, lab.member(1, 2).unwrap().name.as_str())
    );
    assert!(lab.lanrage_output(Role::Peer(1), &["servers"]).unwrap().contains(&world.to_string()));
    world
}

/// The server that Ben's machine has found is in both lists, and goes away with its program.
fn server_is_listed_while_it_runs(lab: &TestLab, server: Program) {
    let has_rtt = || listed(lab, 1).iter().any(|it| it.game == "quake-3" && it.rtt_ms.is_some());
    assert!(wait_until(PATIENCE, has_rtt), "{:?}", listed(lab, 1));
    let [at_ana, at_ben] =
        [1, 2].map(|n| listed(lab, n).into_iter().find(|it| it.game == "quake-3").unwrap());
    for (it, own) in [(&at_ana, false), (&at_ben, true)] {
        assert_eq!((it.name.as_str(), it.map.as_deref()), ("Ben", Some("oa_minia")), "{it:?}");
        assert_eq!(
            (it.players, it.max_players, it.own, it.password),
            (Some(0), Some(8), own, false),
            "{it:?}"
        );
        assert_eq!(it.address.to_string(), format!("{}:27960", lab.overlay(2).unwrap()));
    }
    assert!(at_ana.rtt_ms.is_some_and(|rtt| rtt > 0.0) && at_ben.rtt_ms.is_none(), "{at_ana:?} {at_ben:?}");
    let table = lab.lanrage_output(Role::Peer(1), &["servers"]).unwrap();
    assert!(table.contains("oa_minia  0 of 8"), "{table}");
    drop(server);
    let is_gone = || [1, 2].iter().all(|n| listed(lab, *n).iter().all(|it| it.game != "quake-3"));
    assert!(wait_until(PATIENCE, is_gone), "{:?}", listed(lab, 1));
}

fn doom_server(host: &Player) -> Program {
    // not announced to the internet
    host.start("doom", &mut host.command(&["/usr/games/chocolate-server", "-privateserver"]))
}

/// The game's own LAN search. It finds the server of its own program by the source of the answer.
fn doom_is_found(client: &Player, host: &Player) {
    let mut list = String::new();
    let is_listed = || {
        list = client.ask(&mut client.command(&["/usr/games/chocolate-doom", "-localsearch"]));
        list.contains(&format!(" {} ", host.address))
    };
    let found = wait_until(PATIENCE, is_listed);
    assert!(found && list.contains("1 server(s) found."), "{list}");
}

/// Who plays is a person: the first account that Debian gives to one.
const PERSON: [&str; 6] = ["setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups"];

fn freeciv_server(host: &Player) -> Program {
    let address = host.address.to_string();
    let words = [&PERSON[..], &["/usr/games/freeciv-server", "--identity", &address]].concat();
    host.start("freeciv", &mut host.command(&words))
}

/// The graphical client, on an X server without a screen.
struct FreecivClient {
    display: String,
    _programs: [Program; 2],
}

impl FreecivClient {
    fn start(player: &Player) -> Self {
        let words = ["Xvfb", "-displayfd", "1", "-screen", "0", "1024x768x24", "-nolisten", "tcp"];
        let screen = player.start("xvfb", &mut player.command(&words));
        let number = || fs::read_to_string(&screen.log).unwrap();
        let is_number = |line: &&str| line.parse::<u16>().is_ok();
        assert!(wait_until(PATIENCE, || number().lines().any(|line| is_number(&line))), "{}", number());
        let display = format!(":{}", number().lines().find(is_number).unwrap());
        let words = [&PERSON[..], &["/usr/games/freeciv-gtk3.22"]].concat();
        let mut client = player.command(&words);
        client.env("DISPLAY", &display).env("GDK_BACKEND", "x11");
        let client = player.start("freeciv-client", &mut client);
        Self { display, _programs: [client, screen] }
    }

    /// Opens the list of servers on the LAN, takes its first row, and joins.
    /// What the server announces to it is in the party's list too.
    fn joins_what_it_finds(&self, lab: &TestLab, client: &Player, host: &Player) {
        let mut window = String::new();
        let is_open = || {
            window = self.xdotool(client, &["search", "--name", "Freeciv"]);
            !window.is_empty()
        };
        assert!(wait_until(PATIENCE, is_open), "the client has no window");
        let window = window.lines().last().unwrap().to_owned();
        let joined = format!("has connected from {}", client.address);
        let log = host.path("freeciv.log");
        let mut server = None;
        // the window has no manager: it is at its place and has its size when its first page is drawn
        let is_joined = || {
            self.join(client, &window);
            server = server.take().or_else(|| announced(lab, 1, "freeciv"));
            wait_until(Duration::from_secs(3), || contains(&log, &joined))
        };
        assert!(wait_until(PATIENCE, is_joined), "the client has not joined:\n{}", tail(&log, 15));
        assert_eq!(server.map(|it| it.address), Some(SocketAddrV4::new(host.address, 5556)));
    }

    fn join(&self, client: &Player, window: &str) {
        let geometry = self.xdotool(client, &["getwindowgeometry", "--shell", window]);
        let number = |key: &str| {
            let line = geometry.lines().find_map(|line| line.strip_prefix(key));
            line.and_then(|value| value.parse::<i32>().ok()).unwrap_or_default()
        };
        let (left, top) = (number("X="), number("Y="));
        let (right, bottom) = (left + number("WIDTH="), top + number("HEIGHT="));
        self.xdotool(client, &["windowfocus", window, "key", "--window", window, "alt+o"]);
        // the button that searches again, the first row, and the button that joins
        for (x, y, pause) in
            [(left + 52, bottom - 50, 2.0), (left + 162, top + 83, 0.5), (right - 54, bottom - 50, 0.1)]
        {
            let (x, y, pause) = (x.to_string(), y.to_string(), pause.to_string());
            self.xdotool(client, &["mousemove", &x, &y, "click", "1", "sleep", &pause]);
        }
    }

    fn xdotool(&self, client: &Player, words: &[&str]) -> String {
        client.ask(client.command(&[&["xdotool"], words].concat()).env("DISPLAY", &self.display))
    }
}

const SERVICE: &str = "<?xml version=\"1.0\" standalone='no'?>
<!DOCTYPE service-group SYSTEM \"avahi-service.dtd\">
<service-group>
  <name>Ben plays</name>
  <service><type>_quake3._udp</type><port>27960</port></service>
</service-group>
";

/// Both have a message bus of their own and an avahi; one announces a service.
fn avahi(client: &Player, host: &Player) -> Vec<Program> {
    host.write("game.service", SERVICE);
    [client, host].into_iter().flat_map(|player| [bus(player), avahi_daemon(player)]).collect()
}

fn bus(player: &Player) -> Program {
    let config = player.write(
        "bus.conf",
        &format!(
            "<busconfig><type>system</type><listen>{}</listen><auth>EXTERNAL</auth><policy context=\"default\">\
             <allow user=\"*\"/><allow own=\"*\"/><allow send_destination=\"*\"/><allow receive_sender=\"*\"/>\
             </policy></busconfig>",
            bus_address(player)
        ),
    );
    let config = format!("--config-file={}", config.display());
    let bus = player.start("bus", &mut player.command(&["dbus-daemon", &config, "--nofork"]));
    assert!(wait_until(PATIENCE, || player.path("bus").exists()), "no message bus");
    bus
}

fn bus_address(player: &Player) -> String {
    format!("unix:path={}", player.path("bus").display())
}

/// In a mount namespace of its own: two of them would share a directory for their sockets, and the host's services.
fn avahi_daemon(player: &Player) -> Program {
    let name = player.address.to_string().replace('.', "-");
    player.write(
        "avahi.conf",
        &format!(
            "[server]\nallow-interfaces=lanrage0\nhost-name=at-{name}\nuse-ipv6=no\nallow-point-to-point=yes\n[wide-area]\nenable-wide-area=no\n"
        ),
    );
    let script = "mkdir -p /run/avahi-daemon /etc/avahi/services && mount -t tmpfs run /run/avahi-daemon && \
                  mount -t tmpfs services /etc/avahi/services && \
                  { cp game.service /etc/avahi/services || true; } && PATH=$PATH:/usr/sbin && \
                  exec avahi-daemon --no-drop-root --no-chroot --no-rlimits -f avahi.conf";
    let mut command = player.command(&["unshare", "--mount", "sh", "-c", script]);
    player.start("avahi", command.env("DBUS_SYSTEM_BUS_ADDRESS", bus_address(player)))
}

/// mDNS crosses because both have it in `peer.lane_services`.
fn service_is_found(client: &Player, host: &Player) {
    let wanted =
        [";lanrage0;IPv4;Ben\\032plays;_quake3._udp;".to_owned(), format!(";{};27960;", host.address)];
    let mut list = String::new();
    let is_listed = || {
        let mut browse = client.command(&["avahi-browse", "-prt", "_quake3._udp"]);
        list = client.ask(browse.env("DBUS_SYSTEM_BUS_ADDRESS", bus_address(client)));
        list.lines().any(|line| wanted.iter().all(|part| line.contains(part)))
    };
    let found = wait_until(PATIENCE, is_listed);
    assert!(found, "{wanted:?} is not in\n{list}");
}
