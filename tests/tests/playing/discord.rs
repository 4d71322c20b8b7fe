//! What Discord hears of a party. Discord is not under test: what answers here takes down what it is sent.

use super::{Game, PATIENCE};
use lanrage_tests::lab::netns::Namespace;
use lanrage_tests::lab::process::wait_until;
use lanrage_tests::lab::role::Role;
use lanrage_tests::lab::running::Lab;
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

const SECRET: &str = "nobody-else-may-know";
const APPLICATION: &str = "1234567890123456789";

/// A channel, at the machine itself.
pub struct Channel {
    url: String,
    messages: Receiver<(String, Value)>,
}

impl Channel {
    fn open(place: &Namespace) -> Self {
        let listener = place.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).unwrap().unwrap();
        let url = format!("http://{}/api/webhooks/1/{SECRET}", listener.local_addr().unwrap());
        let (sender, messages) = channel();
        // ends with this program
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let _ = sender.send(take(stream.unwrap()));
            }
        });
        Self { url, messages }
    }

    /// The next message says just that. On a slow machine Ben joins late enough to be told of, too.
    fn hears(&self, text: &str) {
        let mut rest = Vec::new();
        while rest.is_empty() {
            let (line, body) = self.messages.recv_timeout(PATIENCE * 2).expect(text);
            assert_eq!(line, format!("POST /api/webhooks/1/{SECRET} HTTP/1.1"));
            let content = body["content"].as_str().unwrap();
            assert_eq!(body, json!({ "content": content, "allowed_mentions": { "parse": [] } }));
            let lines = content.lines().filter(|line| *line != "**ben** has joined the party.");
            rest = lines.map(str::to_owned).collect();
        }
        assert_eq!(rest, [text]);
    }
}

/// First line and body of a request.
fn take(stream: TcpStream) -> (String, Value) {
    let mut reader = BufReader::new(stream);
    let (mut lines, mut length) = (Vec::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let line = line.trim_end().to_lowercase();
        if line.is_empty() {
            break;
        }
        length = line.strip_prefix("content-length: ").map_or(length, |text| text.parse().unwrap());
        lines.push(line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    reader.get_mut().write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").unwrap();
    let first = lines[0].replacen("post", "POST", 1).replace("http/1.1", "HTTP/1.1");
    (first, serde_json::from_slice(&body).unwrap())
}

fn set(lab: &Lab, key: &str, value: &str) -> String {
    lab.lanrage_output(Role::Peer(1), &["settings", key, value]).unwrap()
}

/// Ana's channel; its address is not shown again.
pub fn open_channel(lab: &Lab, ana: &Namespace) -> Channel {
    let channel = Channel::open(ana);
    let refused = lab.lanrage_output(Role::Peer(1), &["settings", "discord.webhook", "http://192.0.2.1/x"]);
    assert!(format!("{:#}", refused.unwrap_err()).contains("https"), "it would travel in the open");
    assert!(!set(lab, "discord.webhook", &channel.url).contains(SECRET));
    for command in [&["settings", "--json"][..], &["bundle", "-"], &["log"]] {
        let told = lab.lanrage_output(Role::Peer(1), command).unwrap();
        assert!(!told.contains(SECRET), "{command:?}");
    }
    channel
}

/// Ben has started his game, and opens a world.
pub fn channel_hears_of_ben(channel: &Channel, ben: &Namespace, at_ben: Ipv4Addr) {
    channel.hears("**ben** plays Chocolate Doom.");
    let world = ben.play(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))).unwrap().unwrap();
    world.send_to(b"[MOTD]*World*[/MOTD][AD]50123[/AD]", (Ipv4Addr::new(224, 0, 2, 60), 4445)).unwrap();
    let title = "Minecraft: Java Edition (Open to LAN)";
    channel.hears(&format!("**ben** hosts {title}: \\*World\\*, join at `{at_ben}:50123` in the party."));
}

/// `lanrage discord`, ended with the value.
struct Command(Child);

impl Drop for Command {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Discord's end of its socket.
struct Discord(UnixStream);

impl Discord {
    fn read(&mut self) -> (u32, Value) {
        let mut head = [0; 8];
        self.0.read_exact(&mut head).unwrap();
        let [operation, length] = [0, 4].map(|at| u32::from_le_bytes(head[at..at + 4].try_into().unwrap()));
        let mut body = vec![0; length as usize];
        self.0.read_exact(&mut body).unwrap();
        (operation, serde_json::from_slice(&body).unwrap())
    }

    fn write(&mut self, operation: u32, body: &Value) {
        let body = body.to_string();
        let frame = [&operation.to_le_bytes(), &(body.len() as u32).to_le_bytes(), body.as_bytes()].concat();
        self.0.write_all(&frame).unwrap();
    }

    /// What it is asked to show next.
    fn shows(&mut self) -> Value {
        let (operation, body) = self.read();
        assert_eq!((operation, &body["cmd"]), (1, &json!("SET_ACTIVITY")), "{body}");
        assert!(body["nonce"].is_string() && body["args"]["pid"].is_u64(), "{body}");
        body["args"]["activity"].clone()
    }
}

/// Ana's friends see what she plays, and not in which party unless she wants that.
pub fn presence_follows_ana(lab: &Lab, ana: &Namespace, party: &str) {
    let directory = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(directory.path().join("discord-ipc-0")).unwrap();
    listener.set_nonblocking(true).unwrap();
    let off = lab.lanrage_output(Role::Peer(1), &["discord"]).unwrap_err();
    assert!(format!("{off:#}").contains("lanrage settings discord.presence true"), "{off:#}");
    set(lab, "discord.client_id", APPLICATION);
    set(lab, "discord.presence", "true");
    let mut command = lab.lanrage(Role::Peer(1), &["discord"]).unwrap();
    command.env("XDG_RUNTIME_DIR", directory.path()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut command = Command(command.spawn().unwrap());
    let mut accepted = None;
    let has_come = || {
        accepted = accepted.take().or_else(|| listener.accept().ok());
        accepted.is_some()
    };
    assert!(wait_until(PATIENCE, has_come), "the command has not found the socket");
    let mut discord = Discord(accepted.unwrap().0);
    discord.0.set_nonblocking(false).unwrap();
    discord.0.set_read_timeout(Some(Duration::from_secs(60))).unwrap();

    assert_eq!(discord.read(), (0, json!({ "v": 1, "client_id": APPLICATION })));
    discord.write(1, &json!({ "cmd": "DISPATCH", "evt": "READY", "data": { "v": 1 } }));
    let both = json!({ "id": "lanrage", "size": [2, 2] });
    assert_eq!(discord.shows(), json!({ "details": "In a LAN party", "party": both }));
    discord.write(3, &json!({ "still": "there" }));
    assert_eq!(discord.read(), (4, json!({ "still": "there" })));
    let game = Game::start(ana);
    assert_eq!(discord.shows(), json!({ "details": "Chocolate Doom", "party": both }));
    set(lab, "discord.party_name", "true");
    assert_eq!(discord.shows(), json!({ "details": "Chocolate Doom", "state": party, "party": both }));
    drop(game);
    set(lab, "discord.presence", "false");
    let mut ended = None;
    let has_ended = || {
        ended = command.0.try_wait().unwrap();
        ended.is_some()
    };
    assert!(wait_until(PATIENCE, has_ended), "it goes on though it is switched off");
    assert_eq!(ended.unwrap().code(), Some(1));
}
