//! Services that a party must never reach unasked: whoever runs them did not start them for a game.

use super::port::{Port, Transport};
use Transport::{Tcp, Udp};
use std::ops::RangeInclusive;

/// Ports below this belong to the system (RFC 6335): games host above it.
const SYSTEM_PORTS: u16 = 1024;

/// By their registered or usual ports.
const SERVICES: &[(Transport, RangeInclusive<u16>, &str)] = &[
    (Tcp, 22..=22, "ssh"),
    (Tcp, 23..=23, "telnet"),
    (Tcp, 25..=25, "mail"),
    (Tcp, 53..=53, "dns"),
    (Udp, 53..=53, "dns"),
    (Tcp, 80..=80, "http"),
    (Tcp, 111..=111, "rpcbind"),
    (Udp, 111..=111, "rpcbind"),
    (Tcp, 139..=139, "file sharing (smb)"),
    (Tcp, 443..=443, "https"),
    (Tcp, 445..=445, "file sharing (smb)"),
    (Tcp, 548..=548, "file sharing (afp)"),
    (Tcp, 631..=631, "printing (cups)"),
    (Udp, 631..=631, "printing (cups)"),
    (Tcp, 873..=873, "rsync"),
    (Tcp, 1433..=1434, "database (mssql)"),
    (Tcp, 1521..=1521, "database (oracle)"),
    (Udp, 1900..=1900, "upnp"),
    (Tcp, 2049..=2049, "file sharing (nfs)"),
    (Udp, 2049..=2049, "file sharing (nfs)"),
    (Tcp, 2375..=2377, "docker"),
    (Tcp, 2379..=2380, "database (etcd)"),
    (Tcp, 3000..=3001, "web development"),
    (Tcp, 3306..=3306, "database (mysql)"),
    (Tcp, 3389..=3389, "remote desktop (rdp)"),
    (Udp, 3389..=3389, "remote desktop (rdp)"),
    (Udp, 3702..=3702, "device discovery (wsd)"),
    (Tcp, 4444..=4445, "debugging"),
    (Tcp, 5000..=5001, "web development"),
    (Tcp, 5173..=5173, "web development"),
    (Udp, 5353..=5353, "device discovery (mdns)"),
    (Udp, 5355..=5355, "names (llmnr)"),
    (Tcp, 5355..=5355, "names (llmnr)"),
    (Tcp, 5432..=5433, "database (postgresql)"),
    (Tcp, 5601..=5601, "kibana"),
    (Tcp, 5672..=5672, "messages (amqp)"),
    (Tcp, 5800..=5809, "remote desktop (vnc)"),
    (Tcp, 5900..=5909, "remote desktop (vnc)"),
    (Tcp, 5984..=5984, "database (couchdb)"),
    (Tcp, 5985..=5986, "remote administration (winrm)"),
    (Tcp, 6000..=6063, "screen (x11)"),
    (Tcp, 6379..=6379, "database (redis)"),
    (Tcp, 6443..=6443, "kubernetes"),
    (Tcp, 8000..=8000, "web development"),
    (Tcp, 8006..=8006, "remote administration (proxmox)"),
    (Tcp, 8080..=8081, "http"),
    (Tcp, 8384..=8384, "syncthing"),
    (Tcp, 8443..=8443, "https"),
    (Tcp, 8666..=8669, "lanrage"),
    (Tcp, 9000..=9001, "http"),
    (Tcp, 9090..=9100, "administration and metrics"),
    (Tcp, 9200..=9300, "database (elasticsearch)"),
    (Tcp, 10_250..=10_250, "kubernetes"),
    (Tcp, 11_211..=11_211, "database (memcached)"),
    (Udp, 11_211..=11_211, "database (memcached)"),
    (Tcp, 27_017..=27_019, "database (mongodb)"),
];

/// The service that lives on a port; none where games may.
pub fn service(port: Port) -> Option<&'static str> {
    let lives_here = |(transport, ports, _): &&(Transport, RangeInclusive<u16>, &str)| {
        *transport == port.transport && ports.contains(&port.number)
    };
    let known = SERVICES.iter().find(lives_here).map(|(_, _, name)| *name);
    known.or_else(|| (port.number < SYSTEM_PORTS).then_some("a system service"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hosts of well-known games, by their documentation; a rule that closes one of them breaks a first evening.
    #[test]
    fn no_games_port_is_a_services() {
        let tcp = [25565, 7777, 8888, 2456, 6112, 27015, 3724, 1119, 4000, 47624, 23073, 11223];
        let udp = [
            27960, 27015, 19132, 34197, 7777, 2456, 6112, 26000, 28960, 2302, 2759, 16261, 8777, 3074, 15000,
        ];
        for number in tcp {
            assert_eq!(service(Port { transport: Tcp, number }), None, "tcp/{number}");
        }
        for number in udp {
            assert_eq!(service(Port { transport: Udp, number }), None, "udp/{number}");
        }
    }

    #[test]
    fn services_have_names() {
        for (transport, number, name) in
            [(Tcp, 22, "ssh"), (Tcp, 445, "file sharing (smb)"), (Tcp, 5903, "remote desktop (vnc)")]
        {
            assert_eq!(service(Port { transport, number }), Some(name));
        }
        assert_eq!(service(Port { transport: Udp, number: 1023 }), Some("a system service"));
    }
}
