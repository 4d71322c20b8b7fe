//! Game servers on this machine: what listens at a port where a known game's servers do is asked what is played there. Only this
//! machine asks them, by its own address in the party; members are told. So a search costs the network nothing, and a firewall
//! between members does not matter.

use crate::lane;
use lanrage_common::api::LaneListener;
use lanrage_common::bulletin::Announced;
use lanrage_common::lane::Sockets;
use lanrage_common::servers::{Info, MAX_ANSWER, Query, Step};
use std::collections::BTreeMap;
use std::fs::read_to_string;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// For one answer of a server on the same machine.
const PATIENCE: Duration = Duration::from_secs(1);
/// Questions until a server has told: it may want a challenge back, and a datagram may be lost.
const QUESTIONS: usize = 4;
/// Ports that are asked in one search.
const MAX_PORTS: usize = 64;
/// State of a TCP socket that listens, in Linux's tables.
const LISTENS: &str = "0A";

/// The servers that answer now. `queries` says which game may be at which port, and whether over TCP.
pub async fn search(queries: BTreeMap<(u16, bool), (String, Query)>, me: Ipv4Addr) -> Vec<Announced> {
    let tables = tokio::task::spawn_blocking(tables).await.ok().flatten();
    let is_possible =
        |&(port, is_tcp): &(u16, bool)| tables.as_ref().is_none_or(|tables| tables.listens(me, port, is_tcp));
    let mut asked = JoinSet::new();
    for ((port, is_tcp), (game, query)) in
        queries.into_iter().filter(|(at, _)| is_possible(at)).take(MAX_PORTS)
    {
        let at = SocketAddr::from((me, port));
        asked.spawn(async move { ask(query, at).await.map(|info| announced(game, (port, is_tcp), info)) });
    }
    asked.join_all().await.into_iter().flatten().collect()
}

fn announced(game: String, (port, is_tcp): (u16, bool), info: Info) -> Announced {
    let Info { name, map, players, max_players, is_locked, port: elsewhere } = info;
    let port = elsewhere.unwrap_or(port);
    Announced { game, is_tcp, port, name, map, players, max_players, is_locked }
}

async fn ask(query: Query, at: SocketAddr) -> Option<Info> {
    let answer = if query.is_tcp() { ask_tcp(query, at).await } else { ask_udp(query, at).await };
    answer.unwrap_or_else(|error| {
        tracing::trace!(%at, %error, "no game server");
        None
    })
}

async fn ask_udp(query: Query, at: SocketAddr) -> io::Result<Option<Info>> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    // the system passes on what comes from there, and nothing else
    socket.connect(at).await?;
    let (mut question, mut buffer) = (query.request(), vec![0; MAX_ANSWER]);
    for _ in 0..QUESTIONS {
        socket.send(&question).await?;
        let Ok(length) = timeout(PATIENCE, socket.recv(&mut buffer)).await else { continue };
        match query.handle(&buffer[..length?]) {
            Step::Found(info) => return Ok(Some(info)),
            Step::Ask(again) => question = again,
            Step::Nothing => return Ok(None),
        }
    }
    Ok(None)
}

async fn ask_tcp(query: Query, at: SocketAddr) -> io::Result<Option<Info>> {
    let exchange = async {
        let mut stream = TcpStream::connect(at).await?;
        stream.write_all(&query.request()).await?;
        let mut answer = Vec::new();
        while answer.len() < MAX_ANSWER && stream.read_buf(&mut answer).await? > 0 {
            if let Step::Found(info) = query.handle(&answer) {
                return Ok(Some(info));
            }
        }
        Ok(None)
    };
    timeout(PATIENCE * 2, exchange).await.unwrap_or(Ok(None))
}

/// Who listens on this machine.
struct Tables {
    udp: Sockets,
    tcp: Sockets,
}

impl Tables {
    fn listens(&self, me: Ipv4Addr, port: u16, is_tcp: bool) -> bool {
        let sockets = if is_tcp { &self.tcp } else { &self.udp };
        sockets.listener(IpAddr::V4(me), port) == LaneListener::Listening
    }
}

/// The tables as they are now; none where there are none, and then every port is asked.
fn tables() -> Option<Tables> {
    let table = |path| listening(&read_to_string(path).unwrap_or_default());
    let tcp = Sockets::parse(&table("/proc/net/tcp"), &table("/proc/net/tcp6"), "");
    Some(Tables { udp: lane::sockets()?, tcp })
}

fn listening(table: &str) -> String {
    let listens = |line: &&str| line.split_whitespace().nth(3) == Some(LISTENS);
    table.lines().filter(listens).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// A server of each kind on loopback; the source server wants a challenge, Java's answer comes in parts.
    #[tokio::test]
    async fn what_answers_is_found_and_nothing_else() {
        let local = (Ipv4Addr::LOCALHOST, 0);
        let (quake, source) = (UdpSocket::bind(local).await.unwrap(), UdpSocket::bind(local).await.unwrap());
        let (silent, java) = (UdpSocket::bind(local).await.unwrap(), TcpListener::bind(local).await.unwrap());
        let ports = [&quake, &source, &silent].map(|socket| socket.local_addr().unwrap().port());
        let [quake_port, source_port, silent_port] = ports;
        let java_port = java.local_addr().unwrap().port();
        let game = |name: &str, query| (name.to_owned(), query);
        let queries = BTreeMap::from([
            ((quake_port, false), game("quake", Query::Quake3)),
            ((source_port, false), game("source", Query::Source)),
            ((silent_port, false), game("silent", Query::Quake2)),
            ((java_port, true), game("java", Query::MinecraftJava)),
            ((1, false), game("nobody", Query::Quake3)),
        ]);
        tokio::spawn(async move {
            let mut buffer = [0; 200];
            let (_, from) = quake.recv_from(&mut buffer).await.unwrap();
            let answer = b"\xff\xff\xff\xffstatusResponse\n\\sv_hostname\\Q\\mapname\\m\n1 2 \"x\"\n";
            quake.send_to(answer, from).await.unwrap();
        });
        tokio::spawn(async move {
            let mut buffer = [0; 200];
            let (_, from) = source.recv_from(&mut buffer).await.unwrap();
            source.send_to(b"\xff\xff\xff\xffAabcd", from).await.unwrap();
            let (length, from) = source.recv_from(&mut buffer).await.unwrap();
            assert!(buffer[..length].ends_with(b"abcd"));
            let answer = b"\xff\xff\xff\xffI\x11S\0m\0f\0g\0\xf0\0\x01\x02\0dl\0\x01v\0\x80\x07\x07";
            source.send_to(answer, from).await.unwrap();
        });
        tokio::spawn(async move {
            let (mut stream, _) = java.accept().await.unwrap();
            let json = br#"{"description":"J","players":{"max":20,"online":3}}"#;
            let head = [json.len() as u8 + 2, 0, json.len() as u8];
            stream.write_all(&[&head[..], &json[..9]].concat()).await.unwrap();
            stream.flush().await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
            stream.write_all(&json[9..]).await.unwrap();
        });
        let mut found = search(queries, Ipv4Addr::LOCALHOST).await;
        found.sort();
        let told: Vec<_> =
            found.iter().map(|it| (it.game.as_str(), it.name.as_str(), it.players.unwrap())).collect();
        assert_eq!(told, [("java", "J", 3), ("quake", "Q", 1), ("source", "S", 1)]);
        assert_eq!((found[0].port, found[1].port, found[2].port), (java_port, quake_port, 0x0707));
    }
}
