//! Rules that a single value's type cannot express.

use super::Config;
use crate::control::origin::normalize;
use ipnet::Ipv4Net;
use lanrage_common::firewall::MAX_WORDS;
use lanrage_common::protocol::{MAX_NAME, is_valid_name};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

/// The key that is to blame, and why.
pub(super) type Fault = (&'static str, String);

/// Below this IPv6 does not work inside, above it WireGuard's packets do not fit a 1500-byte path.
const MTU: std::ops::RangeInclusive<u16> = 1280..=1440;
/// IFNAMSIZ less its terminating zero.
const MAX_INTERFACE: usize = 15;
/// Home networks of one gateway.
const MAX_LANS: usize = 4;
const WORKERS: std::ops::RangeInclusive<u16> = 0..=256;
const MAX_FLOWS: std::ops::RangeInclusive<u32> = 2..=4_194_304;
const MAX_PARTY_MEMBERS: std::ops::RangeInclusive<u32> = 2..=16_384;
/// Longest path that fits `sockaddr_un` everywhere.
const MAX_SOCKET_PATH: usize = 103;

pub(super) fn check(config: &Config) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut rule = |key: &'static str, result: Result<(), String>| {
        faults.extend(result.err().map(|message| (key, message)));
    };
    rule("state_dir", absolute(&config.state_dir));
    rule("socket", absolute(&config.socket).and_then(|()| socket_length(&config.socket)));
    rule("ui", loopback(config.ui, config.ui_allow_remote));
    rule("control.public_url", optional(&config.control.public_url, origin));
    rule("control.subnet", subnet(config.control.subnet));
    rule("control.relay_token", optional(&config.control.relay_token, token));
    rule(
        "relay.listen6",
        config.relay.listen6.map_or(Ok(()), |listen6| second_family(config.relay.listen, listen6)),
    );
    rule("relay.public_address", config.relay.public_address.map_or(Ok(()), reachable));
    rule(
        "relay.public_address6",
        config.relay.public_address6.map_or(Ok(()), |it| ipv6(it).and_then(|()| reachable(it))),
    );
    rule(
        "relay.alternate_address",
        config.relay.alternate_address.map_or(Ok(()), |ip| another_address(config, ip)),
    );
    rule("relay.workers", range(config.relay.workers, &WORKERS, "threads"));
    rule("relay.name", optional(&config.relay.name, name));
    rule("relay.control", optional(&config.relay.control, origin));
    rule("relay.token", optional(&config.relay.token, token));
    rule("relay.interfaces", config.relay.interfaces.iter().try_for_each(|name| interface(name)));
    rule("relay.max_flows", range(config.relay.max_flows, &MAX_FLOWS, "flows"));
    rule(
        "relay.max_packets_per_s",
        range(config.relay.max_packets_per_s, &(0..=1_000_000_000), "packets a second"),
    );
    rule("relay.max_mbit_per_s", range(config.relay.max_mbit_per_s, &(0..=1_000_000), "Mbit/s"));
    rule("relay.pin_dir", pin_dir(&config.relay.pin_dir));
    rule("relay.max_party_members", range(config.relay.max_party_members, &MAX_PARTY_MEMBERS, "members"));
    let party_flows = config.relay.max_party_flows.unwrap_or(config.relay.max_flows);
    rule("relay.max_party_flows", range(party_flows, &MAX_FLOWS, "flows"));
    rule("relay.tls_public_address", config.relay.tls_public_address.map_or(Ok(()), reachable));
    let (cert, key) = (&config.relay.tls_cert, &config.relay.tls_key);
    rule("relay.tls_cert", pem(cert.as_deref(), key.is_some(), "relay.tls_cert"));
    rule("relay.tls_key", pem(key.as_deref(), cert.is_some(), "relay.tls_key"));
    rule("peer.name", optional(&config.peer.name, name));
    rule("peer.control", optional(&config.peer.control, origin));
    rule("peer.invite_origin", optional(&config.peer.invite_origin, origin));
    rule("peer.interface", interface(&config.peer.interface));
    rule("gateway.lan", lans(&config.gateway.lan));
    rule("gateway.alias_range", alias_range(config));
    rule("peer.mtu", range(config.peer.mtu, &MTU, "bytes"));
    rule("peer.stun_servers", config.peer.stun_servers.iter().try_for_each(|server| stun_server(server)));
    rule("peer.allow", port_count(config.peer.allow.len()));
    rule("discord.webhook", optional(&config.discord.webhook, webhook));
    faults
}

fn lans(names: &[String]) -> Result<(), String> {
    if names.len() > MAX_LANS {
        return Err(format!(
            "{} interfaces are too many: a gateway serves {MAX_LANS} home networks",
            names.len()
        ));
    }
    names.iter().try_for_each(|name| interface(name))
}

fn alias_range(config: &Config) -> Result<(), String> {
    match (&config.gateway.alias_range, config.gateway.aliases()) {
        (Some(text), None) => {
            Err(format!("{text:?} is no range of addresses; write it as 192.168.1.200-192.168.1.230"))
        }
        _ => Ok(()),
    }
}

fn port_count(count: usize) -> Result<(), String> {
    if count <= MAX_WORDS {
        return Ok(());
    }
    Err(format!(
        "{count} entries are too many: write ports in a row as udp/27015-27020, at most {MAX_WORDS} entries"
    ))
}

fn stun_server(server: &str) -> Result<(), String> {
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    match server.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && is_port(port) => Ok(()),
        _ => Err(format!("{server:?} names no server; write it as stun.example:3478")),
    }
}

/// The complaint does not show it. Anything but https would tell it, and all messages, to everybody on the way.
fn webhook(url: &str) -> Result<(), String> {
    let url = reqwest::Url::parse(url).ok();
    let is_safe = url.is_some_and(|url| match (url.scheme(), url.host_str()) {
        ("https", Some(_)) => true,
        ("http", Some(host)) => host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()),
        _ => false,
    });
    is_safe.then_some(()).ok_or_else(|| {
        "it is not an https address: copy it in Discord, in the channel's settings under Integrations, Webhooks".into()
    })
}

fn optional(value: &Option<String>, rule: fn(&str) -> Result<(), String>) -> Result<(), String> {
    value.as_deref().map_or(Ok(()), rule)
}

fn absolute(path: &Path) -> Result<(), String> {
    if path.is_absolute() {
        return Ok(());
    }
    Err(format!("{} is not an absolute path; start it with /", path.display()))
}

/// Names in bpffs cannot have dots.
fn pin_dir(path: &Path) -> Result<(), String> {
    if path.as_os_str().is_empty() {
        return Ok(());
    }
    absolute(path)?;
    if path.to_string_lossy().contains('.') {
        return Err(format!("{} has a dot, which a BPF file system does not allow", path.display()));
    }
    Ok(())
}

/// A file that makes sense only together with another one.
fn pem(file: Option<&Path>, has_other: bool, key: &str) -> Result<(), String> {
    match file {
        Some(file) => absolute(file),
        None if has_other => Err(format!("{key} is missing: certificate and key belong together")),
        None => Ok(()),
    }
}

fn socket_length(path: &Path) -> Result<(), String> {
    let length = path.as_os_str().len();
    if length <= MAX_SOCKET_PATH {
        return Ok(());
    }
    Err(format!(
        "the path has {length} characters, a Unix socket may have {MAX_SOCKET_PATH}; choose a shorter one"
    ))
}

fn loopback(address: SocketAddr, allow_remote: bool) -> Result<(), String> {
    if address.ip().is_loopback() || allow_remote {
        return Ok(());
    }
    Err(format!(
        "{address} can be reached from other machines; use 127.0.0.1:{}, or set ui_allow_remote = true if you mean it",
        address.port()
    ))
}

/// Refuses what is not the origin of a control server.
pub fn origin(url: &str) -> Result<(), String> {
    normalize(url).map(|_| ()).map_err(|error| error.to_string())
}

fn subnet(net: Ipv4Net) -> Result<(), String> {
    let private = [
        (Ipv4Addr::new(10, 0, 0, 0), 8),
        (Ipv4Addr::new(172, 16, 0, 0), 12),
        (Ipv4Addr::new(192, 168, 0, 0), 16),
    ]
    .map(|(address, bits)| Ipv4Net::new_assert(address, bits));
    if net.trunc() != net {
        return Err(format!("{net} has bits set behind its prefix; write {}", net.trunc()));
    }
    if !private.iter().any(|block| block.contains(&net)) {
        return Err(format!(
            "{net} is not private; use a part of 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16"
        ));
    }
    if !(16..=24).contains(&net.prefix_len()) {
        return Err(format!("{net} has prefix /{}; use /16 to /24", net.prefix_len()));
    }
    Ok(())
}

fn token(token: &str) -> Result<(), String> {
    if token.len() >= 16 && token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    Err("a token has at least 16 printable ASCII characters and no blanks".into())
}

fn ipv6(address: SocketAddr) -> Result<(), String> {
    if address.is_ipv6() {
        return Ok(());
    }
    Err(format!("{address} is not an IPv6 address; write it as [2001:db8::7]:3478"))
}

fn second_family(listen: SocketAddr, listen6: SocketAddr) -> Result<(), String> {
    ipv6(listen6)?;
    if listen.is_ipv4() {
        return Ok(());
    }
    Err(format!(
        "relay.listen is {listen}, which is IPv6 already; set relay.listen to an IPv4 address or leave this out"
    ))
}

fn another_address(config: &Config, ip: IpAddr) -> Result<(), String> {
    let listen6 = config.relay.listen6.map(|listen6| listen6.ip());
    if ip.is_unspecified() || ip.is_multicast() || ip == config.relay.listen.ip() || Some(ip) == listen6 {
        return Err(format!("{ip} is not a second address of this machine"));
    }
    Ok(())
}

fn reachable(address: SocketAddr) -> Result<(), String> {
    let unspecified = match address.ip() {
        IpAddr::V4(ip) => ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unspecified() || ip.is_multicast(),
    };
    if unspecified || address.port() == 0 {
        return Err(format!("{address} is not an address that members can send to"));
    }
    Ok(())
}

fn name(name: &str) -> Result<(), String> {
    if is_valid_name(name) {
        return Ok(());
    }
    Err(format!(
        "{name:?} is not a name: 1 to {MAX_NAME} characters, no control characters, no blanks at the ends"
    ))
}

fn interface(name: &str) -> Result<(), String> {
    let well_formed = (1..=MAX_INTERFACE).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b':')
        && name != "."
        && name != "..";
    if well_formed {
        return Ok(());
    }
    Err(format!(
        "{name:?} is not an interface name: 1 to {MAX_INTERFACE} characters, no blanks, slashes or colons"
    ))
}

fn range<T: PartialOrd + std::fmt::Display>(
    value: T,
    range: &std::ops::RangeInclusive<T>,
    unit: &str,
) -> Result<(), String> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(format!("{value} is outside {} to {} {unit}", range.start(), range.end()))
}
