use super::*;
use proptest::prelude::*;

/// A packet with right checksums.
pub fn packet(
    protocol: Protocol,
    source: SocketAddrV4,
    destination: SocketAddrV4,
    payload: &[u8],
) -> Vec<u8> {
    let ports = [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
    let length = (8 + payload.len()) as u16;
    let (number, mut body, sum_at) = match protocol {
        Protocol::Udp => (UDP, [&ports[..], &length.to_be_bytes(), &[0, 0], payload].concat(), 6),
        Protocol::Tcp => (TCP, [&ports[..], &[0; 8], &[0x50, 2, 0, 0, 0, 0, 0, 0], payload].concat(), 16),
        Protocol::Icmp => {
            (ICMP, [&[8, 0, 0, 0][..], &source.port().to_be_bytes(), &[0, 1], payload].concat(), 2)
        }
    };
    let mut header = [0x45, 0, 0, 0, 0, 7, 0, 0, 64, number, 0, 0].to_vec();
    header.extend(source.ip().octets());
    header.extend(destination.ip().octets());
    let total = ((20 + body.len()) as u16).to_be_bytes();
    header[2..4].copy_from_slice(&total);
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    let sum = match transport_checksum(&header, &body) {
        0 if protocol == Protocol::Udp => 0xffff, // 0 would mean: none
        sum => sum,
    };
    body[sum_at..sum_at + 2].copy_from_slice(&sum.to_be_bytes());
    [header, body].concat()
}

fn transport_checksum(header: &[u8], body: &[u8]) -> u16 {
    let pseudo = match header[9] {
        ICMP => Vec::new(),
        number => [&header[12..20], &[0, number], &(body.len() as u16).to_be_bytes()].concat(),
    };
    checksum(&[&pseudo, body].concat())
}

/// Whether both checksums hold: the sum over everything is then zero.
pub fn is_intact(packet: &[u8]) -> bool {
    checksum(&packet[..20]) == 0 && transport_checksum(&packet[..20], &packet[20..]) == 0
}

fn endpoint(address: u32, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::from_bits(address), port)
}

const PROTOCOLS: [Protocol; 3] = [Protocol::Udp, Protocol::Tcp, Protocol::Icmp];

proptest! {
    #[test]
    fn arbitrary_bytes_do_no_harm(mut bytes in proptest::collection::vec(any::<u8>(), 0..100), version in any::<bool>()) {
        if version && !bytes.is_empty() {
            bytes[0] = 0x45;
        }
        if let Some(mut packet) = Packet::parse(&mut bytes) {
            let _ = (packet.content(), packet.fragment_key(), packet.is_first_fragment());
            packet.set_source(endpoint(1, 2));
            packet.set_destination(endpoint(3, 4));
            packet.change_quoted(|quoted| { quoted.set_source(endpoint(5, 6)); Some(()) });
            packet.hop();
            prop_assert_eq!(*packet.source().ip(), Ipv4Addr::from_bits(1));
        }
    }

    #[test]
    fn changed_packets_keep_right_checksums(
        kind in 0usize..3, from: u32, to: u32, new: u32, ports: [u16; 3], payload in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let protocol = PROTOCOLS[kind];
        let mut bytes = packet(protocol, endpoint(from, ports[0]), endpoint(to, ports[1]), &payload);
        prop_assert!(is_intact(&bytes));
        let mut view = Packet::parse(&mut bytes).unwrap();
        prop_assert_eq!(view.content(), Content::Flow(protocol));
        prop_assert_eq!(view.source(), endpoint(from, ports[0]));
        view.set_source(endpoint(new, ports[2]));
        prop_assert!(view.hop());
        prop_assert_eq!(view.source(), endpoint(new, ports[2]));
        view.set_destination(endpoint(new ^ 1, ports[2] ^ 1));
        prop_assert_eq!(view.destination(), endpoint(new ^ 1, ports[2] ^ 1));
        prop_assert!(is_intact(&bytes));
    }

    #[test]
    fn pieces_are_whole_together(size in 0usize..4000, mtu in 68u16..1500) {
        let payload: Vec<u8> = (0..size).map(|n| n as u8).collect();
        let whole = packet(Protocol::Udp, endpoint(1, 2), endpoint(3, 4), &payload);
        let pieces = cut(&whole, mtu);
        let mut body = Vec::<u8>::new();
        for (n, piece) in pieces.iter().enumerate() {
            prop_assert!(piece.len() <= usize::from(mtu) && checksum(&piece[..20]) == 0);
            let flags = u16::from_be_bytes([piece[6], piece[7]]);
            prop_assert_eq!(usize::from(flags & 0x1fff) * 8, body.len());
            prop_assert_eq!(flags & 0x2000 != 0, n + 1 < pieces.len());
            body.extend(&piece[20..]);
        }
        prop_assert_eq!(&body, &whole[20..]);
    }
}

#[test]
fn udp_without_a_checksum_stays_without() {
    let mut bytes = packet(Protocol::Udp, endpoint(1, 2), endpoint(3, 4), b"x");
    bytes[26..28].fill(0);
    Packet::parse(&mut bytes).unwrap().set_source(endpoint(9, 9));
    assert_eq!(bytes[26..28], [0, 0]);
}

#[test]
fn an_error_quotes_and_is_intact_after_a_change() {
    let mut sent = packet(Protocol::Udp, endpoint(0xc000_0201, 2), endpoint(0xcb00_7105, 4), &[7; 40]);
    let mut error = too_big(&sent, Ipv4Addr::new(203, 0, 113, 1), 1280);
    assert!(is_intact(&error));
    let mut view = Packet::parse(&mut error).unwrap();
    assert_eq!((view.content(), *view.destination().ip()), (Content::Error, Ipv4Addr::new(192, 0, 2, 1)));
    view.change_quoted(|quoted| {
        assert_eq!(quoted.destination(), endpoint(0xcb00_7105, 4));
        quoted.set_source(endpoint(0xc0a8_0102, 40_000));
        Some(())
    })
    .unwrap();
    assert!(is_intact(&error));
    Packet::parse(&mut sent).unwrap().set_source(endpoint(0xc0a8_0102, 40_000));
    assert_eq!(error[28..56], sent[..28], "the quote is what was sent, its checksums too");
}
