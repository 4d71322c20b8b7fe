//! The interface on a real kernel, each test in a network namespace of its own. They need root.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use super::*;
use futures_util::TryStreamExt as _;
use rtnetlink::{LinkUnspec, LinkVeth};
use std::future::Future;
use std::net::UdpSocket;
use std::time::Duration;

const ME: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 5);

/// Runs a test on a thread in a fresh network namespace, which vanishes with it.
fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let thread = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("this test needs root");
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn config() -> InterfaceConfig {
    InterfaceConfig {
        name: "lanrage0".into(),
        address: ME,
        subnet: "10.66.0.0/16".parse().unwrap(),
        mtu: 1420,
    }
}

async fn routes_of_party() -> Vec<String> {
    let mut routes: Vec<_> =
        routes().await.unwrap().iter().map(|route| route.destination.to_string()).collect();
    routes.sort();
    routes
}

async fn set_link(up: bool) {
    let (connection, handle, _) = rtnetlink::new_connection().unwrap();
    let task = tokio::spawn(connection);
    let link = LinkUnspec::new_with_name("lanrage0");
    let link = if up { link.up() } else { link.down() };
    handle.link().set(link.build()).execute().await.unwrap();
    task.abort();
}

async fn exists(name: &str) -> bool {
    let (connection, handle, _) = rtnetlink::new_connection().unwrap();
    let task = tokio::spawn(connection);
    let found = handle.link().get().match_name(name).execute().try_next().await;
    task.abort();
    matches!(found, Ok(Some(_)))
}

/// The first IPv4 packet that comes out of the interface; the kernel also says hello by IPv6.
async fn next_ipv4(interface: &Interface) -> Vec<u8> {
    let mut buffer = [0; 2000];
    loop {
        tokio::time::timeout(Duration::from_secs(2), interface.readable()).await.expect("a packet").unwrap();
        match interface.try_recv(&mut buffer) {
            Ok(length) if buffer[0] >> 4 == 4 => return buffer[..length].to_vec(),
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
    }
}

#[test]
fn interface_has_address_and_takes_group_packets() {
    in_namespace(|| async {
        let interface = Interface::create(config()).await.unwrap();
        assert_eq!(routes_of_party().await, ["10.66.0.0/16", "224.0.0.0/4", "255.255.255.255/32"]);
        let expected = Network {
            interface: "lanrage0".into(),
            address: "10.66.0.5/16".parse().unwrap(),
            broadcast: Some(Ipv4Addr::new(10, 66, 255, 255)),
            index: interface.index(),
            mac: None,
            is_default: false,
        };
        assert_eq!(networks("eth0").await.unwrap(), [expected]);
        assert_eq!(networks("lanrage0").await.unwrap(), []);

        let game = UdpSocket::bind("0.0.0.0:0").unwrap();
        game.set_broadcast(true).unwrap();
        for group in [Ipv4Addr::BROADCAST, Ipv4Addr::new(10, 66, 255, 255), Ipv4Addr::new(239, 1, 2, 3)] {
            game.send_to(b"anyone?", (group, 4445)).unwrap();
            let packet = next_ipv4(&interface).await;
            assert_eq!((&packet[12..16], &packet[16..20]), (&ME.octets()[..], &group.octets()[..]));
            assert!(packet.ends_with(b"anyone?"));
        }
    });
}

#[test]
fn packets_given_to_the_interface_reach_programs() {
    in_namespace(|| async {
        let interface = Interface::create(config()).await.unwrap();
        let game = UdpSocket::bind("0.0.0.0:4445").unwrap();
        game.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        // IPv4 and UDP header by hand; a UDP checksum of zero means none (RFC 768)
        let mut packet = vec![0x45, 0, 0, 30, 0, 0, 0, 0, 64, 17, 0, 0, 10, 66, 0, 9, 10, 66, 0, 5];
        let sum: u32 = packet.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        let checksum = !(((sum & 0xffff) + (sum >> 16)) as u16);
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        packet.extend_from_slice(&[0x11, 0x5c, 0x11, 0x5d, 0, 10, 0, 0, b'h', b'i']);
        interface.send(&packet).unwrap();
        let mut buffer = [0; 10];
        let (length, from) = game.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], from), (&b"hi"[..], "10.66.0.9:4444".parse().unwrap()));
    });
}

#[test]
fn routes_come_back_after_link_down_and_up() {
    in_namespace(|| async {
        let interface = Interface::create(config()).await.unwrap();
        let mut watch = NetworkWatch::new().unwrap();
        set_link(false).await;
        assert!(routes_of_party().await.is_empty());
        interface.repair().await.unwrap();
        assert!(routes_of_party().await.is_empty(), "a link that somebody holds down stays down");
        set_link(true).await;
        tokio::time::timeout(Duration::from_secs(2), watch.changed()).await.expect("the watch wakes");
        interface.repair().await.unwrap();
        assert_eq!(routes_of_party().await, ["10.66.0.0/16", "224.0.0.0/4", "255.255.255.255/32"]);
    });
}

#[test]
fn a_taken_name_is_said_and_a_dropped_interface_is_gone() {
    in_namespace(|| async {
        let first = Interface::create(config()).await.unwrap();
        let error = Interface::create(config()).await.unwrap_err();
        assert!(matches!(error, InterfaceError::NameTaken(_)), "{error}");
        assert!(error.fix().contains("ip link delete lanrage0"));
        drop(first);
        assert!(!exists("lanrage0").await);

        let (connection, handle, _) = rtnetlink::new_connection().unwrap();
        tokio::spawn(connection);
        handle.link().add(LinkVeth::new("lanrage0", "other0").build()).execute().await.unwrap();
        let error = Interface::create(config()).await.unwrap_err();
        assert!(matches!(error, InterfaceError::NameTaken(_)), "{error}");
    });
}

#[test]
fn a_deleted_interface_is_an_error_on_the_next_read() {
    in_namespace(|| async {
        let interface = Interface::create(config()).await.unwrap();
        let (connection, handle, _) = rtnetlink::new_connection().unwrap();
        tokio::spawn(connection);
        let found = handle.link().get().match_name("lanrage0").execute().try_next().await.unwrap().unwrap();
        handle.link().del(found.header.index).execute().await.unwrap();
        let broken = async {
            loop {
                interface.readable().await.unwrap();
                match interface.try_recv(&mut [0; 2000]) {
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => return error,
                    _ => tokio::task::yield_now().await,
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(2), broken).await.expect("the deletion is noticed");
    });
}
