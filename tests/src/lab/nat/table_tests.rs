use super::*;

const HOST: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 168, 1, 2), 40_000);

fn table(text: &str) -> Table {
    Table::new(text.parse().unwrap())
}

fn server(host: u8, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, host), port)
}

/// The ports that one socket has towards A:1, A:2, B:1 and again A:1.
fn ports(table: &mut Table) -> [u16; 4] {
    let now = Instant::now();
    [server(1, 1), server(1, 2), server(2, 1), server(1, 1)]
        .map(|to| table.outward(Protocol::Udp, HOST, to, now).unwrap())
}

#[test]
fn mappings_depend_on_what_their_name_says() {
    for allocation in ["preserving", "sequential", "random"] {
        let [a1, a2, b1, again] = ports(&mut table(&format!("eim+eif+{allocation}")));
        assert_eq!([a1, a1, a1], [a2, b1, again]);
        let [a1, a2, b1, again] = ports(&mut table(&format!("adm+eif+{allocation}")));
        assert_eq!([a1, a1], [a2, again]);
        assert_ne!(a1, b1);
        let [a1, a2, b1, again] = ports(&mut table(&format!("apdm+eif+{allocation}")));
        assert_eq!(a1, again);
        assert!(a1 != a2 && a2 != b1 && a1 != b1);
    }
}

#[test]
fn filters_depend_on_what_their_name_says() {
    let now = Instant::now();
    let passes = |filtering: &str| {
        let mut table = table(&format!("eim+{filtering}"));
        let port = table.outward(Protocol::Udp, HOST, server(1, 1), now).unwrap();
        [server(1, 1), server(1, 2), server(2, 1)]
            .map(|from| table.inward(Protocol::Udp, port, from, now) == Some(HOST))
    };
    assert_eq!(passes("eif"), [true, true, true]);
    assert_eq!(passes("adf"), [true, true, false]);
    assert_eq!(passes("apdf"), [true, false, false]);
}

#[test]
fn ports_are_kept_counted_or_diced() {
    assert_eq!(ports(&mut table("apdm+apdf+preserving")), [40_000, 40_001, 40_002, 40_000]);
    let [first, second, third, _] = ports(&mut table("apdm+apdf+sequential:3+seed:5"));
    assert_eq!([second, third], [after(first, 3), after(first, 6)]);
    let diced = |seed| ports(&mut table(&format!("apdm+apdf+random+seed:{seed}")));
    assert_eq!(diced(1), diced(1), "the same seed gives the same ports");
    assert_ne!(diced(1), diced(2));
}

#[test]
fn two_hosts_with_one_port_are_told_apart() {
    let mut table = table("eim+eif+preserving");
    let other = SocketAddrV4::new(Ipv4Addr::new(192, 168, 1, 3), 40_000);
    let now = Instant::now();
    let own = table.outward(Protocol::Udp, HOST, server(1, 1), now).unwrap();
    let others = table.outward(Protocol::Udp, other, server(1, 1), now).unwrap();
    assert_eq!((own, others), (40_000, 40_001));
    assert_eq!(table.inward(Protocol::Udp, others, server(1, 1), now), Some(other));
}

#[test]
fn only_what_goes_out_keeps_a_mapping_alive() {
    let mut table = table("eim+eif+random+timeout:30");
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let port = table.outward(Protocol::Udp, HOST, server(1, 1), start).unwrap();
    assert!(table.inward(Protocol::Udp, port, server(1, 1), at(29)).is_some());
    assert!(table.inward(Protocol::Udp, port, server(1, 1), at(30)).is_none());
    assert_ne!(table.outward(Protocol::Udp, HOST, server(1, 1), at(31)), Some(port));
    let tcp = table.outward(Protocol::Tcp, HOST, server(1, 1), start).unwrap();
    assert!(table.inward(Protocol::Tcp, tcp, server(1, 1), at(3600)).is_some());
}

#[test]
fn a_contact_expires_though_the_mapping_lives() {
    let mut table = table("eim+apdf+timeout:30");
    let start = Instant::now();
    let later = start + Duration::from_secs(20);
    let port = table.outward(Protocol::Udp, HOST, server(1, 1), start).unwrap();
    table.outward(Protocol::Udp, HOST, server(2, 2), later);
    let end = start + Duration::from_secs(31);
    assert!(table.inward(Protocol::Udp, port, server(1, 1), end).is_none());
    assert!(table.inward(Protocol::Udp, port, server(2, 2), end).is_some());
}

#[test]
fn a_change_keeps_tcp_alone() {
    let mut table = table("eim+eif");
    let now = Instant::now();
    let tcp = table.outward(Protocol::Tcp, HOST, server(1, 1), now).unwrap();
    let udp = table.outward(Protocol::Udp, HOST, server(1, 1), now).unwrap();
    table.change("apdm+apdf+random".parse().unwrap());
    assert_eq!(table.inward(Protocol::Tcp, tcp, server(1, 1), now), Some(HOST));
    assert_eq!(table.inward(Protocol::Udp, udp, server(1, 1), now), None);
}

#[test]
fn a_flood_fills_the_table_and_no_more() {
    for allocation in ["preserving", "sequential:1024", "random"] {
        let mut table = table(&format!("apdm+apdf+{allocation}+timeout:10"));
        let now = Instant::now();
        let got = (0..10_000u32)
            .filter(|n| {
                let to = SocketAddrV4::new(Ipv4Addr::from_bits(0xc000_0200 + n / 100), 1 + (n % 100) as u16);
                table.outward(Protocol::Udp, HOST, to, now).is_some()
            })
            .count();
        assert_eq!(got, MAX_MAPPINGS);
        let later = now + Duration::from_secs(10);
        assert!(table.outward(Protocol::Udp, HOST, server(250, 1), later).is_some());
        assert_eq!(table.mappings.len(), table.ports.len());
    }
}
