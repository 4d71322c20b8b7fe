use super::*;
use crate::wire::{checksum, udp_checksum as full_udp_checksum};
use core::net::IpAddr;
use proptest::prelude::*;

const V4: [&str; 2] = ["192.0.2.1", "198.51.100.1"];
const V6: [&str; 2] = ["2001:db8::1", "2001:db8:ffff:1::ffff"];

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// A UDP checksum from scratch; the datagram's own field is zero.
fn checksum_of(addresses: [IpAddr; 2], ports: [u16; 2], payload: &[u8]) -> u16 {
    let mut datagram = ports.map(u16::to_be_bytes).concat();
    datagram.extend((8 + payload.len() as u16).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    full_udp_checksum(&octets(addresses[0]), &octets(addresses[1]), &datagram)
}

fn headers(addresses: [IpAddr; 2], ports: [u16; 2], payload: &[u8]) -> Headers {
    Headers {
        udp_length: 8 + payload.len() as u16,
        traffic_class: 0xb8,
        ttl: 64,
        label: DONT_FRAGMENT,
        ip_checksum: Be16::default(),
        source: addresses[0].into(),
        destination: addresses[1].into(),
        source_port: Be16::new(ports[0]),
        destination_port: Be16::new(ports[1]),
        udp_checksum: Be16::new(checksum_of(addresses, ports, payload)),
    }
}

fn flow(addresses: [IpAddr; 2], ports: [u16; 2]) -> (FlowValue, NextHop) {
    let value = FlowValue {
        destination: addresses[1].into(),
        source_port: Be16::new(ports[0]),
        destination_port: Be16::new(ports[1]),
        ..FlowValue::default()
    };
    (value, NextHop::new(3, 1500, [2; 6], [4; 6], addresses[0].into()))
}

fn address() -> impl Strategy<Value = [IpAddr; 2]> {
    prop_oneof![
        any::<[[u8; 4]; 2]>().prop_map(|both| both.map(IpAddr::from)),
        any::<[[u8; 16]; 2]>().prop_map(|both| both.map(IpAddr::from)),
    ]
}

proptest! {
    /// Changing the UDP checksum by the difference gives what computing it from scratch gives, in and between families.
    #[test]
    fn incremental_equals_full_recompute(
        from in address(), to in address(), ports: [u16; 4],
        payload in prop::collection::vec(any::<u8>(), 0..96),
    ) {
        let old = headers(from, [ports[0], ports[1]], &payload);
        let (flow, hop) = flow(to, [ports[2], ports[3]]);
        let want = Be16::new(checksum_of(to, [ports[2], ports[3]], &payload));
        let family = old.source.family();
        prop_assert_eq!(udp_checksum(&old, family, &flow, &hop), want);
        if family == hop.source.family() {
            prop_assert_eq!(edit(family, &old, &flow, &hop).udp_checksum, want);
        }
    }

    #[test]
    fn ipv4_headers_are_right_and_stay_so(tos: u8, length in 8u16..1480, ttl in 2u8.., words: [[u8; 4]; 4]) {
        let [a, b, c, d] = words.map(Be32::from_octets);
        let bytes = ipv4_header(tos, length, DONT_FRAGMENT, ttl, a, b).map(Be32::octets).concat();
        prop_assert_eq!(checksum(&bytes), 0);
        let old = Headers {
            udp_length: length, ttl, traffic_class: tos, ip_checksum: Be16::from_octets([bytes[10], bytes[11]]),
            source: Address::from_v4(a), destination: Address::from_v4(b), ..headers(V4.map(|a| a.parse().unwrap()), [1, 2], &[])
        };
        let (flow, hop) = flow([words[2].into(), words[3].into()], [1, 2]);
        let edits = edit(Family::V4, &old, &flow, &hop);
        let mut new = ipv4_header(tos, length, DONT_FRAGMENT, ttl - 1, c, d).map(Be32::octets).concat();
        new[10..12].copy_from_slice(&edits.ip_checksum.octets());
        prop_assert_eq!(checksum(&new), 0);
    }
}

#[test]
fn routes_by_next_hop() {
    let (flow_v4, hop) = flow(V4.map(|a| a.parse().unwrap()), [1, 2]);
    let hop = NextHop { mtu: 60, ..hop };
    assert_eq!(route(40, &flow_v4, &hop, 3), Ok(Reason::Forwarded));
    assert_eq!(route(40, &flow_v4, &hop, 4), Ok(Reason::Redirected));
    assert_eq!(route(41, &flow_v4, &hop, 3), Err(Reason::TooBig));
    assert_eq!(route(40, &flow_v4, &NextHop::default(), 3), Err(Reason::NoNextHop));
    let (flow_v6, hop_v6) = flow(V6.map(|a| a.parse().unwrap()), [1, 2]);
    assert_eq!(route(40, &flow_v6, &hop, 3), Err(Reason::NoNextHop), "families must not mix by accident");
    let hop_v6 = NextHop { mtu: 80, ..hop_v6 };
    assert_eq!(route(40, &flow_v6, &hop_v6, 3), Ok(Reason::Forwarded));
    assert_eq!(route(41, &flow_v6, &hop_v6, 3), Err(Reason::TooBig), "the new header counts");
}

#[test]
fn headers_grow_only_where_that_is_allowed() {
    let old = headers(V4.map(|a| a.parse().unwrap()), [1, 2], &[]);
    let (_, hop) = flow(V6.map(|a| a.parse().unwrap()), [1, 2]);
    let mut local = Local::default();
    assert_eq!(may_change(&old, Family::V4, &hop, &local), Err(Reason::Mixed));
    local.flags = Local::MIXED;
    assert_eq!(may_change(&old, Family::V4, &hop, &local), Ok(()));
    let none = Headers { udp_checksum: Be16::default(), ..old };
    assert_eq!(may_change(&none, Family::V4, &hop, &local), Err(Reason::NoChecksum));
    assert_eq!(may_change(&none, Family::V6, &hop, &local), Ok(()));
}

#[test]
fn macs_begin_the_frame_in_order() {
    let source = Address::default();
    let hop = NextHop::new(1, 1500, [1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12], source);
    assert_eq!(hop.macs.map(Be32::octets).concat(), (1..=12).collect::<Vec<u8>>());
}
