//! Configuration of a plain WireGuard client, in the form that wg-quick(8) and the apps read, also from a QR code.

use crate::identity::WgKey;
use ipnet::Ipv4Net;
use std::fmt;
use std::net::Ipv4Addr;

/// What the client needs. Its `Display` form is the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WgQuick {
    /// The client's private key in WireGuard's base64; `None` when the device made its own, which stays there.
    pub private_key: Option<String>,
    /// Its address in the party.
    pub address: Ipv4Addr,
    /// Bytes a packet may have.
    pub mtu: u16,
    /// The gateway's key.
    pub gateway: WgKey,
    /// Where the client reaches the gateway: host and port.
    pub endpoint: String,
    /// The party's subnet.
    pub subnet: Ipv4Net,
}

impl fmt::Display for WgQuick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.private_key.as_deref().unwrap_or("the device's own private key");
        writeln!(f, "[Interface]")?;
        writeln!(f, "PrivateKey = {key}")?;
        // with the party's prefix: the route to members is then one of the address. As a route of its own beside that to
        // groups, Linux takes both for one nexthop, and after a multicast lets no TCP connection to a member begin
        writeln!(f, "Address = {}/{}", self.address, self.subnet.prefix_len())?;
        writeln!(f, "MTU = {}", self.mtu)?;
        writeln!(f, "\n[Peer]")?;
        writeln!(f, "PublicKey = {}", self.gateway)?;
        // searches for games go to everybody and to groups: without these a client keeps them to itself
        writeln!(f, "AllowedIPs = {}, 255.255.255.255/32, 224.0.0.0/4", self.subnet)?;
        writeln!(f, "Endpoint = {}", self.endpoint)?;
        writeln!(f, "PersistentKeepalive = 25")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_what_wg_quick_reads() {
        let file = WgQuick {
            private_key: Some("abc=".into()),
            address: Ipv4Addr::new(10, 66, 0, 9),
            mtu: 1420,
            gateway: WgKey([1; 32]),
            endpoint: "play.example:51820".into(),
            subnet: "10.66.0.0/16".parse().unwrap(),
        };
        assert_eq!(
            file.to_string(),
            "[Interface]\nPrivateKey = abc=\nAddress = 10.66.0.9/16\nMTU = 1420\n\n[Peer]\n\
             PublicKey = AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\n\
             AllowedIPs = 10.66.0.0/16, 255.255.255.255/32, 224.0.0.0/4\nEndpoint = play.example:51820\n\
             PersistentKeepalive = 25\n"
        );
    }
}
