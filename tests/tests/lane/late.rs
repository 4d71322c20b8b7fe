//! Who comes late: a member whose game joins a group in the middle, and one that joins the party while games run.

use super::*;
use std::sync::mpsc;
use std::time::Instant;

const LATE: Ipv4Addr = Ipv4Addr::new(239, 10, 11, 14);
/// Ports of an announcement to a group, of one to everybody, and of a search.
const PORTS: [u16; 3] = [30_300, 30_301, 30_302];
/// Long enough that the daemon repeats it to who comes late.
const RARE: Duration = Duration::from_millis(2500);
/// A client's search.
const OFTEN: Duration = Duration::from_secs(1);
const JOINED: Duration = Duration::from_secs(60);

/// Says it again and again, until this is dropped.
fn saying(socket: UdpSocket, text: &'static [u8], to: (Ipv4Addr, u16), period: Duration) -> mpsc::Sender<()> {
    let (stop, stopped) = mpsc::channel();
    std::thread::spawn(move || {
        while {
            // without a party there is no way to anybody
            let _ = socket.send_to(text, to);
            stopped.recv_timeout(period) == Err(mpsc::RecvTimeoutError::Timeout)
        } {}
    });
    stop
}

pub fn who_comes_late_has_a_list_soon(lab: &TestLab, lane: &str) {
    let ana = peer(lab, 1);
    let announcements = [(LATE, PORTS[0], 4050), (EVERYBODY, PORTS[1], 4051)];
    let _saying = announcements.map(|(to, port, own)| saying(game(&ana, own), b"a world", (to, port), RARE));
    a_game_that_joins_a_group(lab);
    a_member_that_joins_the_party(lab, lane);
}

/// It hears at once what others would hear in a while, and hears it once more.
fn a_game_that_joins_a_group(lab: &TestLab) {
    let (carl, at_ana) = (peer(lab, 3), lab.overlay(1).unwrap());
    let client = game(&carl, PORTS[0]);
    let replayed = || status(lab, 1).replayed;
    let tries_again = || {
        let before = replayed();
        carl.run(|| client.join_multicast_v4(&LATE, &ANY)).unwrap().unwrap();
        let is_told = wait_until(RARE, || replayed() > before);
        if !is_told {
            // too early: nothing was said twice by then
            carl.run(|| client.leave_multicast_v4(&LATE, &ANY)).unwrap().unwrap();
            let at = lab.overlay(3).unwrap();
            let is_gone = || status(lab, 1).joined.get(&at).is_some_and(|it| !it.contains(&LATE.into()));
            assert!(wait_until(PATIENCE, is_gone));
        }
        is_told
    };
    assert!(wait_until(JOINED, tries_again), "{:?}", status(lab, 1));
    let mut buffer = [0; 64];
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let (length, from) = client.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], from), (&b"a world"[..], SocketAddr::from((at_ana, 4050))));
}

/// The daemon runs, the game has its list open, and its player opens the invite link.
fn a_member_that_joins_the_party(lab: &TestLab, lane: &str) {
    let (carl, at_ana) = (peer(lab, 3), lab.overlay(1).unwrap());
    let (host, client, searcher) = (game(&peer(lab, 1), PORTS[2]), game(&carl, PORTS[1]), game(&carl, 4052));
    lab.lanrage_output(Role::Peer(3), &["party", "leave"]).unwrap();
    let invite = lab.invite(Role::Peer(1), &[]).unwrap();
    let _searching = saying(searcher.try_clone().unwrap(), b"who is there?", (EVERYBODY, PORTS[2]), OFTEN);
    let answers = std::thread::spawn(move || {
        let (mut buffer, start) = ([0; 64], Instant::now());
        while start.elapsed() < JOINED {
            if let Ok((_, from)) = host.recv_from(&mut buffer) {
                host.send_to(b"a world", from).unwrap();
                break;
            }
        }
    });
    for socket in [&client, &searcher] {
        socket.set_nonblocking(true).unwrap();
        let mut buffer = [0; 64];
        while socket.recv_from(&mut buffer).is_ok() {}
    }
    let start = Instant::now();
    let mut listed: [Option<Duration>; 2] = [None; 2];
    let mut join = lab.lanrage(Role::Peer(3), &["party", "join", &invite]).unwrap().spawn().unwrap();
    let is_listed = || {
        for (socket, listed) in [&client, &searcher].into_iter().zip(&mut listed) {
            let mut buffer = [0; 64];
            if let Ok((_, from)) = socket.recv_from(&mut buffer)
                && from.ip() == at_ana
            {
                listed.get_or_insert(start.elapsed());
            }
        }
        listed.iter().all(Option::is_some)
    };
    assert!(wait_until(JOINED, is_listed), "{listed:?} {:?}", status(lab, 3));
    assert!(join.wait().unwrap().success());
    answers.join().unwrap();
    eprintln!("join to list, lane {lane}: {:?} by announcement, {:?} by search", listed[0], listed[1]);
}
