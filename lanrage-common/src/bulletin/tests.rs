use super::*;
use crate::lane::report_in;
use proptest::prelude::*;
use std::time::{Duration, Instant};

const ANA: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 1);
const BEN: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 2);
const CARL: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 3);
const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 99);

fn link(to: Ipv4Addr, rtt_ms: f64) -> Link {
    Link { to, path: PathKind::Direct, rtt_ms: Some(rtt_ms), jitter_ms: Some(0.5), loss: Some(0.0) }
}

fn server(name: &str, port: u16) -> Announced {
    Announced {
        game: "quake-3".into(),
        is_tcp: false,
        port,
        name: name.into(),
        map: "oa_minia".into(),
        players: Some(2),
        max_players: Some(8),
        is_locked: false,
    }
}

/// What leaves a board by now, as payloads by receiver.
fn told(board: &mut Board, now: Instant) -> Vec<(Ipv4Addr, Vec<u8>)> {
    board.handle_timeout(now);
    let packets = std::iter::from_fn(|| board.poll_output());
    packets
        .map(|packet| {
            let to = Ipv4Addr::new(packet[16], packet[17], packet[18], packet[19]);
            (to, report_in(&packet).unwrap().to_vec())
        })
        .collect()
}

fn board(me: Ipv4Addr, now: Instant) -> Board {
    let mut board = Board::new(me);
    board.set_members([ANA, BEN, CARL], now);
    board
}

#[test]
fn members_hear_of_each_other_and_of_the_end() {
    let start = Instant::now();
    let [mut ana, mut ben] = [ANA, BEN].map(|me| board(me, start));
    ben.handle_servers(vec![server("Ben", 27960)], start);
    ben.handle_games(vec!["Doom".into()], start);
    ben.handle_links(vec![link(ANA, 20.0), link(CARL, 40.0)], start);
    let later = start + Duration::from_secs(2);
    for (to, payload) in told(&mut ben, later) {
        assert!(Bulletin::is_in(&payload) && to != BEN);
        assert!(ana.handle_bulletin(BEN, &payload, later));
    }
    assert_eq!(ana.servers().collect::<Vec<_>>(), [(BEN, &server("Ben", 27960))]);
    assert_eq!(ana.links().collect::<Vec<_>>(), [(BEN, link(ANA, 20.0)), (BEN, link(CARL, 40.0))]);

    assert_eq!(ana.games_of(BEN), ["Doom"]);

    let end = later + Duration::from_secs(60);
    ben.handle_servers(Vec::new(), end);
    ben.handle_games(Vec::new(), end);
    for (_, payload) in told(&mut ben, end + Duration::from_secs(2)) {
        ana.handle_bulletin(BEN, &payload, end);
    }
    assert_eq!((ana.servers().count(), ana.games_of(BEN).len()), (0, 0));
    ana.handle_timeout(end + Duration::from_secs(101));
    assert_eq!(ana.links().count(), 0, "who is silent is not believed for ever");
}

#[test]
fn what_is_joined_is_told_at_once_and_forgotten_when_it_is_not_told_again() {
    let start = Instant::now();
    let [mut ana, mut ben] = [ANA, BEN].map(|me| board(me, start));
    let group = |n| IpAddr::from([239, 1, 2, n]);
    let joined =
        |board: &Board| board.joined().map(|(member, groups)| (member, groups.clone())).collect::<Vec<_>>();
    let tell = |ana: &mut Board, ben: &mut Board, now| {
        let payloads = told(ben, now).into_iter().filter(|(to, _)| *to == ANA).map(|(_, payload)| payload);
        let groups: Vec<_> = payloads.filter(|payload| payload[0] == GROUPS).collect();
        groups.iter().for_each(|payload| assert!(ana.handle_bulletin(BEN, payload, now)));
        groups.len()
    };
    assert!(joined(&ana).is_empty(), "who says nothing is not named");
    assert!(ben.handle_groups(Some(BTreeSet::new()), start));
    let before = ana.groups_version();
    assert_eq!(tell(&mut ana, &mut ben, start), 1);
    assert_eq!(joined(&ana), [(BEN, BTreeSet::new())]);
    assert_ne!(ana.groups_version(), before);

    assert!(
        ben.handle_groups(Some([group(1)].into()), start)
            && !ben.handle_groups(Some([group(1)].into()), start)
    );
    assert_eq!(tell(&mut ana, &mut ben, start), 1, "no waiting");
    assert_eq!(joined(&ana), [(BEN, [group(1)].into())]);
    // said again: it could be lost, and an old word does not count
    let mut times = 0;
    for second in 1..=100 {
        times += tell(&mut ana, &mut ben, start + Duration::from_secs(second));
    }
    assert_eq!(times, 4);
    let version = ana.groups_version();
    ana.handle_timeout(start + Duration::from_secs(191));
    assert_eq!(joined(&ana).len(), 1);
    ana.handle_timeout(start + Duration::from_secs(193));
    assert!(joined(&ana).is_empty() && ana.groups_version() != version);

    let now = start + Duration::from_secs(200);
    assert!(ben.handle_groups(Some([group(1)].into()), now) || tell(&mut ana, &mut ben, now) == 1);
    assert_eq!(joined(&ana).len(), 1);
    for unknown in [None, Some((0..=MAX_GROUPS as u8).map(group).collect())] {
        ben.handle_groups(Some(BTreeSet::new()), now);
        ben.handle_groups(unknown, now);
        tell(&mut ana, &mut ben, now);
        assert!(joined(&ana).is_empty());
    }
}

#[test]
fn a_member_speaks_for_itself_alone_and_only_so_often() {
    let now = Instant::now();
    let mut ana = board(ANA, now);
    let payload = Bulletin::Links(vec![link(BEN, 1.0), link(STRANGER, 1.0), link(CARL, 2.0)]).payload();
    assert!(!ana.handle_bulletin(STRANGER, &payload, now));
    assert!(ana.handle_bulletin(BEN, &payload, now));
    assert_eq!(
        ana.links().collect::<Vec<_>>(),
        [(BEN, link(CARL, 2.0))],
        "neither to itself nor to strangers"
    );
    let taken = (0..100).filter(|_| ana.handle_bulletin(CARL, &payload, now)).count();
    assert_eq!(taken, 16);
    ana.set_members([ANA, CARL], now);
    assert!(ana.links().all(|(from, link)| from != BEN && link.to != BEN));
}

#[test]
fn small_changes_are_not_told() {
    let mut now = Instant::now();
    let mut ben = board(BEN, now);
    ben.handle_links(vec![link(ANA, 20.0)], now);
    let mut count = 0;
    for second in 0..60 {
        ben.handle_links(vec![link(ANA, 20.0 + f64::from(second % 3))], now);
        count += told(&mut ben, now).len();
        now += Duration::from_secs(1);
    }
    // to two members: twice at once, and once or twice again; of servers and games only that there are none
    assert!((12..=16).contains(&count), "{count}");
    ben.handle_links(vec![link(ANA, 45.0)], now);
    assert_eq!(told(&mut ben, now + Duration::from_secs(2)).len(), 2);
}

#[test]
fn the_best_host_is_named() {
    let members = [(ANA, "Ana".to_owned()), (BEN, "Ben".to_owned()), (CARL, "Carl".to_owned())];
    let links =
        [(ANA, link(BEN, 20.0)), (BEN, link(CARL, 40.0)), (CARL, link(ANA, 90.0)), (ANA, link(CARL, 80.0))];
    let matrix = hosts::matrix(&links, &members);
    let order: Vec<_> = matrix.hosts.iter().map(|host| (host.name.as_str(), host.worst_rtt_ms)).collect();
    assert_eq!(order, [("Ben", 40.0), ("Ana", 90.0), ("Carl", 90.0)]);
    assert_eq!(matrix.hosts[0].worst_with, "Carl");
    let said = matrix.advice.unwrap();
    assert!(said.starts_with("Ben is the best host: the longest round trip is 40 ms, to Carl;"), "{said}");

    assert_eq!(hosts::matrix(&links[..1], &members).advice, None, "nobody is known to reach everybody");
    let two = hosts::matrix(&links[..1], &members[..2]).advice.unwrap();
    assert!(two.contains("does not matter"), "{two}");
}

#[test]
fn of_many_good_hosts_the_first_are_named() {
    let members: Vec<_> = (1..=6).map(|n| (Ipv4Addr::new(10, 66, 0, n), format!("m{n}"))).collect();
    let pairs = members
        .iter()
        .enumerate()
        .flat_map(|(n, from)| members[n + 1..].iter().map(move |to| (from.0, to.0)));
    let far = (members[4].0, members[5].0);
    let links: Vec<_> =
        pairs.map(|pair| (pair.0, link(pair.1, if pair == far { 60.0 } else { 10.0 }))).collect();
    let said = hosts::matrix(&links, &members).advice.unwrap();
    assert!(said.starts_with("m1, m2, m3 and 1 more are equally good hosts"), "{said}");
}

fn announced() -> impl Strategy<Value = Announced> {
    let texts = ("[a-z0-9-]{1,40}", "[a-zä0-9]{0,20}", "[a-z_]{0,40}");
    let numbers = (1..=u16::MAX, any::<Option<u16>>(), any::<Option<u16>>());
    (texts, numbers, any::<(bool, bool)>()).prop_map(
        |((game, name, map), (port, players, max_players), (is_tcp, is_locked))| Announced {
            game,
            is_tcp,
            port,
            name,
            map,
            players,
            max_players,
            is_locked,
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_is_read(servers in proptest::collection::vec(announced(), 0..=MAX_SERVERS), rtt in 0u32..60_000, games in proptest::collection::vec("[a-zä:]{1,24}", 0..=MAX_GAMES), groups in proptest::collection::btree_set(any::<(bool, u32)>(), 0..=MAX_GROUPS)) {
        let bulletin = Bulletin::Servers(servers);
        let payload = bulletin.payload();
        prop_assert!(payload.len() <= 1200);
        prop_assert_eq!(Bulletin::parse(&payload), Some(bulletin));
        let links = Bulletin::Links(vec![link(BEN, f64::from(rtt)), Link { rtt_ms: None, jitter_ms: None, loss: None, ..link(CARL, 0.0) }]);
        prop_assert_eq!(Bulletin::parse(&links.payload()), Some(links));
        let games = Bulletin::Games(games);
        prop_assert_eq!(Bulletin::parse(&games.payload()), Some(games));
        let group = |(is_v6, low): (bool, u32)| match is_v6 {
            true => IpAddr::from(u128::from(low).wrapping_add(0xff02 << 112).to_be_bytes()),
            false => IpAddr::from((0xe000_0000 | low >> 4).to_be_bytes()),
        };
        let groups = Bulletin::Groups(Some(groups.into_iter().map(group).collect()));
        prop_assert!(groups.payload().len() <= 1200);
        prop_assert_eq!(Bulletin::parse(&groups.payload()), Some(groups));
    }

    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..1000), kind in 0x12u8..0x16, count in any::<u8>()) {
        let payload = [&[kind, count][..], &bytes].concat();
        match Bulletin::parse(&payload) {
            Some(Bulletin::Links(links)) => prop_assert!(links.len() <= MAX_LINKS),
            Some(Bulletin::Servers(servers)) => prop_assert!(servers.len() <= MAX_SERVERS),
            Some(Bulletin::Games(games)) => {
                prop_assert!(games.len() <= MAX_GAMES && games.iter().all(|name| !name.is_empty()));
            }
            Some(Bulletin::Groups(groups)) => {
                let groups = groups.unwrap_or_default();
                prop_assert!(groups.len() <= MAX_GROUPS && groups.iter().all(IpAddr::is_multicast));
            }
            None => {}
        }
        let _ = Bulletin::parse(&bytes);
    }
}
