use super::super::packet::tests::{is_intact, packet};
use super::super::packet::{cut, too_big};
use super::*;
use proptest::prelude::*;

const PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 6);
const HOST: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 168, 1, 2), 40_000);
const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 2), 3478);

fn nat(text: &str) -> Nat {
    Nat::new(text.parse().unwrap(), PUBLIC)
}

/// The packet as it leaves the NAT, and on which side.
fn through(nat: &mut Nat, from: Side, bytes: &[u8]) -> Result<(Side, Vec<u8>), Refusal> {
    let mut bytes = bytes.to_vec();
    let to = nat.handle(from, &mut bytes, Instant::now())?;
    assert!(is_intact(&bytes) || bytes[6] & 0x3f != 0, "wrong checksums");
    Ok((to, bytes))
}

fn ends(bytes: &mut [u8]) -> (SocketAddrV4, SocketAddrV4) {
    let view = Packet::parse(bytes).unwrap();
    (view.source(), view.destination())
}

#[test]
fn a_question_goes_out_and_its_answer_comes_in() {
    for protocol in [Protocol::Udp, Protocol::Tcp, Protocol::Icmp] {
        let mut nat = nat("apdm+apdf+random");
        let port = if protocol == Protocol::Icmp { HOST.port() } else { SERVER.port() };
        let server = SocketAddrV4::new(*SERVER.ip(), port);
        let (to, mut out) =
            through(&mut nat, Side::Inside, &packet(protocol, HOST, server, b"question")).unwrap();
        let (source, _) = ends(&mut out);
        assert_eq!((to, *source.ip(), out[8]), (Side::Outside, PUBLIC, 63));
        assert_ne!(source.port(), HOST.port());
        let reply = if protocol == Protocol::Icmp { source.port() } else { server.port() };
        let answer = packet(protocol, SocketAddrV4::new(*server.ip(), reply), source, b"answer");
        let (to, mut back) = through(&mut nat, Side::Outside, &answer).unwrap();
        assert_eq!((to, ends(&mut back).1), (Side::Inside, HOST));
        let stranger = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 9), reply);
        let unasked = packet(protocol, stranger, source, b"unasked");
        assert_eq!(through(&mut nat, Side::Outside, &unasked).unwrap_err(), Refusal::Unsolicited);
        assert_eq!(nat.refused()[&Refusal::Unsolicited], 1);
    }
}

#[test]
fn the_public_address_from_inside_needs_hairpin() {
    let other = SocketAddrV4::new(Ipv4Addr::new(192, 168, 1, 3), 50_000);
    let play = |text| {
        let mut nat = nat(text);
        let (_, mut out) =
            through(&mut nat, Side::Inside, &packet(Protocol::Udp, other, SERVER, b"hello")).unwrap();
        let outside = ends(&mut out).0;
        through(&mut nat, Side::Inside, &packet(Protocol::Udp, HOST, outside, b"neighbour"))
    };
    assert_eq!(play("eim+eif").unwrap_err(), Refusal::Hairpin);
    let (to, mut bytes) = play("eim+eif+hairpin").unwrap();
    assert_eq!((to, ends(&mut bytes).1), (Side::Inside, other));
    assert_eq!(ends(&mut bytes).0, SocketAddrV4::new(PUBLIC, HOST.port()), "the external source address");
    assert_eq!(play("eim+apdf+hairpin").unwrap_err(), Refusal::Unsolicited, "filters hold there too");
}

#[test]
fn blocked_udp_leaves_tcp() {
    let mut nat = nat("eim+eif+no-udp");
    let udp = packet(Protocol::Udp, HOST, SERVER, b"x");
    assert_eq!(through(&mut nat, Side::Inside, &udp).unwrap_err(), Refusal::Blocked);
    assert!(through(&mut nat, Side::Inside, &packet(Protocol::Tcp, HOST, SERVER, b"x")).is_ok());
}

#[test]
fn errors_find_whoever_sent_the_quoted_packet() {
    let mut nat = nat("eim+apdf+random");
    let question = packet(Protocol::Udp, HOST, SERVER, &[1; 100]);
    let (_, mut out) = through(&mut nat, Side::Inside, &question).unwrap();
    let router = Ipv4Addr::new(203, 0, 113, 5);
    let (to, mut error) = through(&mut nat, Side::Outside, &too_big(&out, router, 1280)).unwrap();
    assert_eq!((to, *ends(&mut error).1.ip()), (Side::Inside, *HOST.ip()));
    assert_eq!(error[40..48], question[12..20], "quotes the addresses that were used inside");

    let outside = ends(&mut out).0;
    let (_, answer) =
        through(&mut nat, Side::Outside, &packet(Protocol::Udp, SERVER, outside, b"answer")).unwrap();
    let (to, mut error) = through(&mut nat, Side::Inside, &too_big(&answer, *HOST.ip(), 600)).unwrap();
    let (source, destination) = ends(&mut error);
    assert_eq!((to, *source.ip(), *destination.ip()), (Side::Outside, PUBLIC, *SERVER.ip()));
    assert_eq!(error[44..48], PUBLIC.octets(), "quotes the address that was used outside");
}

#[test]
fn all_fragments_go_where_the_first_goes() {
    let mut nat = nat("apdm+apdf+random");
    let pieces = cut(&packet(Protocol::Udp, HOST, SERVER, &[5; 3000]), 1280);
    assert_eq!(pieces.len(), 3);
    assert_eq!(through(&mut nat, Side::Inside, &pieces[1]).unwrap_err(), Refusal::Fragment);
    for piece in &pieces {
        let (to, mut out) = through(&mut nat, Side::Inside, piece).unwrap();
        let (source, destination) = ends(&mut out);
        assert_eq!((to, source.ip(), destination.ip()), (Side::Outside, &PUBLIC, SERVER.ip()));
    }
}

#[test]
fn a_new_public_address_forgets_everything() {
    let mut nat = nat("eim+eif");
    through(&mut nat, Side::Inside, &packet(Protocol::Tcp, HOST, SERVER, b"")).unwrap();
    let moved = Ipv4Addr::new(203, 0, 113, 134);
    nat.change("eim+eif".parse().unwrap(), moved);
    let late = packet(Protocol::Tcp, SERVER, SocketAddrV4::new(moved, HOST.port()), b"late");
    assert_eq!(through(&mut nat, Side::Outside, &late).unwrap_err(), Refusal::Unsolicited);
    let old = packet(Protocol::Tcp, SERVER, SocketAddrV4::new(PUBLIC, HOST.port()), b"late");
    assert_eq!(through(&mut nat, Side::Outside, &old).unwrap_err(), Refusal::Local);
}

#[test]
fn used_up_hops_and_the_routers_own_packets_go_nowhere() {
    let mut nat = nat("eim+eif");
    let mut dying = packet(Protocol::Udp, HOST, SERVER, b"x");
    dying[8] = 1;
    assert_eq!(nat.handle(Side::Inside, &mut dying, Instant::now()), Err(Refusal::Expired));
    for local in ["192.168.1.1:80", "239.255.255.250:1900", "255.255.255.255:67"] {
        let bytes = packet(Protocol::Udp, HOST, local.parse().unwrap(), b"x");
        assert_eq!(through(&mut nat, Side::Inside, &bytes).unwrap_err(), Refusal::Local, "{local}");
    }
}

proptest! {
    #[test]
    fn arbitrary_packets_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..120), outside: bool, begin in 0usize..3) {
        let mut nat = nat("eim+eif+hairpin");
        let mut bytes = bytes;
        if bytes.len() >= 20 && begin > 0 {
            let total = (bytes.len() as u16).to_be_bytes();
            bytes[..4].copy_from_slice(&[0x45, 0, total[0], total[1]]);
            bytes[9] = [1, 17][begin - 1];
        }
        let side = if outside { Side::Outside } else { Side::Inside };
        let _ = nat.handle(side, &mut bytes, Instant::now());
    }
}
