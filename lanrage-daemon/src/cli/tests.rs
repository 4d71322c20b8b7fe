//! The commands against the real API server on a temporary Unix socket.

use super::{Arguments, Screen, run};
use crate::api::fixture::{LINK, TestServer, peer_status};
use clap::Parser as _;
use lanrage_common::api::Status;
use std::path::Path;
use std::sync::atomic::Ordering;

#[derive(Debug)]
struct Ran {
    code: u8,
    out: String,
    err: String,
}

async fn lanrage_on(socket: &Path, arguments: &[&str], terminal: bool) -> Ran {
    let words = [&["lanrage", "--socket", socket.to_str().unwrap()], arguments].concat();
    let arguments = Arguments::try_parse_from(words).unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut screen =
        if terminal { Screen::terminal(&mut out, &mut err) } else { Screen::plain(&mut out, &mut err) };
    let code = run(arguments, &mut screen).await;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code, out: text(out), err: text(err) }
}

async fn lanrage(server: &TestServer, arguments: &[&str]) -> Ran {
    lanrage_on(&server.socket, arguments, false).await
}

const STATUS: &str = "\
LANrage  VERSION, roles relay peer, tunnel up
Device   Ana (AQEBAQEBAQEBAQEBAQEBAQ)
Control  http://192.0.2.1:8667 connected
Party    Friday: 10.66.0.1/16 on lanrage0 (MTU 1420), you are the host
Firewall games: 5 packets to other ports were refused, `lanrage firewall` tells which
Relay    203.0.113.7:3478 registered, generic XDP, 3 bound, 6 flows, forwarded 10000 in the kernel and 12 in the daemon
         203.0.113.7:443 over TLS, 2 connected, 1 dropped
         generic XDP because the driver of eth0 has no native XDP
         to improve: use a network card whose driver has it

NAME        ADDRESS    PATH         RTT      JITTER  LOSS  QUALITY       WHY
Ana (host)  10.66.0.1  -            -        -       -     -             this device
Bob         10.66.0.2  relay paris  23.5 ms  1.5 ms  1 %   92 very good  both routers randomise ports; a forwarded port in either would fix it
Ćwikła      10.66.0.3  direct       4.0 ms   0.2 ms  0 %   -             plays Chocolate Doom; straight to 198.51.100.4:51820
Dan[31m     10.66.0.4  offline      -        -       -     -             not connected since 20:14

! the gateway does not answer ARP
  check the cable
! this machine's clock is 3 minutes behind
  set it: timedatectl set-ntp true
";

const FIREWALL: &str = "\
Firewall games: 5 packets to other ports were refused, `lanrage firewall` tells which
Allowed  udp/27015-27020
Reached  tcp/25565
Playing  udp/27960
Refused  nobody:2 service:3

REFUSED  MEMBER  PACKETS  WHY           TO OPEN IT
tcp/22   Bob     3        ssh: no game  lanrage firewall allow tcp/22
";

#[tokio::test]
async fn firewall_shows_what_was_refused_and_how_to_open_it() {
    let server = TestServer::start().await;
    assert_eq!(lanrage(&server, &["firewall"]).await.out, FIREWALL);
    let ran = lanrage(&server, &["firewall", "allow", "tcp/22", "udp/27015-27020"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, FIREWALL), "{}", ran.err);
    assert!(Arguments::try_parse_from(["lanrage", "firewall", "allow", "22"]).is_err());
}

#[tokio::test]
async fn status_shows_everything_aligned() {
    let server = TestServer::start().await;
    let ran = lanrage(&server, &["status"]).await;
    assert_eq!(ran.out, STATUS.replace("VERSION", env!("CARGO_PKG_VERSION")));
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
}

#[tokio::test]
async fn relays_are_shown_with_their_uses() {
    let server = TestServer::start().await;
    let ran = lanrage(&server, &["relays"]).await;
    assert_eq!(
        ran.out,
        "\
RELAY  REGION   STATE     LOAD  RTT      JITTER  MEMBERS  STANDBY  WHY
paris  eu-west  bound     20 %  11.5 ms  0.8 ms  1        -        this device's best
oslo   -        draining  0 %   -        -       -        1        being emptied by its operator
"
    );
    server.peer.send_modify(|status| status.party.as_mut().unwrap().relays.clear());
    assert!(lanrage(&server, &["relays"]).await.out.contains("lanrage-daemon relay"));
}

#[tokio::test]
async fn servers_and_matrix_are_shown_and_are_json_alone() {
    let server = TestServer::start().await;
    assert_eq!(
        lanrage(&server, &["servers"]).await.out,
        "\
NAME                        GAME                       MAP       PLAYERS  HOST  RTT      ADDRESS
Bob's[31m place (password)  Quake III Arena, ioquake3  oa_minia  2 of 8   Bob   24.1 ms  10.66.0.2:27960
"
    );
    assert_eq!(
        lanrage(&server, &["matrix"]).await.out,
        "\
FROM  TO      PATH    RTT      JITTER  LOSS  QUALITY
Ana   Bob     relay   23.4 ms  1.5 ms  1 %   92 very good
Ana   Ćwikła  direct  4.0 ms   1.5 ms  1 %   100 very good
Bob   Ćwikła  direct  50.0 ms  1.5 ms  1 %   79 fair

HOST    LONGEST RTT  TO      QUALITY
Ana     23.4 ms      Bob     92 very good
Bob     50.0 ms      Ćwikła  79 fair
Ćwikła  50.0 ms      Bob     79 fair

Ana is the best host: the longest round trip is 23 ms, to Bob; with Bob it would be 50 ms.
"
    );
    let party = peer_status().party.unwrap();
    let json = |ran: Ran| serde_json::from_str::<serde_json::Value>(&ran.out).unwrap();
    assert_eq!(json(lanrage(&server, &["servers", "--json"]).await), serde_json::json!(party.servers));
    assert_eq!(json(lanrage(&server, &["matrix", "--json"]).await), serde_json::json!(party.matrix));
    server.peer.send_modify(|status| status.party = None);
    assert_eq!(lanrage(&server, &["servers", "--json"]).await.out, "[]\n");
    assert!(lanrage(&server, &["matrix"]).await.out.contains("lanrage join LINK"));
}

#[tokio::test]
async fn drain_asks_the_relay_and_shows_what_is_left() {
    let server = TestServer::start().await;
    let ran = lanrage(&server, &["relay", "drain", "--no-wait"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("3 members are asked to move"), "{ran:?}");
    assert!(lanrage(&server, &["relay", "drain", "--undo"]).await.out.contains("takes members again"));
}

#[tokio::test]
async fn peers_is_the_table_alone() {
    let server = TestServer::start().await;
    let ran = lanrage(&server, &["peers"]).await;
    let table: String = STATUS.lines().skip(10).take(5).map(|line| format!("{line}\n")).collect();
    assert_eq!(ran.out, table);
    server.peer.send_modify(|status| status.party = None);
    assert!(lanrage(&server, &["peers"]).await.out.contains("lanrage join LINK"));
    assert!(lanrage(&server, &["status"]).await.out.contains("Party    none yet: found one with"));
}

#[tokio::test]
async fn json_is_the_answer_of_the_api() {
    let server = TestServer::start().await;
    let ran = lanrage(&server, &["status", "--json"]).await;
    let status: Status = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(status.party, peer_status().party);
    assert_eq!(ran.out.lines().count(), 1);
    for command in [vec!["up"], vec!["down"], vec!["leave"], vec!["party", "leave"], vec!["peers"]] {
        let ran = lanrage(&server, &[&command[..], &["--json"]].concat()).await;
        assert!(serde_json::from_str::<Status>(&ran.out).is_ok() && ran.code == 0, "{command:?}: {ran:?}");
    }
    for command in
        [&["invite", "--json"][..], &["party", "create", "Friday", "--json"], &["ping", "Bob", "--json"]]
    {
        let ran = lanrage(&server, command).await;
        assert!(serde_json::from_str::<serde_json::Value>(&ran.out).is_ok() && ran.code == 0, "{ran:?}");
    }
}

#[tokio::test]
async fn invites_show_a_code_to_people_and_only_the_link_to_pipes() {
    let server = TestServer::start().await;
    assert_eq!(lanrage(&server, &["invite"]).await.out, format!("{LINK}\n"));
    let ran = lanrage_on(&server.socket, &["invite", "--uses", "3", "--expires", "24h"], true).await;
    assert!(ran.out.contains(&format!("\n  {LINK}\n")) && ran.out.contains(", 3 devices"), "{}", ran.out);
    assert!(ran.out.contains('█') && ran.out.lines().count() > 20, "{}", ran.out);
    let ran = lanrage_on(&server.socket, &["party", "create", "Friday"], true).await;
    assert!(ran.out.starts_with("The party \"Friday\" is founded.\nInvite link"), "{}", ran.out);
}

#[tokio::test]
async fn ui_prints_the_link_with_its_token() {
    let server = TestServer::start().await;
    let wanted = format!("http://{}/#token={}\n", server.ui, server.token.as_str());
    assert_eq!(lanrage(&server, &["ui"]).await.out, wanted);
}

#[tokio::test]
async fn ping_shows_each_answer_and_a_summary() {
    let server = TestServer::start().await;
    let ran = lanrage(&server, &["ping", "Bob", "-c", "1"]).await;
    let wanted = "Bob (10.66.0.2)\n  1  12.3 ms     through a relay\n\
                  1 sent, 1 answered, 0 % lost, 12.3 / 12.3 / 12.3 ms (min / median / max)\n\
                  The tunnel works: packets of up to 1420 bytes came back, probes outside it take 11.5 ms\n\
                  The path carries packets of 1420 bytes whole.\n";
    assert_eq!((ran.out.as_str(), ran.code), (wanted, 0));
    let ran = lanrage(&server, &["ping", "Eve"]).await;
    assert_eq!(
        (ran.code, ran.err.as_str()),
        (1, "lanrage: no member is called Eve\n  `lanrage peers` lists them\n")
    );
}

#[tokio::test]
async fn refusals_say_what_happened_and_what_to_do() {
    let server = TestServer::start().await;
    for command in [&["join", LINK][..], &["party", "join", LINK]] {
        let ran = lanrage(&server, command).await;
        assert_eq!(
            (ran.code, ran.err.as_str()),
            (1, "lanrage: the invite has expired\n  ask the host for a new one\n")
        );
    }
    let ran = lanrage(&server, &["join", LINK, "--json"]).await;
    assert_eq!(
        ran.out,
        "{\"code\":\"invite_expired\",\"message\":\"the invite has expired; ask the host for a new one\"}\n"
    );
    let before = server.commands.load(Ordering::SeqCst);
    let ran = lanrage(&server, &["join", "http://192.0.2.1/j/x"]).await;
    assert!(ran.code == 1 && ran.err.contains("'#'"), "{ran:?}");
    assert_eq!(server.commands.load(Ordering::SeqCst), before, "a damaged link does not reach the peer");
}

#[tokio::test]
async fn without_a_daemon_it_says_how_to_start_one() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("nobody.sock");
    for command in [&["up"][..], &["status"], &["ping", "Bob"]] {
        let ran = lanrage_on(&socket, command, false).await;
        assert_eq!((ran.code, ran.out.as_str()), (3, ""));
        assert!(ran.err.contains("the daemon is not running") && ran.err.contains("systemctl start lanrage"));
    }
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert_eq!(lanrage_on(&socket, &["status"], false).await.code, 3, "a stale socket is not a daemon");
    let ran = lanrage_on(&socket, &["status", "--json"], false).await;
    assert!(ran.out.starts_with("{\"code\":\"daemon_not_running\""), "{ran:?}");
}

#[tokio::test]
async fn a_server_that_is_not_ours_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("odd.sock");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let router = axum::Router::new().fallback(async || "hello");
    let server = tokio::spawn(async { axum::serve(listener, router).await });
    let ran = lanrage_on(&socket, &["status"], false).await;
    assert!(ran.code == 1 && ran.err.contains("not understood"), "{ran:?}");
    server.abort();
}

#[tokio::test]
async fn local_commands_need_no_daemon() {
    let nowhere = Path::new("/nonexistent/lanrage.sock");
    let ran = lanrage_on(nowhere, &["completions", "bash"], false).await;
    assert!(ran.code == 0 && ran.out.contains("complete -F _lanrage"), "{ran:?}");

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("lanrage.toml");
    let check = ["config", "check", "--config", file.to_str().unwrap()];
    std::fs::write(&file, "[relay]\ntoken = 'sixteen-characters'\nlisten = '0.0.0.0:443'\n").unwrap();
    let ran = lanrage_on(nowhere, &check, false).await;
    assert!(ran.code == 0 && ran.out.contains("2 settings differ"), "{ran:?}");
    assert!(
        ran.out.contains("relay.listen") && ran.out.contains("line 3") && !ran.out.contains("sixteen"),
        "{ran:?}"
    );
    let ran = lanrage_on(nowhere, &[&check[..], &["--json"]].concat(), false).await;
    assert!(ran.out.contains("\"listen\":\"0.0.0.0:443\"") && !ran.out.contains("sixteen"), "{ran:?}");
    std::fs::write(&file, "[relay]\ntokn = 'x'\n").unwrap();
    let ran = lanrage_on(nowhere, &check, false).await;
    assert!(
        ran.code == 1 && ran.err.contains("line 2: unknown key `relay.tokn`: did you mean `relay.token`?"),
        "{ran:?}"
    );
}

#[test]
fn wrong_usage_is_refused_by_the_parser() {
    for words in [
        &["lanrage"][..],
        &["lanrage", "jion"],
        &["lanrage", "ping", "x", "-c", "0"],
        &["lanrage", "invite", "--expires", "1"],
    ] {
        let error = Arguments::try_parse_from(words).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{words:?}");
    }
}

#[tokio::test]
async fn settings_are_shown_changed_and_refused() {
    let server = TestServer::start().await;
    let ran = lanrage(&server, &["settings"]).await;
    assert!(
        ran.code == 0 && ran.out.contains("peer.mtu") && ran.out.contains("at the next start"),
        "{ran:?}"
    );
    let ran = lanrage(&server, &["settings", "peer.mtu", "1300"]).await;
    assert_eq!(ran.out, "peer.mtu = 1300 counts now.\n");
    let ran = lanrage(&server, &["settings", "relay.region", "eu"]).await;
    assert_eq!(ran.out, "relay.region = \"eu\" counts when the daemon is started again.\n");
    let ran = lanrage(&server, &["settings"]).await;
    assert!(ran.out.contains("not at work yet"), "{ran:?}");
    for wrong in [["peer.mtu", "9000"], ["peer.mtu", "big"], ["state_dir", "/tmp"]] {
        let ran = lanrage(&server, &[&["settings"], &wrong[..]].concat()).await;
        assert!(ran.code == 1 && ran.err.contains(wrong[0]), "{ran:?}");
    }
    let ran = lanrage(&server, &["settings", "--json"]).await;
    let settings: lanrage_common::api::Settings = serde_json::from_str(&ran.out).unwrap();
    assert!(settings.settings.iter().any(|setting| setting.key == "peer.mtu" && setting.value == 1300));
}

#[tokio::test]
async fn a_bundle_is_a_new_file_without_secrets() {
    let server = TestServer::start().await;
    let file = server.dir.path().join("bundle.json");
    let path = file.to_str().unwrap();
    let ran = lanrage(&server, &["bundle", path]).await;
    assert!(ran.code == 0 && ran.out.contains("read it before you send it"), "{ran:?}");
    let text = std::fs::read_to_string(&file).unwrap();
    let bundle: lanrage_common::api::SupportBundle = serde_json::from_str(&text).unwrap();
    assert_eq!(bundle.status["party"]["members"][1]["name"], "Bob");
    let endpoint = bundle.status["party"]["members"][1]["endpoint"].as_str().unwrap();
    assert!(endpoint.starts_with("public-") && endpoint.ends_with(":3478"), "{endpoint}");
    assert!(!text.contains("203.0.113.7"), "{text}");
    assert!(!text.contains(server.token.as_str()), "{text}");
    let ran = lanrage(&server, &["bundle", path]).await;
    assert!(ran.code == 1 && ran.err.contains("cannot write"), "not overwritten: {ran:?}");
    let ran = lanrage(&server, &["bundle", "-"]).await;
    assert!(serde_json::from_str::<lanrage_common::api::SupportBundle>(&ran.out).is_ok());
}

/// A pipe whose reader goes away after some bytes.
struct Pipe(usize);

impl std::io::Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or(std::io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn watching_ends_with_its_reader() {
    let server = TestServer::start().await;
    let words = ["lanrage", "--socket", server.socket.to_str().unwrap(), "peers", "--watch"];
    let (mut out, mut err) = (Pipe(900), Vec::new());
    let mut screen = Screen::plain(&mut out, &mut err);
    assert_eq!(run(Arguments::try_parse_from(words).unwrap(), &mut screen).await, 0);
    assert!(out.0 < 900 && err.is_empty());
}

#[tokio::test]
async fn every_view_can_be_watched() {
    let server = TestServer::start().await;
    let socket = server.socket.to_str().unwrap();
    let views: [&[&str]; 8] = [
        &["status"],
        &["peers"],
        &["relays"],
        &["servers"],
        &["matrix"],
        &["gateway"],
        &["gateway", "devices"],
        &["games", "--running"],
    ];
    let watched = views.map(async |view| {
        let once = lanrage(&server, view).await.out.len();
        let words = [&["lanrage", "--socket", socket], view, &["--watch"]].concat();
        let (mut out, mut err) = (Pipe(2 + once), Vec::new());
        let code =
            run(Arguments::try_parse_from(words).unwrap(), &mut Screen::plain(&mut out, &mut err)).await;
        assert_eq!((code, err.len()), (0, 0), "{view:?} ends when its reader goes away, at the second look");
    });
    futures_util::future::join_all(watched).await;
}

#[tokio::test]
async fn who_watches_at_a_terminal_is_told_when_the_daemon_goes() {
    let server = TestServer::start().await;
    let words = ["lanrage", "--socket", server.socket.to_str().unwrap(), "peers", "--watch"];
    let arguments = Arguments::try_parse_from(words).unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut screen = Screen::terminal(&mut out, &mut err);
    let patience = std::time::Duration::from_secs(5);
    let (_, server) = tokio::join!(tokio::time::timeout(patience, run(arguments, &mut screen)), async {
        tokio::time::sleep(patience / 10).await;
        server.trigger.request();
        server.task.await
    });
    server.unwrap().unwrap();
    let shown = String::from_utf8(out).unwrap();
    let away = shown.find("the daemon is not running").unwrap_or_else(|| panic!("{shown}"));
    assert!(shown[..away].contains("relay paris") && shown[away..].contains("Waiting for it"), "{shown}");
}

#[tokio::test]
async fn games_are_listed_found_by_title_and_replaced_by_ones_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let games = async |arguments: &[&str]| {
        lanrage_on(Path::new("/nowhere"), &[&["games", "--directory", path], arguments].concat(), false).await
    };
    let all = games(&[]).await;
    assert_eq!((all.code, all.err.as_str()), (0, ""));
    assert!(all.out.starts_with("ID "), "{}", all.out);
    assert!(all.out.lines().any(|line| line.starts_with("terraria ") && line.contains("lan-list")));
    let one = games(&["openarena"]).await;
    assert!(one.out.contains("found by   broadcast on UDP port 27960-27963"), "{}", one.out);
    let unsupported = games(&["fortnite"]).await;
    assert!(unsupported.out.contains("online-only: a LAN does not help"), "{}", unsupported.out);
    let nothing = games(&["no such game"]).await;
    assert_eq!(nothing.code, 1);
    assert!(nothing.err.contains("no known game"), "{}", nothing.err);

    std::fs::write(dir.path().join("terraria.toml"), "name = \"Mine\"").unwrap();
    let broken = games(&[]).await;
    assert!(broken.out.contains("terraria.toml: ") && broken.out.contains("missing field"), "{}", broken.out);
    let json: serde_json::Value = serde_json::from_str(&games(&["terraria", "--json"]).await.out).unwrap();
    assert_eq!(json["games"]["terraria"]["ports"][0], "tcp/7777");
    assert_eq!(json["unusable"].as_array().unwrap().len(), 1);
}
